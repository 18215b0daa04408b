"""Which passes see a firing, and what a changed clock does: the registry alone, at moments that are passed in."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from lightwork.components.cron import Schedule, ScheduleRegistry

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class Story:
    """A registry with one hourly schedule that was added at half past eleven."""

    def __init__(self, pattern: str = "hourly") -> None:
        self.schedule = Schedule(pattern, NOON - HOUR / 2)
        self.book: ScheduleRegistry[str] = ScheduleRegistry(UTC)
        self.book.add("a", self.schedule)

    def pass_at(self, now: float, *, is_complete: bool = True, asks: bool = True) -> bool:
        """Return whether the schedule is true in a pass that begins then."""
        self.book.begin(now)
        answer = self.book.ask("a") if asks else False
        self.book.end(is_complete=is_complete)
        return answer


@pytest.fixture
def story() -> Story:
    return Story()


def test_true_once_for_each_firing(story: Story) -> None:
    """The schedule is false before its time, true in the first pass after it, and false until its next time."""
    moments = [NOON - 1, NOON, NOON + 1, NOON + HOUR - 1, NOON + HOUR, NOON + HOUR + 1]
    assert [story.pass_at(now) for now in moments] == [False, True, False, False, True, False]


def test_true_until_a_pass_comes_to_its_end(story: Story) -> None:
    """Pitfall 21: the schedule stays true in passes that are cut short, until one completes."""
    answers = [story.pass_at(NOON + second, is_complete=second == 3) for second in range(5)]
    assert answers == [True, True, True, True, False]


def test_true_for_the_whole_pass(story: Story) -> None:
    """A firing in the middle of a pass changes nothing in that pass; it is true in the next pass."""
    story.book.begin(NOON - 1)
    assert story.book.ask("a") is False
    assert story.book.advance(NOON) is True
    assert story.book.ask("a") is False
    story.book.end(is_complete=True)
    assert story.book.has_due
    story.book.begin(NOON + 1)
    assert story.book.ask("a") is story.book.ask("a") is True


def test_pass_that_does_not_ask_leaves_it(story: Story) -> None:
    """A pass that does not ask leaves the firing to one that does."""
    assert story.pass_at(NOON, asks=False) is False
    assert story.pass_at(NOON + 1) is True


def test_missed_firings_are_one(story: Story) -> None:
    """Several firings that were missed while no pass could begin count as one."""
    assert [story.pass_at(NOON + hours * HOUR) for hours in (5.5, 5.6, 6.0)] == [True, False, True]


def test_firing_while_one_is_dealt_with(story: Story) -> None:
    """A firing while the previous one is still true becomes true after the previous one is handled."""
    assert story.pass_at(NOON, is_complete=False) is True
    assert story.pass_at(NOON + HOUR, is_complete=True) is True
    assert story.pass_at(NOON + HOUR + 1) is True
    assert story.pass_at(NOON + HOUR + 2) is False


def test_wake_at_is_the_earliest() -> None:
    """wake_at is the earliest next firing of all schedules; None without schedules, or if all are due."""
    story = Story()
    assert story.book.wake_at() == NOON
    story.book.add("b", Schedule("45 * * * *", NOON - HOUR / 2))
    assert story.book.wake_at() == NOON - HOUR / 4
    story.book.advance(NOON)
    assert story.book.wake_at() is None
    assert ScheduleRegistry[str](UTC).wake_at() is None


def test_clock_set_back_repeats_nothing(story: Story) -> None:
    """After the clock is set back by an hour, the repeated hour does not fire again."""
    assert story.pass_at(NOON + 1) is True
    assert [story.pass_at(NOON - 30 * 60), story.pass_at(NOON + 2)] == [False, False]
    assert story.pass_at(NOON + HOUR) is True


def test_clock_that_was_far_ahead(story: Story) -> None:
    """After a clock that was years ahead is corrected, schedules continue from the correct time."""
    future = NOON + 10 * 365 * 24 * HOUR
    assert story.pass_at(future) is True
    assert story.pass_at(NOON + 1) is False
    assert story.book.wake_at() == NOON + HOUR
    assert story.pass_at(NOON + HOUR) is True


def test_clock_set_forward(story: Story) -> None:
    """After the clock is set forward past several firings, the schedule fires once."""
    assert story.book.advance(NOON + 3.5 * HOUR) is True
    assert [story.pass_at(NOON + 3.5 * HOUR), story.pass_at(NOON + 3.6 * HOUR)] == [True, False]


def test_repeated_hour_of_daylight_saving() -> None:
    """A daily schedule fires once on a day on which the clock shows its time twice."""
    berlin = ZoneInfo("Europe/Berlin")
    schedule = Schedule("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=berlin).timestamp())
    book: ScheduleRegistry[str] = ScheduleRegistry(berlin)
    book.add("a", schedule)
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin).timestamp()
    assert [book.advance(first - 1), book.advance(first)] == [False, True]
    book.begin(first)
    assert book.ask("a") is True
    book.end(is_complete=True)
    assert book.advance(first + HOUR) is False
    assert book.wake_at() == first + 25 * HOUR


def test_restored_schedule_catches_up() -> None:
    """A schedule that is restored after its time fires at once; one whose pass was cut short is still true."""
    book: ScheduleRegistry[str] = ScheduleRegistry(UTC)
    book.add("missed", Schedule("hourly", NOON - HOUR / 2))
    book.add("cut", Schedule("hourly", NOON + 1, last=NOON, is_open=True))
    book.begin(NOON + 2)
    assert book.ask("missed") is True
    assert book.ask("cut") is True


def test_trigger_is_besides_the_pattern(story: Story) -> None:
    """A triggered schedule fires now, and again at its next regular time."""
    story.book.trigger("a", NOON - 60)
    assert [story.pass_at(NOON - 59), story.pass_at(NOON - 58), story.pass_at(NOON)] == [True, False, True]


def test_view(story: Story) -> None:
    """A view says when it fired last, when it fires next, and whether it is true."""
    view = story.book.view("a", NOON - 1, "root", "a")
    assert (view.flow, view.key, view.pattern) == ("root", "a", "hourly")
    assert (view.last, view.next, view.is_true) == (None, NOON, False)
    story.book.advance(NOON + 1)
    view = story.book.view("a", NOON + 1, "root", "a")
    assert (view.last, view.next, view.is_true) == (NOON + 1, NOON + HOUR, True)


def test_dropped_schedule_wakes_nobody(story: Story) -> None:
    """A schedule can be dropped in the middle of a pass, and the pass ends normally."""
    story.book.begin(NOON)
    assert story.book.ask("a")
    story.book.drop(["a"])
    assert story.book.wake_at() is None
    assert story.book.end(is_complete=True) is False
