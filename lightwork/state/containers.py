"""Tracked containers: lists, dicts and sets that report each edit to their state.

They subclass the built-in types and override every mutating method. So reading costs the same as in a built-in
container, and ``==``, json and msgspec treat them as built-in. Each container knows its parent and a hint of its key in
the parent; the path of an edit is found by walking up the parents. In a list, the hint becomes stale when earlier items
are added or removed. It is corrected at the next use.

Every edit has the same steps, under the lock of the root. First come all steps that can fail, so a failed edit changes
nothing. Then `Root.guard` is called, then the edit is made, then `Root.sink` gets the op.

A container that is removed or replaced is detached: it stays usable, and its edits make no ops. A container that is
assigned to the state is copied, so no container is ever in two places. Copying, deep-copying and pickling a tracked
container result in plain containers.

Not tracked: C code that edits a list without calling the list's methods. In the standard library this is `heapq`: edit
a plain list and assign it. `bisect.insort` and `random.shuffle` call the methods.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index as as_index
from typing import Any, Final, SupportsIndex, TypeVar

from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE
from lightwork.state.tracking import CONTAINERS, MISSING, NOWHERE, Path, Root, Tracked, attach, detach, locate
from lightwork.state.values import PLAIN, SCALARS, Refusal, checked_key, frozen, member, packed

__all__ = ["TRACKED", "TrackedDict", "TrackedList", "TrackedSet", "unchanged"]

_L = TypeVar("_L", bound="TrackedList")
_D = TypeVar("_D", bound="TrackedDict")
_S = TypeVar("_S", bound="TrackedSet")


class TrackedList(Tracked, list[Any]):
    """A list in a state. Its methods behave like those of `list`, and may also raise `StateError`."""

    __slots__ = ("_hint", "_parent", "_root")

    def __init__(self, items: Iterable[Any] = ()) -> None:
        list.__init__(self, items)
        self._root, self._parent, self._hint = NOWHERE, None, None

    def _fill(self, value: list[Any], root: Root, depth: int) -> None:
        append = list.append
        try:
            for item in value:
                append(self, item if type(item) in PLAIN else attach(item, root, self, len(self), depth))
        except Refusal as refusal:
            refusal.keys.append(len(self))
            raise

    def append(self, item: Any) -> None:
        root = self._root
        with root.lock:
            path = locate(self)
            if path is None:
                list.append(self, item)
                return
            at = len(self)
            if type(item) not in PLAIN:
                item = root.adopt(item, self, path, at)
            if root.guard is not None:
                root.guard(path)
            list.append(self, item)
            if root.sink is not None:
                root.sink((SPLICE, path, at, 0, [item if type(item) in SCALARS else packed(item)]))

    def extend(self, items: Iterable[Any]) -> None:
        new = list(items)
        with self._root.lock:
            self._splice(len(self), len(self), new)

    def insert(self, index: SupportsIndex, item: Any) -> None:
        at = as_index(index)
        with self._root.lock:
            size = len(self)
            at = max(0, at + size) if at < 0 else min(at, size)
            self._splice(at, at, [item])

    def pop(self, index: SupportsIndex = -1) -> Any:
        at = as_index(index)
        with self._root.lock:
            size = len(self)
            at += size if at < 0 else 0
            if not 0 <= at < size:
                raise IndexError("pop index out of range" if size else "pop from empty list")
            item = self[at]
            self._splice(at, at + 1, [])
            return item

    def remove(self, item: Any) -> None:
        with self._root.lock:
            at = self.index(item)
            self._splice(at, at + 1, [])

    def clear(self) -> None:
        with self._root.lock:
            self._splice(0, len(self), [])

    def reverse(self) -> None:
        with self._root.lock:
            self._rearrange(self[::-1])

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        with self._root.lock:
            self._rearrange(sorted(self, key=key, reverse=reverse))

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            new = list(value)
            with self._root.lock:
                self._set_slice(index, new)
            return
        with self._root.lock:
            at, size = int(as_index(index)), len(self)
            at += size if at < 0 else 0
            if not 0 <= at < size:
                raise IndexError("list assignment index out of range")
            self._put([at], [value])

    def __delitem__(self, index: Any) -> None:
        with self._root.lock:
            if isinstance(index, slice):
                start, stop, step = index.indices(len(self))
                if step == 1:
                    self._splice(start, max(start, stop), [])
                    return
                left = list(self)
                del left[index]
                self._rearrange(left)
                return
            at, size = as_index(index), len(self)
            at += size if at < 0 else 0
            if not 0 <= at < size:
                raise IndexError("list assignment index out of range")
            self._splice(at, at + 1, [])

    def __iadd__(self: _L, items: Iterable[Any]) -> _L:  # type: ignore[misc]
        self.extend(items)
        return self

    def __imul__(self: _L, times: SupportsIndex) -> _L:
        with self._root.lock:
            count = as_index(times)
            if count <= 0:
                self.clear()
            elif count > 1:
                self.extend(list(self) * (count - 1))
        return self

    def _set_slice(self, index: slice, new: list[Any]) -> None:
        start, stop, step = index.indices(len(self))
        if step == 1:
            self._splice(start, max(start, stop), new)
            return
        places = range(start, stop, step)
        if len(places) != len(new):
            raise ValueError(f"attempt to assign sequence of size {len(new)} to extended slice of size {len(places)}")
        self._put(places, new)

    def _put(self, places: Iterable[int], values: list[Any]) -> None:
        """Replace single items; an unchanged item is skipped."""
        root = self._root
        path = locate(self)
        if path is None:
            for at, value in zip(places, values, strict=True):
                list.__setitem__(self, at, value)
            return
        changed = [(at, value) for at, value in zip(places, values, strict=True) if not unchanged(self[at], value)]
        new = [(at, root.adopt(value, self, path, at)) for at, value in changed]
        for at, item in new:
            there = [*path, at]
            if root.guard is not None:
                root.guard(there)
            detach(self[at])
            list.__setitem__(self, at, item)
            if root.sink is not None:
                root.sink((SET, there, packed(item)))

    def _splice(self, start: int, stop: int, new: list[Any]) -> None:
        """Replace the items from `start` to `stop`, exclusive."""
        root = self._root
        path = locate(self)
        if path is None:
            list.__setitem__(self, slice(start, stop), new)
            return
        if start == stop and not new:
            return
        items = [root.adopt(item, self, path, at) for at, item in enumerate(new, start)]
        if root.max_bytes is not None and len(items) > 1:
            root.check_size(items, path)
        if root.guard is not None:
            root.guard(path)
        for item in self[start:stop]:
            detach(item)
        list.__setitem__(self, slice(start, stop), items)
        if root.sink is not None:
            root.sink((SPLICE, path, start, stop - start, [packed(item) for item in items]))

    def _rearrange(self, new: list[Any]) -> None:
        """Change the contents to `new`, which contains items of this list, each at most once."""
        root = self._root
        path = locate(self)
        if path is None:
            list.__setitem__(self, slice(None), new)
            return
        start, end, old_end = 0, len(new), len(self)
        while start < end and new[start] is self[start]:
            start += 1
        while end > start and new[end - 1] is self[old_end - 1]:
            end, old_end = end - 1, old_end - 1
        if start == end and start == old_end:
            return
        if root.guard is not None:
            root.guard(path)
        if end != old_end:
            kept = {id(item) for item in new[start:end]}
            for item in self[start:old_end]:
                if id(item) not in kept:
                    detach(item)
        moved = new[start:end]
        list.__setitem__(self, slice(start, old_end), moved)
        if root.sink is not None:
            root.sink((SPLICE, path, start, old_end - start, [packed(item) for item in moved]))


def unchanged(old: Any, new: Any) -> bool:
    """Return whether setting `new` in place of `old` changes nothing: the same object, or the same scalar.

    The same object is a usual case: ``x += y`` on a container finally sets the container to its own place.
    """
    if old is new:
        return True
    kind = type(new)
    # 0.0 and -0.0 are equal but not the same.
    return kind in SCALARS and kind is type(old) and bool(old == new) and (bool(new) or kind is not float)


class TrackedDict(Tracked, dict[Any, Any]):
    """A dict in a state. Its methods behave like those of `dict`, and may also raise `StateError`."""

    __slots__ = ("_hint", "_parent", "_root")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        dict.__init__(self, *args, **kwargs)
        self._root, self._parent, self._hint = NOWHERE, None, None

    def _fill(self, value: dict[Any, Any], root: Root, depth: int) -> None:
        store = dict.__setitem__
        for given, item in list(value.items()):
            try:
                key = checked_key(given)
                store(self, key, item if type(item) in PLAIN else attach(item, root, self, key, depth))
            except Refusal as refusal:
                refusal.keys.append(given)
                raise

    def __setitem__(self, key: Any, value: Any) -> None:
        root = self._root
        with root.lock:
            path = locate(self)
            if path is None:
                dict.__setitem__(self, key, value)
                return
            if type(key) is not str or not key.isascii():
                key = root.key(key, path)
            old = self.get(key, MISSING)
            if unchanged(old, value):
                return
            if type(value) not in PLAIN:
                value = root.adopt(value, self, path, key)
            self._store(root, [*path, key], key, old, value)

    def _store(self, root: Root, there: Path, key: Any, old: Any, item: Any) -> None:
        if root.guard is not None:
            root.guard(there)
        if isinstance(old, Tracked):
            old._parent = None
        dict.__setitem__(self, key, item)
        if root.sink is not None:
            root.sink((SET, there, item if type(item) in SCALARS else packed(item)))

    def __delitem__(self, key: Any) -> None:
        with self._root.lock:
            if key not in self:
                raise KeyError(key)
            self._drop(key)

    def _drop(self, key: Any) -> None:
        """Remove an existing key."""
        root = self._root
        path = locate(self)
        if path is None:
            dict.__delitem__(self, key)
            return
        there = [*path, _held(self, key)]
        if root.guard is not None:
            root.guard(there)
        detach(dict.pop(self, key))
        if root.sink is not None:
            root.sink((DELETE, there))

    def pop(self, key: Any, *default: Any) -> Any:
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {len(default) + 1}")
        with self._root.lock:
            if key not in self:
                if default:
                    return default[0]
                raise KeyError(key)
            value = self[key]
            self._drop(key)
            return value

    def popitem(self) -> tuple[Any, Any]:
        with self._root.lock:
            if not self:
                raise KeyError("popitem(): dictionary is empty")
            key = next(reversed(self))
            return key, self.pop(key)

    def clear(self) -> None:
        root = self._root
        with root.lock:
            path = locate(self)
            if path is None or not self:
                dict.clear(self)
                return
            if root.guard is not None:
                root.guard(path)
            for item in self.values():
                detach(item)
            dict.clear(self)
            if root.sink is not None:
                root.sink((SET, path, {}))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        with self._root.lock:
            if key not in self:
                self[key] = default
            return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        new = dict(*args, **kwargs)
        root = self._root
        with root.lock:
            path = locate(self)
            if path is None:
                dict.update(self, new)
                return
            items = []
            for given, value in new.items():
                key = root.key(given, path)
                if not unchanged(self.get(key, MISSING), value):
                    items.append((key, root.adopt(value, self, path, key)))
            for key, item in items:
                self._store(root, [*path, key], key, self.get(key, MISSING), item)

    def __ior__(self: _D, other: Any) -> _D:  # type: ignore[misc]
        self.update(other)
        return self


def _held(container: Iterable[Any], item: Any) -> Any:
    """Return the plain form of an existing key or item: an op must contain only values that a state can hold."""
    if type(item) in SCALARS:
        return item
    try:
        return frozen(item, 0)
    except Refusal:
        return next(own for own in container if own == item)


class TrackedSet(Tracked, set[Any]):
    """A set in a state. Its methods behave like those of `set`, and may also raise `StateError`."""

    __slots__ = ("_hint", "_parent", "_root")

    def __init__(self, items: Iterable[Any] = ()) -> None:
        set.__init__(self, items)
        self._root, self._parent, self._hint = NOWHERE, None, None

    def __repr__(self) -> str:
        return repr(set(self))  # like list and dict, whose repr does not name a subclass

    def _fill(self, value: set[Any], root: Root, depth: int) -> None:
        set.update(self, [member(item, depth) for item in list(value)])

    def add(self, item: Any) -> None:
        self._change([item], [])

    def discard(self, item: Any) -> None:
        with self._root.lock:
            if item in self:
                self._change([], [item])

    def remove(self, item: Any) -> None:
        with self._root.lock:
            if item not in self:
                raise KeyError(item)
            self._change([], [item])

    def pop(self) -> Any:
        with self._root.lock:
            if not self:
                raise KeyError("pop from an empty set")
            item = next(iter(self))
            self._change([], [item])
            return item

    def clear(self) -> None:
        with self._root.lock:
            self._change([], list(self))

    def update(self, *others: Iterable[Any]) -> None:
        self._change([item for other in others for item in other], [])

    def difference_update(self, *others: Iterable[Any]) -> None:
        with self._root.lock:
            self._change([], [item for other in others for item in set(other) if item in self])

    def intersection_update(self, *others: Iterable[Any]) -> None:
        with self._root.lock:
            kept = set(self).intersection(*others)
            self._change([], [item for item in self if item not in kept])

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        with self._root.lock:
            given = set(other)
            self._change([item for item in given if item not in self], [item for item in given if item in self])

    def __ior__(self: _S, other: Any) -> _S:  # type: ignore[misc]
        if not isinstance(other, set | frozenset):
            return NotImplemented
        self.update(other)
        return self

    def __isub__(self: _S, other: Any) -> _S:  # type: ignore[misc]
        if not isinstance(other, set | frozenset):
            return NotImplemented
        self.difference_update(other)
        return self

    def __iand__(self: _S, other: Any) -> _S:  # type: ignore[misc]
        if not isinstance(other, set | frozenset):
            return NotImplemented
        self.intersection_update(other)
        return self

    def __ixor__(self: _S, other: Any) -> _S:  # type: ignore[misc]
        if not isinstance(other, set | frozenset):
            return NotImplemented
        self.symmetric_difference_update(other)
        return self

    def _change(self, added: list[Any], removed: list[Any]) -> None:
        """Add items that are not in the set yet, and remove items that are in the set."""
        root = self._root
        with root.lock:
            path = locate(self)
            if path is None:
                set.difference_update(self, map(_key_of_set, removed))
                set.update(self, added)
                return
            new = dict.fromkeys(root.member(item, path) for item in added)
            if root.max_bytes is not None:
                root.check_size(list(new), path)
            come = [item for item in new if item not in self]
            gone = list(dict.fromkeys(_held(self, _key_of_set(item)) for item in removed))
            if not come and not gone:
                return
            if root.guard is not None:
                root.guard(path)
            set.difference_update(self, gone)
            set.update(self, come)
            if root.sink is not None:
                root.sink((UPDATE, path, [packed(item) for item in come], [packed(item) for item in gone]))


def _key_of_set(item: Any) -> Any:
    """Return the key that a set looks up: for a set, the equal frozenset."""
    return frozenset(item) if isinstance(item, set) else item


TRACKED: Final = frozenset({TrackedList, TrackedDict, TrackedSet})

CONTAINERS.update({list: TrackedList, dict: TrackedDict, set: TrackedSet})
CONTAINERS.update((kind, kind) for kind in TRACKED)
