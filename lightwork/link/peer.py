"""The other end, as it looks to a scheduler or a worker: a lasting exchange of frames over passing connections.

A `Session` numbers and keeps what is sent; the present `Connection`, if there is one, carries it. Sending is
encode, header, write: no task, no future. Acknowledgements are lazy, because each costs both ends a wake-up: after
`ACK_EVERY` frames, after `ACK_BYTES` bytes, or after `ack_delay` seconds, whichever comes first.

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
"""Numbered frames taken in after which an acknowledgement is sent."""

ACK_BYTES = 1 << 20
"""Bytes of numbered frames taken in after which an acknowledgement is sent: a few large ones are not kept long."""

WINDOW = 16 << 20
"""Bytes kept for a replay above which a peer is no longer `Peer.writable`. Well above `ACK_BYTES`, so that a steady
stream is acknowledged before it is held up."""

SILENT_BEATS = 4
"""Intervals of the heartbeat in a row in which nothing has come, after which a connection is given up: both ends beat,
so by then three beats of the other's are missing."""

FrameT = TypeVar("FrameT", bound=Frame)


class FrameTooLarge(LightworkError, ValueError):
    """A frame is longer than the other end accepts; it was neither numbered nor sent.

    Attributes:
        size: Length of its body in bytes.
        limit: The longest one accepted.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a frame of {self.size} bytes is longer than max_frame, {self.limit} bytes"


class PeerClosed(LightworkError):
    """Something was sent to a peer that was closed here."""


class PeerStatistics(msgspec.Struct, frozen=True):
    """A peer at one moment.

    Attributes:
        attached: Whether there is a connection.
        sent: Numbered frames sent so far.
        received: Numbered frames taken in so far.
        unacked: Frames kept for a replay.
        unacked_bytes: Their size.
        last_heard: When something was last received, by the loop's clock; when the peer was made, if nothing was.
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
    """Frames of a connection that has been replaced: they are sent again over the new one."""


