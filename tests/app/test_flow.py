"""When the flow runs, and how it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lightwork import App, Flow, Work
from lightwork.changes import Change, ComponentAdded, ComponentRemoved
from lightwork.errors import CallStopped, FlowFailed, UsageError
from tests.app.support_flows import Echo, Editor, Failing, Script

pytestmark = pytest.mark.bare

Body = Callable[[Any], Awaitable[None]]


class Counting(Flow):
    """Counts its passes; each pass calls `script` with the flow."""

    work: Any

    def __init__(self, script: Body | None = None, **children: Any) -> None:
        super().__init__()
        self._script = script
        self._passes = 0
        self.value = 0
        for name, child in children.items():
            setattr(self, name, child)

    async def run(self) -> None:
        self._passes += 1
        if self._script is not None:
            await self._script(self)


def app_of(script: Body | None = None, **children: Any) -> tuple[App[Any], Any]:
    flow = Counting(script, **children)
    return App(flow, runtime="inprocess"), flow


async def rested(flow: Any) -> int:
    """Return the number of passes when the loop has become idle."""
    before = -1
    while before != flow._passes:
        before = flow._passes
        for _ in range(50):
            await asyncio.sleep(0)
    return before


# --- when it runs again ---------------------------------------------------------------------------


async def test_nothing_changed() -> None:
    """Pitfall 20: a flow without any change runs once."""
    app, flow = app_of()
    async with app:
        assert await rested(flow) == 1


async def test_flow_edit() -> None:
    """Pitfall 20: an edit of the flow's state causes one more pass; setting an equal value causes none."""
    app, flow = app_of()
    async with app:
        await rested(flow)
        flow.value = 1
        assert await rested(flow) == 2
        flow.value = 1
        assert await rested(flow) == 2


async def test_own_edit() -> None:
    """Pitfall 20: a pass that edits the flow's own state is followed by another, until a pass edits nothing."""

    async def script(flow: Any) -> None:
        if flow.value < 5:
            flow.value += 1

    app, flow = app_of(script)
    async with app:
        await app.wait_for(lambda: flow.value == 5)
        assert await rested(flow) == 6


async def test_delta_and_status() -> None:
    """Pitfall 20: edits and statuses of a work make the flow run again; then it rests."""
    seen: list[Any] = []

    async def script(flow: Any) -> None:
        seen.append((flow.work.n, flow.work.status.stage))

    app, flow = app_of(script, work=Editor())
    async with app:
        before = await rested(flow)
        await flow.work.run("count")
        await app.wait_for(lambda: flow._passes > before)
        after = await rested(flow)
        assert seen[-1] == (5000, "succeeded")
        assert await rested(flow) == after


async def test_cached_call_is_no_change() -> None:
    """A flow that makes the same cached call in each pass comes to rest, and the work runs once."""

    async def script(flow: Any) -> None:
        assert await flow.work.run(1) == 1

    app, flow = app_of(script, work=Echo())
    async with app:
        await app.wait_for(lambda: flow.work.num_successes == 1)
        await rested(flow)
        assert flow.work.seen == [1]


async def test_refused_proposal_wakes_nobody() -> None:
    """Setting and unsetting a value before it is sent causes no more passes than changes."""
    app, flow = app_of()
    async with app:
        await rested(flow)
        flow.value, flow.value = 3, 0
        assert await rested(flow) == 2


async def test_no_wake_up_at_rest() -> None:
    """Pitfall 19: at rest no timer and no callback is scheduled in the loop."""
    app, flow = app_of(work=Echo())
    loop: Any = asyncio.get_running_loop()
    async with app:
        await flow.work.run(1)
        await rested(flow)
        assert not loop._ready
        assert [one for one in loop._scheduled if not one.cancelled()] == []


# --- the end --------------------------------------------------------------------------------------


async def _stop(flow: Any) -> None:
    flow.stop("done")
    raise AssertionError("stop must be the last line")


async def _stop_in_a_group(flow: Any) -> None:
    async def ends() -> None:
        flow.stop("done")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.Event().wait())
        group.create_task(ends())


async def _stop_in_nested_groups(flow: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_stop_in_a_group(flow))


async def _stop_despite_except(flow: Any) -> None:
    try:
        flow.stop("done")
    except Exception:
        flow.value = 1


async def _stop_by_a_child(flow: Any) -> None:
    await flow.child.run()


STOPS = [_stop, _stop_in_a_group, _stop_in_nested_groups, _stop_despite_except, _stop_by_a_child]


@pytest.mark.parametrize("script", STOPS)
async def test_stop(script: Body) -> None:
    """Stop ends the app as a success from anywhere in the flow, and no line after it runs."""

    async def stops(child: Any) -> None:
        child.stop("done")

    app, flow = app_of(script, child=Counting(stops), work=Echo())
    await app.run()
    assert (app.stop_message, flow.value, flow._passes) == ("done", 0, 1)


async def test_fail() -> None:
    """Fail ends the app with FlowFailed and the message."""

    async def script(flow: Any) -> None:
        flow.fail("no data")

    app, _ = app_of(script)
    with pytest.raises(FlowFailed, match="no data"):
        await app.run()
    assert app.stop_message == "no data"


async def test_fail_in_a_group() -> None:
    """Fail in a task group of the flow raises FlowFailed, not a group."""

    async def script(flow: Any) -> None:
        async def fails() -> None:
            flow.fail("inside")

        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    app, _ = app_of(script)
    with pytest.raises(FlowFailed, match="inside"):
        await app.run()


