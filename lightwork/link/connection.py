"""One connection: a handshake, then frames. An `asyncio.Protocol`: nothing here awaits or creates a task.

A connection does not interpret the frames. Its owner sets the callbacks. The listener and `dial` create connections;
`Peer` builds a lasting exchange on top of several connections in turn.
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
"""Seconds that a handshake may take."""

Frames = list[tuple[int, bytes]]
"""Frames as the reader cuts them from the stream: ``(number, body)``."""

_HIGH_WATER = 256 * 1024
_LOW_WATER = 64 * 1024
_LINGER = 10.0

_KEEPALIVE_IDLE = 10
_KEEPALIVE_INTERVAL = 5
_KEEPALIVE_COUNT = 3


class DeadlineTimer(Protocol):
    """The handle that `Loop.call_later` and `Loop.call_at` return."""

    def cancel(self) -> None:
        """Cancel the callback."""


class Loop(Protocol):
    """The part of an event loop that the link uses. It is small, so that a test can replace it and move the clock."""

    def time(self) -> float:
        """Return the time of a monotonic clock, in seconds."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call in the next iteration of the loop."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> DeadlineTimer:
        """Call after `delay` seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> DeadlineTimer:
        """Call when `time` reaches `when`."""

    def call_exception_handler(self, context: dict[str, Any], /) -> None:
        """Report an error that has no caller to receive it."""


def _nothing(*_: object) -> None:
    pass


def reject_frames(frames: Frames) -> None:
    """The default of `Connection.on_frames`, until an owner sets another callback.

    Raises:
        ProtocolError: Always.
    """
    raise ProtocolError(f"expected no frames before the first answer, got {len(frames)}")


def _tune(sock: socket.socket) -> None:
    """Send small frames without delay, and detect a vanished host within half a minute."""
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
        # TCP sends no keepalive probes while data is unacknowledged. This option covers a host that vanishes during a
        # send.
        gone = _KEEPALIVE_IDLE + _KEEPALIVE_INTERVAL * _KEEPALIVE_COUNT
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, gone * 1000)


class Connection(asyncio.Protocol):
    """Runs a handshake over a transport, then passes received frames to `on_frames`.

    The callbacks are attributes and may be replaced at any time. They run in the event loop and must not block. If a
    callback raises, the connection is aborted: the exception goes to the loop's exception handler and to `on_closed`.
    A `ProtocolError` goes to `on_closed` only, because the other end is to blame.

    Args:
        handshake: A new handshake of this end.
        max_frame: Longest body accepted, in bytes.
        on_open: Called once, when both ends have proved that they know the secret.
        on_frames: Called with the frames of each read, in order. Without it, a frame is a `ProtocolError`.
        on_closed: Called once, as the last callback. The argument is None if either end closed an open connection
            gracefully, or if this end aborted without an error. Otherwise it is the error. A callback that is set
            after the end is called in the next iteration of the loop.
        on_writable: Called when `writable` becomes true again.
        handshake_timeout: Seconds that the handshake may take.
        loop: The event loop; the running loop by default.

    Attributes:
        handshake: The argument; `handshake.launch` is the launch that the connection belongs to.
        writable: Whether the other end keeps up. While it is false, `send` still works and buffers the data.
        is_open: Whether the handshake has succeeded and the connection has not ended.
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
        self._ended = False  # this end closed or aborted
        self._lost = False
        self._error: Exception | None = None
        keep_buffers()

    @property
    def on_closed(self) -> Callable[[Exception | None], None]:
        """The last callback; see the class."""
        return self._on_closed

    @on_closed.setter
    def on_closed(self, fn: Callable[[Exception | None], None]) -> None:
        # The connection may be lost after its handshake, before the new owner sets this callback.
        self._on_closed = fn
        if self._lost:
            error = self._error
            self._loop.call_soon(lambda: fn(error))

    @property
    def max_frame(self) -> int:
        """Longest body accepted, in bytes. A new value applies to the next read."""
        return self._reader.max_frame

    @max_frame.setter
    def max_frame(self, size: int) -> None:
        self._reader.max_frame = size

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame. It grows while a long frame arrives."""
        return self._reader.buffered

    @property
    def local_host(self) -> str:
        """This end's address; the loopback address for a Unix socket; empty if the transport has no address."""
        if self._transport is None:
            return ""
        name = self._transport.get_extra_info("sockname")
        if isinstance(name, tuple):
            return str(name[0]) if name else ""
        sock = self._transport.get_extra_info("socket")
        return "127.0.0.1" if sock is not None and sock.family == socket.AF_UNIX else ""

    def send_urgent(self) -> None:
        """Wake the other end's guard thread with one byte of TCP urgent data.

        The byte overtakes all queued data and is not part of the stream. It may be lost.
        """
        if self.fileno < 0:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fileno)) as copy:
            copy.send(b"!", socket.MSG_OOB)

    @property
    def fileno(self) -> int:
        """The file descriptor of this end's socket; -1 without a socket or after it was closed."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def send(self, data: bytes) -> None:
        """Write the bytes of whole frames. A closing connection drops them; `on_closed` reports its end."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def close(self, linger: float = _LINGER) -> None:
        """Close gracefully: flush sent data for at most `linger` seconds, then abort. May be called twice."""
        if self._transport is None:
            self.abort()
        elif not self._transport.is_closing():
            self.is_open = False
            self._ended = True
            self._transport.close()
            reason = f"the other end did not read the remaining data within {linger:g} s of the close"
            self._arm(linger, lambda: self.abort(ConnectionAbortedError(reason)))

    def abort(self, error: Exception | None = None) -> None:
        """Close now and drop unsent data. May be called twice: `on_closed` gets the first error."""
        self.is_open = False
        self._ended = True
        self._error = self._error or error
        if self._transport is not None:
            self._transport.abort()

    # --- called by the transport --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        # Not an isinstance check: uvloop's transports do not subclass asyncio's.
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
        """Process received bytes."""
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
        """Handle a full write buffer."""
        self.writable = False

    def resume_writing(self) -> None:
        """Handle a write buffer that has drained below its low-water mark."""
        self.writable = True
        try:
            self.on_writable()
        except ProtocolError as error:
            self.abort(error)
        except Exception as error:
            self._fail(error, "resuming a connection failed")

    def connection_lost(self, exc: Exception | None) -> None:
        """Call `on_closed` with the first known reason."""
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
        """Feed the handshake; return the bytes after it."""
        self._write(self.handshake.feed(data))
        if not self.handshake.done:
            return b""
        self._shaking = False
        self._disarm()
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            _tune(sock)  # only now: an unauthenticated connection is not worth the system calls
        self.is_open = True
        rest, self.handshake.rest = self.handshake.rest, b""
        self.on_open(self)
        return rest if self.is_open else b""  # the owner may have closed it

    def _write(self, data: bytes) -> None:
        if data:
            self.send(data)

    def _on_deadline(self) -> None:
        self.abort(ProtocolError(f"the other end did not complete the handshake within {self._timeout:g} s"))

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
