"""One connection: a handshake, then frames. An `asyncio.Protocol`, so nothing here is awaited and no task is made.

It does not know what the frames say. What it is told by its callbacks' owner: `Peer` makes a lasting exchange out
of passing connections, the listener and `dial` make the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol, cast

from lightwork.errors import ProtocolError
from lightwork.link.buffers import keep_buffers
from lightwork.link.handshake import Handshake
from lightwork.link.messages import FrameReader

__all__ = ["HANDSHAKE_TIMEOUT", "Connection", "DeadlineTimer", "Frames", "Loop", "reject_frames"]

HANDSHAKE_TIMEOUT = 10.0

Frames = list[tuple[int, bytes]]
"""Frames as they are cut from the stream: ``(number, body)``."""

_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_LINGER = 10.0

_KEEPALIVE_IDLE = 10
_KEEPALIVE_INTERVAL = 5
_KEEPALIVE_COUNT = 3


class DeadlineTimer(Protocol):
    """What `Loop.call_at` gives."""

    def cancel(self) -> None:
        """Do not call."""


class Loop(Protocol):
    """What the link needs of an event loop: little enough that its tests move the clock by hand."""

    def time(self) -> float:
        """Seconds, of a clock that never goes back."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call in the next round."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> DeadlineTimer:
        """Call after `delay` seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> DeadlineTimer:
        """Call when `time` says so."""

    def call_exception_handler(self, context: dict[str, Any], /) -> None:
        """Report what nobody can be told."""


def _nothing(*_: object) -> None:
    pass


def reject_frames(frames: Frames) -> None:
    """What `Connection.on_frames` is until somebody takes the connection over.

    Raises:
        ProtocolError: Always.
    """
    raise ProtocolError(f"{len(frames)} frames came before they were asked for")


def _tune(sock: socket.socket) -> None:
    """Small frames leave at once, and a host that vanished is noticed within half a minute."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "darwin":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPALIVE, _KEEPALIVE_IDLE)
    elif hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    if hasattr(socket, "TCP_KEEPINTVL"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Keepalive is silent while data is unacknowledged; this covers a host that vanishes in the middle of a send.
        gone = _KEEPALIVE_IDLE + _KEEPALIVE_INTERVAL * _KEEPALIVE_COUNT
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, gone * 1000)


