"""Cron patterns: which are valid, and when they fire, also on days on which the clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.components.cron import ALIASES, Cron
from lightwork.errors import ScheduleError, UsageError

BERLIN = ZoneInfo("Europe/Berlin")  # 02:00 to 03:00 is skipped on 2026-03-29 and shown twice on 2026-10-25
NEW_YORK = ZoneInfo("America/New_York")


def firings(text: str, start: datetime, count: int) -> list[datetime]:
    """The next firings, each counted from the one before."""
    found = []
    for _ in range(count):
        start = Cron.parse(text).next_after(start, start.tzinfo or UTC)
        found.append(start)
    return found


def faces(text: str, start: datetime, count: int) -> list[str]:
    """What a clock shows at the next firings, with its offset from UTC."""
    return [f"{found:%d %H:%M %z}" for found in firings(text, start, count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*/15 * * * *", "2026-05-06 07:15:00"),
        ("30 4 * * mon-fri", "2026-05-07 04:30:00"),
        ("0 12 L * *", "2026-05-31 12:00:00"),
        ("10 0 7 * * *", "2026-05-07 07:00:10"),
        ("hourly", "2026-05-06 08:00:00"),
        ("@hourly", "2026-05-06 08:00:00"),
        ("midnight", "2026-05-07 00:00:00"),
        ("@Daily", "2026-05-07 00:00:00"),
        ("weekly", "2026-05-10 00:00:00"),
        ("monthly", "2026-06-01 00:00:00"),
        ("annually", "2027-01-01 00:00:00"),
    ],
)
def test_next_after(text: str, expected: str) -> None:
    """A pattern of five fields, a pattern of six and a named pattern fire at their next matching time."""
    start = datetime(2026, 5, 6, 7, 8, 9, 500_000, UTC)
    assert f"{Cron.parse(text).next_after(start, UTC):%Y-%m-%d %H:%M:%S}" == expected


def test_next_is_later_than_the_moment() -> None:
    """The next firing is later than the given moment, even if the pattern matches that moment."""
    start = datetime(2026, 5, 6, 8, tzinfo=UTC)
    assert Cron.parse("hourly").next_after(start, UTC) == start + timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("61 * * * *", "minute must be 0 to 59, got '61'"),
        ("* 24 * * *", "hour must be 0 to 23, got '24'"),
        ("* * 32 * *", "day-of-month must be 1 to 31, L for the last day or LW for the last weekday, got '32'"),
        ("* * * foo *", "month must be 1 to 12 or jan to dec, got 'foo'"),
        ("* * * * fry", "day-of-week must be 0 (Sunday) to 7 or sun to sat, got 'fry'"),
        ("75 * * * * *", "second must be 0 to 59, got '75'"),
        ("*/0 * * * *", "minute must be 0 to 59, got '*/0'"),
        ("5-1 * * * *", "minute must be 0 to 59, got '5-1'"),
        ("* * *", "it has 3 fields"),
        ("", "it has 0 fields"),
        ("hourley", "did you mean 'hourly'?"),
        ("0 0 31 2 *", "its months have no day 31"),
    ],
)
def test_text_that_is_no_pattern(text: str, part: str) -> None:
    """The error for an invalid pattern names the text and the invalid field, and gives an example."""
    with pytest.raises(ScheduleError) as caught:
        Cron.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert part in message
    assert "30 4 * * mon-fri" in message
    assert isinstance(caught.value, UsageError)


@pytest.mark.parametrize("value", [None, 5, timedelta(hours=1)])
def test_what_is_no_text(value: object) -> None:
    """The error for a pattern that is not a string names its type."""
    with pytest.raises(ScheduleError, match=f"a cron pattern must be a string, got .*, a {type(value).__name__}"):
        Cron.parse(value)  # type: ignore[arg-type]


def test_skipped_time_fires_once() -> None:
    """A time that the clock skips fires once, when the skip ends, and at its own time again on the next day."""
    start = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert faces("30 2 * * *", start, 2) == ["29 03:00 +0200", "30 02:30 +0200"]


def test_skipped_times_fire_together() -> None:
    """Several times within one skip are one firing."""
    start = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert faces("*/10 2 * * *", start, 2) == ["29 03:00 +0200", "30 02:00 +0200"]


def test_repeated_time_fires_once() -> None:
    """A time that the clock shows twice fires the first time."""
    start = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert faces("30 2 * * *", start, 2) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_asked_in_the_second_of_two_equal_hours() -> None:
    """In the second of two equal hours, a time that fired in the first hour does not fire again."""
    start = datetime(2026, 10, 25, 2, 10, tzinfo=BERLIN, fold=1)
    assert faces("30 2 * * *", start, 1) == ["26 02:30 +0100"]


def test_every_other_hour_does_not_fire_twice() -> None:
    """A pattern with a step of hours fires once for an hour that is shown twice."""
    start = datetime(2026, 10, 25, 0, 30, tzinfo=BERLIN)
    assert faces("0 */2 * * *", start, 2) == ["25 02:00 +0200", "25 04:00 +0100"]


@pytest.mark.parametrize("text", ["0 * * * *", "0 0-23 * * *", "0 */1 * * *", "hourly"])
def test_every_hour_is_about_elapsed_time(text: str) -> None:
    """A pattern of every hour fires each sixty minutes, however the clock is changed."""
    for start in (datetime(2026, 3, 29, 0, tzinfo=BERLIN), datetime(2026, 10, 25, 0, tzinfo=BERLIN)):
        moments = [start, *firings(text, start, 6)]
        elapsed = {later.astimezone(UTC) - one.astimezone(UTC) for one, later in pairwise(moments)}
        assert elapsed == {timedelta(hours=1)}


def test_hour_skipped_at_midnight() -> None:
    """In a zone whose clock skips midnight, a pattern for midnight fires when the skip ends."""
    start = datetime(2018, 11, 3, 12, tzinfo=ZoneInfo("America/Sao_Paulo"))
    assert faces("daily", start, 2) == ["04 01:00 -0200", "05 00:00 -0200"]


@given(
    text=st.sampled_from([*ALIASES, "30 2 * * *", "*/20 1-3 * * *", "15 */2 * * *", "0 0 3 * * 0", "7,8 * * * *"]),
    tz=st.sampled_from([BERLIN, NEW_YORK, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Africa/Casablanca"), UTC]),
    moment=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)),
)
def test_next_is_the_first(text: str, tz: ZoneInfo, moment: datetime) -> None:
    """In any zone the next firing is later, and every moment before it has the same next firing."""
    start = moment.replace(tzinfo=UTC)
    following = Cron.parse(text).next_after(start, tz)
    assert following.astimezone(UTC) > start
    between = start + (following.astimezone(UTC) - start) * 0.5
    if between < following.astimezone(UTC):
        assert Cron.parse(text).next_after(between, tz).astimezone(UTC) == following.astimezone(UTC)


def test_no_drift() -> None:
    """Firings that are computed one from the other for a year stay at the times of the pattern."""
    found = firings("30 4 * * *", datetime(2026, 1, 1, tzinfo=BERLIN), 365)
    assert {(one.hour, one.minute, one.second) for one in found} == {(4, 30, 0)}
    assert len({one.date() for one in found}) == 365
