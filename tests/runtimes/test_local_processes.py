"""The local runtime with real processes: how a worker starts, its environment, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lightwork.runtime import Cause, NoCapacity, Ref, Rejected, Standing
from lightwork_runtimes.local import LocalOptions, LocalRuntime
from tests.runtimes.support import (
    OWNER,
    Method,
    first_output,
    is_alive,
    local,
    open_descriptors,
    output,
    read_bytes,
    spec,
)

METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])


@METHODS
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 0", 0),
        ("exit 255", 255),
        ("exit 256", 0),
        ("leave null", 0),
        ("leave 9", 9),
        ('leave "a message"', 1),
        ("raise x", 1),
        ("last-words x", -signal.SIGSEGV),
    ],
)
async def test_exit_codes_are_those_of_python(command: str, code: int, method: Method, tmp_path: Path) -> None:
    """A result, `SystemExit`, an exception and a signal have the same exit code as in `python`."""
    async with local(tmp_path / "home", method) as runtime:
        report = await runtime.wait(await runtime.launch(spec(command)))
        assert (report.exit_code, report.cause) == (code, Cause.EXIT)


@METHODS
async def test_entry_that_returns_no_number_is_a_success(method: Method, tmp_path: Path) -> None:
    """A return value that is not an exit code counts as 0."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec("", entry="tests.runtimes.entries:not_int"))
        assert (await runtime.wait(ref)).exit_code == 0


@METHODS
async def test_entry_that_cannot_be_imported_says_so_in_the_output(method: Method, tmp_path: Path) -> None:
    """A missing module ends the worker, and the output has the traceback of the import."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec("", entry="tests.runtimes.nowhere:main"))
        assert "No module named 'tests.runtimes.nowhere'" in await output(runtime, ref)
        assert (await runtime.wait(ref)).exit_code == 1


@METHODS
async def test_worker_s_world(method: Method, tmp_path: Path) -> None:
    """A worker leads its session, has three descriptors, default signals, and the requested environment and folder."""
    there = tmp_path / "there"
    there.mkdir()
    async with local(tmp_path / "home", method) as runtime:
        asked = spec("facts secret-of-the-ticket", "world", cwd=str(there), env={"LW_TEST": "yes ü"})
        facts = json.loads(await output(runtime, await runtime.launch(asked)))
        again = json.loads(await output(runtime, await runtime.launch(spec("facts", "world2"))))
    assert facts["argv"] == ["tests.runtimes.entries:main"]
    assert (facts["cwd"], facts["env"], facts["stamp"]) == (str(there), "yes ü", "world")
    assert facts["leads"]
    assert facts["fds"] == [0, 1, 2]
    assert facts["sigterm"]
    assert facts["sigint"]
    assert facts["blocked"] == []
    assert facts["oom"] == "500"
    assert facts["random"] != again["random"]


@METHODS
async def test_ticket_is_nowhere_to_be_seen(method: Method, tmp_path: Path) -> None:
    """The ticket is not in argv, the environment or any file of the launch, for the worker or the launcher."""
    secret = "wonderfully-secret"
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec(f"facts {secret}", "hidden"))
        facts = json.loads(await output(runtime, ref))
        assert secret not in facts["cmdline"] + facts["environ"]
        files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
        assert {path.name for path in files} == {"record", "log"}
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert runtime._link is not None
        pid = runtime._link.identity.pid
        for view in ("cmdline", "environ"):
            assert secret.encode() not in read_bytes(f"/proc/{pid}/{view}")


@METHODS
@pytest.mark.parametrize("size", [4096, 4097, 300_000])
async def test_ticket_of_any_size_arrives(size: int, method: Method, tmp_path: Path) -> None:
    """A ticket that does not fit into a pipe arrives complete."""
    async with local(tmp_path / "home", method) as runtime:
        words = "x" * (size - 4)
        assert await output(runtime, await runtime.launch(spec(f"say {words}"))) == words + "\n"


@METHODS
async def test_last_words_before_a_crash_are_there(method: Method, tmp_path: Path) -> None:
    """Lines printed before a segmentation fault are in the output, also lines of a C library."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec("last-words I see"))
        assert (await output(runtime, ref)).startswith("I see\nand from C\n")


