"""The tree of a state's tracked containers: who is whose parent, where an edit is, how a value gets in.

The containers themselves are in `lightwork.state.containers`, which registers them here.
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
"""Types of which no value is too long to be sent."""


class _MissingValue:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _MissingValue()
"""Stands for no value at all."""

_NEAR = 32
"""How far around a stale hint to look before renumbering the whole list: a queue shifts by a few between two edits."""


class Root:
    """What the containers of one state share.

    Attributes:
        owner: Who holds the state, for messages.
        lock: Held while an edit is made and told.
        sink: Called with each op after the edit, under the lock. None: nobody is told.
        guard: Called with the path before each edit, under the lock. What it raises keeps the edit from being made.
        max_bytes: How long one value that is set or put in may be, packed and encoded; None for no limit.
        explain: Asked about a value of a type that the state cannot hold, and where it was to go: gives the error to
            raise in place of the general one, or None.
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
        """A copy of the value for the place `key` of the container `parent`, which is at `path`.

        Raises:
            StateError: If the state cannot hold it, or it is too long to be sent.
        """
        made = self.copied(value, parent, path, key)
        if self.max_bytes is not None and type(made) not in _SMALL:
            self.check_size(made, [*path, key])
        return made

    def copied(self, value: Any, parent: Any, path: Path, key: Any) -> Any:
        """Like `adopt`, of any size: for what came from the other side."""
        try:
            return attach(value, self, parent, key, len(path))
        except Refusal as refusal:
            raise self.error([*path, key], refusal) from None

    def check_size(self, value: Any, path: Path) -> None:
        """Raise `StateError` if a value of the state, which goes to `path` as one edit, is too long to be sent."""
        if self.max_bytes is None or most_bytes(value) <= self.max_bytes:
            return
        size = exact_bytes(value)
        if size > self.max_bytes:
            raise StateError(
                f"{spell(self.owner, path)}: the value is {size:,} bytes long, and one change of the state takes "
                f"at most {self.max_bytes:,}. Keep it in a file, or raise max_frame in the configuration"
            )

    def key(self, key: Any, path: Path) -> Any:
        """The plain form of a new key of the dict at `path`; raises `StateError` if it has none."""
        try:
            return checked_key(key)
        except Refusal as refusal:
            raise self.error(path, refusal) from None

    def member(self, item: Any, path: Path) -> Any:
        """The plain form of a new item of the set at `path`; raises `StateError` if it has none."""
        try:
            return member(item, len(path))
        except Refusal as refusal:
            raise self.error(path, refusal) from None

    def error(self, path: Path, refusal: Refusal) -> Exception:
        """The refusal as an error that names the place."""
        place = spell(self.owner, [*path, *reversed(refusal.keys)])
        if self.explain is not None and refusal.value is not None:
            explained = self.explain(refusal.value, place)
            if explained is not None:
                return explained
        advice = " " + ADVICE.format(private=f"_{path[0]}") if refusal.advise else ""
        return StateError(f"{place}: {refusal.reason}.{advice}")


def spell(owner: str, path: Path) -> str:
    """A path as a reader would write it: ``Train.table['a'][3]``; the middle of a very long one is left out."""
    keys = [f"[{key!r}]" for key in path[1:]]
    if len(keys) > 12:
        keys[6:-3] = ["..."]
    return ".".join(part for part in (owner, str(path[0])) if part) + "".join(keys)


NOWHERE = Root("")
"""The root of containers that were made outside any state: it never has a sink, and they no parent."""


# --- the tree -----------------------------------------------------------------------------------


class Tracked:
    """What the three containers have in common.

    Attributes:
        _root: The state that the container was made for. It keeps it when it is detached.
        _parent: The container around it, the root if it is an attribute's value, None if it is detached.
        _hint: Its key there; of a list's item, where it last was.
    """

    __slots__ = ()
    _root: Root
    _parent: Any
    _hint: Any

    def _fill(self, value: Any, root: Root, depth: int) -> None:
        """Take in tracked copies of the items of `value`, while this container is in no state yet."""
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
"""Which tracked container stands for which type: the built-in ones and the tracked ones themselves."""


def _shallow(node: Any) -> Any:
    if isinstance(node, list):
        return list(node)
    return dict(node) if isinstance(node, dict) else set(node)


def locate(node: Tracked) -> Path | None:
    """The path of a container, None if it is in no state. Call it under the root's lock."""
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
    """Where a list holds an item of its own."""
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
            "a list of the state was edited by code that does not call its methods (heapq does that): "
            "work on a plain list, and assign it"
        )
    return found


def detach(value: Any) -> None:
    """A value has left its place: if it is a container, its edits concern nobody any more."""
    if isinstance(value, Tracked):
        value._parent = None


def attach(value: Any, root: Root, parent: Any, hint: Any, depth: int) -> Any:
    """A tracked copy of a value for a place in the state, or its plain form if it is no container.

    Args:
        value: What a user assigned.
        root: The state.
        parent: The container that it is for.
        hint: Its key there.
        depth: How many containers are around it.

    Raises:
        Refusal: If the state cannot hold it, or something in it.
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
        value = plain(value)  # another state's, which another thread may be editing
    node: Any = container.__new__(container)
    node._root, node._parent, node._hint = root, parent, hint
    node._fill(value, root, depth + 1)
    return node


def plain(value: Any) -> Any:
    """A deep copy of a value of the state in built-in containers, of one moment."""
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
