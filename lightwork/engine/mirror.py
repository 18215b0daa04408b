"""The flow's copy of a work's state while the worker owns it.

The worker's ops are applied strictly in order, so the copy cannot diverge. An edit that the flow makes is a
proposal: it shows at once in the attribute that the flow reads, and from the first one on a confirmed copy of that
attribute is kept aside, which takes the worker's ops instead. When the last proposal for the attribute is
answered, the attribute becomes equal to the confirmed copy: in place, so that whoever holds a container of
it sees what became of the edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lightwork import wire
from lightwork.ops import DELETE, SET, SPLICE
from lightwork.state import MISSING, SCALARS, State, packed
from lightwork.errors import StateError

__all__ = ["Mirror"]


class Mirror:
    """Ties a work's `State` to its worker, from the welcome to the worker's end.

    Args:
        state: The flow's copy.
        send: Sends a proposal.
        edited: Told of each edit of the flow, after it was made.
    """

    def __init__(
        self, state: State, send: Callable[[wire.FlowDelta], None], edited: Callable[[wire.Op], None]
    ) -> None:
        self._state = state
        self._send = send
        self._edited = edited
        self._confirmed = State(state.owner, {})
        self._pending: dict[str, int] = {}
        self._proposals: dict[int, str] = {}
        self._latest = 0
        self._seen: Any = MISSING
        state.guard = self._keep
        state.sink = self._propose

    @property
    def num_pending(self) -> int:
        """Proposals that the worker has not answered."""
        return len(self._proposals)

    def apply(self, ops: Iterable[wire.Op]) -> None:
        """Apply what the worker did.

        Raises:
            StateError: The two sides have diverged: a bug, or a worker that is not ours.
        """
        if not self._pending:
            self._state.apply(ops)
            return
        for op in ops:
            aside = op[1][0] in self._pending
            (self._confirmed if aside else self._state).apply([op])

    def answer(self, number: int, ops: Iterable[wire.Op]) -> None:
        """The worker has taken or refused a proposal; `ops` is what it made of it."""
        self.apply(ops)
        name = self._proposals.pop(number, None)
        if name is None:
            raise StateError(f"{self._state.owner}: the worker answers proposal {number}, which was never made")
        self._pending[name] -= 1
        if not self._pending[name]:
            del self._pending[name]
            confirmed = self._confirmed.snapshot().get(name, MISSING)
            if confirmed is not MISSING:
                self._confirmed.delete(name)
            self._state.restore(name, confirmed)

    def close(self, sink: Callable[[wire.Op], None]) -> None:
        """The worker is gone: the flow owns the state again, as it sees it. `sink` takes its edits from now on."""
        self._state.guard = None
        self._state.sink = sink
        self._pending.clear()
        self._proposals.clear()

    def _keep(self, path: list[Any]) -> None:
        """Before an edit of the flow: keep what the worker has confirmed, and what the flow sees at the path."""
        name = path[0]
        if name not in self._pending and name in self._state.names:
            self._confirmed.restore(name, self._state.at([name]))
        try:
            self._seen = self._state.at(path)
        except StateError:
            self._seen = MISSING

    def _propose(self, op: wire.Op) -> None:
        seen, self._seen = self._seen, MISSING
        kind, path = op[0], op[1]
        expected, has_expected = None, None
        if kind in (SET, DELETE):
            if seen is MISSING:
                has_expected = False
            elif type(seen) in SCALARS:
                expected, has_expected = packed(seen), True
        elif kind == SPLICE and op[3] == 0 and op[2] + len(op[4]) == len(self._state.at(path)):
            # Appended: it belongs to the end of the list that the worker has by then.
            op = (kind, path, -1, 0, op[4])
        self._latest += 1
        self._pending[path[0]] = self._pending.get(path[0], 0) + 1
        self._proposals[self._latest] = path[0]
        self._send(wire.FlowDelta(self._latest, op, expected, has_expected))
        self._edited(op)
