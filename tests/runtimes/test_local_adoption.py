"""Workers of a scheduler that was killed by SIGKILL are adopted or ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lightwork.runtime import Cause, Standing
from lightwork_runtimes.local import _launcher
from tests.runtimes.support import OWNER, Method, is_alive, local, output, spec

METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])


@contextlib.asynccontextmanager
async def killed_controller(
    home: Path, *commands: str, method: Method = "fork", orphan_after: float = 3600.0
) -> AsyncIterator[int]:
    """Run a scheduler until its launches run, kill it, and yield its launcher's pid."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtimes.controller",
        str(home),
        method,
        str(orphan_after),
        *commands,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        assert line.startswith(b"ready ")
    finally:
        process.kill()
        await process.wait()
    launcher = int(line.split()[1])
    try:
        yield launcher
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher, signal.SIGKILL)


@METHODS
async def test_second_controller_adopts_everything(method: Method, tmp_path: Path) -> None:
    """After kill -9 another process can find, follow, await, stop and release the launches."""
    home = tmp_path / "home"
    commands = ["graceful", "say done", f"tree {tmp_path / 'pids'}"]
    async with killed_controller(home, *commands, method=method), local(home, method) as runtime:
        refs = await runtime.find(OWNER)
        assert [ref.name for ref in refs] == ["c0", "c1", "c2"]
        assert (await runtime.wait(refs[1])).exit_code == 0
        assert [report.standing for report in await runtime.poll(refs)] == [
            Standing.RUNNING,
            Standing.EXITED,
            Standing.RUNNING,
        ]
        assert await runtime.launch(spec("say done", "c1", orphan_after=3600.0)) == refs[1]
        waiting = asyncio.ensure_future(runtime.wait(refs[0]))
        following = asyncio.ensure_future(output(runtime, refs[0]))
        await runtime.stop(refs[0], 30)
        report = await waiting
        assert (report.exit_code, report.cause) == (7, Cause.STOPPED)
        assert await following == "waiting\nbye\n"
        await runtime.release(refs[2])
        assert not [pid for pid in json.loads((tmp_path / "pids").read_text()) if is_alive(pid)]


async def test_adoption_does_without_the_launcher(tmp_path: Path) -> None:
    """With scheduler and launcher killed, a stop still ends the whole tree; its exit code is unknown."""
    home = tmp_path / "home"
    async with killed_controller(home, f"tree {tmp_path / 'pids'}") as launcher:
        os.kill(launcher, signal.SIGKILL)
        pids = json.loads((tmp_path / "pids").read_text())
        assert all(map(is_alive, pids))
        async with local(home) as runtime:
            (ref,) = await runtime.find(OWNER)
            await runtime.stop(ref, 30)
            (report,) = await runtime.poll([ref])
            assert (report.standing, report.exit_code, report.cause) == (Standing.EXITED, None, Cause.STOPPED)
            assert not [pid for pid in pids if is_alive(pid)]


async def test_launcher_ends_orphans_and_itself(tmp_path: Path) -> None:
    """The launcher ends a worker that nobody adopts after its time as an orphan, and then ends itself."""
    home = tmp_path / "home"
    # The time as an orphan is 0: the margin that the launcher adds is subtracted here.
    orphaned = killed_controller(home, "stubborn", orphan_after=-_launcher.MARGIN)
    async with orphaned as launcher:
        async with local(home) as runtime:
            (ref,) = await runtime.find(OWNER)
            folder = runtime._locate(ref)
            assert folder is not None
            view = await runtime._wait_until(folder, lambda view: view.report.standing.is_over)
            assert (view.report.exit_code, view.report.cause) == (-signal.SIGKILL, Cause.STOPPED)
            made = folder.spec()
            assert made is not None
            await runtime._wait_dead(made.launcher)
        assert not is_alive(launcher)


async def test_folder_without_a_process_is_no_riddle(tmp_path: Path) -> None:
    """A launch whose launcher died before it started the worker is absent, and can be stopped and released."""
    home = tmp_path / "home"
    async with killed_controller(home, "wait") as launcher, local(home) as runtime:
        (ref,) = await runtime.find(OWNER)
        folder = runtime._locate(ref)
        assert folder is not None
        made = folder.spec()
        assert made is not None
        os.kill(launcher, signal.SIGKILL)
        await runtime._wait_dead(made.launcher)
        half = home / OWNER / "half"
        half.mkdir()
        spec_line, _ = (home / OWNER / ref.name / "record").read_bytes().split(b"\n", 1)
        (half / "record").write_bytes(spec_line + b"\n")
        empty = home / OWNER / "empty"
        empty.mkdir()
        refs = [found for found in await runtime.find(OWNER) if found.name in ("half", "empty")]
        assert len(refs) == 2
        for report in await runtime.poll(refs):
            assert (report.standing, report.cause) == (Standing.ABSENT, Cause.START_FAILED)
        for found in refs:
            assert (await runtime.wait(found)).standing is Standing.ABSENT
            await runtime.stop(found, 5)
            await runtime.release(found)
        assert [found.name for found in await runtime.find(OWNER)] == [ref.name]


async def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """A damaged record makes the report of its launch unknown and does not affect other launches."""
    async with local(tmp_path / "home") as runtime:
        good = await runtime.launch(spec("exit 1", "good"))
        bad = await runtime.launch(spec("exit 1", "bad"))
        await runtime.wait(good)
        await runtime.wait(bad)
        file = tmp_path / "home" / OWNER / "bad" / "record"
        whole = file.read_bytes()
        file.write_bytes(b"{}\n" + whole)
        reports = await runtime.poll([bad, good])
        assert [report.standing for report in reports] == [Standing.UNKNOWN, Standing.EXITED]
        with pytest.raises(ExceptionGroup, match="could not be ended"):
            await runtime.release(bad)
        file.write_bytes(whole)
