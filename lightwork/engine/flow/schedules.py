"""The schedules of a running app: one timer for the earliest of them, and the answers that passes get.

`lightwork.components.cron.ScheduleRegistry` decides. This module adds the clock, the time zone and the timer. A plain
pass asks in a separate thread, so a lock guards the registry.
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
"""Longest time of a loop timer, in seconds, on a system without `WallClockTimer`: the loop counts elapsed time, and the
wall clock may be set meanwhile."""

_MIN_WAIT = 0.001
"""Shortest time of a timer, in seconds. The loop's clock is ahead of the wall clock by less than this."""

_log = get_logger("lightwork.schedule")


class LocalZone(tzinfo):
    """The time zone of this machine, with its daylight-saving rules, from the C library."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """Return the offset from UTC at a local time."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Return None: the daylight-saving part of the offset is not known."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """Return the zone's abbreviation at a local time."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """Convert a time in UTC to local time."""
        return datetime.fromtimestamp(moment.replace(tzinfo=UTC).timestamp()).replace(tzinfo=self)


class Schedules:
    """The schedules of an app's flows. `ask` and `end_pass` may be called in any thread, the rest in the loop's thread.

    Args:
        loop: The app's event loop.
        hub: Notified when a schedule fires, so that a pass runs.
        clock: Returns the seconds since the epoch.
        tz: Time zone of the schedules; None for this machine's zone.
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

    # --- called by flows --------------------------------------------------------------------------

    def ask(self, flow: Flow, key: str, pattern: str, start: datetime | None) -> bool:
        """See `Flow.schedule`.

        Raises:
            ScheduleError: `pattern` is invalid.
        """
        place = (flow, key)
        now = self._clock()
        with self._lock:
            schedule = flow._progress.schedules.get(key)
            is_new = schedule is None or schedule is not self._registry.get(place)
            if is_new:  # or it was restored from a checkpoint
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
                "a schedule has fired more than once during a pass: only a pass that begins after the firing sees it, "
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

    # --- called by passes -------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Handle the beginning of a pass of the root. In it, schedules that have fired by now are true."""
        with self._lock:
            self._registry.begin(self._clock())

    def end_pass(self, *, is_complete: bool) -> bool:
        """Handle the end of the pass, complete or at a call that it needs; return whether a schedule's answer changes.

        A schedule's answer changes if the pass has handled its firing, or if it fired during the pass.
        """
        with self._lock:
            is_over = self._registry.end(is_complete=is_complete)
            has_due = self._registry.has_due
        self._in_loop_soon(self._arm)
        return is_over or has_due

    @property
    def schedule_fired(self) -> bool:
        """Whether the current pass has seen that a schedule has fired."""
        return self._registry.schedule_fired

    # --- for people -------------------------------------------------------------------------------

    def views(self) -> list[ScheduleView]:
        """Return every schedule of the flows in the tree, the next to fire first."""
        now = self._clock()
        with self._lock:
            self._drop_removed()
            views = [self._registry.view(place, now, place[0].name, place[1]) for place in self._registry]
        return sorted(views, key=lambda view: view.next)

    def trigger(self, flow: str, key: str) -> None:
        """Fire a schedule now.

        Raises:
            KeyError: The flow has no schedule of that key.
        """
        with self._lock:
            found = [place for place in self._registry if place[0].name == flow and place[1] == key]
            if not found:
                raise KeyError(f"{flow} has no schedule {key!r}; a schedule exists once run has called `schedule`")
            self._registry.trigger(found[0], self._clock())
        self._hub.changed()

    # --- the timer --------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop firing."""
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
        """Remove the schedules of flows that have left the tree."""
        self._registry.drop([place for place in self._registry if place[0]._driver is None])
