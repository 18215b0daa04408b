"""The warm-up: it runs a whole worker in the launcher, before the launcher forks the first worker.

When code runs for the first time, the interpreter initialises its functions, types and caches, which writes to their
memory. If each forked process did this, it would also copy that memory, page by page.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import threading

from lightwork.components.work import Work
from lightwork.errors import LightworkError
from lightwork.link import messages
from lightwork.link.buffers import keep_buffers
from lightwork.link.connection import Connection, Frames
from lightwork.link.handshake import LAUNCH_SIZE, NONCE_SIZE, ServerHandshake
from lightwork.link.peer import Peer
from lightwork.worker.agent import Agent

__all__ = ["warm_up"]

_WITHIN = 5.0
"""Time limit of a warm-up in seconds. It usually takes a few milliseconds."""

_MAX_FRAME = 1 << 20
_OVER = "over"


class _WarmupWork(Work):
    """The work of the warm-up: one call, one change of the state."""

    def __init__(self) -> None:
        super().__init__(start_with_flow=False)
        self.count = 0

    async def run(self, n: int = 1) -> int:
        self.count += n
        return self.count


def warm_up() -> bool:
    """Run a worker once, from the dial to the end, with a scheduler in the same loop; return whether it ran.

    The warm-up leaves no thread, file descriptor, task or signal handler: the process can fork afterwards. If the
    platform does not support it, nothing runs, and workers start without a warm-up.

    Raises:
        LightworkError: If the worker did not end as expected.
    """
    if sys.platform != "linux":  # other systems do not fork workers, and have no socket without a file
        return False
    keep_buffers()
    try:
        with asyncio.Runner() as runner:
            runner.run(_run_once())
    except OSError:  # a sandbox may forbid the socket, and a machine may be too slow
        return False
    helper = threading.Thread(target=_nothing)
    helper.start()
    helper.join()
    return True


def _nothing() -> None:
    """Run in the first thread of the process: like all first uses, that thread is the most expensive."""


async def _run_once() -> None:
    launch, secret, name = os.urandom(LAUNCH_SIZE), os.urandom(32), f"lightwork-{os.urandom(8).hex()}"
    loop = asyncio.get_running_loop()
    notes: list[str] = []  # how the warm-up went

    def accept() -> Connection:
        handshake = ServerHandshake({launch: secret}.get, os.urandom(NONCE_SIZE))
        return Connection(handshake, _MAX_FRAME, on_open=lambda connection: _Scheduler(connection, notes).welcome())

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        server = await loop.create_unix_server(accept, sock=sock)
        agent = Agent(messages.Ticket(launch, secret, [(f"@{name}", 0)], dial_within=_WITHIN, orphan_after=0.0))
        try:
            async with asyncio.timeout(_WITHIN):
                await agent.open()
                await agent.serve()
        finally:
            await agent.aclose()
            server.close()
            await server.wait_closed()
    if notes != [_OVER]:
        raise LightworkError(f"the warm-up of a worker failed: {'; '.join(notes) or 'the worker ended too early'}")


class _Scheduler:
    """The scheduler of the warm-up: it welcomes the worker, calls it once, and stops it.

    Args:
        connection: An open and proved connection.
        notes: Collects the errors, or `_OVER` at the end.
    """

    def __init__(self, connection: Connection, notes: list[str]) -> None:
        self._connection = connection
        self._notes = notes
        self._peer: Peer[messages.FromWorker] = Peer(
            self._on_frame, messages.decode_from_worker, _MAX_FRAME, ack_delay=None
        )

    def welcome(self) -> None:
        """Wait for the worker's hello."""
        self._connection.on_frames = self._on_hello

    def _on_hello(self, frames: Frames) -> None:
        messages.decode_from_worker(frames[0][1])
        welcome = messages.Welcome(0, pickle.dumps(_WarmupWork()), "", [], None, _WITHIN, _MAX_FRAME)
        self._connection.send(messages.pack(messages.encode(welcome)))
        self._connection.on_closed = lambda error: self._peer.close()
        self._peer.attach(self._connection, 0)

    def _on_frame(self, frame: messages.FromWorker) -> None:
        match frame:
            case messages.Ready():
                self._peer.send(messages.Call(1, *_WarmupWork()._signature.bind((1,), {})))
            case messages.Result():
                self._peer.send(messages.Stop(0.0))
            case messages.Bye():
                self._notes.append(_OVER)
                self._peer.acknowledge()
            case messages.Failure() | messages.Stopped():
                if frame.error is not None:
                    self._notes.append(f"{frame.error.qualname}: {frame.error.message}")
                    self._peer.send(messages.Stop(0.0))
            case _:
                pass  # `Running`, `Delta`, `Heartbeat` and others need no answer
