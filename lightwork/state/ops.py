"""Ops: the edits of a state as data, and the buffer for ops that were not sent yet.

An op is a tuple. On the wire it is an array, which is decoded as a list:

==============================================  =====================================================
``(SET, path, value)``                          set the value at the path
``(DELETE, path)``                              delete the value at the path
``(SPLICE, path, start, removed, items)``       in a list: replace `removed` items from `start` by `items`
``(UPDATE, path, added, removed)``              in a set: add and remove these items
==============================================  =====================================================

A path is a list of keys; the first is the attribute's name. Values and items are packed (`packed`), so an op does not
change when its containers change.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final, cast

from lightwork.changes import StateChanged
from lightwork.state.values import SCALARS, most_bytes, packed, unpacked

__all__ = ["DELETE", "SET", "SPLICE", "UPDATE", "Op", "OpBuffer", "op_change", "split_op"]

Op = tuple[Any, ...]
"""One edit of a state. `lightwork.state.state` makes and applies ops."""

SET: Final = 0
DELETE: Final = 1
SPLICE: Final = 2
UPDATE: Final = 3


def op_change(name: str, op: Op) -> StateChanged:
    """Convert an op to a change of the component `name`, with plain values.

    Raises:
        StateError: If a value of the op is not a valid packed value.
    """
    kind, path = op[0], tuple(op[1])
    if kind == SET:
        return StateChanged(name, path, "set", unpacked(op[2]))
    if kind == DELETE:
        return StateChanged(name, path, "delete", None)
    if kind == SPLICE:
        return StateChanged(name, path, "splice", (op[2], op[3], unpacked(op[4])))
    return StateChanged(name, path, "update", (unpacked(op[2]), unpacked(op[3])))


def split_op(op: Op) -> list[Op] | None:
    """Split an op into two or more smaller ops that together make the same edit; return None if it cannot be split.

    Only an op that the buffer has combined can be too long for one frame: appends in a row, or a backlog that was
    replaced by the whole value. The size of a single edit is checked when it is made.
    """
    kind, path, *rest = op
    if kind == SPLICE and len(rest[2]) > 1:
        start, removed, items = rest
        half = len(items) // 2
        return [(SPLICE, path, start, removed, items[:half]), (SPLICE, path, start + half, 0, items[half:])]
    if kind == UPDATE and len(rest[0]) + len(rest[1]) > 1:
        added, removed = rest
        more, less = len(added) // 2, len(removed) // 2
        first = (UPDATE, path, added[:more], removed[: len(removed) - less])
        return [first, (UPDATE, path, added[more:], removed[len(removed) - less :])]
    if kind == SET and type(rest[0]) is list and len(rest[0]) > 1:
        half = len(rest[0]) // 2
        return [(SET, path, rest[0][:half]), (SPLICE, path, half, 0, rest[0][half:])]
    if kind == SET and type(rest[0]) is dict and rest[0]:
        return [(SET, path, {}), *((SET, [*path, key], value) for key, value in rest[0].items())]
    return None


class OpBuffer:
    """The ops that were not sent yet, in order, without the ops that later ones have replaced.

    Applying the ops of `take` gives the same value as applying every added op. Sets of plain scalars to one path become
    one op, appends in a row to one list become one splice, and a set of a whole attribute drops the waiting ops of the
    container that it replaces.

    Not thread-safe: call it under `State.lock`, like a `State.sink`.

    Args:
        limit: Number of ops above which `compact` has an effect.
        limit_bytes: Size of the ops in bytes above which `compact` has an effect.
    """

    __slots__ = ("_base", "_latest", "_measured", "_merged", "_ops", "_size", "_under", "_void", "limit", "limit_bytes")

    def __init__(self, limit: int = 100_000, limit_bytes: int = 16 << 20) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        # A dropped op is replaced by None, so that the positions of the others do not move.
        self._ops: list[Op | None] = []
        self._void = 0  # number of dropped ops
        # Number of ops at the start that `compact` has measured, and their size: it measures each op once.
        self._measured = 0
        self._size = 0
        self._base = 0  # size after the last compaction
        # Position of the latest scalar set to a path. The key is the attribute's name, or the path as a tuple if it is
        # deeper. All ops from this position to the end are sets of scalars: only those can be reordered.
        self._latest: dict[Any, int] = {}
        # Positions of all ops of an attribute, beginning with the set of a container to it.
        self._under: dict[str, list[int]] = {}
        # The last op if it is a merged splice: this buffer owns its list of items and may extend it.
        self._merged: Op | None = None

    def __len__(self) -> int:
        return len(self._ops) - self._void

    def add(self, op: Op) -> None:
        """Add the newest op."""
        path = op[1]
        if op[0] == SET:
            if type(op[2]) in SCALARS:
                self._add_scalar(op, path)
                return
            self._latest.clear()
            if len(path) == 1:
                self._add_container(op, path[0])
                return
        else:
            self._latest.clear()
            if op[0] == SPLICE and self._merge(op):
                return
        if self._under:
            self._note(path[0])
        self._ops.append(op)

    def _add_scalar(self, op: Op, path: list[Any]) -> None:
        ops = self._ops
        latest = self._latest
        if len(path) == 1:
            key = path[0]
            at = latest.get(key)
            if at is not None:
                ops[at] = op
                return
            if key in self._under:
                self._discard(key)
        else:
            key = tuple(path)
            at = latest.get(key)
            if at is not None:
                # The first op's path stays: 1 and True are the same key, and a dict keeps the form it got first.
                first = ops[at]
                assert first is not None
                ops[at] = (SET, first[1], op[2])
                return
            if self._under:
                self._note(path[0])
        latest[key] = len(ops)
        ops.append(op)

    def _add_container(self, op: Op, name: str) -> None:
        self._discard(name)
        self._under[name] = [len(self._ops)]
        self._ops.append(op)

    def _note(self, name: str) -> None:
        """Record that the next appended op belongs to this attribute."""
        positions = self._under.get(name)
        if positions is not None:
            positions.append(len(self._ops))

    def _discard(self, name: str) -> None:
        """Drop the ops of an attribute since a container was set to it: a set of the whole value follows."""
        for position in self._under.pop(name, ()):
            self._ops[position] = None
            self._void += 1
        self._latest.clear()

    def _merge(self, op: Op) -> bool:
        """Merge an insertion into the splice right before it, if it continues where that splice ended."""
        last = self._ops[-1] if self._ops else None
        if last is None or last[0] != SPLICE or op[3] or last[2] + len(last[4]) != op[2] or last[1] != op[1]:
            return False
        if last is not self._merged:
            last = self._merged = self._ops[-1] = (*last[:4], list(last[4]))
        last[4].extend(op[4])
        return True

    def take(self) -> list[Op]:
        """Return the buffered ops in order, and empty the buffer."""
        ops = [op for op in self._ops if op is not None] if self._void else cast("list[Op]", self._ops)
        self._ops, self._merged = [], None
        self._latest.clear()
        if self._under:
            self._under.clear()
        self._void = self._measured = self._size = self._base = 0
        return ops

    def compact(self, names: Container[str], values: Mapping[str, Any]) -> None:
        """Above a limit, replace the buffered ops by the current values of the attributes that they change.

        So a backlog takes at most twice the size of the state plus the limits. The values are packed again when the
        backlog has doubled and grown by `limit_bytes`. So the cost of packing is proportional to the size of the edits.

        Args:
            names: The names of the state that made the ops. Every op of this state so far must have been added.
            values: The values of this state, by name.
        """
        # The last op is not measured: it may be a splice that still grows. It has no more items than the state's list.
        self._measure(len(self._ops) - 1)
        if len(self._ops) <= self.limit and self._size <= 2 * self._base + self.limit_bytes:
            return
        touched = dict.fromkeys(op[1][0] for op in self.take())
        for name in touched:
            if name in names:
                self.add((SET, [name], packed(values[name])))
            else:
                # The other side may never have had this attribute, and there a delete of a missing attribute raises.
                self.add((SET, [name], None))
                self.add((DELETE, [name]))
        self._measure(len(self._ops))
        self._base = self._size

    def _measure(self, end: int) -> None:
        for op in self._ops[self._measured : max(end, 0)]:
            if op is not None:
                self._size += sum([most_bytes(part) for part in op])
        self._measured = max(self._measured, end)
