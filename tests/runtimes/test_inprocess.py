from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from lightwork.runtime import Address, Cause, Conflict, Rejected, RuntimeFailure, Standing
from lightwork_runtimes import inprocess
from lightwork_runtimes.inprocess import InProcessRuntime
from tests.runtimes.support import spec

ENTRY = f"{__name__}:main"
_release_thread = threading.Event()


async def serve(ticket: bytes) -> int:
    match ticket.decode().split():
        case ["leave", code]:
            sys.exit(int(code))
        case ["message"]:
            sys.exit("a message")
        case ["thread"]:
            waiting = asyncio.ensure_future(asyncio.to_thread(_release_thread.wait))
            while not waiting.done():
                try:
                    await asyncio.shield(waiting)
                except asyncio.CancelledError:
                    continue
    return 0


@pytest.mark.parametrize(("command", "code"), [("leave 4", 4), ("message", 1), ("nothing", 0)])
async def test_system_exit_ends_the_launch_alone(command: str, code: int) -> None:
    """`SystemExit` in a work sets its exit code and does not end the event loop."""
    async with InProcessRuntime() as runtime:
        report = await runtime.wait(await runtime.launch(spec(command, entry=ENTRY)))
        assert (report.exit_code, report.cause) == (code, Cause.EXIT)


async def test_thread_that_cannot_be_ended_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping a work that ignores its cancellation raises, and the report says why it still runs."""
    monkeypatch.setattr(inprocess, "_FORCE_WITHIN", 0.01)
    _release_thread.clear()
    async with InProcessRuntime() as runtime:
        ref = await runtime.launch(spec("thread", entry=ENTRY))
        await asyncio.sleep(0)
        try:
            with pytest.raises(RuntimeFailure, match="such as a thread"):
                await runtime.stop(ref, 0.01)
            (report,) = await runtime.poll([ref])
            assert report.standing is Standing.RUNNING
            assert "such as a thread" in report.detail
        finally:
            _release_thread.set()
        assert (await runtime.wait(ref)).standing is Standing.EXITED


async def test_entry_without_serve_is_rejected() -> None:
    """A module without `serve` cannot run in process, and the error says what to define."""
    async with InProcessRuntime() as runtime:
        with pytest.raises(Rejected, match=r"its module must define `async def serve\(ticket\)`"):
            await runtime.launch(spec("x", entry="tests.runtimes.entries:main"))
        assert await runtime.find("owner") == []


async def test_leaving_cancels_what_runs() -> None:
    """Leaving the context ends a work in process, also one that has not taken its first step."""
    async with InProcessRuntime() as runtime:
        ref = await runtime.launch(spec("x", entry="lightwork.testing.conformance:main"))
    (report,) = await runtime.poll([ref])
    assert report.standing is Standing.EXITED
    with pytest.raises(RuntimeError, match="not entered; use `async with runtime:`"):
        await runtime.launch(spec("x"))


async def test_other_spec_conflicts_and_routes_avoid_wildcards() -> None:
    """Another spec of the same name is a conflict, and a listener on every interface is reached by the loopback."""
    async with InProcessRuntime() as runtime:
        await runtime.launch(spec("nothing", entry=ENTRY))
        with pytest.raises(Conflict):
            await runtime.launch(spec("leave 1", entry=ENTRY))
        assert await runtime.routes(Address("0.0.0.0", 5)) == [Address("127.0.0.1", 5)]
