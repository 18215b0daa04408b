"""What happens in a running app, as data, for whoever watches: the feed, the terminal, `App.changes`."""

from __future__ import annotations

from typing import Any

import msgspec

from lightwork.status import WorkStatus

__all__ = ["Change", "ComponentAdded", "ComponentRemoved", "LogLine", "StateChanged", "StatusChanged"]


class StateChanged(msgspec.Struct, frozen=True, tag="state"):
    """One edit of one component's state was applied.

    Attributes:
        name: The component, ``root.trials.0``.
        path: Attribute first, then keys and indices into it.
        kind: ``set``, ``delete``, ``splice`` (of a list) or ``update`` (of a set).
        value: What was set; of a splice ``(start, removed count, inserted)``; of an update ``(added,
            removed)``; of a delete None. Plain values, never the live containers.
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
        text: The line, without its end.
        time: The scheduler's, in seconds since the epoch.
        seq: Its number, which grows over all works of a run; 0 where nobody counts.
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
