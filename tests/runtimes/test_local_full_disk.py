"""With a full disk of launch folders, launches fail with the reason, ends are recorded, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.runtime import Ref, Standing
from tests.disks import full, small_disk
from tests.runtimes.support import OWNER, first_output, local, spec


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as is_there:
        if not is_there:
            pytest.skip("this user may not mount a small disk")
        yield tmp_path / "disk"


async def test_an_end_is_told_on_a_full_disk(disk: Path) -> None:
    """A stop on a full disk ends the launch, and `wait` returns its exit code."""
    async with local(disk / "home") as runtime:
        waits = await runtime.launch(spec("wait", "waits"))
        await first_output(runtime, waits)
        with full(disk):
            await runtime.stop(waits, 0.0)
            report = await runtime.wait(waits)
            assert (report.standing, report.exit_code) == (Standing.EXITED, -9)
        await runtime.release(waits)
    assert list((disk / "home").iterdir()) == []


async def test_a_launch_on_a_full_disk_fails_and_leaves_nothing(disk: Path) -> None:
    """A launch on a full disk raises ENOSPC; the launcher goes on, and the next launch works."""
    async with local(disk / "home") as runtime:
        await runtime.wait(await runtime.launch(spec("exit 0", "first")))
        with full(disk):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                await runtime.launch(spec("exit 0", "second"))
            await runtime.release(Ref("local", "second"))
        assert {ref.name for ref in await runtime.find(OWNER)} == {"first"}
        third = await runtime.launch(spec("exit 3", "third"))
        assert (await runtime.wait(third)).exit_code == 3
