"""Whether a process that was killed was killed because memory ran out."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["OomCounter"]


class OomCounter:
    """Follows the kernel's count of out-of-memory kills in this process's control group.

    The count says how many, not who. So each kill is used to explain one death at most, and only deaths by
    a SIGKILL that nobody here sent are asked about.

    Args:
        file: Where the count is, None for the control group's own file.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or _counter_file()
        self._seen = self._read()

    def take(self) -> bool:
        """Use up one kill that has not explained a death yet; False if there is none."""
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
    """``memory.events`` (version 2 of control groups) or ``memory.oom_control`` (version 1), if it can be read."""
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
