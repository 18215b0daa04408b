"""The tree of a state's tracked containers: parents, paths, and the conversion of assigned values.

The containers are in `lightwork.state.containers`, which registers them here.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, Final, SupportsIndex

from lightwork.errors import StateError
from lightwork.state.ops import Op
from lightwork.state.values import (
    ADVICE,
    MAX_DEPTH,
    PLAIN,
    SCALARS,
    Refusal,
    checked_key,
    exact_bytes,
    frozen,
    leaf,
    member,
    most_bytes,
    too_deep,
)

__all__ = [
    "CONTAINERS",
    "MISSING",
    "NOWHERE",
    "Path",
    "Root",
    "Tracked",
    "attach",
    "detach",
    "locate",
    "plain",
    "spell",
]

Path = list[Any]

_SMALL: Final = frozenset({type(None), bool, int, float})
"""Types whose values are never too long to send."""


class _MissingValue:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _MissingValue()
"""Marks a missing value."""

_NEAR = 32
"""Distance to search around a stale hint before renumbering the list: a queue shifts by a few between two edits."""


class Root:
    """The data that all containers of one state share.

    Attributes:
        owner: The name of the state's owner, for messages.
        lock: Held during an edit and the call of the sink.
        sink: Called with each op after the edit, under the lock; None for no sink.
        guard: Called with the path before each edit, under the lock. If it raises, the edit is not made.
        max_bytes: Longest value that one edit may add, in bytes when packed and encoded; None for no limit.
        explain: Called with a value of a type that the state cannot hold, and with its intended place. Returns the
            error to raise instead of the general one, or None.
    """

    __slots__ = ("__weakref__", "explain", "guard", "lock", "max_bytes", "owner", "sink")

    def __init__(self, owner: str) -> None:
        self.owner: str = owner
        self.lock: threading.RLock = threading.RLock()
        self.sink: Callable[[Op], None] | None = None
        self.guard: Callable[[Path], None] | None = None
        self.max_bytes: int | None = None
        self.explain: Callable[[Any, str], Exception | None] | None = None

    def adopt(self, value: Any, parent: Any, path: Path, key: Any) -> Any:
        """Return a copy of the value for the place `key` of the container `parent`, which is at `path`.

        Raises:
            StateError: If the state cannot hold the value, or if the value is too long to send.
        """
        made = self.copied(value, parent, path, key)
        if self.max_bytes is not None and type(made) not in _SMALL:
            self.check_size(made, [*path, key])
        return made

    def copied(self, value: Any, parent: Any, path: Path, key: Any) -> Any:
        """Return a copy like `adopt`, of any size: for values from the other side."""
        try:
            return attach(value, self, parent, key, len(path))
        except Refusal as refusal:
            raise self.error([*path, key], refusal) from None

    def check_size(self, value: Any, path: Path) -> None:
        """Raise `StateError` if a value of one edit at `path` is too long to send."""
        if self.max_bytes is None or most_bytes(value) <= self.max_bytes:
            return
        size = exact_bytes(value)
        if size > self.max_bytes:
            raise StateError(
                f"{spell(self.owner, path)}: the value is {size:,} bytes long, expected at most {self.max_bytes:,} in "
                "one change of the state. Keep it in a file, or raise max_frame in the configuration"
            )

    def key(self, key: Any, path: Path) -> Any:
        """Return the plain form of a new key of the dict at `path`; raise `StateError` if it has none."""
        try:
            return checked_key(key)
        except Refusal as refusal:
            raise self.error(path, refusal) from None

    def member(self, item: Any, path: Path) -> Any:
        """Return the plain form of a new item of the set at `path`; raise `StateError` if it has none."""
        try:
            return member(item, len(path))
        except Refusal as refusal:
            raise self.error(path, refusal) from None

    def error(self, path: Path, refusal: Refusal) -> Exception:
        """Convert a refusal to an error that names the place."""
        place = spell(self.owner, [*path, *reversed(refusal.keys)])
        if self.explain is not None and refusal.value is not None:
            explained = self.explain(refusal.value, place)
            if explained is not None:
                return explained
        advice = " " + ADVICE.format(private=f"_{path[0]}") if refusal.advise else ""
        return StateError(f"{place}: {refusal.reason}.{advice}")


def spell(owner: str, path: Path) -> str:
    """Return a path as Python code, ``Train.table['a'][3]``, without the middle if it is very long."""
    keys = [f"[{key!r}]" for key in path[1:]]
    if len(keys) > 12:
        keys[6:-3] = ["..."]
    return ".".join(part for part in (owner, str(path[0])) if part) + "".join(keys)


NOWHERE = Root("")
"""The root of containers that were made outside any state. It never has a sink, and its containers have no parent."""


# --- the tree -----------------------------------------------------------------------------------


class Tracked:
    """The common base of the three containers.

    Attributes:
        _root: The state that the container was made for. A detached container keeps it.
        _parent: The container around it; the root for an attribute's value; None for a detached container.
        _hint: Its key in the parent; in a list, its last known index.
    """

    __slots__ = ()
    _root: Root
    _parent: Any
    _hint: Any

    def _fill(self, value: Any, root: Root, depth: int) -> None:
        """Add tracked copies of the items of `value`. This container is not part of a state yet."""
        raise NotImplementedError

    def __copy__(self) -> Any:
        return _shallow(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        with self._root.lock:
            made: Any = _shallow(self)
            memo[id(self)] = made
            if isinstance(made, list):
                made[:] = [copy.deepcopy(item, memo) for item in made]
            elif isinstance(made, dict):
                for key in made:
                    made[key] = copy.deepcopy(made[key], memo)
            return made

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        value = plain(self)
        if isinstance(value, list):
            return list, (), None, iter(value)
        if isinstance(value, dict):
            return dict, (), None, None, iter(value.items())
        return set, (list(value),)


CONTAINERS: dict[type, Any] = {}
"""Maps each container type to its tracked type: the built-in types, and the tracked types themselves."""


def _shallow(node: Any) -> Any:
    if isinstance(node, list):
        return list(node)
    return dict(node) if isinstance(node, dict) else set(node)


def locate(node: Tracked) -> Path | None:
    """Return the path of a container, or None if it is in no state. Call it under the root's lock."""
    root = node._root
    parent = node._parent
    if parent is root:
        return [node._hint]
    keys: Path = []
    while parent is not None:
        if isinstance(parent, list):
            keys.append(_position(parent, node))
        else:
            keys.append(node._hint)
            if parent is root:
                keys.reverse()
                return keys
        node = parent
        parent = node._parent
    return None


