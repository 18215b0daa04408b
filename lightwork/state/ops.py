"""Ops: the edits of a state as data, and the buffer in which they wait until they can leave.

An op is a tuple (an array on the wire, where it comes back as a list):

==============================================  =====================================================
``(SET, path, value)``                          the value at the path is this
``(DELETE, path)``                              there is no value at the path any more
``(SPLICE, path, start, removed, items)``       of the list at the path, these items for those removed
``(UPDATE, path, added, removed)``              of the set at the path, these items came and those went
==============================================  =====================================================

A path is a list of keys, the attribute's name first. Values and items are packed (`packed`): an op never changes
after it was made, whatever happens to the containers it was made from.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final, cast

from lightwork.changes import StateChanged
from lightwork.state.values import SCALARS, most_bytes, packed, unpacked

__all__ = ["DELETE", "SET", "SPLICE", "UPDATE", "Op", "OpBuffer", "op_change", "split_op"]

Op = tuple[Any, ...]
"""One edit of a state, as `lightwork.state.state` makes and applies it."""

SET: Final = 0
DELETE: Final = 1
SPLICE: Final = 2
UPDATE: Final = 3


def op_change(name: str, op: Op) -> StateChanged:
    """The op as a change of the component `name`, in plain values.

    Raises:
        StateError: If a value in it is not a packed one.
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
    """Two or more smaller ops that together make the same edit, None if there are none.

    Only what was put together here (appends in a row, a backlog that became the whole value) is ever too long for one
    frame: a single edit is checked when it is made.
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
    """Edits that have not left yet, in order, less what later ones made void.

    Applying what `take` gives leads to the value that applying every op added would have led to. Sets of plain
    scalars to one path coalesce, appends in a row to one list become one splice, and a set of a whole
    attribute voids what waits for the container it replaces.

    Not thread-safe: call it under `State.lock`, as a `State.sink` is.

    Args:
        limit: Number of ops from which `compact` does something.
        limit_bytes: Their size from which it does.
    """

    __slots__ = ("_base", "_latest", "_measured", "_merged", "_ops", "_size", "_under", "_void", "limit", "limit_bytes")

    def __init__(self, limit: int = 100_000, limit_bytes: int = 16 << 20) -> None:
        self.limit: int = limit
        self.limit_bytes: int = limit_bytes
        # None stands where an op was made void: positions must not move.
        self._ops: list[Op | None] = []
        self._void = 0
        # How many of the first ops `compact` has measured, and their size: it looks at each once.
        self._measured = 0
        self._size = 0
        self._base = 0  # the size to which it has brought them last
        # Position of the scalar set to a path, by the attribute's name or, deeper, the path as a tuple. Only sets of
        # scalars lie between such a position and the end: they alone can be reordered with each other.
        self._latest: dict[Any, int] = {}
        # Positions of all ops of an attribute, from the waiting set of a container to it on.
        self._under: dict[str, list[int]] = {}
        # The last op if it is a merged splice: its list of items is this buffer's own and may be extended.
        self._merged: Op | None = None

    def __len__(self) -> int:
        return len(self._ops) - self._void

    def add(self, op: Op) -> None:
        """Take in the newest edit."""
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
                # The first op's path, as 1 and True are one key: the dict keeps the one it was given first.
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
        """The op that is about to be appended is one of this attribute."""
        positions = self._under.get(name)
        if positions is not None:
            positions.append(len(self._ops))

    def _discard(self, name: str) -> None:
        """Void what waits for an attribute since a container was set to it: a whole value follows."""
        for position in self._under.pop(name, ()):
            self._ops[position] = None
            self._void += 1
        self._latest.clear()

    def _merge(self, op: Op) -> bool:
        """Join an insertion to the splice right before it, if it goes on where that one ended."""
        last = self._ops[-1] if self._ops else None
        if last is None or last[0] != SPLICE or op[3] or last[2] + len(last[4]) != op[2] or last[1] != op[1]:
            return False
        if last is not self._merged:
            last = self._merged = self._ops[-1] = (*last[:4], list(last[4]))
        last[4].extend(op[4])
        return True

    def take(self) -> list[Op]:
        """Everything that waits, in order; the buffer is empty afterwards."""
        ops = [op for op in self._ops if op is not None] if self._void else cast("list[Op]", self._ops)
        self._ops, self._merged = [], None
        self._latest.clear()
        if self._under:
            self._under.clear()
        self._void = self._measured = self._size = self._base = 0
        return ops

    def compact(self, names: Container[str], values: Mapping[str, Any]) -> None:
        """Beyond a limit, replace what waits by the present values of the attributes it touches.

        So a backlog takes no more than twice what the state took, and the limits. It is packed anew when it has doubled
        and grown by `limit_bytes`: the edits that make that necessary pay for it, and are slowed by no more.

        Args:
            names: The names of the state that the ops came from, every op of it so far added.
            values: The values of that state, by name.
        """
        # Not the last one: it may be a splice that still grows. It holds no more than the state's list does.
        self._measure(len(self._ops) - 1)
        if len(self._ops) <= self.limit and self._size <= 2 * self._base + self.limit_bytes:
            return
        touched = dict.fromkeys(op[1][0] for op in self.take())
        for name in touched:
            if name in names:
                self.add((SET, [name], packed(values[name])))
            else:
                # It may never have existed on the other side, where a delete of nothing is an error.
                self.add((SET, [name], None))
                self.add((DELETE, [name]))
        self._measure(len(self._ops))
        self._base = self._size

    def _measure(self, end: int) -> None:
        for op in self._ops[self._measured : max(end, 0)]:
            if op is not None:
                self._size += sum([most_bytes(part) for part in op])
        self._measured = max(self._measured, end)
