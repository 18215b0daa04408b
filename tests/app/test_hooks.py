"""``on_start``, ``on_exception`` and ``on_exit``: when they are called, and what happens when they misbehave."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

import pytest

from lightwork.errors import CallStopped, CallTimeout, LaunchFailed, PlatformError
from lightwork.status import Reason, Stage
from tests.app.support_calls import RUNTIMES, CountsOn, Hooks, PlainHooks, lines, running, stages

both_runtimes = pytest.mark.parametrize("runtime", RUNTIMES)
both_kinds = pytest.mark.parametrize("kind", [Hooks, PlainHooks])


@both_runtimes
@both_kinds
async def test_hooks_are_called_in_order(runtime: str, kind: type[Hooks]) -> None:
    """``on_start`` is called before the first call, ``on_exception`` after an exception, ``on_exit`` at the end."""
    work = kind()
    async with running(runtime, work=work):
        assert await work.run("fine") == "fine"
        with pytest.raises(ValueError, match="no such epoch"):
            await work.run("value")
        await work.stop()
        assert work.log == ["start", "run", "run", "exception", "exit"]


@both_runtimes
@both_kinds
async def test_on_exit_at_the_end_of_the_app(runtime: str, kind: type[Hooks]) -> None:
    """``on_exit`` is called when the app ends, even if this cancels a call."""
    work = kind()
    async with running(runtime, work=work) as app:
        if not (runtime == "inprocess" and kind is PlainHooks):  # in-process a sleep cannot be interrupted
            work.submit("waits")
            await app.wait_for(lambda: "run" in work.log)
        else:
            await work.run("fine")
    assert work.log == ["start", "run", "exit"]


@both_runtimes
@both_kinds
async def test_on_start_that_raises(runtime: str, kind: type[Hooks]) -> None:
    """The waiting calls raise the exception of ``on_start``, which is the cause of the failed start (pitfall 4)."""
    work = kind("start raises", start_with_flow=False)
    async with running(runtime, work=work):
        start, call = work.start(), work.submit("fine")
        with pytest.raises(ValueError, match="no data"):
            await call
        with pytest.raises(LaunchFailed, match=r"root\.work did not start: no data") as caught:
            await start
        assert isinstance(caught.value, PlatformError)
        assert isinstance(caught.value.__cause__, ValueError)
        assert stages(work) == ["pending", "failed:user_exception", "failed:user_exception"]
        assert work.log == ["start"]
        work.how = "well"
        assert await work.run("fine") == "fine"


@both_runtimes
async def test_on_start_that_hangs(runtime: str) -> None:
    """A work that is not ready within ``launch_timeout`` fails as a timeout."""
    work = Hooks("start hangs", start_with_flow=False)
    async with running(runtime, settings={"launch_timeout": 1.0}, work=work):
        call = work.submit("fine")
        with pytest.raises(CallTimeout, match="not ready within 1 s"):
            await call
        assert work.has_timeout
        assert stages(work) == ["pending", "failed:timeout", "failed:timeout"]


async def test_plain_on_start_that_hangs_is_ended_by_force() -> None:
    """A plain ``on_start`` that never returns is ended with its process, and a waiting start raises."""
    work = PlainHooks("start hangs", start_with_flow=False)
    async with running("local", settings={"launch_timeout": 1.0}, work=work):
        with pytest.raises(LaunchFailed, match="not ready within 1 s"):
            await work.start()
        assert not work.has_started


@both_kinds
async def test_on_start_that_ends_the_process(kind: type[Hooks]) -> None:
    """A process that ends before the work is ready fails the waiting calls with its exit code."""
    work = kind("start dies", start_with_flow=False)
    async with running("local", work=work):
        with pytest.raises(LaunchFailed, match="exited with code 4"):
            await work.run("fine")
        assert work.status.reason is Reason.LAUNCH_FAILED


# Not in-process: a thread that hangs cannot be ended there, and SystemExit would end this process.
BAD_EXITS = [
    *[(runtime, kind, "exit raises") for runtime in RUNTIMES for kind in (Hooks, PlainHooks)],
    *[("local", kind, how) for kind in (Hooks, PlainHooks) for how in ("exit hangs", "exit exits")],
    ("inprocess", Hooks, "exit hangs"),
]


@pytest.mark.parametrize(("runtime", "kind", "how"), BAD_EXITS)
async def test_on_exit_that_does_not_behave(runtime: str, kind: type[Hooks], how: str) -> None:
    """An ``on_exit`` that raises, exits or hangs does not delay a stop beyond the grace period."""
    work = kind(how)
    async with running(runtime, settings={"grace": 0.3}, work=work):
        assert await work.run("fine") == "fine"
        await work.stop()
        assert work.has_stopped
        assert work.log == ["start", "run", "exit"]


async def test_on_exit_that_blocks_the_loop_is_ended_by_force() -> None:
    """An ``on_exit`` that blocks the worker's event loop is ended with its process after the grace period."""
    work = Hooks("exit blocks")
    async with running("local", settings={"grace": 0.3}, work=work):
        assert await work.run("fine") == "fine"
        await work.stop()
        assert work.has_stopped


