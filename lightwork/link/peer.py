"""A peer: the other end's representative. It exchanges frames over several connections in turn.

A `Session` numbers and keeps the sent frames; the current `Connection`, if there is one, carries them. Sending is
encode, header, write: no task, no future. Acknowledgements are lazy, because each one wakes both ends. An
acknowledgement is sent after `ACK_EVERY` frames, after `ACK_BYTES` bytes, or after `ack_delay` seconds, whichever comes
first.

Everything here belongs to the thread of the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar, cast

import msgspec

from lightwork.errors import LightworkError
from lightwork.link.connection import Connection, DeadlineTimer, Frames, Loop
from lightwork.link.messages import Ack, Frame, Heartbeat, encode, pack
from lightwork.link.session import Session

__all__ = ["ACK_BYTES", "ACK_EVERY", "SILENT_BEATS", "WINDOW", "FrameTooLarge", "Peer", "PeerClosed", "PeerStatistics"]

ACK_EVERY = 64
"""Number of received numbered frames after which an acknowledgement is sent."""

ACK_BYTES = 1 << 20
"""Bytes of received numbered frames after which an acknowledgement is sent, so that large frames are not kept long."""

WINDOW = 16 << 20
"""Bytes kept for a replay above which a peer is no longer `Peer.writable`. Far above `ACK_BYTES`: a steady stream is
acknowledged before it fills the window."""

SILENT_BEATS = 4
"""Heartbeat intervals in a row without received data after which a connection is aborted. Both ends send heartbeats, so
three heartbeats of the other end are missing by then."""

FrameT = TypeVar("FrameT", bound=Frame)


class FrameTooLarge(LightworkError, ValueError):
    """A frame is longer than the other end accepts. It was neither numbered nor sent.

    Attributes:
        size: Length of the frame's body in bytes.
        limit: Longest body that the other end accepts, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a frame must be at most {self.limit} bytes (max_frame), got {self.size}"


class PeerClosed(LightworkError):
    """This end has closed the peer, and then sent or attached something."""


class PeerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a peer.

    Attributes:
        attached: Whether the peer has a connection.
        sent: Number of numbered frames sent.
        received: Number of numbered frames received.
        unacked: Number of frames kept for a replay.
        unacked_bytes: Size of the kept frames in bytes.
        last_heard: Time of the last received data, by the loop's clock; the creation time if nothing was received.
    """

    attached: bool
    sent: int
    received: int
    unacked: int
    unacked_bytes: int
    last_heard: float


def _nothing() -> None:
    pass


def _is_monotonic(loop: object) -> bool:
    return getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time


def _ignore(frames: Frames) -> None:
    """Drop the frames of a replaced connection: the other end sends them again over the new one."""


class Peer(Generic[FrameT]):
    """Sends frames to the other end, and passes the other end's frames to `on_frame`, once and in order.

    Args:
        on_frame: Called with each frame except `Ack` and `Heartbeat`. If it raises, the frame counts as received, the
            frames after it do not, and `Connection` aborts.
        decode: Decodes the body of a frame; raises `ProtocolError`.
        max_frame: Longest body that the other end accepts, in bytes.
        ack_delay: Seconds within which received frames are acknowledged. None: only the number of frames and bytes
            cause an acknowledgement, so an idle other end keeps the last few frames. None saves a timer. While a timer
            is armed, the kernel sets a timer in each iteration of the loop, which costs as much as handling a small
            frame.
        window: Bytes kept for a replay above which `writable` is false.
        keeps: Whether a frame is acknowledged only after `keep` has confirmed it, not when it is received.
        loop: The event loop; the running loop by default.

    Attributes:
        max_frame: The argument; may be changed.
        on_writable: Called when `writable` becomes true: after a new connection, a drained buffer, or an
            acknowledgement. May also be called when it was already true.
        on_settled: Called when the other end has acknowledged every sent frame.
        last_heard: Time of the last received data, by the loop's clock.
        closed: Whether `close` was called.
        number, body: Number and raw body of the last numbered frame that was passed to `on_frame`.
    """

    def __init__(
        self,
        on_frame: Callable[[FrameT], None],
        decode: Callable[[bytes], FrameT],
        max_frame: int,
        *,
        ack_delay: float | None = 0.2,
        window: int = WINDOW,
        keeps: bool = False,
        loop: Loop | None = None,
    ) -> None:
        self._loop: Loop = loop or asyncio.get_running_loop()
        self.on_frame = on_frame
        self.on_writable: Callable[[], None] = _nothing
        self.on_settled: Callable[[], None] = _nothing
        self.max_frame = max_frame
        # The `time` of asyncio's loops only wraps this function.
        self._time = time.monotonic if _is_monotonic(self._loop) else self._loop.time
        self.last_heard: float = self._time()
        self._decode = decode
        self._ack_delay = ack_delay
        self._window = window
        self._session = Session()
        self._connection: Connection | None = None
        self.closed: bool = False
        self._keeps = keeps
        self._acks = not keeps
        self._kept = 0
        self.number: int = 0
        self.body: bytes = b""
        self._taken = 0  # bytes of numbered frames received since the last acknowledgement
        self._ack_timer: DeadlineTimer | None = None
        self._beat_every: float | None = None
        self._beat_timer: DeadlineTimer | None = None
        self._last_sent = self.last_heard
        self._heard_at_beat = 0.0  # value of `last_heard` at the latest beat
        self._silent_beats = 0
        self._counted_at = 0.0

    # --- properties ---------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection | None:
        """The current connection."""
        return self._connection

    @property
    def received(self) -> int:
        """The last number received, or kept if `keeps` is set. It is the first thing sent over a new connection."""
        return self._kept if self._keeps else self._session.received

    @property
    def sent(self) -> int:
        """The last number sent."""
        return self._session.sent

    @property
    def acked(self) -> int:
        """The last number that the other end has acknowledged."""
        return self._session.sent - self._session.unacked

    @property
    def writable(self) -> bool:
        """Whether the other end is connected and keeps up.

        While it is false, `send` still works, but the frames wait in memory. A caller that can wait should wait.
        """
        connection = self._connection
        return connection is not None and connection.writable and self._session.unacked_bytes < self._window

    def statistics(self) -> PeerStatistics:
        """Return a snapshot."""
        session = self._session
        return PeerStatistics(
            attached=self._connection is not None,
            sent=session.sent,
            received=session.received,
            unacked=session.unacked,
            unacked_bytes=session.unacked_bytes,
            last_heard=self.last_heard,
        )

    def resume(self, sent: int, received: int) -> None:
        """Continue the exchange of a peer in another process; see `Session.resume`. Call it before any send."""
        self._session.resume(sent, received)
        self._kept = received

    # --- sending ------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> int:
        """Send a frame that must arrive: now, or over the next connection. Return its number.

        Raises:
            FrameTooLarge: If the frame is longer than `max_frame`. Nothing was sent or numbered.
            PeerClosed: If the peer was closed.
            TypeError, ValueError, OverflowError: If msgpack cannot encode a value. Nothing was sent or numbered.
        """
        body = encode(frame)
        if len(body) > self.max_frame or self.closed:
            self._refuse(body)
        session, connection = self._session, self._connection
        data = session.send(body)
        if connection is not None:
            self._last_sent = self._time()
            connection.send(data)
        return session.sent

    def post(self, frame: Frame) -> None:
        """Send a frame that may be lost: over the current connection, or not at all. Raises like `send`."""
        body = encode(frame)
        if len(body) > self.max_frame or self.closed:
            self._refuse(body)
        data = pack(body)
        connection = self._connection
        if connection is not None:
            self._last_sent = self._time()
            connection.send(data)

    def _refuse(self, body: bytes) -> NoReturn:
        if self.closed:
            raise PeerClosed("cannot send to this peer: it was closed")
        raise FrameTooLarge(len(body), self.max_frame)

    # --- connections --------------------------------------------------------------------------------

    def attach(self, connection: Connection, received: int) -> None:
        """Continue over this connection; send again every frame that the other end has not received.

        Sets the connection's `on_frames` and `on_writable`. The connection's owner keeps `on_closed` and calls `detach`
        there. A connection that was attached before is aborted. Frames that were read together with the other end's
        first message must be passed to `feed` afterwards.

        Args:
            connection: An open connection over which both ends have exchanged the last numbers they received.
            received: The last number that the other end has received.

        Raises:
            ProtocolError: If `received` is impossible: the other end belongs to another exchange. Nothing is changed.
            PeerClosed: If the peer was closed.
        """
        if self.closed:
            raise PeerClosed("cannot attach a connection to this peer: it was closed")
        frames = self._session.replay(received)
        old = self._connection
        if old is not connection:
            self.detach()
            if old is not None:
                old.abort()
        self._connection = connection
        self.last_heard = self._last_sent = self._time()
        self._counted_at, self._silent_beats = self.last_heard, 0
        connection.on_frames = self.feed
        connection.on_writable = self._on_drained
        for data in frames:
            connection.send(data)
        self._schedule_beat()
        self._on_drained()
        self._check_settled()

    def detach(self, connection: Connection | None = None) -> None:
        """Continue without a connection: it was lost, or the caller closes it. May be called twice.

        Args:
            connection: The connection to detach. If another connection has replaced it, nothing happens.
        """
        old = self._connection
        if old is None or connection not in (None, old):
            return
        old.on_frames = _ignore
        old.on_writable = _nothing
        self._connection = None
        self._cancel_timers()

    def close(self) -> None:
        """End the exchange: flush written data, drop the kept frames. May be called twice."""
        if self.closed:
            return
        self.closed = True
        connection = self._connection
        self.detach()
        self._session.acked(self._session.sent)
        if connection is not None:
            connection.close()

    def _on_drained(self) -> None:
        if self.writable:
            self.on_writable()

    # --- receiving ----------------------------------------------------------------------------------

    def feed(self, frames: Frames) -> None:
        """Process frames that a connection has received.

        Raises:
            ProtocolError: If a frame is invalid, leaves a gap, or acknowledges a number that was never sent. This frame
                and the frames after it do not count as received.
        """
        self.last_heard = self._time()
        session, decode = self._session, self._decode
        for number, body in frames:
            # The usual case is the next number. The others: no number, a number seen before, or a gap.
            if number != session.received + 1 and number and not session.expects(number):
                continue
            frame = decode(body)
            if number:
                session.received = number
                self._taken += len(body)
                self.number, self.body = number, body
            kind = type(frame)
            if kind is Ack:
                self._on_ack(cast(Ack, frame).number)
            elif kind is not Heartbeat:
                self.on_frame(frame)
            if self.closed:
                return
        if self._taken and self._connection is not None and self._acks:
            if session.received - session.acked_to_peer >= ACK_EVERY or self._taken >= ACK_BYTES:
                self._ack()
            elif self._ack_delay is not None and self._ack_timer is None:
                self._ack_timer = self._loop.call_later(self._ack_delay, self._on_ack_timer)

    def keep(self, number: int) -> None:
        """Confirm that frames up to this number are kept: they may be acknowledged. Only with `keeps`.

        Calling it on a closed peer is safe.
        """
        self._kept = max(self._kept, number)
        if self._connection is None:
            return
        if self._session.ack_due(ACK_EVERY, self._kept) or self._taken >= ACK_BYTES:
            self._ack()

    def _on_ack(self, number: int) -> None:
        held = self._session.unacked_bytes >= self._window
        self._session.acked(number)
        if held:
            self._on_drained()
        self._check_settled()

    def _check_settled(self) -> None:
        if not self._session.unacked:
            self.on_settled()

    def withhold(self) -> bool:
        """Send no automatic acknowledgements until `release`; return whether they were sent before.

        For an owner that cannot process its frames yet and queues them. When the other end's window is full, its
        `writable` is false, and its senders wait.
        """
        was, self._acks = self._acks, False
        return was

    def release(self) -> None:
        """Acknowledge the queued frames now: the owner has processed them. Calling it on a closed peer is safe."""
        self._acks = not self._keeps
        if self._acks and self._taken:
            self._ack()

    def acknowledge(self) -> None:
        """Acknowledge every received frame now."""
        self._ack()

    def _on_ack_timer(self) -> None:
        self._ack_timer = None
        if self._acks:
            self._ack()

    def _ack(self) -> None:
        # A running timer is not cancelled. One early acknowledgement costs less than a timer that is cancelled and
        # started for each acknowledgement.
        self._taken = 0
        upto = self._kept if self._keeps else None
        if self._connection is not None and (number := self._session.ack(upto)):
            self.post(Ack(number))

    # --- heartbeats ---------------------------------------------------------------------------------

    def beat(self, interval: float | None) -> None:
        """Send a `Heartbeat` whenever nothing was sent for `interval` seconds; None stops the heartbeats.

        The other end must do the same: a connection without received data for `SILENT_BEATS` intervals is aborted. The
        setting applies to every connection, and costs nothing without a connection.
        """
        self._beat_every = interval
        self._schedule_beat()

    def _schedule_beat(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None
        if self._beat_every is not None and self._connection is not None:
            self._beat_timer = self._loop.call_at(self._last_sent + self._beat_every, self._on_beat_timer)

    def _on_beat_timer(self) -> None:
        # A single timer compares the times, so that a send only has to store the current time.
        self._beat_timer = None
        if self._beat_every is None or self._connection is None:
            return
        now = self._time()
        if now >= self._counted_at + self._beat_every and self._is_silent(self._connection, now):
            return
        if now >= self._last_sent + self._beat_every:
            self.post(Heartbeat())
        self._schedule_beat()

    def _is_silent(self, connection: Connection, now: float) -> bool:
        """Count the silent intervals; abort a connection that was silent for too many.

        The intervals are counted one by one instead of measured as one span. If this end was blocked, it reads the
        data that arrived meanwhile before the next interval ends.
        """
        self._counted_at = now
        if self.last_heard > self._heard_at_beat:
            self._heard_at_beat, self._silent_beats = self.last_heard, 0
            return False
        self._silent_beats += 1
        if self._silent_beats < SILENT_BEATS:
            return False
        connection.abort(TimeoutError(f"the other end sent nothing for {SILENT_BEATS} heartbeat intervals"))
        return True

    def _cancel_timers(self) -> None:
        for timer in (self._ack_timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        self._ack_timer = self._beat_timer = None
