"""Write the launch's name into /proc/PID/environ of a forked worker.

The kernel shows the environment with which a process was started, without later changes, and a fork keeps its parent's
environment. So the processes that a worker forks without exec would show the launcher's environment. For this reason
the launcher starts with a placeholder in its environment, and the child overwrites it with its launch's name, in place.
"""

from __future__ import annotations

import ctypes
import sys

from lightwork_runtimes.local._process import STAMP

__all__ = ["PLACEHOLDER", "StampWriter"]

PLACEHOLDER = "-" * 200
"""Placeholder value, as long as the longest name of a launch."""

_ENV_START, _ENV_END = 47, 48  # fields 50 and 51 of /proc/PID/stat, counted from the third as 0


class StampWriter:
    """Has the address of the placeholder in the memory of this process and of each child forked from it."""

    def __init__(self) -> None:
        self._address: int | None = None
        if sys.platform == "linux":
            self._address = _find()

    def write(self, name: str) -> None:
        """Overwrite the placeholder with `name`. Do nothing if there is no placeholder."""
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
