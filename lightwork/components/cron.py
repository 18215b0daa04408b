"""Cron schedules: when a pattern fires on the wall clock, and which passes of a flow see a firing.

Everything here is a function of the moment that is passed in: no clock, timer or time zone of this machine is read.

A pattern for certain hours matches the time that a clock shows. It fires once for each matching time: at a time that
the clock skips, when the skip ends; at a time that the clock shows twice, the first time. A pattern for every hour
(``0 * * * *``) matches elapsed time instead: it fires in both of two equal hours.

A pass sees a firing, not a moment. The schedule is true in the whole of the first pass that begins after the firing and
asks. It becomes false when that pass completes. A pass that is cut short leaves it true for the next pass.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from lightwork.errors import ScheduleError

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["ALIASES", "Cron", "Schedule", "ScheduleRegistry", "ScheduleView"]

K = TypeVar("K", bound=Hashable)

ALIASES = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "midnight": "0 0 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
"""Named patterns. ``@hourly`` is the same as ``hourly``."""

_FIELDS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, L for the last day or LW for the last weekday",
    "month": "1 to 12 or jan to dec",
    "day-of-week": "0 (Sunday) to 7 or sun to sat",
}

_HELP = (
    "A schedule is minute, hour, day-of-month, month and day-of-week, such as '30 4 * * mon-fri' (a sixth one in front "
    f"is seconds), or one of {', '.join(ALIASES)}"
)

_REPLAYED = 3 * 3600.0
"""Seconds. A clock that is set back by less repeats no firing; one that is set back further does, as in cron.

