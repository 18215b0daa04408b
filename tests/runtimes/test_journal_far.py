"""An app with a journal whose work runs behind a tunnel goes on after its scheduler was killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runtimes.cloud_machines import cloud
from tests.runtimes.docker_base import require_engine
from tests.runtimes.sshd import needs_sshd, sshd

pytestmark = [needs_sshd, pytest.mark.timeout(240)]


@contextlib.asynccontextmanager
async def app(journal: Path, runtime: Any, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    kind = f"{type(runtime).__module__}:{type(runtime).__name__}"
    options = msgspec.json.encode(runtime.options).decode()
    command = [sys.executable, "-m", "tests.runtimes.journal_app", str(journal), kind, options, *args]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process, word: str) -> str:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith(f"{word} "):
            return line.split()[1]
    raise AssertionError(f"the app ended without saying {word!r}")


async def killed_and_resumed(journal: Path, runtime: Any) -> None:
    async with app(journal, runtime) as first:
        pid = await said(first, "running")
        first.kill()
        await first.wait()
    async with app(journal, runtime, "resume") as second:
        assert await said(second, "running") == pid
        assert await said(second, "result") == pid
        assert await second.wait() == 0


async def test_work_behind_a_tunnel_is_adopted(tmp_path: Path) -> None:
    """The next scheduler makes the tunnel again, the same process comes back through it, and its call goes on."""
    async with sshd(tmp_path) as server:
        await killed_and_resumed(tmp_path / "journal", server.runtime())
        assert server.launches() == []


async def test_work_on_a_machine_of_a_cloud_is_adopted(tmp_path: Path) -> None:
    """The machine of a killed scheduler is gone on with, and given back at the end."""
    require_engine()
    with cloud(tmp_path / "state") as account:
        await killed_and_resumed(tmp_path / "journal", account.runtime(code=[str(Path(__file__).parents[2] / "tests")]))
        assert account.running() == []