async def test_exception_of_on_exit_is_in_the_output() -> None:
    """The exception of ``on_exit`` is in the work's output."""
    work = Hooks("exit raises")
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.start()
        await work.stop()
    assert "lightwork: on_exit of Hooks raised:" in printed
    assert "ValueError: no way out" in printed


# --- SIGTERM --------------------------------------------------------------------------------------


@both_kinds
async def test_sigterm_between_calls(kind: type[Hooks]) -> None:
    """SIGTERM ends a worker gracefully: ``on_exit`` is called, and the status names the signal (pitfall 1)."""
    work = kind()
    async with running("local", work=work) as app:
        await work.run("fine")
        os.kill(work.pid, signal.SIGTERM)
        await app.wait_for(lambda: work.has_stopped)
        assert work.log == ["start", "run", "exit"]
        assert stages(work)[-1] == "stopped:sigterm_signal_handler"


@both_kinds
async def test_sigterm_during_a_call(kind: type[Hooks]) -> None:
    """SIGTERM cancels the run; its call is stopped with that reason, and awaiting it raises CallStopped."""
    work = kind()
    async with running("local", work=work) as app:
        call, queued = work.submit("waits"), work.submit("fine")
        await app.wait_for(lambda: "run" in work.log)
        os.kill(work.pid, signal.SIGTERM)
        with pytest.raises(CallStopped, match="the worker was asked to end"):
            await call
        assert stages(work, call.id) == ["pending", "running", "stopped:sigterm_signal_handler"]
        assert await queued == "fine"  # in the next worker
        assert work.log == ["start", "run", "exit", "start", "run"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal to one thread of another process")
async def test_sigterm_that_another_thread_is_given() -> None:
    """SIGTERM ends a plain run that sleeps, even if the kernel delivers the signal to another thread."""
    work = PlainHooks()
    async with running("local", work=work) as app:
        call = work.submit("waits")
        await app.wait_for(lambda: "run" in work.log)
        other = next(int(thread) for thread in os.listdir(f"/proc/{work.pid}/task") if int(thread) != work.pid)
        assert ctypes.CDLL(None).tgkill(work.pid, other, signal.SIGTERM) == 0
        with pytest.raises(CallStopped, match="the worker was asked to end"):
            await call
        assert stages(work, call.id)[-1] == "stopped:sigterm_signal_handler"


async def test_two_sigterms() -> None:
    """A second SIGTERM changes nothing: the worker ends gracefully, ``on_exit`` is called once (pitfall 1)."""
    work = PlainHooks()
    async with running("local", work=work) as app:
        await work.submit("fine")
        for _ in range(2):
            os.kill(work.pid, signal.SIGTERM)
        await app.wait_for(lambda: work.has_stopped)
        assert work.log == ["start", "run", "exit"]


async def test_sigterm_in_the_middle_of_assignments() -> None:
    """A worker that changes its state forever reacts to SIGTERM: the handler takes no lock (pitfall 1)."""
    work = CountsOn()
    async with running("local", work=work) as app:
        call = work.submit()
        await app.wait_for(lambda: work.count > 1000)
        os.kill(work.pid, signal.SIGTERM)
        with pytest.raises(CallStopped):
            await call
        assert work.ended
        await app.wait_for(lambda: work.has_stopped)
        assert call.status.stage is Stage.STOPPED


async def test_stop_in_the_middle_of_assignments() -> None:
    """Cancelling a run that changes its state forever leaves a complete state behind (pitfall 10)."""
    work = CountsOn()
    async with running("local", work=work) as app:
        call = work.submit()
        await app.wait_for(lambda: work.count > 1000)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        count = work.count
        assert work.ended
        await work.stop()
        assert work.count == count
