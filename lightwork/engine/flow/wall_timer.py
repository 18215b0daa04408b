"""A wall-clock timer, which also fires when the clock is set.

Timers of event loops count elapsed time, so a timer for three o'clock is wrong as soon as the clock is set. The Linux
kernel has a timer on the wall clock (timerfd), which causes no wake-up before it fires. `os` offers it from Python 3.13
on.
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
    """Return whether this system has wall-clock timers: Linux, with a C library that offers timerfd."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "timerfd_create")


class WallClockTimer:
    """Calls `fn` once in the loop: at `moment`, or as soon as the clock is set.

    A set clock may change when `moment` comes, so `fn` must look at the clock.

    Args:
        loop: The event loop; it must have ``add_reader``.
        moment: Seconds since the epoch. A moment in the past fires at once.
        fn: The function to call.

    Raises:
        OSError: The system could not make or set a timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, moment: float, fn: Callable[[], None]) -> None:
        self._loop = loop
        self._fn = fn
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "cannot create the wall-clock timer of a schedule")
        seconds, fraction = divmod(max(moment, 0.000_001), 1)  # 0 would disarm the timer
        setting = _TimerSetting(_TimeSpec(0, 0), _TimeSpec(int(seconds), int(fraction * 1e9)))
        if libc.timerfd_settime(self._fd, _ABSOLUTE | _CANCEL_ON_SET, ctypes.byref(setting), None) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, "cannot set the wall-clock timer of a schedule")
        loop.add_reader(self._fd, self._on_readable)

    def cancel(self) -> None:
        """Cancel the timer. May be repeated, also after it has fired."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        # The descriptor is not read. It becomes readable when the moment has come, or when the clock was set (a read
        # would then fail). `fn` handles both cases.
        self.cancel()
        self._fn()
