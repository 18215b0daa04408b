"""Calls: queueing, joining, caching and returning."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from lightwork import App, Flow, Work
from lightwork.components.call import Call
from lightwork.errors import InvalidReturnValue, UsageError
from lightwork.status import Reason, Stage
from tests.app.support_calls import (
    RUNTIMES,
    Add,
    Counted,
    Flaky,
    Gate,
    GivesPairs,
    GivesPoint,
    Pair,
    PlainAdd,
    PlainReturns,
    Point,
    Raises,
    Returns,
    running,
    stages,
)

both_runtimes = pytest.mark.parametrize("runtime", RUNTIMES)
both_kinds = pytest.mark.parametrize("kind", [Add, PlainAdd])


# --- asking and waiting ---------------------------------------------------------------------------


@both_runtimes
@both_kinds
async def test_await_run_gives_the_value(runtime: str, kind: type[Counted]) -> None:
    """Awaiting ``run`` of a work that is not parallel returns the result (pitfall 14)."""
    work = kind()
    async with running(runtime, work=work):
        assert await work.run(2, y=3) == 5
        assert work.has_succeeded
        assert work.num_successes == 1


@both_runtimes
@both_kinds
async def test_statuses_of_one_call(runtime: str, kind: type[Counted]) -> None:
    """One call goes pending, running, succeeded; the work is started once."""
    work = kind(start_with_flow=False)
    async with running(runtime, work=work):
        call = work.submit(2)
        await call
        assert stages(work) == ["pending", "started", "running", "succeeded"]
        assert stages(work, call.id) == ["pending", "running", "succeeded"]
        assert call.status == work.status
        times = [one.timestamp for one in work.statuses]
        assert times == sorted(times)


@both_runtimes
@both_kinds
async def test_await_run_of_a_parallel_work_gives_the_call(runtime: str, kind: type[Counted]) -> None:
    """Awaiting ``run`` of a parallel work returns the queued call, and awaiting the call returns the value."""
    work = kind(parallel=True)
    async with running(runtime, work=work):
        call = await work.run(2)
        assert isinstance(call, Call)
        assert call.status.stage is Stage.PENDING
        assert await call == 3
        assert (call.done, call.result(), call.exception()) == (True, 3, None)


async def test_run_of_a_parallel_work_is_queued_before_it_is_awaited() -> None:
    """``run`` queues the call at once, awaited or not."""
    work = Add(parallel=True)
    async with running(work=work) as app:
        queued = work.run(2)
        await app.wait_for(lambda: work.has_succeeded)
        assert work.log == [[2, 1]]
        queued_call: Any = await queued
        assert await queued_call == 3


@pytest.mark.parametrize("parallel", [False, True])
async def test_submit_gives_the_call_whatever_parallel_says(parallel: bool) -> None:
    """``submit`` returns the call at once, and the call can be awaited more than once."""
    work = Add(parallel=parallel)
    async with running(work=work):
        call = work.submit(1)
        assert isinstance(call, Call)
        assert [await call, await call] == [2, 2]


async def test_several_tasks_await_one_call() -> None:
    """Every task that awaits a call gets its value."""
    work = Gate()
    async with running(work=work):
        call = work.submit("a")
        waiting = [asyncio.ensure_future(_value(call)) for _ in range(5)]
        await asyncio.sleep(0)
        work.open.append("a")
        assert await asyncio.gather(*waiting) == ["a"] * 5


async def _value(call: Call[Any]) -> Any:
    return await call


async def test_result_before_the_end_is_an_invalid_state() -> None:
    """``result`` and ``exception`` of an unfinished call raise InvalidStateError."""
    work = Gate()
    async with running(work=work):
        call = work.submit("a")
        with pytest.raises(asyncio.InvalidStateError, match="pending"):
            call.result()
        with pytest.raises(asyncio.InvalidStateError):
            call.exception()
        call.cancel()


async def test_call_after_the_app_is_a_usage_error() -> None:
    """A work whose app has ended refuses calls, starts and stops with an error that says so."""
    work = Add()
    async with running(work=work):
        await work.run(1)
    for use in (lambda: work.submit(1), work.start, work.stop):
        with pytest.raises(UsageError, match="app"):
            use()


async def test_work_without_an_app_runs_in_place() -> None:
    """A work without an app runs here: ``run`` is the plain coroutine or function."""
    assert await Add().run(1, 2) == 3
    assert PlainAdd().run(1, 2) == 3


# --- the cache ------------------------------------------------------------------------------------


@both_runtimes
@both_kinds
async def test_position_and_keyword_are_one_call(runtime: str, kind: type[Counted]) -> None:
    """``run(1)``, ``run(x=1)`` and ``run(1, 1)`` are one call (pitfall 13)."""
    work = kind()
    async with running(runtime, work=work):
        calls = [work.submit(1), work.submit(x=1), work.submit(1, 1), work.submit(y=1, x=1)]
        assert [await call for call in calls] == [2] * 4
        assert work.runs == 1
        assert len({call.hash for call in calls}) == 1
        assert len(calls[0].hash) == 32


@both_runtimes
async def test_succeeded_call_is_answered_from_the_cache(runtime: str) -> None:
    """A repeated successful call returns the cached value with the reason, and does not run (pitfall 13)."""
    work = Add()
    async with running(runtime, work=work):
        first = work.submit(1)
        await first
        before = work.statuses
        again = work.submit(x=1)
        assert again.done
        assert again.cached
        assert not first.cached
        assert again.cache_reason == f"answered by call {first.id}, which succeeded with the same arguments"
        assert await again == 2
        assert work.runs == 1
        assert work.statuses == before


async def test_cached_value_is_a_fresh_object() -> None:
    """Two cached results share no mutable object."""
    work = GivesPairs()
    async with running(work=work):
        first = await work.submit(["a"])
        first["a"].left = "changed"
        assert (await work.submit(["a"]))["a"].left == "a"


async def test_without_cache_calls_every_call_runs() -> None:
    """With ``cache_calls=False`` the same call runs again after it has ended, and reports why."""
    work = Add(cache_calls=False)
    async with running(work=work):
        calls = []
        for _ in range(3):
            calls.append(work.submit(1))
            assert await calls[-1] == 2
        assert work.runs == 3
        assert {call.cache_reason for call in calls} == {"runs: cache_calls is False"}


@both_runtimes
@pytest.mark.parametrize("cache_calls", [True, False])
async def test_call_in_flight_is_joined(runtime: str, cache_calls: bool) -> None:
    """The same call while it is in flight returns the same `Call`, whatever ``cache_calls`` is."""
    work = Gate(cache_calls=cache_calls)
    async with running(runtime, work=work) as app:
        first = work.submit("a")
        assert work.submit("a") is first  # queued
        await app.wait_for(lambda: work.inside == ["a"])
        assert work.submit(key="a") is first  # running
        work.open.append("a")
        assert await first == "a"
        assert work.runs == 1


async def test_failure_is_not_cached() -> None:
    """A failed call runs again with the same arguments, and reports why."""
    work = Flaky(2)
    async with running(work=work):
        first = work.submit()
        with pytest.raises(ValueError, match="try 1"):
            await first
        second = work.submit()
        assert await second == 2
        assert second.cache_reason == f"runs: call {first.id} with the same arguments did not succeed"


async def test_new_call_says_that_it_is_new() -> None:
    """The reason of a first call is that no call with its arguments has succeeded."""
    work = Add()
    async with running(work=work):
        call = work.submit(1)
        assert call.cache_reason == "runs: no call with these arguments has succeeded"
        await call


# --- the queue ------------------------------------------------------------------------------------


@both_runtimes
@both_kinds
async def test_calls_run_in_the_order_in_which_they_were_queued(runtime: str, kind: type[Counted]) -> None:
    """Calls with other arguments run in the order of the queue, one at a time."""
    work = kind()
    async with running(runtime, work=work):
        calls = [work.submit(n) for n in range(20)]
        assert [await call for call in calls] == list(range(1, 21))
        assert work.log == [[n, 1] for n in range(20)]
        assert stages(work)[-40:] == ["running", "succeeded"] * 20


@both_runtimes
async def test_one_call_at_a_time_without_concurrency(runtime: str) -> None:
    """A second call of an async work waits until the first has ended."""
    work = Gate()
    async with running(runtime, work=work) as app:
        first, second = work.submit("a"), work.submit("b")
        await app.wait_for(lambda: work.inside)
        assert (first.status.stage, second.status.stage) == (Stage.RUNNING, Stage.PENDING)
        work.open.append("b")
        await work.wait_confirmed()
        assert work.inside == ["a"]
        work.open.append("a")
        assert [await first, await second] == ["a", "b"]


@both_runtimes
async def test_concurrency_lets_calls_overlap(runtime: str) -> None:
    """With ``concurrency=2`` two calls of an async work run at once, and a third waits."""
    work = Gate(concurrency=2)
    async with running(runtime, work=work) as app:
        calls = [work.submit(key) for key in "abc"]
        await app.wait_for(lambda: work.inside == ["a", "b"])
        work.open.append("b")
        assert await calls[1] == "b"
        await app.wait_for(lambda: work.inside == ["a", "b", "c"])
        work.open.extend("ac")
        assert [await call for call in calls] == ["a", "b", "c"]


@both_kinds
async def test_a_thousand_queued_calls(kind: type[Counted]) -> None:
    """A thousand calls queued at once all run, in order, and statuses stay bounded (pitfall 11)."""
    work = kind()
    async with running("local", work=work):
        calls = [work.submit(n) for n in range(1000)]
        assert [await call for call in calls] == list(range(1, 1001))
        assert work.log == [[n, 1] for n in range(1000)]
        assert work.num_successes == 1000
        assert len(work.statuses) == 100


# --- return values --------------------------------------------------------------------------------


@both_runtimes
async def test_return_value_has_its_annotated_type(runtime: str) -> None:
    """A Struct, and dataclasses in a dict, arrive as the type of the return annotation."""
    point, pairs = GivesPoint(), GivesPairs()
    async with running(runtime, point=point, pairs=pairs):
        assert await point.run(4) == Point(4, -4)
        assert await pairs.submit(["ab"]) == {"ab": Pair("ab", Point(2, 0))}


@both_runtimes
@pytest.mark.parametrize("kind", [Returns, PlainReturns])
@pytest.mark.parametrize(
    ("what", "text"), [("object", "object"), ("lambda", "function"), ("integer", "64"), ("large", "too large")]
)
async def test_value_that_cannot_be_sent_fails_the_call(runtime: str, kind: type[Work], what: str, text: str) -> None:
    """A return value that is too large or cannot be encoded fails its call with that reason; the work goes on."""
    work = kind()
    async with running(runtime, settings={"max_frame": 100_000}, work=work):
        call = work.submit(what)
        with pytest.raises(InvalidReturnValue, match=text) as caught:
            await call
        assert caught.value.work == "root.work"
        assert call.status.reason is Reason.INVALID_RETURN_VALUE
        assert stages(work, call.id) == ["pending", "running", "failed:invalid_return_value"]
        assert await work.run("fine") == "fine"


class Checked(Point):
    def __post_init__(self) -> None:
        if self.x < 0:
            raise RuntimeError("not here")


class GivesChecked(Work):
    async def run(self, x: int) -> Checked:
        return Point(x, 0)  # type: ignore[return-value]


async def test_value_that_cannot_be_made_here_fails_the_call() -> None:
    """If an annotated type raises while it is decoded, the caller gets an error, and the call still ends."""
    work = GivesChecked()
    async with running(work=work):
        with pytest.raises(InvalidReturnValue, match="RuntimeError: not here") as caught:
            await work.run(-1)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert await work.run(1) == Checked(1, 0)


# --- failures that nobody awaits ------------------------------------------------------------------


class Once(Flow):
    """A subclass defines its run, which is entered again on every change."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.passes = 0
        self._kept: list[Any] = []


