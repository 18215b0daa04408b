"""When schedules fire: cron patterns on the wall clock, and which passes of a flow see a firing.

All of it is a function of the moment that it is given: no clock, timer or time zone of this machine is read here.

A pattern says what the face of a clock must show. One that is for certain hours fires once for each time it
names: at a time that the clock skips, when the skip is over; at a time that it shows twice, the first time. One for
every hour (``0 * * * *``) is about elapsed time instead: it fires in both of two equal hours.

A firing belongs to passes, not to moments. It is true from the first line to the last of the first pass that begins
after it and asks. It is over when that pass comes to its end: one that is cut short leaves it to the next.
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
"""Patterns that have a name; ``@hourly`` is ``hourly``."""

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
"""Seconds by which a clock may be set back without a firing being repeated. Beyond that it is a new time, as in cron.

It is more than any change to or from daylight-saving time, which some machines make by setting the clock.
"""


class Cron:
    """A cron pattern that has been understood.

    Attributes:
        text: As it was given.
        fields: The pattern itself, five or six fields.
    """

    def __init__(self, text: str, fields: str, *, is_hourly: bool) -> None:
        self.text = text
        self.fields = fields
        self._is_hourly = is_hourly

    @staticmethod
    def parse(text: str) -> Cron:
        """Understand five fields, six with seconds in front, or a name such as ``hourly`` or ``@daily``.

        Raises:
            ScheduleError: It is none of these, or no day ever fits it. Names the field and gives an example.
        """
        if not isinstance(text, str):
            raise ScheduleError(f"{text!r:.80} is no schedule but a {type(text).__name__}. {_HELP}")
        return _parse(text)

    def next_after(self, moment: datetime, tz: tzinfo) -> datetime:
        """The first time after `moment` at which it fires, where clocks show the time of `tz`.

        Args:
            moment: With a time zone, any.
            tz: Where the clock hangs.

        Raises:
            ScheduleError: There is none within fifty years.
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
            # In the second of two equal hours the clock shows what has been: that is over. Times that are
            # compared within one zone are compared by their faces, so both go to UTC first.
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
        raise ScheduleError(f"{text!r:.120} is no schedule{hint} {_HELP}")
    from cronsim import CronSimError

    try:
        simulated = _simulate(fields, datetime(2000, 1, 1))
        next(simulated)
    except CronSimError as error:
        raise ScheduleError(_complaint(text, fields, str(error).removeprefix("Bad "))) from None
    except StopIteration:
        raise ScheduleError(f"{text!r:.120} is no schedule: no day of any year fits it. {_HELP}") from None
    is_hourly = len(simulated.hours) == 24
    if is_hourly:  # however it was spelt: the simulation has a rule of its own for a bare "0-23"
        parts = fields.split()
        fields = " ".join([*parts[:-4], "*", *parts[-3:]])
    return Cron(text, fields, is_hourly=is_hourly)


def _complaint(text: str, fields: str, bad: str) -> str:
    parts = fields.split()
    names = list(_FIELDS)[-len(parts) :]
    if bad not in names:
        return f"{text!r:.120} is no schedule: {bad}. {_HELP}"
    found = parts[names.index(bad)]
    if bad == "day-of-month" and found.isdigit() and 1 <= int(found) <= 31:
        return f"{text!r:.120} is no schedule: its months have no day {found}. {_HELP}"
    return f"{text!r:.120} is no schedule: its {bad} is {found!r:.40}, and may be {_FIELDS[bad]}. {_HELP}"


def _simulate(fields: str, start: datetime) -> CronSim:
    # Imported late: a worker imports flows, and schedules nothing.
    from cronsim import CronSim

    return CronSim(fields, start)


def _when_shown(shown: datetime, tz: tzinfo) -> datetime:
    """The first moment at which a clock in `tz` shows this time, or the end of the gap that it skips it in."""
    while not _is_shown(found := shown.replace(tzinfo=tz), tz):
        shown = shown.replace(second=0) + timedelta(minutes=1)
    return found


def _is_shown(found: datetime, tz: tzinfo) -> bool:
    return found.astimezone(UTC).astimezone(tz).replace(tzinfo=None) == found.replace(tzinfo=None)