class Peer(Generic[FrameT]):
    """Sends frames to the other end and gives its frames, in order and once, to `on_frame`.

    Args:
        on_frame: Called with each frame but `Ack` and `Heartbeat`. If it raises, the frame counts as taken in, the
            frames after it do not, and the connection is given up as `Connection` says.
        decode: Makes a frame of a body; raises `ProtocolError`.
        max_frame: Longest body that the other end accepts, in bytes.
        ack_delay: Seconds within which what was taken in is acknowledged. None: by number and bytes alone, so the other
            end keeps the last few frames for as long as it is at rest. That spares a timer: while one is armed, each
            turn of the loop has the kernel set one too, which costs as much as handling a small frame.
        window: Bytes kept for a replay above which `writable` is false.
        keeps: Whether frames are acknowledged only when `keep` says that they are kept, not when they are taken in.
        loop: The event loop, the running one if not given.

    Attributes:
        max_frame: As given; may be changed.
        on_writable: Called when `writable` becomes true, be it by a new connection, by one that drains, or by an
            acknowledgement. May be called when it was true already.
        on_settled: Called when the other end has acknowledged everything that was sent.
        last_heard: When something was last received, by the loop's clock.
        closed: Whether `close` was called.
        number, body: Of the numbered frame that `on_frame` was called with last, as it came.
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
        # That of asyncio's loops is a function around this one.
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
        self._taken = 0  # bytes of numbered frames since the last acknowledgement
        self._ack_timer: DeadlineTimer | None = None
        self._beat_every: float | None = None
        self._beat_timer: DeadlineTimer | None = None
        self._last_sent = self.last_heard
        self._heard_at_beat = 0.0  # what `last_heard` was at the latest beat
        self._silent_beats = 0
        self._counted_at = 0.0

    # --- what is known ------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection | None:
        """The present connection."""
        return self._connection

    @property
    def received(self) -> int:
        """The last number taken in, and kept where that matters: what a new connection tells the other end first."""
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
        """Whether the other end is there and keeps up.

        `send` works all the same, but what it is given then waits in memory: whoever can hold back should.
        """
        connection = self._connection
        return connection is not None and connection.writable and self._session.unacked_bytes < self._window

    def statistics(self) -> PeerStatistics:
        """A snapshot."""
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
        """Go on where a peer of another process left off; see `Session.resume`. Before anything was sent."""
        self._session.resume(sent, received)
        self._kept = received

    # --- sending ------------------------------------------------------------------------------------

    def send(self, frame: Frame) -> int:
        """Send a frame that must arrive: now, or when there is a connection again. Gives its number.

        Raises:
            FrameTooLarge: If it is longer than `max_frame`. Nothing was sent or numbered.
            PeerClosed: If the peer was closed.
            TypeError, ValueError, OverflowError: If it holds a value that msgpack cannot. Nothing was sent or numbered.
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
        """Send a frame that may be lost: over the present connection, or not at all. Raises as `send`."""
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
            raise PeerClosed("this peer was closed; nothing can be sent to it any more")
        raise FrameTooLarge(len(body), self.max_frame)

    # --- connections --------------------------------------------------------------------------------

    def attach(self, connection: Connection, received: int) -> None:
        """Go on over this connection; send again what the other end has not taken in.

        Takes over `on_frames` and `on_writable` of the connection. `on_closed` stays its owner's, who calls `detach`.
        A connection that was attached before is aborted. Frames that were read together with the other end's first
        message are given to `feed` after this.

        Args:
            connection: An open connection on which both ends have told what they have received.
            received: The last number that the other end has taken in.

        Raises:
            ProtocolError: If that number cannot be: the other end belongs to another exchange. Nothing is changed.
            PeerClosed: If the peer was closed.
        """
        if self.closed:
            raise PeerClosed("this peer was closed; no connection can be attached to it")
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
        """Go on without a connection: it has been lost, or will be closed by the caller. May be repeated.

        Args:
            connection: The one that is meant; if another has taken its place, nothing happens.
        """
        old = self._connection
        if old is None or connection not in (None, old):
            return
        old.on_frames = _ignore
        old.on_writable = _nothing
        self._connection = None
        self._cancel_timers()

    def close(self) -> None:
        """Be done with the other end: what was written still leaves, what is kept is dropped. May be repeated."""
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
        """Take in frames as a connection has cut them.

        Raises:
            ProtocolError: If one is no frame, leaves a gap, or acknowledges what was never sent. It and those after
                it do not count as taken in.
        """
        self.last_heard = self._time()
        session, decode = self._session, self._decode
        for number, body in frames:
            # The next number is the usual case; else none, or one that was seen, or a gap.
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
        """Frames up to this one are kept here, and may be acknowledged. Only with `keeps`; fine when closed."""
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
        """Acknowledge nothing by itself until `release`; says whether that is new.

        For an owner that cannot deal with what comes, and has it wait: when the other end's window is full its
        `writable` is false, and whoever can hold back there does.
        """
        was, self._acks = self._acks, False
        return was

    def release(self) -> None:
        """What has waited is dealt with: acknowledge it now; fine when closed."""
        self._acks = not self._keeps
        if self._acks and self._taken:
            self._ack()

    def acknowledge(self) -> None:
        """Acknowledge what was taken in, without waiting for more."""
        self._ack()

    def _on_ack_timer(self) -> None:
        self._ack_timer = None
        if self._acks:
            self._ack()

    def _ack(self) -> None:
        # A timer that is running stays: to cancel and start one for each acknowledgement costs more than one that
        # comes early.
        self._taken = 0
        upto = self._kept if self._keeps else None
        if self._connection is not None and (number := self._session.ack(upto)):
            self.post(Ack(number))

    # --- heartbeats ---------------------------------------------------------------------------------

    def beat(self, interval: float | None) -> None:
        """Send a `Heartbeat` whenever nothing was sent for `interval` seconds; None stops that.

        The other end is taken to do the same: a connection that brings nothing for `SILENT_BEATS` intervals is aborted.
        Holds over all connections, and costs nothing while there is none.
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
        # One timer that looks back, so that sending only notes the time.
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
        """Count the intervals in which nothing came, and abort a connection that has been silent too long.

        They are counted, not measured at once: when this end was held up, what has come meanwhile is read before the
        next one is over.
        """
        self._counted_at = now
        if self.last_heard > self._heard_at_beat:
            self._heard_at_beat, self._silent_beats = self.last_heard, 0
            return False
        self._silent_beats += 1
        if self._silent_beats < SILENT_BEATS:
            return False
        connection.abort(TimeoutError(f"the other end has been silent for {SILENT_BEATS} heartbeats"))
        return True

    def _cancel_timers(self) -> None:
        for timer in (self._ack_timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        self._ack_timer = self._beat_timer = None
