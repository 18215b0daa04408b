"""The flow's copy of a work's state while the worker owns it.

The worker's ops are applied strictly in order, so the copy cannot diverge. An edit that the flow makes is a proposal.
The flow sees it in the attribute at once. From the first proposal on, a confirmed copy of that attribute is kept, and
the worker's ops for the attribute apply to the confirmed copy. When the last proposal for the attribute is answered,
the attribute becomes equal to the confirmed copy. That happens in place, so code that holds a container of the
attribute sees the result. Watchers receive only the changes that the flow sees.
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
"""Bytes of edits that may wait for a worker's answers. Beyond that, edits are refused until answers have come."""

_MOST_EXPECTED = 64 * 1024
"""Largest size, in bytes, of the old value that is sent with a proposal for comparison."""

_KEPT = 512
"""Approximate overhead of a proposal in memory, in bytes."""


class Replica:
    """Ties a work's `State` to its worker, from the welcome to the worker's end.

    If the work leaves the tree meanwhile, it is untied: `Work` removes the guard, and frames that arrive later change
    nothing.

    Args:
        state: The flow's copy.
        send: Sends a proposal.
        edited: Called with each edit of the flow, after it was made.
        earlier: The highest number of a proposal that another replica has made to this worker. The ops in answers to
            such proposals are applied like other ops of the worker.
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
        self._unanswered = 0  # bytes of `_proposals`
        self._latest = self._earlier = earlier
        self._seen: Any = MISSING
        self._guard = self._keep
        state.guard = self._guard
        state.sink = self._propose

    @property
    def num_pending(self) -> int:
        """How many proposals the worker has not answered."""
        return len(self._proposals)

    @property
    def latest(self) -> int:
        """The number of the latest proposal, 0 before the first."""
        return self._latest

    @property
    def is_tied(self) -> bool:
        """Whether the state is still tied to this replica."""
        return self._state.guard is self._guard

    def confirmed(self) -> dict[str, Any]:
        """Return a plain copy of the values that the worker has confirmed: the state without unanswered proposals."""
        with self._state.lock:
            values = self._state.snapshot()
            for name in self._pending:
                if name in self._confirmed.names:
                    values[name] = plain(self._confirmed.values[name])
                else:
                    values.pop(name, None)
            return values

    def apply(self, ops: Sequence[Op]) -> Sequence[Op]:
        """Apply ops of the worker; return those that change what the flow sees.

        Raises:
            StateError: The two sides have diverged, because of a bug or a worker of another program.
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
        """Handle the worker's answer to a proposal.

        Args:
            number: Number of the proposal, which the worker has taken or refused.
            ops: The ops by which the worker has changed its state for it.

        Returns:
            The ops that change what the flow sees.

        Raises:
            StateError: The two sides have diverged, or the proposal was never made.
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
        """Give the state back to the flow, because the worker is gone. Unanswered edits are made again if they fit.

        Args:
            sink: Receives the flow's edits from now on.
            made: Called with each unanswered edit that was made again.
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
        """Set an attribute to its confirmed value; return the op for that, nothing if the value does not change."""
        confirmed = self._confirmed
        value = plain(confirmed.values[name]) if name in confirmed.names else MISSING
        if value is not MISSING:
            confirmed.delete(name)
        if not self._state.restore(name, value):
            return ()
        return ((DELETE, [name]) if value is MISSING else (SET, [name], packed(value)),)

    def _redo(self, proposed: Op) -> Iterable[Op]:
        """Make an unanswered edit again; return its op, nothing if its path no longer exists."""
        op = proposed
        try:
            if op[0] == SPLICE and op[2] < 0:
                op = (SPLICE, op[1], len(self._state.at(op[1])), 0, op[4])
            self._state.apply([op])
        except (StateError, TypeError):
            return ()
        return (op,)

    def _keep(self, path: list[Any]) -> None:
        """Prepare for an edit of the flow: keep the confirmed attribute, and the value that the flow sees at the path.

        Raises:
            StateError: Too many bytes of edits wait for the worker's answers. Nothing was changed.
        """
        if self._unanswered > MOST_UNANSWERED:
            raise StateError(
                f"{self._state.owner}.{path[0]} cannot be changed now: {self._unanswered >> 20} MB of changes wait for "
                "the worker's answer, because it is disconnected or slow; await work.wait_confirmed() between large "
                "changes"
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
            # An append: the item goes to the end of the list that the worker has when the proposal arrives.
            sent = (SPLICE, op[1], -1, 0, op[4])
        self._latest += 1
        self._pending[name] = self._pending.get(name, 0) + 1
        self._proposals[self._latest] = sent
        self._unanswered += _size(sent)
        self._send(messages.Propose(self._latest, sent, expected, has_expected))
        self._edited(op)

    def _expected(self, op: Op, seen: Any) -> tuple[Any, bool | None]:
        """Return the old value at the edited path, packed, and whether one existed (None if that does not matter)."""
        kind, path = op[0], op[1]
        if kind in (SET, DELETE):
            if seen is MISSING:
                return None, False
            if kind == SET and len(path) >= 1 and seen is self._state.at(path):
                return None, None  # a dict was cleared in place, so its old items are gone
        elif kind == SPLICE and op[3] and path[0] not in self._pending:
            # No proposal for this attribute is unanswered, so the flow saw the confirmed value.
            seen = self._confirmed.at(path)[op[2] : op[2] + op[3]]
        else:
            return None, None
        return (packed(seen), True) if most_bytes(seen) <= _MOST_EXPECTED else (None, None)


def _size(op: Op) -> int:
    return _KEPT + most_bytes(op)


def _attribute(op: Op) -> str:
    """Return the attribute that an op of the worker changes; empty for an invalid op, which `State.apply` refuses."""
    path = op[1] if len(op) > 1 else None
    return path[0] if type(path) is list and path and type(path[0]) is str else ""
