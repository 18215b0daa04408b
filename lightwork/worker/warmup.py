"""A worker's life played through before the first is forked, in the process that they are forked from.

What code does when it runs for the first time, an interpreter does once for each function, type and cache: it writes to
them. Forked processes that did it each for themselves would also copy the memory that it is written to, page by page.
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
"""Seconds after which it is given up: it takes a few milliseconds."""

_MAX_FRAME = 1 << 20
_OVER = "over"


class _WarmupWork(Work):
    """What is played: one call, one change of the state."""

    def __init__(self) -> None:
        super().__init__(start_with_flow=False)
        self.count = 0

    async def run(self, n: int = 1) -> int:
        self.count += n
        return self.count


def warm_up() -> bool:
    """Be a worker once, from the dial to the end, with a scheduler in the same loop; says whether it came to that.

    It leaves no thread, descriptor or task, and no signal handler: a process can be forked afterwards. Where the
    platform does not let it, nothing is played, and workers start as well without.
    """
    if sys.platform != "linux":  # elsewhere nothing is forked, and there is no socket without a file
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
    """The first thread of a process is the dearest, as everything that is first."""


async def _run_once() -> None:
    launch, secret, name = os.urandom(LAUNCH_SIZE), os.urandom(32), f"lightwork-{os.urandom(8).hex()}"
    loop = asyncio.get_running_loop()
    notes: list[str] = []  # of how it went

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
        raise LightworkError(f"the warm-up of a worker went wrong: {'; '.join(notes) or 'it was broken off'}")


class _Scheduler:
    """The other end: welcomes, calls once, ends.

    Args:
        connection: Open, and proved.
        notes: Takes what went wrong, or that it came to its end.
    """

    def __init__(self, connection: Connection, notes: list[str]) -> None:
        self._connection = connection
        self._notes = notes
        self._peer: Peer[messages.FromWorker] = Peer(
            self._on_frame, messages.decode_from_worker, _MAX_FRAME, ack_delay=None
        )

    def welcome(self) -> None:
        """Take the connection over."""
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
                pass  # that it runs, what it changes, that it is alive
