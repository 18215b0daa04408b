"""The data of the live view: one row for each work, updated by changes. No clock and no terminal here."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, assert_never

from lightwork.changes import Change, ComponentAdded, ComponentRemoved, LogLine, StateChanged, StatusChanged
from lightwork.status import Stage, WorkStatus

__all__ = ["MAX_SERIES", "Board", "BoardRow", "Series", "sparkline"]

_HISTORY = 64
"""Maximum number of kept values of a series. It exceeds the width of every sparkline."""

MAX_SERIES = 32
"""Maximum number of series of a component. A dictionary with a million numbers must not fill the memory."""

# The stages by urgency. If not all works fit on the terminal, they are shown in this order.
_ORDER = (
    Stage.FAILED,
    Stage.RUNNING,
    Stage.PENDING,
    Stage.STARTED,
    Stage.STOPPED,
    Stage.SUCCEEDED,
    Stage.NOT_STARTED,
)
_RANK = {stage: rank for rank, stage in enumerate(_ORDER)}
_BARS = "▁▂▃▄▅▆▇█"

Series = deque[float]


class BoardRow:
    """The row of one work.

    Attributes:
        name: Full name of the work.
        status: The latest status.
        done: Number of calls that succeeded.
        failures: Number of calls that failed.
        running: Number of each running call to the time at which it began to run.
        elapsed: Seconds that the latest call took; None before a call has ended.
    """

    __slots__ = ("done", "elapsed", "failures", "name", "running", "status")

    def __init__(self, name: str, status: WorkStatus, done: int = 0) -> None:
        self.name: str = name
        self.status: WorkStatus = status
        self.done: int = done
        self.failures: int = 0
        self.running: dict[int | None, float] = {}
        self.elapsed: float | None = None

    @property
    def stage(self) -> Stage:
        """`Stage.RUNNING` while any call runs, otherwise the stage of the latest status."""
        return Stage.RUNNING if self.running else self.status.stage

    def take(self, status: WorkStatus) -> None:
        """Process the next status."""
        self.status = status
        if status.stage is Stage.RUNNING:
            self.running[status.call] = status.timestamp
            return
        if not status.stage.is_final:
            return
        since = self.running.pop(status.call, None)
        if since is not None:
            self.elapsed = max(0.0, status.timestamp - since)
        if status.call is None:
            self.running.clear()  # the work itself has ended
        elif status.stage is Stage.SUCCEEDED:
            self.done += 1
        elif status.stage is Stage.FAILED:
            self.failures += 1

    def seconds(self, now: float) -> float | None:
        """Return how long the oldest running call has run, or how long the latest call took."""
        if self.running:
            return max(0.0, now - min(self.running.values()))
        return self.elapsed


class Board:
    """The rows of all works in order of appearance, and the numbers and texts of every component."""

    def __init__(self) -> None:
        self.rows: dict[str, BoardRow] = {}
        self.numbers: dict[str, dict[str, Series]] = {}
        self.texts: dict[str, str] = {}
        self._running: set[str] = set()

    @property
    def is_running(self) -> bool:
        """Whether any work runs. The elapsed time of a running work changes without an event."""
        return bool(self._running)

    def add(self, name: str, status: WorkStatus, done: int = 0) -> None:
        """Add the row of a present work, with its status and the number of its calls that succeeded."""
        row = self.rows[name] = BoardRow(name, status, done)
        if status.stage is Stage.RUNNING:
            row.take(status)
            self._running.add(name)

    def apply(self, change: Change) -> bool:
        """Process a change, and return whether the shown data changed."""
        match change:
            case StatusChanged(name=name, status=status):
                self._take_status(name, status)
                return True
            case StateChanged():
                return self._take_state(change)
            case ComponentRemoved(name=name):
                return self._remove(name)
            case LogLine() | ComponentAdded():
                return False
            case _:
                assert_never(change)

    def stages(self, rows: Iterable[BoardRow]) -> Counter[Stage]:
        """Count the rows in each stage."""
        return Counter(row.stage for row in rows)

    def select(self, limit: int) -> tuple[list[BoardRow], list[BoardRow]]:
        """Return the rows to show, at most `limit`, and the rows that are left out.

        If all rows fit, they are in order of appearance. Otherwise failed works come first, then running works.
        """
        rows = list(self.rows.values())
        if len(rows) <= limit:
            return rows, []
        rows.sort(key=lambda row: _RANK[row.stage])
        return rows[:limit], rows[limit:]

    def labels(self, rows: Iterable[BoardRow], limit: int) -> list[str]:
        """Return the labels of at most `limit` series: those that most of these rows have, most common first."""
        counts = Counter(label for row in rows for label in self.numbers.get(row.name, ()))
        return [label for label, _ in counts.most_common(limit)]

    def _take_status(self, name: str, status: WorkStatus) -> None:
        row = self.rows.get(name)
        if row is None:
            row = self.rows[name] = BoardRow(name, status)
        row.take(status)
        if row.running:
            self._running.add(name)
        else:
            self._running.discard(name)

    def _take_state(self, change: StateChanged) -> bool:
        label = ".".join(str(part) for part in change.path)
        if not change.path or label.startswith("_"):
            return False
        if change.kind == "set" and isinstance(change.value, str) and len(change.path) == 1:
            self.texts[f"{change.name}.{label}"] = change.value
            return change.name not in self.rows
        values = _numbers_in(change)
        if not values or label == "port":  # a port is a number, but its course says nothing
            return False
        series = self.numbers.setdefault(change.name, {})
        if label not in series:
            if len(series) >= MAX_SERIES:
                return False
            series[label] = deque(maxlen=_HISTORY)
        series[label].extend(values)
        return True

    def _remove(self, name: str) -> bool:
        below = f"{name}."
        gone = [other for other in self.rows if other == name or other.startswith(below)]
        for other in gone:
            del self.rows[other]
            self._running.discard(other)
        for other in [other for other in self.numbers if other == name or other.startswith(below)]:
            del self.numbers[other]
        for other in [other for other in self.texts if other.startswith(below)]:
            del self.texts[other]
        return bool(gone)


def sparkline(values: Iterable[float], width: int) -> str:
    """Draw the last `width` values as bars between the lowest and the highest value; empty for less than two values."""
    last = [value for value in values if math.isfinite(value)][-width:]
    if len(last) < 2 or width < 2:
        return ""
    low, high = min(last), max(last)
    if high == low:
        return _BARS[0] * len(last)
    # Halve before subtracting: the difference of two floats can exceed the largest float.
    span = high / 2 - low / 2
    return "".join(_BARS[min(7, int((value / 2 - low / 2) / span * 8))] for value in last)


def _numbers_in(change: StateChanged) -> list[float]:
    """Return the numbers in a change: a number that was set, or numbers that were inserted into a list."""
    if change.kind == "set":
        return [change.value] if _is_number(change.value) else []
    if change.kind == "splice":
        inserted: Any = change.value[2]
        # The last values are enough: a series keeps no more.
        return [value for value in list(inserted)[-_HISTORY:] if _is_number(value)]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
