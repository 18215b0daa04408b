"""Schedules of running apps: a flow acts once for each firing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from lightwork import App, Flow
from lightwork.errors import ScheduleError
from lightwork.structures import List
from tests.app.support_flows import Echo, Failing

pytestmark = pytest.mark.bare

LONG_AGO = datetime(2020, 1, 1)


class Plain(Flow):
    """A plain flow whose passes are `script`."""

    def __init__(self, script: Callable[[Any], None], **children: Any) -> None:
        super().__init__()
        self._script = script
        self.done = 0
        self.passes = 0
        self.jobs = List[Any]()
        for name, child in children.items():
            setattr(self, name, child)

    def run(self) -> None:
        self._script(self)


class Async(Flow):
    def __init__(self, work: Echo | None = None, pattern: str = "yearly", start: datetime | None = LONG_AGO) -> None:
        super().__init__()
        self.work = work or Echo(cache_calls=False)
        self.done = 0
        self._pattern, self._start = pattern, start

    async def run(self) -> None:
        if self.schedule(self._pattern, self._start):
            await self.work.run(1)
            await self.work.run(1)
            self.done += 1


def app_of(root: Flow) -> App[Any]:
    return App(root, runtime="inprocess")


async def trigger(app: App[Any]) -> None:
    """Let the only schedule of the app fire as soon as the flow has registered it."""
    await app.wait_for(lambda: app.schedules)
    (view,) = app.schedules
    app.trigger(view.flow, view.key)


async def test_async_flow() -> None:
    """An async run sees each firing as true in exactly one pass."""
    root = Async()
    async with app_of(root) as app:
        await app.wait_for(lambda: root.done == 1)
        assert root.work.seen == [1, 1]
        (view,) = app.schedules
        assert (view.flow, view.pattern, view.last is not None) == ("root", "yearly", True)
        await app.wait_for(lambda: not app.schedules[0].is_true)
        await trigger(app)
        await app.wait_for(lambda: root.done == 2)
    assert root.work.num_successes == 4


async def test_on_the_wall_clock() -> None:
    """A schedule of every second fires by itself, second after second."""
    root = Async(pattern="* * * * * *", start=None)
    async with app_of(root) as app:
        await app.wait_for(lambda: root.done >= 2)
        assert app.schedules[0].next > (app.schedules[0].last or 0)


async def test_each_line_runs_once_for_a_firing() -> None:
    """Pitfall 21: a firing spans several works, and the flow's code around their calls runs once."""

    def script(flow: Any) -> None:
        if flow.schedule("yearly", LONG_AGO):
            flow.passes += 1
            first = flow.a.run(1)
            flow.done += flow.b.run(first + 1)

    works = {"a": Echo(cache_calls=False), "b": Echo(cache_calls=False)}
    root: Any = Plain(script, **works)
    async with app_of(root) as app:
        await app.wait_for(lambda: root.done == 2)
        assert root.passes == 1
        await app.wait_for(lambda: not app.schedules[0].is_true)
        await trigger(app)
        await app.wait_for(lambda: root.done == 4)
        assert root.passes == 2
        assert (root.a.seen, root.b.seen) == ([1, 1], [2, 2])


async def test_works_made_for_a_firing() -> None:
    """A work made for a firing, and run outside of it, is made once for each firing."""

    def script(flow: Any) -> None:
        if flow.schedule("yearly", LONG_AGO):
            flow.jobs.append(Echo())
        for job in flow.jobs:
            job.run(len(flow.jobs))
        flow.done = len(flow.jobs)

    root: Any = Plain(script)
    async with app_of(root) as app:
        await app.wait_for(lambda: root.done == 1)
        await app.wait_for(lambda: not app.schedules[0].is_true)
        await trigger(app)
        await app.wait_for(lambda: root.done == 2)
        assert len(root.jobs) == 2


async def test_failed_job_is_tried_at_the_next_firing() -> None:
    """A failed job is not repeated for the same firing, but runs again at the next one."""

    def script(flow: Any) -> None:
        if flow.schedule("yearly", LONG_AGO):
            flow.work.run("mine")
            flow.done += 1

    root: Any = Plain(script, work=Failing(raise_exception=False))
    async with app_of(root) as app:
        for firing in (1, 2):
            await app.wait_for(lambda firing=firing: root.done == firing)  # type: ignore[misc]
            await app.wait_for(lambda: not app.schedules[0].is_true)
            assert [one.stage for one in root.work.statuses].count("failed") == firing
            await trigger(app)


async def test_unscheduled_failure_is_not_repeated() -> None:
    """A failed job that a flow calls in each pass is not retried by a firing beside it."""

    def script(flow: Any) -> None:
        flow.work.run("mine")
        if flow.schedule("yearly", LONG_AGO):
            flow.done += 1

    root: Any = Plain(script, work=Failing(raise_exception=False))
    async with app_of(root) as app:
        await app.wait_for(lambda: root.done == 1)
        await trigger(app)
        await app.wait_for(lambda: root.done == 2)
        assert [one.stage for one in root.work.statuses].count("failed") == 1


async def test_stopped_while_a_pass_waits() -> None:
    """Stopping the app while a pass waits for a scheduled job ends the app, and no later line of the flow runs."""
    reached: list[str] = []

    def script(flow: Any) -> None:
        if flow.schedule("yearly", LONG_AGO):
            flow.work.run(1)
            reached.append("after")

    root: Any = Plain(script, work=Waits())
    async with app_of(root) as app:
        await app.wait_for(lambda: root.work.is_running)
    assert reached == []
    assert root.state_dict()["calls"]["schedules"].popitem()[1]["is_open"] is True


class Waits(Echo):
    async def run(self, value: Any = None) -> Any:
        await asyncio.get_running_loop().create_future()


async def test_child_flows_have_their_own() -> None:
    """The same line in two flows makes two schedules, and both fire."""

    class Pair(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Async(), Async()

        async def run(self) -> None:
            await self.a.run()
            await self.b.run()

    root = Pair()
    async with app_of(root) as app:
        await app.wait_for(lambda: root.a.done == root.b.done == 1)
        assert {view.flow for view in app.schedules} == {"root.a", "root.b"}


def test_stop_is_the_end_of_a_firing() -> None:
    """A flow that stops the app in the pass of a firing has handled it: the next run of the app does not see it."""

    def script(flow: Any) -> None:
        flow.passes += 1
        if flow.schedule("yearly", LONG_AGO):
            flow.done += 1
            flow.stop()
        if flow.done == 1 and flow.passes > 3:
            flow.stop()

    root: Any = Plain(script)
    app = app_of(root)
    asyncio.run(app.run())
    asyncio.run(app.run())
    assert root.done == 1


async def test_wrong_pattern_fails_the_app() -> None:
    """Text that is no pattern fails the app with an error that names it."""
    with pytest.raises(ScheduleError, match="invalid cron pattern 'every hour'"):
        await app_of(Async(pattern="every hour")).run()


async def test_no_timer_without_schedules() -> None:
    """A flow without schedules has no timer; for a flow with schedules the end of the app stops the timer."""

    def script(flow: Any) -> None:
        if flow.done:
            flow.schedule("yearly")
            flow.passes = 1

    root: Any = Plain(script)
    async with app_of(root) as app:
        schedules = app._running().engine.schedules
        assert schedules._timer is None
        root.done = 1
        await app.wait_for(lambda: root.passes)
        await app.wait_for(lambda: schedules._timer is not None)
    assert schedules._timer is None
