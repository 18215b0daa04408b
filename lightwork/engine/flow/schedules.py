"""The schedules of a running app: one timer for the earliest of them, and the answers that passes get.

`lightwork.components.cron.ScheduleRegistry` decides. Here are the clock, the time zone and the timer. A plain pass asks
in a thread of its own, so a lock guards the registry.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from lightwork._logging import get_logger
from lightwork.components.cron import Schedule, ScheduleRegistry, ScheduleView
from lightwork.components.flow import Flow
from lightwork.engine.changes import ChangeHub
from lightwork.engine.flow.wall_timer import WallClockTimer, has_wall_alarms

__all__ = ["LocalZone", "Schedules"]

_MAX_WAIT = 60.0
"""Seconds that a timer of the loop may be set for, where there are no `WallClockTimer`s: loops count elapsed time, and
somebody may set the wall clock meanwhile."""

_MIN_WAIT = 0.001
"""Seconds that it is set for at least: the loop's clock may be ahead of the wall clock by less."""

_log = get_logger("lightwork.schedule")


class LocalZone(tzinfo):
    """The time zone of this machine, with its daylight-saving rules, as the C library knows them."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """Seconds ahead of UTC at a moment whose face is local."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Not known."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """The zone's abbreviation at that moment."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """The local face of a moment in UTC."""
        return datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


class Schedules:
    """What an app knows of its flows' schedules. `ask` and `end_pass` are for any thread, the rest for the loop's.

    Args:
        loop: The app's event loop.
        hub: Told when a schedule fires, so that a pass runs.
        clock: Seconds since the epoch.
        tz: Where the clock hangs; None for this machine's zone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hub: ChangeHub,
        *,
        clock: Callable[[], float] = time.time,
        tz: tzinfo | None = None,
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._clock = clock
        self._tz = tz or LocalZone()
        self._registry: ScheduleRegistry[tuple[Flow, str]] = ScheduleRegistry(self._tz)
        self._lock = threading.Lock()
        self._has_alarms = clock is time.time and has_wall_alarms()
        self._timer: asyncio.TimerHandle | WallClockTimer | None = None
        self._is_closed = False
        self._warned: set[tuple[Flow, str]] = set()

    # --- asked by flows ---------------------------------------------------------------------------

    def ask(self, flow: Flow, key: str, pattern: str, start: datetime | None) -> bool:
        """See `Flow.schedule`.

        Raises:
            ScheduleError: `pattern` is none.
        """
        place = (flow, key)
        now = self._clock()
        with self._lock:
            schedule = flow._progress.schedules.get(key)
            is_new = schedule is None or schedule is not self._registry.get(place)
            if is_new:  # or restored from a checkpoint meanwhile
                schedule = schedule or Schedule(pattern, self._moment(start, now))
                self._registry.add(place, schedule)
                flow._progress.schedules[key] = schedule
            answer = self._registry.ask(place)
            is_overtaken = not answer and place not in self._warned and self._registry.is_overtaken(place, now)
        if is_new:
            self._in_loop_soon(self._arm)
        if is_overtaken:
            self._warned.add(place)
            _log.warning(
                "a schedule has fired more than once during a pass: only a pass that begins after a firing sees it, "
                "so let run return",
                flow=flow.name,
                pattern=pattern,
            )
        return answer

    def _moment(self, start: datetime | None, now: float) -> float:
        if start is None:
            return now
        # A firing at the very start counts.
        return (start if start.tzinfo else start.replace(tzinfo=self._tz)).timestamp() - 1e-3

    def _in_loop_soon(self, act: Callable[[], None]) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    # --- told by passes ---------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """A pass of the root begins: what has fired by now is true in it."""
        with self._lock:
            self._registry.begin(self._clock())

    def end_pass(self, *, is_complete: bool) -> bool:
        """It has ended, by itself or at a call that it needs. Gives whether a schedule's answer has changed by that."""
        with self._lock:
            is_over = self._registry.end(is_complete=is_complete)
            has_due = self._registry.has_due
        self._in_loop_soon(self._arm)
        return is_over or has_due

    @property
    def schedule_fired(self) -> bool:
        """Whether the present pass was told that a schedule is true."""
        return self._registry.schedule_fired

    # --- for people -------------------------------------------------------------------------------

    def views(self) -> list[ScheduleView]:
        """Every schedule that a flow in the tree has asked for, the next to fire first."""
        now = self._clock()
        with self._lock:
            self._drop_removed()
            views = [self._registry.view(place, now, place[0].name, place[1]) for place in self._registry]
        return sorted(views, key=lambda view: view.next)

    def trigger(self, flow: str, key: str) -> None:
        """Let a schedule fire now.

        Raises:
            KeyError: There is none such.
        """
        with self._lock:
            found = [place for place in self._registry if place[0].name == flow and place[1] == key]
            if not found:
                raise KeyError(f"{flow} has asked for no schedule {key!r}")
            self._registry.trigger(found[0], self._clock())
        self._hub.changed()

    # --- the timer --------------------------------------------------------------------------------

    def close(self) -> None:
        """Fire no more."""
        self._is_closed = True
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._disarm()
        with self._lock:
            wake_at = self._registry.wake_at()
        if wake_at is None or self._is_closed:
            return
        soonest = self._clock() + _MIN_WAIT
        if self._has_alarms:
            self._timer = WallClockTimer(self._loop, max(wake_at, soonest), self._on_timer)
        else:
            delay = min(max(wake_at, soonest) - self._clock(), _MAX_WAIT)
            self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        with self._lock:
            self._drop_removed()
            has_fired = self._registry.advance(self._clock())
        self._arm()
        if has_fired:
            self._hub.changed()

    def _drop_removed(self) -> None:
        """Forget the schedules of flows that have left the tree."""
        self._registry.drop([place for place in self._registry if place[0]._driver is None])
