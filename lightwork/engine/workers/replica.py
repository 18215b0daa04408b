"""The flow's copy of a work's state while the worker owns it.

The worker's ops are applied strictly in order, so the copy cannot diverge. An edit that the flow makes is a
proposal: it shows at once in the attribute that the flow reads, and from the first one on a confirmed copy of that
attribute is kept aside, which takes the worker's ops instead. When the last proposal for the attribute is
answered, the attribute becomes equal to the confirmed copy: in place, so that whoever holds a container of
it sees what became of the edit. Watchers are told what the flow sees, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lightwork.components.rollback import remember
from lightwork.errors import StateError
from lightwork.link import messages
from lightwork.state.ops import DELETE, SET, SPLICE, Op
from lightwork.state.state import State
from lightwork.state.tracking import MISSING, plain
from lightwork.state.values import most_bytes, packed

__all__ = ["MOST_UNANSWERED", "Replica"]

MOST_UNANSWERED = 64 << 20
"""Bytes of edits that may wait for a worker's answers; with more, the next edit is refused until some have come."""

_MOST_EXPECTED = 64 * 1024
"""What the flow saw is sent along for comparison up to this size, in bytes."""

_KEPT = 512
"""Bytes that a proposal takes besides what it says, about."""


class Replica:
    """Ties a work's `State` to its worker, from the welcome to the worker's end.

    A work that leaves the tree meanwhile is untied: `Work` removes the guard, and frames that are still on their way
    change nothing.

    Args:
        state: The flow's copy.
        send: Sends a proposal.
        edited: Told of each edit of the flow, after it was made.
        earlier: The highest number of a proposal that another mirror has made to this worker: answers to those count as
            what they say the worker did.
    """

    def __init__(
        self,
        state: State,
        send: Callable[[messages.Propose], None],
        edited: Callable[[Op], None],
        earlier: int = 0,
    ) -> None:
        self._state = state
        self._send = send
        self._edited = edited
        self._confirmed = State(state.owner, {})
        self._pending: dict[str, int] = {}
        self._proposals: dict[int, Op] = {}
        self._unanswered = 0  # bytes of them
        self._latest = self._earlier = earlier
        self._seen: Any = MISSING
        self._guard = self._keep
        state.guard = self._guard
        state.sink = self._propose

    @property
    def num_pending(self) -> int:
        """Proposals that the worker has not answered."""
        return len(self._proposals)

    @property
    def latest(self) -> int:
        """The number of the latest proposal, 0 before the first."""
        return self._latest

    @property
    def is_tied(self) -> bool:
        """Whether the state is still this mirror's."""
        return self._state.guard is self._guard

    def confirmed(self) -> dict[str, Any]:
        """A plain copy of what the worker has confirmed: the state without the proposals that are not answered."""
        with self._state.lock:
            values = self._state.snapshot()
            for name in self._pending:
                if name in self._confirmed.names:
                    values[name] = plain(self._confirmed.values[name])
                else:
                    values.pop(name, None)
            return values

    def apply(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Apply what the worker did; return the part of it that changes what the flow sees.

        Raises:
            StateError: The two sides have diverged: a bug, or a worker that is not ours.
        """
        if not self.is_tied:
            return ()
        if not self._pending:
            self._state.apply(ops)
            return ops
        shown = []
        for op in ops:
            if _attribute(op) in self._pending:
                self._confirmed.apply([op])
            else:
                self._state.apply([op])
                shown.append(op)
        return shown

    def answer(self, number: int, ops: Sequence[Op]) -> Sequence[Op]:
        """The worker has taken or refused a proposal, and `ops` is what it made of it; returns what `apply` does.

        Raises:
            StateError: As `apply`, and for a proposal that was never made.
        """
        if not self.is_tied:
            return ()
        shown = self.apply(ops)
        proposed = self._proposals.pop(number, None)
        if proposed is None:
            if 0 < number <= self._earlier:
                return shown
            raise StateError(f"{self._state.owner}: the worker answers proposal {number}, which was never made")
        self._unanswered -= _size(proposed)
        name = proposed[1][0]
        self._pending[name] -= 1
        if self._pending[name]:
            return shown
        del self._pending[name]
        return [*shown, *self._restore(name)]

    def close(self, sink: Callable[[Op], None], made: Callable[[Op], None] = lambda op: None) -> None:
        """The worker is gone: the flow owns the state again, its unanswered edits included where they still fit.

        Args:
            sink: Takes the flow's edits from now on.
            made: Called with each of the unanswered edits that was made again.
        """
        if not self.is_tied:
            return
        self._state.guard = None
        self._state.sink = sink
        unanswered, self._proposals, self._unanswered = self._proposals, {}, 0
        told = [op for name in self._pending for op in self._restore(name)]
        self._pending.clear()
        for proposed in unanswered.values():
            redone = list(self._redo(proposed))
            told += redone
            for op in redone:
                made(op)
        for op in told:
            self._edited(op)

    def _restore(self, name: str) -> Iterable[Op]:
        """Make an attribute what the worker has confirmed; gives the op that says so, if that changes it."""
        confirmed = self._confirmed
        value = plain(confirmed.values[name]) if name in confirmed.names else MISSING
        if value is not MISSING:
            confirmed.delete(name)
        if not self._state.restore(name, value):
            return ()
        return ((DELETE, [name]) if value is MISSING else (SET, [name], packed(value)),)

    def _redo(self, proposed: Op) -> Iterable[Op]:
        """Make an edit again that no worker has answered; one whose place is gone is left out."""
        op = proposed
        try:
            if op[0] == SPLICE and op[2] < 0:
                op = (SPLICE, op[1], len(self._state.at(op[1])), 0, op[4])
            self._state.apply([op])
        except (StateError, TypeError):
            return ()
        return (op,)

    def _keep(self, path: list[Any]) -> None:
        """Before an edit of the flow: keep what the worker has confirmed, and what the flow sees at the path.

        Raises:
            StateError: Too much waits for the worker. Nothing was changed.
        """
        if self._unanswered > MOST_UNANSWERED:
            raise StateError(
                f"{self._state.owner}.{path[0]} cannot be changed now: {self._unanswered >> 20} MB of changes wait for "
                "the worker's answer, because it is cut off or slow; await work.wait_confirmed() between large ones"
            )
        remember(self._state, path)
        name = path[0]
        if name not in self._pending and name in self._state.names:
            self._confirmed.restore(name, plain(self._state.at([name])))
        try:
            self._seen = self._state.at(path)
        except StateError:
            self._seen = MISSING

    def _propose(self, op: Op) -> None:
        seen, self._seen = self._seen, MISSING
        name = op[1][0]
        expected, has_expected = self._expected(op, seen)
        sent = op
        if op[0] == SPLICE and op[3] == 0 and op[2] + len(op[4]) == len(self._state.at(op[1])):
            # Appended: it belongs to the end of the list that the worker has by then.
            sent = (SPLICE, op[1], -1, 0, op[4])
        self._latest += 1
        self._pending[name] = self._pending.get(name, 0) + 1
        self._proposals[self._latest] = sent
        self._unanswered += _size(sent)
        self._send(messages.Propose(self._latest, sent, expected, has_expected))
        self._edited(op)

    def _expected(self, op: Op, seen: Any) -> tuple[Any, bool | None]:
        """What the flow saw where it edited, packed; and whether there was something, None if that does not matter."""
        kind, path = op[0], op[1]
        if kind in (SET, DELETE):
            if seen is MISSING:
                return None, False
            if kind == SET and len(path) >= 1 and seen is self._state.at(path):
                return None, None  # a dict was cleared in place: what it held is gone
        elif kind == SPLICE and op[3] and path[0] not in self._pending:
            # Nothing of this attribute is unanswered, so the flow saw what is confirmed.
            seen = self._confirmed.at(path)[op[2] : op[2] + op[3]]
        else:
            return None, None
        return (packed(seen), True) if most_bytes(seen) <= _MOST_EXPECTED else (None, None)


def _size(op: Op) -> int:
    return _KEPT + most_bytes(op)


def _attribute(op: Op) -> str:
    """The attribute that an op of the worker is about; empty where it is no op, which `State.apply` refuses."""
    path = op[1] if len(op) > 1 else None
    return path[0] if type(path) is list and path and type(path[0]) is str else ""
