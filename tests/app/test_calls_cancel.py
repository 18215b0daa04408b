"""Cancelling calls, and cancelling the tasks that wait for calls."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from lightwork import App, Flow
from lightwork.components.call import Call
from lightwork.errors import CallStopped, UsageError, WorkerDied
from lightwork.status import Reason, Stage
from tests.app.support_calls import RUNTIMES, Gate, PlainWaits, Waits, running, stages

both_runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


# --- call.cancel() --------------------------------------------------------------------------------


@both_runtimes
async def test_cancel_a_queued_call(runtime: str) -> None:
    """A queued call is stopped at once and never runs; awaiting it raises CancelledError."""
    work = Gate()
    async with running(runtime, work=work) as app:
        first, second = work.submit("a"), work.submit("b")
        await app.wait_for(lambda: work.inside)
        assert second.cancel()
        assert second.done
        assert stages(work, second.id) == ["pending", "stopped:cancelled"]
        with pytest.raises(asyncio.CancelledError):
            await second
        assert not second.cancel()
        work.open.append("a")
        assert await first == "a"
        assert work.inside == ["a"]


@both_runtimes
async def test_cancel_a_running_call(runtime: str) -> None:
    """The run is cancelled; its ``finally`` has run when the call ends, and the next call runs."""
    work = Waits()
    async with running(runtime, work=work) as app:
        call = work.submit()
        await app.wait_for(lambda: call.status.stage is Stage.RUNNING)
        assert call.cancel()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert work.log == ["cancelled", "finally"]
        assert stages(work, call.id) == ["pending", "running", "stopped:cancelled"]
        assert await work.run("at once") == "at once"
        assert stages(work).count("started") == 1


@both_runtimes
async def test_cancel_before_the_work_is_up(runtime: str) -> None:
    """A call of a work that is still starting can be cancelled."""
    work = Waits(start_with_flow=False)
    async with running(runtime, work=work):
        call = work.submit()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await work.run("at once") == "at once"
        assert work.runs == 1


@pytest.mark.parametrize("how", ["sleeps", "computes"])
async def test_cancel_interrupts_a_plain_run(how: str) -> None:
    """Cancelling interrupts ``time.sleep`` and a busy loop; the process takes the next call."""
    work = PlainWaits()
    async with running("local", work=work) as app:
        call = work.submit(how)
        await app.wait_for(lambda: work.log)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert work.log[1:] == ["cancelled", "finally"]
        assert await work.submit("at once") == "at once"
        assert work.log[-1] == work.log[0]
        assert stages(work).count("started") == 1


async def test_cancel_interrupts_a_plain_run_in_this_process() -> None:
    """In the runtime ``inprocess`` a plain run that computes is interrupted too."""
    work = PlainWaits()
    async with running(work=work) as app:
        call = work.submit("computes")
        await app.wait_for(lambda: work.log)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await work.submit("at once") == "at once"


async def test_plain_run_that_ignores_its_cancellation_is_ended_with_its_process() -> None:
    """A plain run that ignores its cancellation is killed after the grace period; the next call works (pitfall 5)."""
    work = PlainWaits()
    async with running("local", settings={"grace": 0.2}, work=work) as app:
        call = work.submit("ignores")
        await app.wait_for(lambda: work.log)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.status.reason is Reason.CANCELLED
        assert await work.submit("at once") == "at once"
        assert work.log[0] != work.log[-1]
        assert stages(work).count("started") == 2


async def test_async_run_that_ignores_its_cancellation_takes_its_neighbours_with_it() -> None:
    """Calls that shared the process fail as crashed and name the culprit; queued calls run in a new process."""
    work = Waits(concurrency=2)
    async with running("local", settings={"grace": 0.2}, work=work) as app:
        culprit, neighbour, queued = work.submit("ignores"), work.submit("well"), work.submit("at once")
        await app.wait_for(lambda: work.runs == 2)
        culprit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await culprit
        with pytest.raises(WorkerDied, match=f"call {culprit.id} ignored its cancellation"):
            await neighbour
        assert neighbour.status.reason is Reason.CRASHED
        assert await queued == "at once"


@both_runtimes
async def test_result_that_comes_in_spite_of_the_cancellation_counts(runtime: str) -> None:
    """A run that returns when it is cancelled has succeeded."""
    work = Waits()
    async with running(runtime, work=work) as app:
        call = work.submit("returns")
        await app.wait_for(lambda: work.runs)
        call.cancel()
        assert await call == "all the same"
        assert stages(work, call.id) == ["pending", "running", "succeeded"]


async def test_cancelled_call_is_not_tried_again() -> None:
    """Neither a cancelled call nor one that raises when it is cancelled is retried."""
    work = Waits(retries=3, retry_delay=0.001)
    async with running(work=work) as app:
        for how in ("well", "raises"):
            call = work.submit(how)
            await app.wait_for(partial(_runs, call))
            call.cancel()
            with pytest.raises((asyncio.CancelledError, ValueError)):
                await call
        assert work.runs == 2


def _runs(call: Call[str]) -> bool:
    return call.status.stage is Stage.RUNNING


async def test_same_call_after_a_cancelled_one_runs_anew() -> None:
    """A call that is being cancelled cannot be joined: the next one with the same arguments is a new call."""
    work = Waits()
    async with running(work=work) as app:
        first = work.submit()
        await app.wait_for(lambda: work.runs)
        first.cancel()
        second = work.submit()
        assert second is not first
        with pytest.raises(asyncio.CancelledError):
            await first
        await app.wait_for(lambda: work.runs == 2)
        second.cancel()


# --- the task that waits --------------------------------------------------------------------------


@both_runtimes
async def test_timeout_around_a_call_cancels_the_run(runtime: str) -> None:
    """``asyncio.timeout`` around a call raises TimeoutError only after the remote coroutine has ended."""
    work = Waits()
    async with running(runtime, work=work) as app:
        await work.start()
        with pytest.raises(TimeoutError):  # noqa: PT012 -- the whole block is what is tested
            async with asyncio.timeout(None) as deadline:
                call = work.submit()
                waiting = asyncio.ensure_future(app.wait_for(lambda: work.runs))
                waiting.add_done_callback(lambda _: deadline.reschedule(0))
                await call
        assert work.log == ["cancelled", "finally"]
        assert call.status.reason is Reason.CANCELLED
        await waiting


@both_runtimes
async def test_wait_for_around_a_call_cancels_the_run(runtime: str) -> None:
    """``asyncio.wait_for`` around a call cancels the remote coroutine."""
    work = Waits()
    async with running(runtime, work=work):
        await work.start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work.run(), 0.5)
        assert work.log == ["cancelled", "finally"]


async def test_task_group_cancels_its_calls() -> None:
    """When one task of a group fails, the calls that the others await are cancelled before the group exits."""
    work = Waits()
    async with running("local", work=work) as app:

        async def fail_when_running() -> None:
            await app.wait_for(lambda: work.runs)
            raise ValueError("the other one")

        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 -- the whole block is what is tested
            async with asyncio.TaskGroup() as group:
                group.create_task(_await(work.submit()))
                group.create_task(fail_when_running())
        assert [type(one) for one in caught.value.exceptions] == [ValueError]
        assert work.log == ["cancelled", "finally"]


async def _await(call: Call[str]) -> str:
    return await call


async def test_what_the_run_raises_when_cancelled_arrives() -> None:
    """An exception that the cancelled run raises reaches the cancelled task, as with any coroutine."""
    work = Waits()
    async with running(work=work) as app:
        task = asyncio.ensure_future(_await(work.submit("raises")))
        await app.wait_for(lambda: work.runs)
        task.cancel()
        with pytest.raises(ValueError, match="in the middle of it"):
            await task


async def test_second_cancellation_does_not_wait() -> None:
    """A second cancellation of the waiting task takes effect at once, whatever the run does."""
    work = Waits()
    async with running("local", settings={"grace": 1000.0}, work=work) as app:
        call = work.submit("ignores")
        task = asyncio.ensure_future(_await(call))
        await app.wait_for(lambda: work.runs)
        task.cancel()
        await app.wait_for(lambda: "cancelled" in work.log)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not call.done
        app.kill()


@both_runtimes
async def test_one_of_two_joined_waiters_is_cancelled(runtime: str) -> None:
    """If one of two tasks that joined a call is cancelled, the call goes on for the other."""
    work = Gate()
    async with running(runtime, work=work) as app:
        first, second = (asyncio.ensure_future(_await(work.submit("a"))) for _ in range(2))
        await app.wait_for(lambda: work.inside)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        work.open.append("a")
        assert await second == "a"


async def test_one_of_two_tasks_that_await_the_same_call_is_cancelled() -> None:
    """If one of two tasks that await one `Call` object is cancelled, the call goes on for the other."""
    work = Gate()
    async with running(work=work) as app:
        call = work.submit("a")
        first, second = (asyncio.ensure_future(_await(call)) for _ in range(2))
        await app.wait_for(lambda: work.inside)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        work.open.append("a")
        assert await second == "a"


async def test_last_of_two_joined_waiters_is_cancelled() -> None:
    """If both tasks that joined a call are cancelled, the call is cancelled."""
    work = Gate()
    async with running(work=work) as app:
        tasks = [asyncio.ensure_future(_await(work.submit("a"))) for _ in range(2)]
        await app.wait_for(lambda: work.inside)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert work.ended == ["a"]


async def test_parallel_call_survives_its_awaiter() -> None:
    """Cancelling a task that awaits a call of a parallel work does not cancel the call."""
    work = Gate(parallel=True)
    async with running(work=work) as app:
        call = work.submit("a")
        task = asyncio.ensure_future(_await(call))
        await app.wait_for(lambda: work.inside)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not call.done
        work.open.append("a")
        assert await call == "a"


# --- stop ----------------------------------------------------------------------------------------


@both_runtimes
async def test_stop_ends_what_runs_and_what_waits(runtime: str) -> None:
    """Stopping a work ends its calls as stopped; awaiting them raises CallStopped, not CancelledError."""
    work = Gate()
    async with running(runtime, work=work) as app:
        runs, waits = work.submit("a"), work.submit("b")
        await app.wait_for(lambda: work.inside)
        await work.stop()
        for call in (runs, waits):
            with pytest.raises(CallStopped):
                await call
        assert work.ended == ["a"]
        assert stages(work, runs.id) == ["pending", "running", "stopped"]
        assert stages(work, waits.id) == ["pending", "stopped"]
        assert work.has_stopped
        assert not work.has_started


@both_runtimes
async def test_run_after_stop(runtime: str) -> None:
    """A call of a stopped work runs in a new worker, with the previous state (pitfall 16)."""
    work = Waits(start_with_flow=False, cache_calls=False)
    async with running(runtime, work=work):
        for _ in range(3):
            assert await work.run("at once") == "at once"
            await work.stop()
        assert stages(work) == ["pending", "started", "running", "succeeded", "stopped"] * 3
        assert work.runs == 3


async def test_answers_outlive_the_worker() -> None:
    """A successful call stays cached after a stop, and no worker is started for it."""
    work = Waits()
    async with running(work=work):
        await work.run("at once")
        await work.stop()
        assert await work.run("at once") == "at once"
        assert work.has_stopped
        assert work.runs == 1


@both_runtimes
async def test_start_and_stop_in_turn(runtime: str) -> None:
    """``start`` after ``stop`` starts a new worker each time (pitfall 16)."""
    work = Waits(start_with_flow=False, cache_calls=False)
    async with running(runtime, work=work):
        assert stages(work) == []
        for _ in range(3):
            await work.start()
            assert await work.run("at once") == "at once"
            await work.stop()
            assert (work.has_started, work.has_stopped) == (False, True)
        assert stages(work) == ["started", "pending", "running", "succeeded", "stopped"] * 3
        assert work.runs == 3


async def test_start_twice_and_stop_twice() -> None:
    """A second start or stop changes nothing and ends with the first."""
    work = Waits(start_with_flow=False)
    async with running("local", work=work):
        await asyncio.gather(_done(work.start()), _done(work.start()))
        await work.start()
        assert stages(work) == ["started"]
        await asyncio.gather(_done(work.stop()), _done(work.stop()))
        await work.stop()
        assert stages(work) == ["started", "stopped"]


async def _done(operation: object) -> None:
    await operation  # type: ignore[misc]


@both_runtimes
async def test_stop_while_the_work_starts(runtime: str) -> None:
    """Stopping a work that is still starting ends it; awaiting the start raises an error."""
    work = Waits(start_with_flow=False)
    async with running(runtime, work=work):
        start = work.start()
        call = work.submit()
        await work.stop()
        with pytest.raises(Exception, match="stopped"):
            await start
        with pytest.raises(CallStopped):
            await call
        assert work.runs == 0
        assert await work.run("at once") == "at once"


@both_runtimes
async def test_start_while_the_work_stops(runtime: str) -> None:
    """A start requested while the work stops returns when the next worker is ready."""
    work = Waits(start_with_flow=False)
    async with running(runtime, work=work):
        await work.start()
        stop, start = work.stop(), work.start()
        await start
        await stop
        assert work.has_started
        assert stages(work) == ["started", "stopped", "started"]


@both_runtimes
async def test_call_while_the_work_stops(runtime: str) -> None:
    """A call made while the work stops runs in the next worker."""
    work = Waits()
    async with running(runtime, work=work):
        await work.start()
        work.stop()
        assert await work.run("at once") == "at once"


# --- a work that leaves the tree ------------------------------------------------------------------


class Pool(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.works_of_it = [Gate(), Gate()]

    async def run(self) -> None:
        await asyncio.Event().wait()


@both_runtimes
async def test_work_that_is_removed_while_it_runs(runtime: str) -> None:
    """Removing a work stops its running and queued calls, whatever frames are still in flight (pitfall 17)."""
    pool = Pool()
    async with App(pool, runtime=runtime) as app:
        stays, goes = pool.works_of_it
        others = stays.submit("b")
        calls = [goes.submit("a"), goes.submit("b")]
        await app.wait_for(lambda: goes.inside and stays.inside)
        del pool.works_of_it[1]
        for call in calls:
            with pytest.raises(CallStopped):
                await call
        with pytest.raises(UsageError):
            goes.submit("c")
        stays.open.append("b")
        assert await others == "b"