class Drops(Once):
    async def run(self) -> None:
        self._kept.append(1)
        if len(self._kept) == 1:
            self.work.submit("value")


class Keeps(Once):
    async def run(self) -> None:
        if not self._kept:
            self._kept.append(self.work.submit("value"))


class AwaitsLater(Once):
    async def run(self) -> None:
        if not self._kept:
            self._kept.append(self.work.submit("value"))
        elif self._kept[0].done:
            try:
                await self._kept[0]
            except ValueError:
                self.stop("caught")


@pytest.mark.parametrize("flow", [Drops, Keeps])
async def test_parallel_failure_that_nobody_awaits_fails_the_app(flow: type[Once]) -> None:
    """A failed call that was dropped, or kept unread over a whole pass, fails the app (pitfall 4)."""
    app = App(flow(Raises(parallel=True)), runtime="inprocess")
    with pytest.raises(ValueError, match="no such epoch"):
        await app.run()


async def test_parallel_failure_that_is_awaited_later_is_fine() -> None:
    """A failed call that the flow awaits in the pass after the failure does not fail the app."""
    app = App(AwaitsLater(Raises(parallel=True)), runtime="inprocess")
    await app.run()
    assert app.stop_message == "caught"


async def test_failure_that_was_looked_at_and_dropped_is_fine() -> None:
    """A failed call may be dropped after its exception was read."""
    work = Raises(parallel=True)
    async with running(work=work) as app:
        call = work.submit("value")
        await app.wait_for(lambda: call.done)
        assert isinstance(call.exception(), ValueError)
        call = work.submit("fine")  # and no one refers to the first one any more
        gc.collect()
        assert await call == "fine"


async def test_dropped_call_that_succeeds_is_fine() -> None:
    """A call that succeeds need not be awaited."""
    work = Add(parallel=True)
    async with running(work=work) as app:
        work.submit(1)
        await app.wait_for(lambda: work.has_succeeded)