@METHODS
async def test_end_of_a_worker_is_that_of_python(method: Method, tmp_path: Path) -> None:
    """At the end of a worker the atexit functions run, and the buffers of C libraries are flushed."""
    async with local(tmp_path / "home", method) as runtime:
        first, second = await runtime.launch(spec("atexit", "a")), await runtime.launch(spec("c-buffered c", "b"))
        assert await output(runtime, first) == "at exit\n"
        assert await output(runtime, second) == "c\n"


@METHODS
async def test_graceful_stop_lets_it_finish(method: Method, tmp_path: Path) -> None:
    """Two stops send SIGTERM once, the worker's handler sets the exit code, and the cause is `STOPPED`."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec("graceful"))
        await first_output(runtime, ref)
        await asyncio.gather(runtime.stop(ref, 30), runtime.stop(ref, 30))
        (report,) = await runtime.poll([ref])
        assert (report.exit_code, report.cause) == (7, Cause.STOPPED)
        assert await output(runtime, ref) == "waiting\nbye\n"


@METHODS
async def test_stubborn_worker_is_forced(method: Method, tmp_path: Path) -> None:
    """A worker that ignores SIGTERM is killed after the grace; two stops send it SIGTERM once."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec("stubborn"))
        await first_output(runtime, ref)
        patient = asyncio.ensure_future(runtime.stop(ref, 3600))
        await runtime.stop(ref, 0.3)
        await patient
        (report,) = await runtime.poll([ref])
        assert (report.exit_code, report.cause) == (-signal.SIGKILL, Cause.STOPPED)
        assert await output(runtime, ref) == "waiting\nno\n"


@METHODS
@pytest.mark.parametrize("end", ["stop", "force", "crash"])
async def test_whole_tree_is_gone(end: str, method: Method, tmp_path: Path) -> None:
    """When a worker has ended, its children have ended too, also in other sessions and as daemons (pitfall 6)."""
    async with local(tmp_path / "home", method) as runtime:
        ref = await runtime.launch(spec(f"tree {tmp_path / 'pids'}"))
        await first_output(runtime, ref)
        pids = json.loads((tmp_path / "pids").read_text())
        assert len(pids) == 4
        assert all(map(is_alive, pids))
        if end == "crash":
            os.kill(pids[0], signal.SIGKILL)
            report = await runtime.wait(ref)
            assert (report.exit_code, report.cause) == (-signal.SIGKILL, Cause.EXIT)
        else:
            await runtime.stop(ref, 30 if end == "stop" else 0)
        assert not [pid for pid in pids if is_alive(pid)]


async def test_trees_of_others_are_left_alone(tmp_path: Path) -> None:
    """Stopping one worker does not touch the process tree of another."""
    async with local(tmp_path / "home") as runtime:
        refs = [await runtime.launch(spec(f"tree {tmp_path / name}", name)) for name in ("a", "ab")]
        for ref in refs:
            await first_output(runtime, ref)
        await runtime.stop(refs[0], 0)
        assert all(map(is_alive, json.loads((tmp_path / "ab").read_text())))


async def test_stop_before_the_start_prevents_it(tmp_path: Path) -> None:
    """A stop that claims the launch before the launcher prevents the start; `launch` still returns."""
    async with local(tmp_path / "home") as runtime:
        await runtime.wait(await runtime.launch(spec("exit 0", "warm")))
        launching = asyncio.ensure_future(runtime.launch(spec("wait", "late")))
        refs: list[Ref] = []
        while not refs:
            await asyncio.sleep(0)
            refs = [ref for ref in await runtime.find(OWNER) if ref.name == "late"]
        await runtime.stop(refs[0], 0)
        await launching
        (report,) = await runtime.poll(refs)
        assert (report.standing, report.cause) == (Standing.EXITED, Cause.STOPPED)