class Schedule(msgspec.Struct, omit_defaults=True):
    """What has become of one schedule so far: part of the state of its flow, and kept with it.

    Attributes:
        pattern: As it was given.
        since: Seconds since the epoch up to which firings are accounted for.
        last: When it last fired, None if it never has.
        is_due: Whether it has fired, and no pass that begins sees it yet.
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
        flow: Name of the flow that asks for it.
        key: Tells it from the flow's others; see `App.trigger`.
        pattern: As it was given.
        last: When it last fired, in seconds since the epoch; None if it never has.
        next: When it fires next.
        is_true: Whether passes see it as true, or the next one will.
    """

    flow: str
    key: str
    pattern: str
    last: float | None
    next: float
    is_true: bool


class ScheduleRegistry(Generic[K]):
    """Decides for all schedules of an app what is due when, and what a pass is told.

    Moments are seconds since the epoch. It belongs to one thread at a time.

    Args:
        tz: Where the clock hangs.
    """

    def __init__(self, tz: tzinfo) -> None:
        self._tz = tz
        self._schedules: dict[K, Schedule] = {}
        self._next: dict[K, float] = {}
        # Those that the present pass was told are true.
        self._seen: set[K] = set()

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._schedules))

    def get(self, key: K) -> Schedule | None:
        """The one of that key, None if there is none."""
        return self._schedules.get(key)

    def add(self, key: K, schedule: Schedule) -> None:
        """Take one in. It is changed in place, so whoever keeps it, keeps what happens to it.

        Raises:
            ScheduleError: Its pattern is none.
        """
        following = self._following(schedule, schedule.since)
        self._schedules[key] = schedule
        self._next[key] = following

    def drop(self, keys: Iterable[K]) -> None:
        """Forget some."""
        for key in keys:
            del self._schedules[key], self._next[key]
            self._seen.discard(key)

    def advance(self, now: float) -> bool:
        """It is `now`: what has come, fires, once however often it was missed. Gives whether anything did."""
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
        """Let one fire now, besides its pattern."""
        schedule = self._schedules[key]
        schedule.is_due, schedule.last = True, now

    def wake_at(self) -> float | None:
        """When to `advance` next, None if there is nothing to wait for. While one is due, more of it adds nothing."""
        return min((self._next[key] for key, one in self._schedules.items() if not one.is_due), default=None)

    def begin(self, now: float) -> None:
        """A pass begins: what is due by now is true in it."""
        self.advance(now)
        self._seen.clear()
        for key, schedule in self._schedules.items():
            if schedule.is_due and not schedule.is_open:
                schedule.is_due, schedule.is_open = False, True
                self._account(key, max(now, schedule.since))

    def ask(self, key: K) -> bool:
        """Whether it is true in the present pass."""
        if self._schedules[key].is_open:
            self._seen.add(key)
            return True
        return False

    def is_overtaken(self, key: K, now: float) -> bool:
        """Whether it has fired more than once while no pass could begin that would have seen it."""
        return self._schedules[key].is_due and self._next[key] <= now

    def end(self, *, is_complete: bool) -> bool:
        """The pass ends; if it came to its end, what it saw as true is over. Gives whether anything is."""
        seen, self._seen = self._seen, set()
        if is_complete:
            for key in seen:
                self._schedules[key].is_open = False
        return is_complete and bool(seen)

    @property
    def schedule_fired(self) -> bool:
        """Whether the present pass was told that a schedule is true."""
        return bool(self._seen)

    @property
    def has_due(self) -> bool:
        """Whether a pass that begins would see something that the present one does not."""
        return any(schedule.is_due and not schedule.is_open for schedule in self._schedules.values())

    def view(self, key: K, now: float, flow: str, name: str) -> ScheduleView:
        """One of them, for people."""
        schedule = self._schedules[key]
        following = self._following(schedule, max(now, schedule.since)) if schedule.is_due else self._next[key]
        return ScheduleView(flow, name, schedule.pattern, schedule.last, following, schedule.is_due or schedule.is_open)

    def _account(self, key: K, now: float) -> None:
        schedule = self._schedules[key]
        schedule.since = now
        self._next[key] = self._following(schedule, now)

    def _following(self, schedule: Schedule, moment: float) -> float:
        return Cron.parse(schedule.pattern).next_after(datetime.fromtimestamp(moment, UTC), self._tz).timestamp()
