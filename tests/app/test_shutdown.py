"""The end of apps: graceful, forced, cancelled, several at once; and connections of strangers."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import struct
from typing import Any

import psutil
import pytest

from lightwork import App, Flow
from lightwork._version import __version__
from lightwork.changes import Change
from lightwork.errors import CallStopped
from lightwork.link.connection import Frames
from lightwork.link.messages import VERSION, Hello, Refuse, Ticket, decode_from_scheduler, encode, pack
from lightwork.status import Stage
from lightwork.worker.dial import dial
from tests.app.support_calls import (
    RUNTIMES,
    Add,
    Flaky,
    Gate,
    Holder,
    Hooks,
    PlainAdd,
    PlainWaits,
    Raises,
    Waits,
    lines,
    running,
    stages,
)

if importlib.util.find_spec("uvloop") is not None:
    # The first loop of libuv makes a pipe that the process keeps. Made here, so that no test seems to leak it.
    importlib.import_module("uvloop").new_event_loop().close()

both_runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


# --- by itself ------------------------------------------------------------------------------------


@both_runtimes
async def test_app_of_one_work_ends_by_itself(runtime: str) -> None:
    """An app of one work ends when its call has succeeded (pitfall 2)."""
    work = Flaky(1)
    await App(work, runtime=runtime).run()
    assert work.runs == 1


@both_runtimes
async def test_app_of_one_work_that_fails(runtime: str) -> None:
    """An app of one work raises the exception of its call."""
    with pytest.raises(ValueError, match="try 1"):
        await App(Flaky(2), runtime=runtime).run()


class Runs(Flow):
    """One pass: two works side by side, then the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Add(), PlainAdd()
        self.sum = 0

    async def run(self) -> None:
        self.sum = sum(await asyncio.gather(self.first.submit(1), self.second.submit(2)))
        self.stop(f"sum {self.sum}")


@both_runtimes
async def test_app_can_be_run_again(runtime: str) -> None:
    """``app.run`` can be called again after it returned, with the state at its end (pitfall 16)."""
    app = App(Runs(), runtime=runtime)
    for times in (1, 2):
        await app.run()
        assert app.stop_message == "sum 5"
        assert not app.is_running
        assert app.root.works()[0].state["vars"]["runs"] == times


# --- by force -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sleeps", "computes", "ignores"])
async def test_end_of_an_app_with_a_plain_run_that_hangs(how: str) -> None:
    """A plain run that hangs does not keep the app: it is killed after the grace period (pitfalls 1, 5)."""
    work = PlainWaits()
    async with running("local", settings={"grace": 0.3}, work=work) as app:
        call = work.submit(how)
        await app.wait_for(lambda: work.log)
    assert not psutil.pid_exists(work.log[0])
    with pytest.raises(CallStopped):
        await call


async def test_end_of_an_app_with_an_async_run_that_ignores_it() -> None:
    """An async run that ignores its cancellation is killed too."""
    work = Waits()
    async with running("local", settings={"grace": 0.3}, work=work) as app:
        work.submit("ignores")
        await app.wait_for(lambda: work.runs)
    assert work.has_stopped


async def test_kill_in_the_middle_of_an_orderly_end() -> None:
    """``app.kill`` during a graceful end ends the app at once, whatever grace is left."""
    work = Hooks("exit hangs")
    app = App(Holder(work=work), runtime="local", grace=1000.0)
    leaving = asyncio.ensure_future(_start_and_leave(app, work))
    seen = asyncio.Event()
    app.watch(lambda change: seen.set() if "exit" in work.log else None)
    await seen.wait()
    assert not leaving.done()
    app.kill()
    await leaving
    assert not psutil.pid_exists(work.pid)


async def _start_and_leave(app: App[Any], work: Hooks) -> None:
    async with app:
        await work.start()


async def test_kill_of_an_app_that_runs() -> None:
    """``app.kill`` of a running app ends it at once, without a grace period for its works."""
    work = PlainWaits()
    async with running("local", settings={"grace": 1000.0}, work=work) as app:
        work.submit("ignores")
        await app.wait_for(lambda: work.log)
        app.kill()
    assert not psutil.pid_exists(work.log[0])


