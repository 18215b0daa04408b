"""Making /proc/PID/environ of a forked worker tell its launch.

The kernel shows the environment with which a process was started, not what it set later, and a fork keeps
its parent's. What a worker forks and never execs would show the launcher's. So the launcher is started
with a placeholder in its environment, and the child writes its launch's name over it, in place.
"""

from __future__ import annotations

import ctypes
import sys

from lightwork_runtimes.local._process import STAMP

__all__ = ["PLACEHOLDER", "StampWriter"]

PLACEHOLDER = "-" * 200
"""As long as the longest name of a launch."""

_ENV_START, _ENV_END = 47, 48  # fields 50 and 51 of /proc/PID/stat, counted from the third as 0


class StampWriter:
    """Knows where the placeholder is in this process's memory, and so in that of each child forked from it."""

    def __init__(self) -> None:
        self._address: int | None = None
        if sys.platform == "linux":
            self._address = _find()

    def write(self, name: str) -> None:
        """Put `name` where the placeholder is, if there is one."""
        if self._address is not None:
            ctypes.memmove(self._address, name.encode().ljust(len(PLACEHOLDER), b"\0"), len(PLACEHOLDER))


def _find() -> int | None:
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    if not start:  # hidden by the kernel
        return None
    wanted = f"{STAMP}={PLACEHOLDER}".encode()
    offset = ctypes.string_at(start, end - start).find(wanted)
    return None if offset < 0 else start + offset + len(STAMP) + 1
