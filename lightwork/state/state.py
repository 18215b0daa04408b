"""The state of a component: its public attributes, tracked, and their edits, which go from one side to the other.

A `State` stores its values in the mapping of the component's attributes. It copies an assigned container into tracked
containers (`lightwork.state.containers`). Then each edit at any depth becomes one op (`lightwork.state.ops`), which
`State.sink` receives. On the other side, `State.apply` makes the same edit. The cost of an edit depends on the size and
depth of the edit, not on the size of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lightwork.errors import StateError
from lightwork.state.containers import TRACKED, TrackedDict, TrackedList, TrackedSet, unchanged
from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE, Op
from lightwork.state.tracking import MISSING, Root, _plain, detach, plain, spell
from lightwork.state.values import LEAST_INTEGER, MOST_INTEGER, SCALARS, packed, unpacked

__all__ = ["State"]

_encode = msgspec.msgpack.Encoder().encode


class State(Root):
    """The tracked attributes of one component.

    Args:
        owner: The name of the class or component that owns the attributes, for messages.
        values: The mapping that stores the attributes. It may contain other names too; the state does not touch them.

    Attributes:
        owner: The argument.
        values: The argument.
        names: The names that are state, in the order in which they were first set.
        lock: Held during an edit and the call of the sink. Hold it to read several values at the same moment.
        sink: Called with each op after the edit, under the lock; None for no sink.
        guard: Called with the path before each edit, under the lock. If it raises, the edit is not made.
        max_bytes: Longest value that one edit may add, in bytes; None for no limit.
        explain: Returns the error for a value of a type that no state can hold, see `lightwork.state.tracking.Root`.
    """

    __slots__ = ("names", "values")

    def __init__(self, owner: str, values: dict[str, Any]) -> None:
        super().__init__(owner)
        self.values: dict[str, Any] = values
        self.names: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<State of {self.owner}: {', '.join(self.names)}>"

    # --- edits on this side -------------------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Set an attribute. A container is copied. Setting an equal scalar is not an edit.

        Raises:
            StateError: If the state cannot hold the value. Nothing is changed.
        """
        kind = type(value)
        with self.lock:
            old = self.values[name] if name in self.names else MISSING
            if unchanged(old, value):
                return
            path = [name]
            # A shortcut for numbers: these are plain, small and can be sent, so `adopt` would return them unchanged.
            if kind is not float and not (kind is int and LEAST_INTEGER <= value <= MOST_INTEGER):
                value = self.adopt(value, self, [], name)
            if self.guard is not None:
                self.guard(path)
            if old is MISSING or type(old) in TRACKED:
                self._store(name, value, old)
            else:
                self.values[name] = value
            if self.sink is not None:
                self.sink((SET, path, value if kind in SCALARS else packed(value)))

    def delete(self, name: str) -> None:
        """Delete an attribute.

        Raises:
            StateError: If the state has no such attribute.
        """
        with self.lock:
            if name not in self.names:
                raise StateError(f"{self.owner} has no state attribute {name!r}")
            path = [name]
            if self.guard is not None:
                self.guard(path)
            self._remove(name)
            if self.sink is not None:
                self.sink((DELETE, path))

    def checked(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the plain values that `load` would set.

        Raises:
            StateError: If the state cannot hold one of the values.
        """
        return {name: plain(self.adopt(value, None, [], name)) for name, value in values.items()}

    def load(self, values: dict[str, Any]) -> None:
        """Set several attributes. An attribute with an equal value of equal types is not set; others are not touched.

        Raises:
            StateError: If the state cannot hold one of the values. Nothing is changed.
        """
        checked = self.checked(values)
        with self.lock:
            for name, value in checked.items():
                if name not in self.names or not _same(self.values[name], value):
                    self.set(name, value)

    def _store(self, name: str, value: Any, old: Any) -> None:
        if type(old) in TRACKED:
            old._parent = None
        if old is MISSING:
            self.names[name] = None
        self.values[name] = value

    def _remove(self, name: str) -> None:
        detach(self.values.pop(name))
        del self.names[name]

    # --- reading ------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return a consistent deep copy of all attributes, in built-in containers."""
        with self.lock:
            return {name: _plain(self.values[name]) for name in self.names}

    def at(self, path: Iterable[Any]) -> Any:
        """Return the value at a path. A container is the tracked container itself, not a copy.

        Raises:
            StateError: If there is no value at the path.
        """
        keys = list(path)
        with self.lock:
            if not keys:
                raise StateError(f"{self.owner}: the path must begin with an attribute's name, got an empty path")
            return self._walk(keys)

    def _walk(self, path: list[Any]) -> Any:
        name = path[0]
        if type(name) is not str or name not in self.names:
            raise StateError(f"{self.owner} has no state attribute {name!r}")
        node = self.values[name]
        for key in path[1:]:
            node = self._child(node, key, path)
        return node

    def _child(self, node: Any, key: Any, path: list[Any]) -> Any:
        kind = type(node)
        if kind is TrackedList and type(key) is int and 0 <= key < len(node):
            return node[key]
        if kind is TrackedDict and type(key) in SCALARS and key in node:
            return node[key]
        raise StateError(f"{spell(self.owner, path)}: there is no item at {key!r}")

    # --- edits of the other side --------------------------------------------------------------------

    def apply(self, ops: Iterable[Op]) -> None:
        """Make the edits of another state, from the ops that its `sink` received. Does not call `sink` or `guard`.

        An op that does not fit this state raises and changes nothing. The ops before it stay applied.

        Args:
            ops: The ops as the sink received them, or as msgpack decoded them.

        Raises:
            StateError: If this state and the state of the ops have diverged, or if an op is invalid.
        """
        with self.lock:
            for op in ops:
                try:
                    _APPLIERS[op[0]](self, *op[1:])
                except StateError as error:
                    text = str(error)
                    raise StateError(text if text.startswith("diverged") else f"diverged: {text}") from None
                except (IndexError, KeyError, TypeError, ValueError) as error:
                    raise StateError(f"diverged: invalid op: {op!r:.200}") from error

    def _apply_set(self, path: list[Any], value: Any) -> None:
        plain_scalar = type(value) in SCALARS
        if not plain_scalar:
            value = unpacked(value)
        key = path[-1]
        if len(path) == 1:
            if key in self.names:
                old = self.values[key]
            else:
                self._check_new(key)
                old = MISSING
            self._store(key, value if plain_scalar else self.copied(value, self, [], key), old)
            return
        parent = self._walk(path[:-1])
        if type(parent) is TrackedDict:
            key = key if type(key) is str else self.key(key, path[:-1])
            detach(parent.get(key))
            dict.__setitem__(parent, key, value if plain_scalar else self.copied(value, parent, path[:-1], key))
            return
        old = self._list_item(parent, key, path)
        item = value if plain_scalar else self.copied(value, parent, path[:-1], key)
        detach(old)
        list.__setitem__(parent, key, item)

    def _check_new(self, name: Any) -> None:
        """Check the name of a new attribute: an op from outside must not touch attributes that are not state."""
        if type(name) is not str or not name.isidentifier() or name.startswith("_") or name in self.values:
            raise StateError(f"{self.owner} cannot have a state attribute {name!r}")

    def _list_item(self, node: Any, key: Any, path: list[Any]) -> Any:
        if type(node) is not TrackedList:
            raise StateError(f"{spell(self.owner, path[:-1])} must be a list or a dict, got a {type(node).__name__}")
        return self._child(node, key, path)

    def _apply_delete(self, path: list[Any]) -> None:
        if len(path) == 1:
            self._walk(path)
            self._remove(path[0])
            return
        parent = self._walk(path[:-1])
        if type(parent) is not TrackedDict:
            raise StateError(f"{spell(self.owner, path[:-1])} must be a dict, got a {type(parent).__name__}")
        self._child(parent, path[-1], path)
        detach(dict.pop(parent, path[-1]))

    def _apply_splice(self, path: list[Any], start: int, removed: int, items: list[Any]) -> None:
        node = self._walk(path)
        if type(node) is not TrackedList:
            raise StateError(f"{spell(self.owner, path)} must be a list, got a {type(node).__name__}")
        end = start + removed
        if not (type(start) is type(removed) is int and 0 <= start <= end <= len(node) and type(items) is list):
            raise StateError(
                f"{spell(self.owner, path)} has {len(node)} items; a splice of {start} to {end} is invalid"
            )
        new = [
            item if type(item) in SCALARS else self.copied(unpacked(item), node, path, at)
            for at, item in enumerate(items, start)
        ]
        for item in node[start:end]:
            detach(item)
        list.__setitem__(node, slice(start, end), new)

    def _apply_update(self, path: list[Any], added: list[Any], removed: list[Any]) -> None:
        node = self._walk(path)
        if not type(added) is type(removed) is list:
            kinds = f"a {type(added).__name__} and a {type(removed).__name__}"
            raise StateError(f"{spell(self.owner, path)}: an update must have two lists of items, got {kinds}")
        if type(node) is not TrackedSet:
            raise StateError(f"{spell(self.owner, path)} must be a set, got a {type(node).__name__}")
        come = [self.member(unpacked(item), path) for item in added]
        gone = [self.member(unpacked(item), path) for item in removed]
        if not node.issuperset(gone) or not node.isdisjoint(come):
            raise StateError(f"{spell(self.owner, path)} lacks a removed item, or already contains an added item")
        set.difference_update(node, gone)
        set.update(node, come)

    # --- restoring ----------------------------------------------------------------------------------

    def restore(self, name: str, value: Any) -> bool:
        """Make an attribute equal to a plain value. Does not call `sink` or `guard`.

        If the old and the new container at a place have the same type, the old object stays and gets the new contents.
        So other references to it see the change.

        Args:
            name: The attribute; it need not exist.
            value: A value as returned by `plain` or `snapshot`; `MISSING` removes the attribute.

        Returns:
            Whether anything changed.

        Raises:
            StateError: If the state cannot hold the value. Nothing is changed.
        """
        with self.lock:
            if value is MISSING:
                if name not in self.names:
                    return False
                self._remove(name)
                return True
            if name in self.names and _same(self.values[name], value):
                return False
            new = self.copied(value, self, [], name)
            old = self.values[name] if name in self.names else MISSING
            if type(new) in TRACKED and type(old) is type(new):
                _become(old, new)
            else:
                self._store(name, new, old)
            return True


_APPLIERS: dict[int, Callable[..., None]] = {
    SET: State._apply_set,
    DELETE: State._apply_delete,
    SPLICE: State._apply_splice,
    UPDATE: State._apply_update,
}


def _same(held: Any, value: Any) -> bool:
    # Packed bytes differ for 1 and True, and for 0.0 and -0.0; == does not. Dicts in another order count as different.
    return bool(_encode(packed(held)) == _encode(packed(value)))


def _become(old: Any, new: Any) -> None:
    """Give a container the contents of another tracked container of its type. The other one must not be used again."""
    if type(old) is TrackedSet:
        set.clear(old)
        set.update(old, new)
    elif type(old) is TrackedList:
        items = [_joined(was, item, old, at) for at, (was, item) in enumerate(zip(old, new, strict=False))]
        for was in old[len(new) :]:
            detach(was)
        items += [_joined(MISSING, item, old, at) for at, item in enumerate(new[len(old) :], len(old))]
        list.__setitem__(old, slice(None), items)
    else:
        pairs = {key: _joined(old.get(key, MISSING), item, old, key) for key, item in new.items()}
        for key, was in old.items():
            if key not in new:
                detach(was)
        dict.clear(old)  # rebuilt, to get the new order of the keys
        dict.update(old, pairs)


def _joined(was: Any, item: Any, parent: Any, key: Any) -> Any:
    """Return the object for a place of `parent` that contains `was` and must become equal to `item`."""
    if type(item) not in TRACKED:
        detach(was)
        return item
    if type(was) is type(item):
        _become(was, item)
        item = was
    else:
        detach(was)
    item._parent, item._hint = parent, key
    return item
