"""Exchanges a work's state with the flow: the work's edits go out, and the flow's proposals come in.

Everything here runs in the agent's event loop, except `StateStream.edited`. The state calls it under its lock, in the
thread that edits the state.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from lightwork.errors import StateError
from lightwork.link import messages
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.remote_errors import describe_error
from lightwork.state.ops import Op, OpBuffer, split_op
from lightwork.state.values import unpacked

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["StateStream"]

_FLUSH_EVERY = 0.001
"""Seconds between two deltas of a coroutine that does not await; its other edits are sent when it awaits."""

_BURST = 32
"""Number of edits in a row that are sent at once and separately: a coroutine may set a few values and then compute."""


class StateStream:
    """Connects a work's state to the link. Made in the agent's loop.

    Args:
        work: The work.
        peer: The other end; this object sets its `on_writable`.
        on_port: Called in the loop when the work's port has changed.
        before: Called in the loop before edits are sent, to send frames that must come first.

    Attributes:
        latest_proposal: Number of the flow's latest proposal, 0 before the first.
    """

    def __init__(
        self,
        work: Work,
        peer: Peer[messages.FromScheduler],
        on_port: Callable[[], None],
        before: Callable[[], None],
    ) -> None:
        self._work = work
        self._peer = peer
        self._on_port = on_port
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._buffer = OpBuffer()
        self._credit = float(_BURST)
        self._credited_at = 0.0
        self._is_scheduled = False
        self._proposals: deque[messages.Propose] = deque()
        self._is_deciding = False
        self.latest_proposal: int = 0
        peer.on_writable = self.flush

    def edited(self, op: Op) -> None:
        """Take an edit, as the sink of the state. Called under the state's lock, in the thread that edits the state."""
        self._buffer.add(op)
        if op[1][0] == "_port":
            self._loop.call_soon_threadsafe(self._on_port)
        if threading.get_ident() != self._thread:
            if not self._is_scheduled:
                self._is_scheduled = True
                self._loop.call_soon_threadsafe(self.flush)
        elif self._may_flush():
            # In the loop's thread the delta can be sent now, even from a coroutine that never awaits.
            self._is_scheduled = False
            self._send_waiting(force=False)
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self.flush)

    def _may_flush(self) -> bool:
        """Return whether to send an edit of the loop's thread at once: a burst may, then one in each millisecond."""
        now = time.monotonic()
        credit = self._credit + (now - self._credited_at) / _FLUSH_EVERY
        self._credited_at = now
        if credit < 1:
            self._credit = credit
            return False
        self._credit = (credit if credit < _BURST else _BURST) - 1
        return True

    def flush(self, *, force: bool = False) -> None:
        """Send the buffered edits if the other end keeps up, or if `force` is set because a frame follows them."""
        # Every earlier edit is in the buffer. A concurrent edit in another thread counts as a later edit.
        if not (self._is_scheduled or self._buffer):
            return
        with self._work._state.lock:
            self._is_scheduled = False
            if self._buffer:
                self._send_waiting(force=force)

    def _send_waiting(self, *, force: bool) -> None:
        """Do the work of `flush`, under the state's lock and with edits in the buffer."""
        peer = self._peer
        if peer.closed:
            return
        if not force and not peer.writable:
            state = self._work._state
            self._buffer.compact(state.names, state.values)
            return
        self._before()
        self._send_ops(self._buffer.take())

    def _send_ops(self, ops: list[Op]) -> None:
        try:
            self._peer.send(messages.Delta(ops))
        except FrameTooLarge as error:
            if len(ops) == 1:
                parts = split_op(ops[0])
                if parts is None:
                    raise StateError(
                        f"{_spell(ops[0])} cannot be sent: {error}. Keep a file's path instead, or raise max_frame "
                        "in the configuration"
                    ) from None
                ops = parts
            middle = len(ops) // 2
            self._send_ops(ops[:middle])
            self._send_ops(ops[middle:])

    def propose(self, frame: messages.Propose, group: asyncio.TaskGroup) -> None:
        """Let the work accept or refuse a proposal of the flow, after the earlier proposals.

        An ``async def apply_flow_delta`` runs as a task of `group`.
        """
        self._proposals.append(frame)
        self.latest_proposal = frame.proposal
        self._decide(group)

    def _decide(self, group: asyncio.TaskGroup) -> None:
        while self._proposals and not self._is_deciding:
            frame = self._proposals.popleft()
            self._is_deciding = True
            outcome, error = None, None
            try:
                outcome = self._apply(frame)
            except Exception as raised:
                error = raised
            if asyncio.iscoroutine(outcome):
                group.create_task(self._decide_later(frame, outcome, group))
            else:
                self._answer(frame, error)

    def _apply(self, frame: messages.Propose) -> Any:
        from lightwork.components.flow_delta import FlowDelta

        return self._work.apply_flow_delta(FlowDelta(frame.op, unpacked(frame.expected), frame.has_expected))

    async def _decide_later(
        self, frame: messages.Propose, outcome: Coroutine[Any, Any, Any], group: asyncio.TaskGroup
    ) -> None:
        error = None
        try:
            await outcome
        except Exception as raised:
            error = raised
        self._answer(frame, error)
        self._decide(group)

    def _answer(self, frame: messages.Propose, error: Exception | None) -> None:
        with self._work._state.lock:
            self._is_deciding = False
            ops = self._buffer.take()
            info = None if error is None else describe_error(error)
            try:
                self._peer.send(messages.ProposalResult(frame.proposal, ops, info))
            except FrameTooLarge:
                self._send_ops(ops)
                self._peer.send(messages.ProposalResult(frame.proposal, [], info))


def _spell(op: Op) -> str:
    return str(op[1][0]) + "".join(f"[{key!r}]" for key in op[1][1:])