class Connection(asyncio.Protocol):
    """Runs a handshake over a transport, then hands on the frames that arrive.

    The callbacks are attributes and may be replaced at any time. They are called in the event loop and must not
    block. One that raises costs the connection: the exception goes to the loop's exception handler and to
    `on_closed`. A `ProtocolError` goes to `on_closed` alone, whoever raised it: the other end is to blame.

    Args:
        handshake: This end's handshake, fresh.
        max_frame: Longest body accepted, in bytes.
        on_open: Called once, when both ends have proved themselves.
        on_frames: Called with the frames of each read, in order. Without it, a frame is a `ProtocolError`.
        on_closed: Called once, last: with None if either end closed an open connection in order, or this end ended it
            without naming an error, else with why. One that is set when all is over is called soon.
        on_writable: Called when `writable` becomes true again.
        handshake_timeout: Seconds that the handshake may take.
        loop: The event loop, the running one if not given.

    Attributes:
        handshake: As given; `handshake.launch` says which launch the connection belongs to.
        writable: Whether the other end keeps up. `send` works all the same; what it is given is buffered.
        is_open: Whether the handshake is over and the connection is not.
    """

    def __init__(
        self,
        handshake: Handshake,
        max_frame: int,
        *,
        on_open: Callable[[Connection], None] = _nothing,
        on_frames: Callable[[Frames], None] = reject_frames,
        on_closed: Callable[[Exception | None], None] = _nothing,
        on_writable: Callable[[], None] = _nothing,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        loop: Loop | None = None,
    ) -> None:
        self.handshake = handshake
        self.on_open = on_open
        self.on_frames = on_frames
        self.on_writable = on_writable
        self.writable: bool = True
        self.is_open: bool = False
        self._loop: Loop = loop or asyncio.get_running_loop()
        self._reader = FrameReader(max_frame)
        self._shaking = True
        self._timeout = handshake_timeout
        self._timer: DeadlineTimer | None = None
        self._transport: asyncio.Transport | None = None
        self._on_closed = on_closed
        self._ended = False  # by this end
        self._lost = False
        self._error: Exception | None = None
        keep_buffers()

    @property
    def on_closed(self) -> Callable[[Exception | None], None]:
        """Called last, see above."""
        return self._on_closed

    @on_closed.setter
    def on_closed(self, fn: Callable[[Exception | None], None]) -> None:
        # Between the end of a handshake and its new owner's setting this, the connection may be lost.
        self._on_closed = fn
        if self._lost:
            error = self._error
            self._loop.call_soon(lambda: fn(error))

    @property
    def max_frame(self) -> int:
        """Longest body accepted, in bytes. May be changed; holds for what is read from then on."""
        return self._reader.max_frame

    @max_frame.setter
    def max_frame(self, size: int) -> None:
        self._reader.max_frame = size

    @property
    def buffered(self) -> int:
        """Bytes of a frame that has not come whole; it grows while a long one comes in."""
        return self._reader.buffered

    @property
    def local_host(self) -> str:
        """This end's address; of a Unix socket the loopback's; empty where the transport has none."""
        if self._transport is None:
            return ""
        name = self._transport.get_extra_info("sockname")
        if isinstance(name, tuple):
            return str(name[0]) if name else ""
        sock = self._transport.get_extra_info("socket")
        return "127.0.0.1" if sock is not None and sock.family == socket.AF_UNIX else ""

    def send_urgent(self) -> None:
        """Wake the other end's guard, past all that waits: one byte that is no part of the stream. It may be lost."""
        if self.fileno < 0:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fileno)) as copy:
            copy.send(b"!", socket.MSG_OOB)

    @property
    def fileno(self) -> int:
        """The descriptor of this end's socket; -1 where there is none, or none any more."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def send(self, data: bytes) -> None:
        """Write the bytes of whole frames. On a connection that is closing they are dropped; `on_closed` tells."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def close(self, linger: float = _LINGER) -> None:
        """Close in order: what was sent still leaves, for at most `linger` seconds. May be repeated."""
        if self._transport is None:
            self.abort()
        elif not self._transport.is_closing():
            self.is_open = False
            self._ended = True
            self._transport.close()
            self._arm(linger, lambda: self.abort(ConnectionAbortedError(f"the rest was not taken within {linger} s")))

    def abort(self, error: Exception | None = None) -> None:
        """Close now; what has not left is lost. May be repeated: of the errors given, `on_closed` gets the first."""
        self.is_open = False
        self._ended = True
        self._error = self._error or error
        if self._transport is not None:
            self._transport.abort()

    # --- called by the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        # Not an isinstance check: the transports of uvloop subclass nothing of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if self._ended:
            self._transport.abort()
            return
        try:
            self._transport.set_write_buffer_limits(high=_HIGH_WATER, low=_LOW_WATER)
            self._arm(self._timeout, self._on_deadline)
            self._write(self.handshake.start())
        except Exception as error:
            self._fail(error, "setting up a connection failed")

    def data_received(self, data: bytes) -> None:
        """Take in bytes."""
        try:
            if self._shaking:
                data = self._shake(data)
                if not data:
                    return
            frames = self._reader.feed(data)
            if frames:
                self.on_frames(frames)
        except ProtocolError as error:
            self.abort(error)
        except Exception as error:
            self._fail(error, "handling what a connection received failed")

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """The write buffer has been emptied far enough."""
        self.writable = True
        try:
            self.on_writable()
        except ProtocolError as error:
            self.abort(error)
        except Exception as error:
            self._fail(error, "resuming a connection failed")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, with the first reason that is known."""
        self.is_open = self.writable = False
        self._lost = True
        self._disarm()
        self._error = self._error or exc
        if self._error is None and not self._ended:
            if self._shaking:
                self._error = ProtocolError("the other end closed the connection during the handshake")
            elif self._reader.buffered:
                self._error = ConnectionResetError("the connection ended in the middle of a frame")
        try:
            self._on_closed(self._error)
        except Exception as failure:
            self._report(failure, "closing a connection failed")

    # --- inside -------------------------------------------------------------------------------------

    def _shake(self, data: bytes) -> bytes:
        """Feed the handshake; return what came after it."""
        self._write(self.handshake.feed(data))
        if not self.handshake.done:
            return b""
        self._shaking = False
        self._disarm()
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            _tune(sock)  # not before: strangers are not worth the system calls
        self.is_open = True
        rest, self.handshake.rest = self.handshake.rest, b""
        self.on_open(self)
        return rest if self.is_open else b""  # the owner may have turned it away

    def _write(self, data: bytes) -> None:
        if data:
            self.send(data)

    def _on_deadline(self) -> None:
        self.abort(ProtocolError(f"no handshake within {self._timeout:g} s"))

    def _fail(self, error: Exception, message: str) -> None:
        self._report(error, message)
        self.abort(error)

    def _report(self, error: Exception, message: str) -> None:
        self._loop.call_exception_handler({"message": message, "exception": error, "protocol": self})

    def _arm(self, delay: float, fn: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay, fn)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
