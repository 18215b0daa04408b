"""The state of a component: its public attributes, tracked, and the edits that travel between its two sides.

A `State` lives in the mapping that the attributes live in. What is set is copied into tracked containers
(`lightwork.state.containers`). From then on each edit, however deep, becomes one op (`lightwork.state.ops`), which is
given to `State.sink`. On the other side `State.apply` makes the same edit. The cost of an edit depends on its own size
and depth, not on the size of the state around it.
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
        owner: Who they belong to, for messages: the name of a class, or of a component.
        values: The mapping that they live in. It may hold other names too, which are left alone.

    Attributes:
        owner: As given.
        values: As given.
        names: The names that are state, in the order in which they were first set.
        lock: Held while an edit is made and told. Hold it to read several values of one moment.
        sink: Called with each op after the edit, under the lock; None where nobody is told.
        guard: Called with the path before each edit, under the lock. What it raises keeps the edit from being made.
        max_bytes: How long a value that an edit sets or puts in may be, in bytes; None for no limit.
        explain: Gives the error for a value of a type that no state can hold, see `lightwork.state.tracking.Root`.
    """

    __slots__ = ("names", "values")

    def __init__(self, owner: str, values: dict[str, Any]) -> None:
        super().__init__(owner)
        self.values: dict[str, Any] = values
        self.names: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<State of {self.owner}: {', '.join(self.names)}>"

    # --- edits from this side ---------------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Set an attribute. Containers are copied; setting a scalar that is there already is no edit.

        Raises:
            StateError: If the state cannot hold the value. Nothing has changed then.
        """
        kind = type(value)
        with self.lock:
            old = self.values[name] if name in self.names else MISSING
            if unchanged(old, value):
                return
            path = [name]
            # Numbers that fit are what everything else would be found to be: plain, small, and fit to be sent.
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
            StateError: If there is none of that name.
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
        """The plain values that `load` would set.

        Raises:
            StateError: If the state cannot hold one of them.
        """
        return {name: plain(self.adopt(value, None, [], name)) for name, value in values.items()}

    def load(self, values: dict[str, Any]) -> None:
        """Set several attributes, those that are equal already (in types too) aside. Others keep their values.

        Raises:
            StateError: If the state cannot hold one of the values. Nothing has changed then.
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
        """A deep copy of all attributes in built-in containers, of one moment."""
        with self.lock:
            return {name: _plain(self.values[name]) for name in self.names}

    def at(self, path: Iterable[Any]) -> Any:
        """The value at a path: of a container the tracked one itself, not a copy.

        Raises:
            StateError: If there is none.
        """
        keys = list(path)
        with self.lock:
            if not keys:
                raise StateError(f"{self.owner}: an empty path leads nowhere")
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
        raise StateError(f"{spell(self.owner, path)}: there is nothing at {key!r}")

    # --- edits from the other side --------------------------------------------------------------------

    def apply(self, ops: Iterable[Op]) -> None:
        """Make the edits that another state's `sink` was given. `sink` and `guard` here are not called.

        Strict: an op that does not fit this state is an error, never made to fit. The ops before it stay applied,
        and of the op itself nothing is.

        Args:
            ops: As they were given, or as msgpack gave them back.

        Raises:
            StateError: If this state and the one that the ops come from have diverged, or an op is none.
        """
        with self.lock:
            for op in ops:
                try:
                    _APPLIERS[op[0]](self, *op[1:])
                except StateError as error:
                    text = str(error)
                    raise StateError(text if text.startswith("diverged") else f"diverged: {text}") from None
                except (IndexError, KeyError, TypeError, ValueError) as error:
                    raise StateError(f"diverged: this is no op of a state: {op!r:.200}") from error

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
        """What comes from outside must not touch what is not state."""
        if type(name) is not str or not name.isidentifier() or name.startswith("_") or name in self.values:
            raise StateError(f"{self.owner} cannot have a state attribute {name!r}")

    def _list_item(self, node: Any, key: Any, path: list[Any]) -> Any:
        if type(node) is not TrackedList:
            raise StateError(f"{spell(self.owner, path[:-1])} is a {type(node).__name__}, neither a list nor a dict")
        return self._child(node, key, path)

    def _apply_delete(self, path: list[Any]) -> None:
        if len(path) == 1:
            self._walk(path)
            self._remove(path[0])
            return
        parent = self._walk(path[:-1])
        if type(parent) is not TrackedDict:
            raise StateError(f"{spell(self.owner, path[:-1])} is no dict")
        self._child(parent, path[-1], path)
        detach(dict.pop(parent, path[-1]))

    def _apply_splice(self, path: list[Any], start: int, removed: int, items: list[Any]) -> None:
        node = self._walk(path)
        if type(node) is not TrackedList:
            raise StateError(f"{spell(self.owner, path)} is no list")
        end = start + removed
        if not (type(start) is type(removed) is int and 0 <= start <= end <= len(node) and type(items) is list):
            raise StateError(f"{spell(self.owner, path)} holds {len(node)} items, not {start} to {end}")
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
            raise StateError(f"{spell(self.owner, path)} takes two lists of items")
        if type(node) is not TrackedSet:
            raise StateError(f"{spell(self.owner, path)} is no set")
        come = [self.member(unpacked(item), path) for item in added]
        gone = [self.member(unpacked(item), path) for item in removed]
        if not node.issuperset(gone) or not node.isdisjoint(come):
            raise StateError(f"{spell(self.owner, path)} does not hold what went, or holds what came")
        set.difference_update(node, gone)
        set.update(node, come)

    # --- taking back --------------------------------------------------------------------------------

    def restore(self, name: str, value: Any) -> bool:
        """Make an attribute equal to a plain value. `sink` and `guard` are not called.

        Containers stay the same objects wherever old and new are of one type, so whoever holds one sees it change.

        Args:
            name: The attribute; it need not exist.
            value: As from `plain` or `snapshot`; `MISSING` removes the attribute.

        Returns:
            Whether that changed anything.

        Raises:
            StateError: If the state cannot hold the value. Nothing has changed then.
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
    # Packed bytes tell 1 from True and 0.0 from -0.0, which == does not. Dicts in another order count as different.
    return bool(_encode(packed(held)) == _encode(packed(value)))


def _become(old: Any, new: Any) -> None:
    """Give a container the contents of a tracked one of its type, which is used up."""
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
        dict.clear(old)  # rebuilt, for the order of its keys
        dict.update(old, pairs)


def _joined(was: Any, item: Any, parent: Any, key: Any) -> Any:
    """What stands at a place of `parent` that held `was` and is to equal `item`."""
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
