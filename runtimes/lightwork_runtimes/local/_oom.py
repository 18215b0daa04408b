"""Detects whether a killed process was killed because memory ran out."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["OomCounter"]


class OomCounter:
    """Follows the kernel's count of out-of-memory kills in the control group of this process.

    The kernel counts kills but does not name the processes. So each kill explains at most one death, and the caller
    asks only about deaths by a SIGKILL that lightwork did not send.

    Args:
        file: File with the count; None for the file of this process's control group.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or _counter_file()
        self._seen = self._read()

    def take(self) -> bool:
        """Use one kill that has not explained a death yet. Return False if there is no such kill."""
        if self._read() <= self._seen:
            return False
        self._seen += 1
        return True

    def _read(self) -> int:
        if self._file is None:
            return 0
        try:
            text = self._file.read_text("ascii")
        except OSError:  # the control group was removed
            return 0
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
        return 0


def _counter_file() -> Path | None:
    """Find ``memory.events`` (control groups version 2) or ``memory.oom_control`` (version 1)."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return None
    candidates: list[Path] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            roots = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
            candidates += [Path(f"{root}{group}/memory.events") for root in roots]
        elif controllers == "memory":
            candidates.append(Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control"))
    return next((path for path in candidates if path.is_file()), None)