def _position(parent: list[Any], node: Tracked) -> int:
    """Return the index of an item of a list."""
    hint: int = node._hint
    size = len(parent)
    if hint < size and parent[hint] is node:
        return hint
    for at in range(max(0, hint - _NEAR), min(size, hint + _NEAR)):
        if parent[at] is node:
            node._hint = at
            return at
    found = -1
    for at, item in enumerate(parent):
        if isinstance(item, Tracked):
            item._hint = at
            if item is node:
                found = at
    if found < 0:
        raise StateError(
            "a list of the state was edited by code that does not call the list's methods, such as heapq: "
            "edit a plain list, and then assign it"
        )
    return found


def detach(value: Any) -> None:
    """Detach a value that was removed from the state: later edits of a detached container make no ops."""
    if isinstance(value, Tracked):
        value._parent = None


def attach(value: Any, root: Root, parent: Any, hint: Any, depth: int) -> Any:
    """Return a tracked copy of a container for a place in the state, or the plain form of another value.

    Args:
        value: The value that a user assigned.
        root: The state.
        parent: The container that gets the value.
        hint: The key in this container.
        depth: Number of containers around the value.

    Raises:
        Refusal: If the state cannot hold the value or something in it.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    container = CONTAINERS.get(kind)
    if container is None:
        return frozen(value, depth) if kind is tuple or kind is frozenset else leaf(value)
    if depth >= MAX_DEPTH:
        raise too_deep()
    if isinstance(value, Tracked) and value._root is not root:
        value = plain(value)  # it belongs to another state, which another thread may edit
    node: Any = container.__new__(container)
    node._root, node._parent, node._hint = root, parent, hint
    node._fill(value, root, depth + 1)
    return node


def plain(value: Any) -> Any:
    """Return a consistent deep copy of a value of the state, in built-in containers."""
    if isinstance(value, Tracked):
        with value._root.lock:
            return _plain(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [item if type(item) in SCALARS else _plain(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in SCALARS else _plain(item) for key, item in value.items()}
    return set(value) if isinstance(value, set) else value
