"""Asks workers for their stacks and their resource usage, on request only."""

from __future__ import annotations

import asyncio
import itertools

from lightwork.engine.workers.worker import Worker
from lightwork.errors import ProtocolError
from lightwork.link import messages

__all__ = ["Queries"]

_URGENT_AFTER = 0.5
"""Seconds that a worker's loop has to reply before the query goes to its other thread."""


class Queries:
    """The queries that wait for a reply. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[Worker, asyncio.Future[bytes]]] = {}

    async def ask(self, worker: Worker, what: messages.QueryKind, timeout: float) -> bytes:
        """Send a query to a worker; return its reply, in JSON. Cancelling discards the query.

        Raises:
            TimeoutError: The worker does not reply in `timeout` seconds, or has no connection.
        """
        peer = worker.peer
        if peer is None or peer.closed or peer.connection is None:
            raise TimeoutError("the worker has no connection")
        number = next(self._numbers)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[number] = worker, answered
        try:
            peer.post(messages.Query(number, what))
            async with asyncio.timeout(timeout):
                if what == "stack":
                    await asyncio.wait({answered}, timeout=_URGENT_AFTER)
                    if not answered.done() and peer.connection is not None:
                        peer.connection.send_urgent()
                return await answered
        finally:
            del self._open[number]

    def replied(self, worker: Worker, frame: messages.QueryReply) -> None:
        """Handle a worker's reply. A reply that nobody waits for is ignored.

        Raises:
            ProtocolError: The reply is longer than `MAX_QUERY_REPLY`.
        """
        if len(frame.data) > messages.MAX_QUERY_REPLY:
            raise ProtocolError(
                f"a worker's query reply must have at most {messages.MAX_QUERY_REPLY} bytes, got {len(frame.data)}"
            )
        asked, answered = self._open.get(frame.number, (None, None))
        if asked is worker and answered is not None and not answered.done():
            answered.set_result(frame.data)

    def take_out(self, worker: Worker, lines: bytes) -> bytes:
        """Remove query replies from a worker's output, and return the rest.

        A worker whose loop is blocked replies through its output.
        """
        kept = []
        for line in lines.splitlines(keepends=True):
            before, mark, data = line.partition(messages.QUERY_REPLY_MARK)
            if not mark:
                kept.append(line)
                continue
            if before:  # an incomplete line, in which the reply was written
                kept.append(before + b"\n")
            for asked, answered in self._open.values():
                if asked is worker and not answered.done():
                    answered.set_result(data.rstrip(b"\n"))
        return b"".join(kept)