@pytest.mark.parametrize("end", ["stop", "fail"])
async def test_ended_from_outside(end: str) -> None:
    """A coroutine outside of the flow ends the app and continues."""
    app, flow = app_of()
    went_on = []
    outcome: Any = None
    try:
        async with app:
            getattr(flow, end)("outside")
            went_on.append(end)
    except FlowFailed as error:
        outcome = error
    assert went_on
    assert app.stop_message == "outside"
    assert (outcome is not None) == (end == "fail")


async def test_stop_of_another_app() -> None:
    """A flow that ends the flow of another app continues."""

    async def script(flow: Any) -> None:
        inner, inner_flow = app_of()
        async with inner:
            inner_flow.stop("inner")
            await inner.wait_stopped()
        flow.value = 1
        flow.stop(inner.stop_message)

    app, flow = app_of(script)
    await app.run()
    assert (app.stop_message, flow.value) == ("inner", 1)


async def test_exception_of_run() -> None:
    """An exception of run arrives unchanged in app.run()."""

    async def script(flow: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await app_of(script)[0].run()


async def test_exception_cancels_the_body() -> None:
    """In `async with` an exception of run cancels the body, and the block raises it; its task is not cancelled."""
    gate = asyncio.Event()

    async def script(flow: Any) -> None:
        await gate.wait()
        raise LookupError("mine")

    app, _ = app_of(script)

    async def embed() -> None:
        async with app:
            gate.set()
            await asyncio.Event().wait()

    with pytest.raises(LookupError, match="mine"):
        await embed()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_failed_call_in_the_flow() -> None:
    """The exception of an awaited call arrives in the flow as its own type, and fails the app if it is not caught."""

    async def script(flow: Any) -> None:
        await flow.work.run("mine")

    with pytest.raises(ValueError, match="mine"):
        await app_of(script, work=Failing())[0].run()


async def test_failed_call_without_exception() -> None:
    """Pitfall 5: with raise_exception=False a failed call returns None, and the flow continues."""

    async def script(flow: Any) -> None:
        assert await flow.work.run("mine") is None
        assert flow.work.has_failed
        assert "mine" in flow.work.status.message
        flow.stop("went on")

    app, _ = app_of(script, work=Failing(raise_exception=False))
    await app.run()
    assert app.stop_message == "went on"


async def test_failed_call_that_nobody_awaits() -> None:
    """The exception of a parallel call that is never awaited fails the app."""

    async def script(flow: Any) -> None:
        if flow._passes == 1:
            await flow.work.run("unseen")

    app, _ = app_of(script, work=Failing(parallel=True))
    with pytest.raises(ValueError, match="unseen"):
        await app.run()
    gc.collect()


async def test_awaiting_what_was_cancelled() -> None:
    """A flow that ends with its own CancelledError is an error that says so."""

    async def script(flow: Any) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    with pytest.raises(UsageError, match="it awaited something that was cancelled"):
        await app_of(script)[0].run()


# --- children that come and go ----------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_children_come_and_go(runtime: str) -> None:
    """Children made in the flow work at once; removed, replaced and used again they start again."""

    async def script(flow: Any) -> None:
        flow.trials = [Echo(), Echo()]
        assert await asyncio.gather(*[one.submit(n) for n, one in enumerate(flow.trials)]) == [0, 1]
        first = flow.trials.pop(0)
        assert first.name == ""
        flow.again = first
        assert await first.run("again") == "again"
        assert [status.stage for status in first.statuses][-1] == "succeeded"
        flow.again = Echo()
        assert await flow.again.run(3) == 3
        assert first.name == ""
        flow.stop(" ".join(name for name, _ in flow.named_works()))

    changes: list[Change] = []
    flow = Counting(script)
    app = App(flow, runtime=runtime)
    app.watch(changes.append)
    await app.run()
    assert app.stop_message == "root.trials.1 root.again"
    moves = [type(one)(one.name) for one in changes if isinstance(one, ComponentAdded | ComponentRemoved)]
    assert moves == [
        ComponentAdded("root"),
        ComponentAdded("root.trials.0"),
        ComponentAdded("root.trials.1"),
        ComponentRemoved("root.trials.0"),
        ComponentAdded("root.again"),
        ComponentRemoved("root.again"),
        ComponentAdded("root.again"),
    ]


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_removed_with_messages_in_flight(runtime: str) -> None:
    """Pitfall 17: a work removed while it streams ends; its call is stopped, and its late frames change nothing."""
    work = Editor(parallel=True)
    flow = Counting(work=work)
    async with App(flow, runtime=runtime) as app:
        call = await work.run("until_go")
        await app.wait_for(lambda: work.name_of_it == "waiting")
        work.n = 5
        del flow.work
        with pytest.raises(CallStopped):
            await call
        with pytest.raises(UsageError, match="needs a running app"):
            work.submit("count")
        work.n = 6
        flow.other = work  # type: ignore[attr-defined]
        work.go = True
        assert await (await work.run("until_go")) == [6, []]


class Parent(Flow):
    """Awaits the run of its child."""

    def __init__(self, child: Flow) -> None:
        super().__init__()
        self.child = child

    async def run(self) -> None:
        await self.child.run()
        self.stop()


class Child(Flow):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.result: Any = None

    async def run(self) -> None:
        self.result = await self.work.run(4)


async def test_child_flow() -> None:
    """The parent calls the run of a child flow like any coroutine."""
    child = Child(Echo())
    await App(Parent(child), runtime="inprocess").run()
    assert child.result == 4
    assert child.work.name == "root.child.work"


async def test_start_with_flow() -> None:
    """Works start with the app by default, and all of them are ready when the flow runs."""
    early, late = Echo(), Echo(start_with_flow=False)

    async def script(flow: Any) -> None:
        assert (early.has_started, late.has_started) == (True, False)
        flow.stop()

    await App(Script(script, early=early, late=late), runtime="inprocess").run()