async def test_work_that_is_starting_when_the_app_ends() -> None:
    """An app can end at any moment of a work's start."""
    for turns in range(12):
        async with running("local", work=Add()):
            for _ in range(turns):
                await asyncio.sleep(0)


@both_runtimes
async def test_work_in_its_on_start_is_told_to_end(runtime: str) -> None:
    """An app that ends does not wait the grace period for a work that is in ``on_start``, on any runtime."""
    work = Hooks("start hangs")
    app = App(Holder(work=work), runtime=runtime, grace=600.0)
    async with app:
        await app.wait_for(lambda: work.log)
    assert not app.is_running


async def test_work_that_comes_up_when_the_app_ends_is_told_so() -> None:
    """Nor does it wait for a work that was not connected yet when the app began to end."""
    for turns in range(20):
        app = App(Holder(work=Hooks()), runtime="inprocess", grace=600.0)
        async with app:
            for _ in range(turns):
                await asyncio.sleep(0)
        assert not app.is_running


# --- cancelled ------------------------------------------------------------------------------------


@both_runtimes
async def test_cancelling_run_ends_the_app_in_order(runtime: str) -> None:
    """Cancelling the task of ``app.run`` ends the app gracefully: runs are cancelled, hooks are called."""
    work = Hooks()
    app = App(Holder(work=work), runtime=runtime)
    task = asyncio.ensure_future(app.run())
    ready = asyncio.Event()
    app.watch(lambda change: ready.set() if work.has_started else None)
    await ready.wait()
    call = work.submit("waits")
    await app.wait_for(lambda: "run" in work.log)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.log == ["start", "run", "exit"]
    assert call.status.stage is Stage.STOPPED
    assert not app.is_running


async def test_cancelling_run_twice_ends_the_app_now() -> None:
    """A second cancellation of ``app.run`` is a kill."""
    work = PlainWaits()
    app = App(Holder(work=work), runtime="local", grace=1000.0)
    ready, runs, ends = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def look(change: Change) -> None:
        for event, now in ((ready, work.has_started), (runs, work.log), (ends, "cancelled" in work.log)):
            if now:
                event.set()

    app.watch(look)
    task = asyncio.ensure_future(app.run())
    await ready.wait()
    work.submit("ignores")
    await runs.wait()
    task.cancel()
    await ends.wait()
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(work.log[0])


async def test_exception_in_the_block_ends_the_app() -> None:
    """An exception in ``async with app`` propagates after everything has ended."""
    work = Waits()
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012 -- the whole block is what is tested
        async with running("local", work=work) as app:
            work.submit()
            await app.wait_for(lambda: work.runs)
            raise KeyError("mine")
    assert work.log == ["cancelled", "finally"]


