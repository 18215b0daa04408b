"""Something that goes off at a moment of the wall clock, and when somebody sets that clock.

Timers of event loops count elapsed time: one that waits for three o'clock is wrong as soon as the clock is set. The
kernel of Linux has a timer for just that, which wakes nobody before. `os` offers it from Python 3.13 on.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable

__all__ = ["WallClockTimer", "has_wall_alarms"]

_CLOCK_REALTIME = 0
_ABSOLUTE, _CANCEL_ON_SET = 1, 2


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSetting(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


def has_wall_alarms() -> bool:
    """Whether this system has them: Linux with a C library that offers them."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "timerfd_create")


class WallClockTimer:
    """Calls `fn` once in the loop: at `moment`, or as soon as the clock was set, for then the moment may be another.

    Args:
        loop: The event loop; one with ``add_reader``.
        moment: Seconds since the epoch; one that has passed goes off at once.
        fn: What to call.

    Raises:
        OSError: The system has no timer left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, moment: float, fn: Callable[[], None]) -> None:
        self._loop = loop
        self._fn = fn
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no timer could be made for a schedule")
        seconds, fraction = divmod(max(moment, 0.000_001), 1)  # 0 would turn it off
        setting = _TimerSetting(_TimeSpec(0, 0), _TimeSpec(int(seconds), int(fraction * 1e9)))
        if libc.timerfd_settime(self._fd, _ABSOLUTE | _CANCEL_ON_SET, ctypes.byref(setting), None) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, "a timer for a schedule could not be set")
        loop.add_reader(self._fd, self._on_readable)

    def cancel(self) -> None:
        """Never go off. May be repeated, also after it has gone off."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        # Not read: that it can be read says that the moment has come or, as an error of the read, that the clock
        # was set. Both are looked into by whoever is called.
        self.cancel()
        self._fn()
