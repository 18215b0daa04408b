"""Changes in a running app, as data. Readers are the HTTP feed, the terminal and `App.changes`."""

from __future__ import annotations

from typing import Any

import msgspec

from lightwork.status import WorkStatus

__all__ = ["Change", "ComponentAdded", "ComponentRemoved", "LogLine", "StateChanged", "StatusChanged"]


class StateChanged(msgspec.Struct, frozen=True, tag="state"):
    """One edit of one component's state was applied.

    Attributes:
        name: The component, ``root.trials.0``.
        path: The attribute, then the keys and indices into its value.
        kind: ``set``, ``delete``, ``splice`` (of a list) or ``update`` (of a set).
        value: ``set``: the new value. ``splice``: ``(start, removed count, inserted)``. ``update``: ``(added,
            removed)``. ``delete``: None. Plain values, never the live containers.
    """

    name: str
    path: tuple[Any, ...]
    kind: str
    value: Any


class StatusChanged(msgspec.Struct, frozen=True, tag="status", gc=False):
    """A work, or one of its calls, entered a stage."""

    name: str
    status: WorkStatus


class LogLine(msgspec.Struct, frozen=True, tag="log"):
    """A work wrote a line to its output.

    Attributes:
        name: The work.
        text: The line, without the line end.
        time: Seconds since the epoch, by the scheduler's clock.
        seq: Number of the line, increasing over all works of a run; 0 if lines are not numbered.
    """

    name: str
    text: str
    time: float
    seq: int = 0


class ComponentAdded(msgspec.Struct, frozen=True, tag="added"):
    """A component came into the tree."""

    name: str


class ComponentRemoved(msgspec.Struct, frozen=True, tag="removed"):
    """A component left the tree."""

    name: str


Change = StateChanged | StatusChanged | LogLine | ComponentAdded | ComponentRemoved