async def test_folder_that_is_not_there_is_rejected(tmp_path: Path) -> None:
    """A missing `cwd` is rejected, and the launch leaves nothing behind."""
    async with local(tmp_path / "home") as runtime:
        with pytest.raises(Rejected, match=r"cwd must be an existing folder, got '.*nowhere'"):
            await runtime.launch(spec("exit 0", cwd=str(tmp_path / "nowhere")))
        assert await runtime.find(OWNER) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../up"}, "the launch's name must have 1 to 200 letters"),
        ({"owner": ".hidden"}, "the owner's id must have 1 to 200 letters"),
        ({"entry": "module_only"}, "package.module:function"),
        ({"env": {"A=B": "c"}}, "a name must not be empty or contain '='"),
        ({"env": {"A": "c\0d"}}, "name and value must not contain NUL"),
    ],
)
async def test_spec_that_cannot_work_is_rejected(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Invalid names, entries and variables are rejected before anything is made."""
    async with local(tmp_path / "home") as runtime:
        with pytest.raises(Rejected, match=message):
            await runtime.launch(spec("exit 0", **change))
        assert await runtime.find(OWNER) == []


async def test_launcher_with_threads_spawns_and_says_why(tmp_path: Path) -> None:
    """A preloaded module that starts a thread makes the launcher spawn, and the report says why."""
    (tmp_path / "lw_threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    sys.path.append(str(tmp_path))
    try:
        async with local(tmp_path / "home", preload=["lw_threaded"]) as runtime:
            ref = await runtime.launch(spec("graceful"))
            assert await first_output(runtime, ref) == "waiting\n"
            (report,) = await runtime.poll([ref])
            assert "spawned: the launcher has 2 threads" in report.detail
            await runtime.stop(ref, 30)
            assert (await runtime.wait(ref)).exit_code == 7
    finally:
        sys.path.remove(str(tmp_path))


async def test_preload_that_fails_is_rejected(tmp_path: Path) -> None:
    """If a module of `preload` cannot be imported, every launch is rejected with the traceback."""
    async with local(tmp_path / "home", preload=["lw_not_there"]) as runtime:
        with pytest.raises(Rejected, match="No module named 'lw_not_there'"):
            await runtime.launch(spec("exit 0"))


async def test_launcher_that_died_is_replaced(tmp_path: Path) -> None:
    """After the launcher is killed, the ends of its workers are still reported, and a launch starts a new launcher."""
    async with local(tmp_path / "home") as runtime:
        ref = await runtime.launch(spec(f"tree {tmp_path / 'pids'}"))
        await first_output(runtime, ref)
        pids = json.loads((tmp_path / "pids").read_text())
        waiting = asyncio.ensure_future(runtime.wait(ref))
        following = asyncio.ensure_future(output(runtime, ref))
        assert runtime._link is not None
        os.kill(runtime._link.identity.pid, signal.SIGKILL)
        other = await runtime.wait(await runtime.launch(spec("exit 2", "b")))
        assert other.exit_code == 2
        assert not waiting.done()
        os.kill(pids[0], signal.SIGKILL)
        report = await waiting
        assert (report.standing, report.exit_code) == (Standing.EXITED, None)
        assert await following == "waiting\n"
        assert not [pid for pid in pids if is_alive(pid)]


async def test_no_descriptor_left_is_no_capacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no pipe can be made for the ticket, nothing is launched, and the same launch can succeed later."""

    def no_pipe() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    async with local(tmp_path / "home") as runtime:
        await runtime.launch(spec("exit 0", "warm"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", no_pipe)
            with pytest.raises(NoCapacity):
                await runtime.launch(spec("exit 3", "b"))
        assert (await runtime.wait(await runtime.launch(spec("exit 3", "b")))).exit_code == 3


async def test_home_of_others_is_refused(tmp_path: Path) -> None:
    """A home that others can enter is rejected, and the error says what to do."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    with pytest.raises(Rejected, match="chmod 700"):
        async with LocalRuntime("local", LocalOptions(home=str(home))):
            pass


async def test_leaving_gives_everything_back(tmp_path: Path) -> None:
    """After the context no launcher and no descriptor is left, and the owner's folder is removed."""
    before = open_descriptors()
    async with local(tmp_path / "home") as runtime:
        assert runtime._link is not None
        pid = runtime._link.identity.pid
        ref = await runtime.launch(spec("wait"))
        stream = runtime.logs(ref, follow=True)
        assert await anext(stream) == (0, b"waiting\n")
        await runtime.release(ref)
        assert [piece async for piece in stream] == []
    assert not is_alive(pid)
    assert open_descriptors() == before
    assert list((tmp_path / "home").iterdir()) == []