This is longer than any change for daylight-saving time, which some machines make by setting the clock.
"""


class Cron:
    """A parsed cron pattern.

    Attributes:
        text: The pattern as it was given.
        fields: The pattern itself, five or six fields.
    """

    def __init__(self, text: str, fields: str, *, is_hourly: bool) -> None:
        self.text = text
        self.fields = fields
        self._is_hourly = is_hourly

    @staticmethod
    def parse(text: str) -> Cron:
        """Parse five fields, six with seconds in front, or a name such as ``hourly`` or ``@daily``.

        Raises:
            ScheduleError: `text` is an invalid pattern, or no day ever fits it. Names the field and gives an example.
        """
        if not isinstance(text, str):
            raise ScheduleError(f"a cron pattern must be a string, got {text!r:.80}, a {type(text).__name__}. {_HELP}")
        return _parse(text)

    def next_after(self, moment: datetime, tz: tzinfo) -> datetime:
        """Return the first time after `moment` at which the pattern fires on a clock of the time zone `tz`.

        Args:
            moment: A time with any time zone.
            tz: The time zone of the clock.

        Raises:
            ScheduleError: It does not fire within fifty years.
        """
        try:
            return self._next_elapsed(moment, tz) if self._is_hourly else self._next_shown(moment, tz)
        except StopIteration:
            raise ScheduleError(f"{self.text!r} does not fire within fifty years of {moment:%Y-%m-%d}") from None

    def _next_elapsed(self, moment: datetime, tz: tzinfo) -> datetime:
        return next(_simulate(self.fields, moment.astimezone(tz)))

    def _next_shown(self, moment: datetime, tz: tzinfo) -> datetime:
        for shown in _simulate(self.fields, moment.astimezone(tz).replace(tzinfo=None, fold=0)):
            found = _when_shown(shown, tz)
            # In the second of two equal hours the clock shows times that have passed already. Python compares two
            # times of one zone by what the clock shows, so both are converted to UTC first.
            if found.astimezone(UTC) > moment.astimezone(UTC):
                return found
        raise StopIteration

    def __repr__(self) -> str:
        return f"Cron({self.text!r})"


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Cron:
    fields = ALIASES.get(text.strip().lower().removeprefix("@"), text)
    count = len(fields.split())
    if count not in (5, 6):
        import difflib

        near = difflib.get_close_matches(text.lower().removeprefix("@"), ALIASES, n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": it has {count} field{'s' * (count != 1)}."
        raise ScheduleError(f"invalid cron pattern {text!r:.120}{hint} {_HELP}")
    from cronsim import CronSimError

    try:
        simulated = _simulate(fields, datetime(2000, 1, 1))
        next(simulated)
    except CronSimError as error:
        raise ScheduleError(_complaint(text, fields, str(error).removeprefix("Bad "))) from None
    except StopIteration:
        raise ScheduleError(f"invalid cron pattern {text!r:.120}: no day of any year fits it. {_HELP}") from None
    is_hourly = len(simulated.hours) == 24
    if is_hourly:  # in any spelling: cronsim treats a bare "0-23" differently
        parts = fields.split()
        fields = " ".join([*parts[:-4], "*", *parts[-3:]])
    return Cron(text, fields, is_hourly=is_hourly)


def _complaint(text: str, fields: str, bad: str) -> str:
    parts = fields.split()
    names = list(_FIELDS)[-len(parts) :]
    if bad not in names:
        return f"invalid cron pattern {text!r:.120}: {bad}. {_HELP}"
    found = parts[names.index(bad)]
    if bad == "day-of-month" and found.isdigit() and 1 <= int(found) <= 31:
        return f"invalid cron pattern {text!r:.120}: its months have no day {found}. {_HELP}"
    return f"invalid cron pattern {text!r:.120}: {bad} must be {_FIELDS[bad]}, got {found!r:.40}. {_HELP}"


def _simulate(fields: str, start: datetime) -> CronSim:
    # Imported late: a worker imports flows and needs no schedules.
    from cronsim import CronSim

    return CronSim(fields, start)


def _when_shown(shown: datetime, tz: tzinfo) -> datetime:
    """Return the first moment at which a clock in `tz` shows this time; if the clock skips it, the end of the skip."""
    while not _is_shown(found := shown.replace(tzinfo=tz), tz):
        shown = shown.replace(second=0) + timedelta(minutes=1)
    return found


def _is_shown(found: datetime, tz: tzinfo) -> bool:
    return found.astimezone(UTC).astimezone(tz).replace(tzinfo=None) == found.replace(tzinfo=None)


class Schedule(msgspec.Struct, omit_defaults=True):
    """The progress of one schedule: part of the state of its flow, and saved with it.

    Attributes:
        pattern: The pattern as it was given.
        since: Seconds since the epoch. All firings up to then are handled.
        last: When it last fired; None if it never fired.
        is_due: Whether it has fired, and no pass has begun since then.
        is_open: Whether it is true in the passes.
    """

    pattern: str
    since: float
    last: float | None = None
    is_due: bool = False
    is_open: bool = False


class ScheduleView(msgspec.Struct, frozen=True):
    """A schedule, for people.

    Attributes:
        flow: Name of the flow that uses it.
        key: Its key among the flow's schedules; see `App.trigger`.
        pattern: The pattern as it was given.
        last: When it last fired, in seconds since the epoch; None if it never fired.
        next: When it fires next, in seconds since the epoch.
        is_true: Whether it is true in the present passes, or will be in the next one.
    """

    flow: str
    key: str
    pattern: str
    last: float | None
    next: float
    is_true: bool


class ScheduleRegistry(Generic[K]):
    """All schedules of an app: decides when each is due, and which ones are true in a pass.

    Moments are seconds since the epoch. It belongs to one thread at a time.

    Args:
        tz: The time zone of the clock.
    """

    def __init__(self, tz: tzinfo) -> None:
        self._tz = tz
        self._schedules: dict[K, Schedule] = {}
        self._next: dict[K, float] = {}
        # The schedules that the present pass has seen as true.
        self._seen: set[K] = set()

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._schedules))

    def get(self, key: K) -> Schedule | None:
        """Return the schedule of that key, None if it is not found."""
        return self._schedules.get(key)

    def add(self, key: K, schedule: Schedule) -> None:
        """Add a schedule. The registry changes it in place, so the caller's object stays up to date.

        Raises:
            ScheduleError: Its pattern is invalid.
        """
        following = self._following(schedule, schedule.since)
        self._schedules[key] = schedule
        self._next[key] = following

    def drop(self, keys: Iterable[K]) -> None:
        """Forget the schedules of these keys."""
        for key in keys:
            del self._schedules[key], self._next[key]
            self._seen.discard(key)

    def advance(self, now: float) -> bool:
        """Fire each schedule whose time has come, once even if it missed several. Return whether any fired."""
        has_fired = False
        for key, schedule in self._schedules.items():
            if now < schedule.since - _REPLAYED:
                self._account(key, now)
            if self._next[key] <= now and not schedule.is_due:
                schedule.is_due, schedule.last = True, now
                self._account(key, now)
                has_fired = True
        return has_fired

    def trigger(self, key: K, now: float) -> None:
        """Fire a schedule now, in addition to its pattern."""
        schedule = self._schedules[key]
        schedule.is_due, schedule.last = True, now

    def wake_at(self) -> float | None:
        """Return when to `advance` next, None if there is nothing to wait for. Schedules that are due do not count."""
        return min((self._next[key] for key, one in self._schedules.items() if not one.is_due), default=None)

    def begin(self, now: float) -> None:
        """Begin a pass: the schedules that are due at `now` are true in it."""
        self.advance(now)
        self._seen.clear()
        for key, schedule in self._schedules.items():
            if schedule.is_due and not schedule.is_open:
                schedule.is_due, schedule.is_open = False, True
                self._account(key, max(now, schedule.since))

    def ask(self, key: K) -> bool:
        """Return whether the schedule is true in the present pass."""
        if self._schedules[key].is_open:
            self._seen.add(key)
            return True
        return False

    def is_overtaken(self, key: K, now: float) -> bool:
        """Return whether the schedule has fired again before a pass could begin that sees the first firing."""
        return self._schedules[key].is_due and self._next[key] <= now

    def end(self, *, is_complete: bool) -> bool:
        """End a pass. If it completed, the schedules that it saw become false. Return whether any did."""
        seen, self._seen = self._seen, set()
        if is_complete:
            for key in seen:
                self._schedules[key].is_open = False
        return is_complete and bool(seen)

    @property
    def schedule_fired(self) -> bool:
        """Whether the present pass has seen a schedule as true."""
        return bool(self._seen)

    @property
    def has_due(self) -> bool:
        """Whether a new pass would see a firing that the present pass does not see."""
        return any(schedule.is_due and not schedule.is_open for schedule in self._schedules.values())

    def view(self, key: K, now: float, flow: str, name: str) -> ScheduleView:
        """Return a schedule, for people."""
        schedule = self._schedules[key]
        following = self._following(schedule, max(now, schedule.since)) if schedule.is_due else self._next[key]
        return ScheduleView(flow, name, schedule.pattern, schedule.last, following, schedule.is_due or schedule.is_open)

    def _account(self, key: K, now: float) -> None:
        schedule = self._schedules[key]
        schedule.since = now
        self._next[key] = self._following(schedule, now)

    def _following(self, schedule: Schedule, moment: float) -> float:
        return Cron.parse(schedule.pattern).next_after(datetime.fromtimestamp(moment, UTC), self._tz).timestamp()
