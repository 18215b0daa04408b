"""The one timer of an app's schedules, with a fake clock and a fake loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from lightwork import Flow
from lightwork.engine.changes import ChangeHub
from lightwork.engine.flow.schedules import LocalZone, Schedules

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class FakeLoop:
    """Keeps its timers until the test fires them."""

    def __init__(self) -> None:
        self.now = NOON - HOUR / 2
        self.timers: list[asyncio.TimerHandle] = []

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **_: Any) -> asyncio.TimerHandle:
        loop: Any = self
        timer = asyncio.TimerHandle(self.now + delay, callback, args, loop)
        self.timers.append(timer)
        return timer

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, **_: Any) -> Any:
        callback(*args)

    def fire(self, drift: float = 0.0) -> None:
        """Fire the only timer at its time; the wall clock is ahead of the loop's clock by `drift`."""
        (timer,) = self.timers
        self.timers.remove(timer)
        self.now = max(self.now, timer.when()) + drift
        timer._run()


class Nightly(Flow):
    def run(self) -> None:
        return None


class Story:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        loop: Any = self.loop
        self.hub = ChangeHub(loop)
        self.flow = self.member()
        self.schedules = Schedules(loop, self.hub, clock=lambda: self.loop.now, tz=UTC)

    def member(self) -> Nightly:
        flow = Nightly()
        object.__setattr__(flow, "_driver", self)
        return flow

    def ask(self, pattern: str = "hourly", start: datetime | None = None, flow: Flow | None = None) -> bool:
        return self.schedules.ask(flow or self.flow, f"{pattern} key", pattern, start)

    def pass_of(self, pattern: str = "hourly") -> bool:
        self.schedules.begin_pass()
        answer = self.ask(pattern)
        self.schedules.end_pass(is_complete=True)
        return answer


@pytest.fixture
def story() -> Iterator[Story]:
    story = Story()
    yield story
    story.schedules.close()
    assert story.loop.timers == []


def test_no_schedule_no_timer(story: Story) -> None:
    """An app without schedules sets no timer."""
    story.schedules.begin_pass()
    assert story.schedules.end_pass(is_complete=True) is False
    assert story.loop.timers == []


def test_one_timer_for_all(story: Story) -> None:
    """Many schedules of several flows share one timer."""
    for pattern in ("hourly", "daily", "5 * * * *", "weekly"):
        story.ask(pattern)
        story.ask(pattern, flow=story.member())
    assert len(story.loop.timers) == 1


def test_timer_is_capped(story: Story) -> None:
    """Without wall-clock timers the clock is checked once a minute, and no pass runs for that."""
    story.ask()
    version = story.hub.version
    for minute in range(1, 30):
        story.loop.fire()
        assert story.loop.now == NOON - HOUR / 2 + minute * 60
    assert story.hub.version == version


def test_firing_wakes_the_flow(story: Story) -> None:
    """A firing counts as one change of the tree, and exactly one pass sees the schedule as true."""
    story.ask()
    version = story.hub.version
    for _ in range(30):
        story.loop.fire()
    assert story.loop.now == NOON
    assert story.hub.version == version + 1
    assert story.loop.timers == []  # nothing to wait for until a pass has seen it
    assert [story.pass_of(), story.pass_of()] == [True, False]
    assert len(story.loop.timers) == 1


def test_timer_that_is_early(story: Story) -> None:
    """A timer that fires before the wall clock has reached the moment is set again, and the firing is not lost."""
    story.loop.now = NOON - 10
    story.ask()
    story.loop.fire(drift=-0.2)
    assert story.pass_of() is False
    story.loop.fire()
    assert story.pass_of() is True


def test_clock_set_forward_while_waiting(story: Story) -> None:
    """A clock that is set forward is noticed when the capped timer fires."""
    story.ask()
    story.loop.fire(drift=2 * HOUR)
    assert [story.pass_of(), story.pass_of()] == [True, False]


def test_start_time_that_has_passed(story: Story) -> None:
    """With a start time in the past, the missed firings become one firing at the next pass."""
    assert story.ask("daily", datetime(2026, 5, 1)) is False
    story.loop.fire()
    assert [story.pass_of("daily"), story.pass_of("daily")] == [True, False]


def test_start_time_that_comes(story: Story) -> None:
    """Before its start time a schedule does not fire; a firing at the very start counts."""
    story.ask("hourly", datetime(2026, 5, 6, 15, tzinfo=UTC))
    story.loop.now = NOON + 2.9 * HOUR
    assert story.pass_of() is False
    story.loop.now = NOON + 3 * HOUR
    assert story.pass_of() is True


def test_pass_in_which_it_fires_is_followed_by_another(story: Story) -> None:
    """Another pass follows if a schedule fired during a pass, or if a complete pass has handled a firing."""
    story.ask()
    story.schedules.begin_pass()
    story.loop.now = NOON
    story.loop.fire()
    assert story.schedules.end_pass(is_complete=True) is True
    story.schedules.begin_pass()
    assert story.ask() is True
    assert story.schedules.end_pass(is_complete=False) is False
    story.schedules.begin_pass()
    assert story.ask() is True
    assert story.schedules.end_pass(is_complete=True) is True


def test_pass_that_never_ends_is_told_of(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    """If a schedule fires twice during one pass, one warning is logged that says what to do."""
    story.ask()
    story.schedules.begin_pass()
    with caplog.at_level(logging.WARNING, "lightwork"):
        for hours in (0.0, 1.0, 2.0):
            story.loop.now = NOON + hours * HOUR
            if story.loop.timers:
                story.loop.fire()
            story.ask()
    (record,) = caplog.records
    assert "let run return" in record.getMessage()


def test_removed_flow_is_forgotten(story: Story) -> None:
    """The schedule of a flow that has left the tree is not listed and has no timer."""
    story.ask()
    object.__setattr__(story.flow, "_driver", None)
    assert story.schedules.views() == []
    story.loop.fire()
    assert story.loop.timers == []


def test_restored_flow_replaces_what_was_known(story: Story) -> None:
    """A flow whose state is loaded while the app runs continues from the loaded schedules."""
    story.ask()
    saved = story.flow.state_dict()
    story.loop.now = NOON
    assert story.pass_of() is True
    story.flow.load_state_dict(saved)
    story.ask()
    assert story.pass_of() is True


def test_trigger(story: Story) -> None:
    """A schedule fires when it is triggered by its key; an unknown key is an error."""
    story.ask()
    version = story.hub.version
    (view,) = story.schedules.views()
    assert view.next == NOON
    story.schedules.trigger(view.flow, view.key)
    assert story.hub.version == version + 1
    assert story.pass_of() is True
    with pytest.raises(KeyError, match="no schedule 'other'"):
        story.schedules.trigger(view.flow, "other")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_local_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of this machine follows the time zone database at each hour of a year."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        local, known = LocalZone(), ZoneInfo(zone)
        for hour in range(365 * 24):
            moment = datetime.fromtimestamp(NOON + hour * HOUR, UTC)
            face, expected = moment.astimezone(local), moment.astimezone(known)
            assert (face.replace(tzinfo=None), face.fold) == (expected.replace(tzinfo=None), expected.fold)
            assert face.utcoffset() == expected.utcoffset()
            assert face.astimezone(UTC) == moment
    finally:
        monkeypatch.undo()
        time.tzset()
