"""An event loop with a clock that the test moves, and transports that deliver data in pieces that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lightwork.link import ClientHandshake, Connection, Frames, Peer, ServerHandshake
from lightwork.link.messages import Frame, FromScheduler, FromWorker, decode_from_scheduler, decode_from_worker

LAUNCH = bytes(range(16))
SECRET = b"s" * 32
SECRETS = {LAUNCH: SECRET}


class ManualTimer:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """Runs callbacks when told to; `time()` moves by `advance` alone."""

    def __init__(self) -> None:
        self.now = 0.0
        self.errors: list[dict[str, Any]] = []
        self._timers: list[ManualTimer] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> ManualTimer:
        return self.call_at(self.now, callback)

    def call_later(self, delay: float, callback: Callable[[], object], /) -> ManualTimer:
        return self.call_at(self.now + delay, callback)

    def call_at(self, when: float, callback: Callable[[], object], /) -> ManualTimer:
        timer = ManualTimer(when, callback)
        self._timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any], /) -> None:
        self.errors.append(context)

    @property
    def timers(self) -> int:
        """Number of pending timers."""
        return sum(not timer.cancelled for timer in self._timers)

    def advance(self, seconds: float = 0.0) -> None:
        """Move the clock and run the due timers, earliest first."""
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer.when <= end]:
            timer = min(due, key=lambda each: each.when)
            self._timers.remove(timer)
            self.now = max(self.now, timer.when)
            if not timer.cancelled:
                timer.callback()
        self.now = end


class FakeTransport(asyncio.Transport):
    """One end of a pair: written data waits in `pending` until `deliver`."""

    def __init__(self, loop: ManualLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.pending = bytearray()
        self.other: FakeTransport | None = None
        self.protocol = protocol
        self._loop = loop
        self._closing = False
        self._gone = False
        self._paused = False
        self._high, self._low = 64 * 1024, 16 * 1024

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is not None
        self._high, self._low = high, low

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "written to a transport that is closing"
        self.pending += data
        if len(self.pending) > self._high and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def deliver(self, size: int | None = None) -> int:
        """Deliver the next `size` bytes, or all, to the other end; return their number."""
        data = bytes(self.pending[:size])
        del self.pending[: len(data)]
        assert self.other is not None
        if data and not self.other._closing:
            self.other.protocol.data_received(data)
        if self._paused and len(self.pending) <= self._low and not self._closing:
            self._paused = False
            self.protocol.resume_writing()
        if self._closing and not self.pending:
            self._end(None)
        return len(data)

    def close(self) -> None:
        self._closing = True
        if not self.pending:
            self._end(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """Lose the connection as if the network broke: data that was not delivered is lost."""
        self._closing = True
        self.pending.clear()
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._loop.call_soon(lambda: self.protocol.connection_lost(error))
        if self.other is not None:
            self.other.pending.clear()  # no end is left to receive it
            self.other.close()


def join(loop: ManualLoop, left: asyncio.Protocol, right: asyncio.Protocol) -> tuple[FakeTransport, FakeTransport]:
    """Connect two protocols."""
    a, b = FakeTransport(loop, left), FakeTransport(loop, right)
    a.other, b.other = b, a
    left.connection_made(a)
    right.connection_made(b)
    return a, b


def pump(loop: ManualLoop, ends: tuple[FakeTransport, FakeTransport], size: int | None = None) -> None:
    """Deliver all data, in pieces of `size`, until both ends are empty."""
    while ends[0].deliver(size) + ends[1].deliver(size):
        loop.advance()
    loop.advance()


def client(nonce: bytes = b"c" * 32, secret: bytes = SECRET, binding: bytes = b"") -> ClientHandshake:
    return ClientHandshake(LAUNCH, secret, nonce, binding)


def server(nonce: bytes = b"n" * 32, binding: bytes = b"") -> ServerHandshake:
    return ServerHandshake(SECRETS.get, nonce, binding)


class Log:
    """Records the callbacks of a connection."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.frames: list[tuple[int, bytes]] = []
        self.closed: list[Exception | None] = []
        self.writable = 0

    def on_open(self, connection: Connection) -> None:
        self.opened.append(connection)

    def on_frames(self, frames: Frames) -> None:
        self.frames += frames

    def on_closed(self, error: Exception | None) -> None:
        self.closed.append(error)

    def on_writable(self) -> None:
        self.writable += 1

    def connection(self, loop: ManualLoop, handshake: ClientHandshake | ServerHandshake, **options: Any) -> Connection:
        given: dict[str, Any] = {
            "max_frame": 1 << 20,
            "on_open": self.on_open,
            "on_frames": self.on_frames,
            "on_closed": self.on_closed,
            "on_writable": self.on_writable,
            "loop": loop,
        }
        return Connection(handshake, **(given | options))


class Pair:
    """A scheduler's peer, a worker's peer, and the connection between them, if there is one."""

    def __init__(self, max_frame: int = 1 << 20, window: int = 1 << 20) -> None:
        self.loop = ManualLoop()
        self.at_scheduler: list[Frame] = []
        self.at_worker: list[Frame] = []
        self.scheduler: Peer[FromWorker] = Peer(
            self.at_scheduler.append, decode_from_worker, max_frame, window=window, loop=self.loop
        )
        self.worker: Peer[FromScheduler] = Peer(
            self.at_worker.append, decode_from_scheduler, max_frame, window=window, loop=self.loop
        )
        self.ends: tuple[FakeTransport, FakeTransport] | None = None
        self.losses: list[Exception | None] = []

    def connect(self) -> tuple[Connection, Connection]:
        """Run the handshake and attach both peers, as after hello and welcome. Return the scheduler's end first."""
        near, far = Log(), Log()
        left, right = near.connection(self.loop, server()), far.connection(self.loop, client())
        self.ends = join(self.loop, left, right)
        pump(self.loop, self.ends)
        assert near.opened
        assert far.opened
        left.on_closed = lambda error: self._lost(self.scheduler, left, error)
        right.on_closed = lambda error: self._lost(self.worker, right, error)
        to_scheduler, to_worker = self.scheduler.received, self.worker.received
        self.scheduler.attach(left, to_worker)
        self.worker.attach(right, to_scheduler)
        return left, right

    def cut(self) -> None:
        """Lose the connection as if the network broke."""
        if self.ends is not None:
            self.ends[0].lose(ConnectionResetError("cut"))
            self.ends = None
            self.loop.advance()

    def pump(self, size: int | None = None) -> None:
        assert self.ends is not None
        pump(self.loop, self.ends, size)

    def _lost(self, peer: Peer[Any], connection: Connection, error: Exception | None) -> None:
        self.losses.append(error)
        peer.detach(connection)
