"""Wall-clock timers."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest

from lightwork import App, Flow
from lightwork.engine.flow.wall_timer import WallClockTimer, has_wall_alarms

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wall alarms are Linux's")


@pytest.mark.parametrize("ahead", [-5.0, 0.0, 0.05])
async def test_goes_off_at_its_moment(ahead: float) -> None:
    """A timer fires once, not before its moment, and at once if the moment has passed."""
    rung = asyncio.Event()
    moment = time.time() + ahead
    alarm = WallClockTimer(asyncio.get_running_loop(), moment, rung.set)
    await rung.wait()
    assert time.time() >= moment - 0.001  # the kernel's clock and ours are read at different precision
    alarm.cancel()


async def test_cancelled_never_goes_off() -> None:
    """A cancelled timer keeps no descriptor and does not fire; cancelling again does nothing."""
    rung: list[int] = []
    alarm = WallClockTimer(asyncio.get_running_loop(), time.time(), lambda: rung.append(1))
    alarm.cancel()
    alarm.cancel()
    later = asyncio.Event()
    WallClockTimer(asyncio.get_running_loop(), time.time() + 0.02, later.set)
    await later.wait()
    assert rung == []


async def test_goes_off_when_the_clock_is_set() -> None:
    """Setting the system's clock, even to its current time, fires a timer whose moment is far away."""
    rung = asyncio.Event()
    alarm = WallClockTimer(asyncio.get_running_loop(), time.time() + 1e6, rung.set)
    try:
        # This puts the clock back by a few microseconds, which no other program notices.
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
    except PermissionError:
        alarm.cancel()
        pytest.skip("this user may not set the clock")
    await rung.wait()


class Yearly(Flow):
    """A flow that waits for the new year."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = asyncio.Event()

    async def run(self) -> None:
        self.schedule("0 0 1 1 *")
        self._asked.set()


async def test_a_schedule_that_waits_wakes_nobody() -> None:
    """While an app waits for a schedule, its loop has no timer, so nothing wakes it early."""
    assert has_wall_alarms()
    loop: Any = asyncio.get_running_loop()
    flow = Yearly()
    async with App(flow, runtime="inprocess") as app:
        await flow._asked.wait()
        assert [view.pattern for view in app.schedules] == ["0 0 1 1 *"]
        assert [one for one in loop._scheduled if not one.cancelled()] == []