class IgnoresEnd(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.work = Raises(parallel=True)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_failure_of_the_app_cancels_the_block() -> None:
    """A failure that is not awaited interrupts the block, which raises it in place of the cancellation."""
    app = App(IgnoresEnd(), runtime="inprocess")
    with pytest.raises(ValueError, match="no such epoch"):  # noqa: PT012 -- the whole block is what is tested
        async with app:
            app.root.works()[0].submit("value")
            await asyncio.Event().wait()


# --- several --------------------------------------------------------------------------------------


@both_runtimes
async def test_two_apps_in_one_loop(runtime: str) -> None:
    """Two apps share a loop and nothing else: their addresses, works and ends are separate (pitfall 18)."""
    one, two = Gate(), Gate()
    async with running(runtime, work=two) as second:
        async with running(runtime, work=one) as first:
            assert first.address != second.address
            calls = [one.submit("a"), two.submit("a")]
            await first.wait_for(lambda: one.inside)
            await second.wait_for(lambda: two.inside)
        with pytest.raises(CallStopped):
            await calls[0]
        two.open.append("a")
        assert await calls[1] == "a"


async def test_many_apps_started_at_once() -> None:
    """Ten apps that start at the same time run side by side (pitfall 18)."""
    apps = [App(Runs(), runtime="inprocess") for _ in range(10)]
    await asyncio.gather(*[app.run() for app in apps])
    assert {app.stop_message for app in apps} == {"sum 5"}


@both_runtimes
def test_on_uvloop(runtime: str) -> None:
    """Calls, cancellation and a forced stop work on uvloop too, and nothing is left behind."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        work, plain, gate = Add(), PlainAdd(), Waits()
        async with running(runtime, settings={"grace": 0.3}, work=work, plain=plain, gate=gate) as app:
            assert await work.run(1) == 2
            assert await plain.submit(1) == 2
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await gate.run()
            await work.stop()
            assert await work.run(5) == 6
            if runtime == "local":
                gate.submit("ignores")
                await app.wait_for(lambda: gate.runs == 2)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# --- strangers ------------------------------------------------------------------------------------

GARBAGE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    os.urandom(4096),
    struct.pack(">IQ", 2**32 - 1, 1) + b"x" * 1000,
    pack(encode(Hello(VERSION, __version__, "3.11", 1, "elsewhere", 0))),
]


@both_runtimes
async def test_strangers_change_nothing(runtime: str) -> None:
    """A connection that sends anything but a proof during a run is dropped, and the run goes on."""
    work = Gate()
    async with running(runtime, work=work) as app:
        call = work.submit("a")
        await app.wait_for(lambda: work.inside)
        before = work.statuses
        for data in GARBAGE:
            reader, writer = await asyncio.open_connection(app.address.host, app.address.port)
            writer.write(data)
            writer.write_eof()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1 << 20)
            writer.close()
        assert work.statuses == before
        work.open.append("a")
        assert await call == "a"


async def _say_hello(app: App[Any], hello: Hello) -> Any:
    """Dial as the app's one worker, send this version, and return the reply."""
    (worker,) = app._running().engine.entries.workers.values()
    route = (app.address.host, app.address.port)
    connection = await dial(Ticket(worker.launch, worker.secret, [route], 5.0, 5.0), timeout=5.0)
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(frames: Frames) -> None:
        if not answer.done():
            answer.set_result(decode_from_scheduler(frames[0][1]))

    connection.on_frames = take
    connection.send(pack(encode(hello)))
    found = await answer
    connection.abort()
    return found


async def test_worker_of_another_version_changes_nothing() -> None:
    """A worker of another version that knows the secret is refused by name; the current worker stays."""
    work = Gate()
    async with running("local", work=work) as app:
        call = work.submit("a")
        await app.wait_for(lambda: work.inside)
        answer = await _say_hello(app, Hello(99, "0.0.0", "3.11", 1, "elsewhere", 0))
        assert isinstance(answer, Refuse)
        assert "lightwork 0.0.0 (wire 99)" in answer.message
        work.open.append("a")
        assert await call == "a"
        assert stages(work).count("started") == 1


async def test_app_whose_works_have_ended_uses_nothing() -> None:
    """A stopped work has no process, and its launch is forgotten: its secret opens nothing any more."""
    work = Hooks()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.start()
        await work.stop()
        assert not psutil.pid_exists(work.pid)
        assert app._running().engine.entries.workers == {}
        assert printed == []


class Heedless(Flow):
    """Does not end until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self._entered, self._let, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self._entered.set()
        while not self._let.is_set():
            try:
                await self._let.wait()
            except asyncio.CancelledError:
                continue
        self._over.set()
        await asyncio.Event().wait()


async def test_flow_that_ignores_its_cancellation_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """A flow that ignores its cancellation delays the app no longer than the grace period, and is reported."""
    flow = Heedless()
    before = asyncio.all_tasks()
    async with App(flow, runtime="inprocess", grace=0.1):
        await flow._entered.wait()
    assert "the flow ignores its cancellation" in caplog.text
    (left,) = asyncio.all_tasks() - before
    flow._let.set()
    await flow._over.wait()
    left.cancel()
    await asyncio.wait({left})
