from __future__ import annotations

from typing import Any

import pytest

from lightwork.errors import ProtocolError
from lightwork.link import Connection, Frames
from lightwork.link.messages import pack
from tests.link.support import FakeTransport, Log, ManualLoop, client, join, pump, server


class Both:
    """A listening and a dialling connection, with the log of their callbacks."""

    def __init__(self, size: int | None = None, **options: Any) -> None:
        self.loop = ManualLoop()
        self.near, self.far = Log(), Log()
        self.left = self.near.connection(self.loop, server(), **options)
        self.right = self.far.connection(self.loop, client())
        self.ends = join(self.loop, self.left, self.right)
        self.pump(size)

    def pump(self, size: int | None = None) -> None:
        pump(self.loop, self.ends, size)


@pytest.mark.parametrize("size", [None, 1, 13])
def test_frames_follow_the_handshake(size: int | None) -> None:
    """Each end opens once; then frames pass in both directions, in pieces of any size."""
    both = Both(size)
    assert both.near.opened == [both.left]
    assert both.far.opened == [both.right]
    both.left.send(pack(b"to the worker", 1))
    both.right.send(pack(b"to the scheduler", 1) + pack(b"", 0))
    both.pump(size)
    assert both.far.frames == [(1, b"to the worker")]
    assert both.near.frames == [(1, b"to the scheduler"), (0, b"")]
    assert both.loop.timers == 0


def test_frames_that_come_with_the_proof_are_read() -> None:
    """Frames that a client sends together with its proof reach the callback that `on_open` sets."""
    loop, log = ManualLoop(), Log()
    taken: list[tuple[int, bytes]] = []

    def on_open(connection: Connection) -> None:
        connection.on_frames = taken.extend

    one = client()
    connection = log.connection(loop, server(), on_open=on_open)
    ends = join(loop, connection, Log().connection(loop, client()))
    ends[1].pending.clear()
    connection.data_received(one.start())
    proof = one.feed(bytes(ends[0].pending))
    connection.data_received(proof + pack(b"early", 1) + pack(b"next", 2))
    assert taken == [(1, b"early"), (2, b"next")]


def test_a_stranger_costs_its_deadline() -> None:
    """A client that does not complete the handshake in time is dropped, and the owner gets the reason."""
    loop, log = ManualLoop(), Log()
    connection = log.connection(loop, server(), handshake_timeout=3.0)
    connection.connection_made(FakeTransport(loop, connection))
    loop.advance(2.9)
    assert log.closed == []
    loop.advance(0.2)
    assert [str(error) for error in log.closed] == ["the other end did not complete the handshake within 3 s"]
    assert log.opened == []


def test_a_wrong_handshake_is_given_to_the_owner() -> None:
    """A failed handshake closes the connection with a `ProtocolError`, and `on_open` is not called."""
    loop, near, far = ManualLoop(), Log(), Log()
    left, right = near.connection(loop, server()), far.connection(loop, client(secret=b"x" * 32))
    pump(loop, join(loop, left, right))
    assert near.opened == far.opened == []
    assert isinstance(far.closed[0], ProtocolError)
    assert isinstance(near.closed[0], ProtocolError)
    assert loop.errors == []


def test_a_protocol_error_while_reading_costs_the_connection() -> None:
    """A frame over the limit aborts the connection; only the owner gets the error."""
    both = Both(max_frame=10)
    both.right.send(pack(b"x" * 11))
    both.pump()
    assert [str(error) for error in both.near.closed] == [
        "a frame must be at most 10 bytes (max_frame), the other end sends 11"
    ]
    assert both.near.frames == []
    assert both.loop.errors == []
    assert not both.left.is_open


def test_an_exception_of_a_callback_does_not_vanish() -> None:
    """An exception from `on_frames` goes to the loop's exception handler and to `on_closed`."""
    mistake = RuntimeError("a bug")

    def on_frames(frames: Frames) -> None:
        raise mistake

    both = Both(on_frames=on_frames)
    both.right.send(pack(b"x"))
    both.pump()
    assert both.near.closed == [mistake]
    assert [context["exception"] for context in both.loop.errors] == [mistake]


def test_an_exception_of_on_closed_is_reported() -> None:
    """An exception from `on_closed` goes to the loop's exception handler."""
    mistake = RuntimeError("a bug")

    def on_closed(error: Exception | None) -> None:
        raise mistake

    both = Both(on_closed=on_closed)
    both.right.close()
    both.pump()
    assert [context["exception"] for context in both.loop.errors] == [mistake]


def test_close_lets_what_was_sent_leave() -> None:
    """`close` flushes the sent data; both owners see a graceful end."""
    both = Both()
    both.left.send(pack(b"last words", 1))
    both.left.close()
    both.left.close()
    both.left.send(pack(b"too late", 2))
    both.pump()
    assert both.far.frames == [(1, b"last words")]
    assert both.near.closed == both.far.closed == [None]
    assert both.loop.timers == 0


def test_close_does_not_wait_for_ever() -> None:
    """Data that the other end does not read within the linger time is dropped."""
    both = Both()
    both.left.send(pack(b"never read", 1))
    both.left.close(linger=2.0)
    both.loop.advance(2.1)
    assert [type(error) for error in both.near.closed] == [ConnectionAbortedError]


def test_abort_drops_what_was_not_sent() -> None:
    """`abort` passes its error to `on_closed` once; the first error counts."""
    both = Both()
    both.left.send(pack(b"never sent", 1))
    reason = ProtocolError("not wanted")
    both.left.abort(reason)
    both.left.abort(ProtocolError("second"))
    both.pump()
    assert both.near.closed == [reason]
    assert both.far.frames == []


def test_a_connection_that_ends_in_a_frame_says_so() -> None:
    """A stream that stops in the middle of a frame is not a graceful close."""
    both = Both()
    both.right.send(pack(b"whole", 1) + pack(b"cut off", 2)[:-1])
    both.right.close()
    both.pump()
    assert both.near.frames == [(1, b"whole")]
    assert [type(error) for error in both.near.closed] == [ConnectionResetError]


def test_writable_follows_the_buffer() -> None:
    """An end that does not read makes `writable` false; after it has caught up, `on_writable` is called."""
    both = Both()
    body = b"x" * 100_000
    for number in range(1, 4):
        both.left.send(pack(body, number))
    assert (both.left.writable, both.near.writable) == (False, 0)
    both.pump()
    assert (both.left.writable, both.near.writable) == (True, 1)
    assert [number for number, _ in both.far.frames] == [1, 2, 3]


def test_a_frame_that_nobody_takes_is_refused() -> None:
    """A connection without an `on_frames` callback closes at the first frame."""
    loop, far = ManualLoop(), Log()
    errors: list[Exception | None] = []
    left = Connection(server(), 100, on_closed=errors.append, loop=loop)
    ends = join(loop, left, far.connection(loop, client()))
    pump(loop, ends)
    far.opened[0].send(pack(b"x"))
    pump(loop, ends)
    assert [str(error) for error in errors] == ["expected no frames before the first answer, got 1"]


def test_an_owner_that_comes_late_still_learns_of_the_end() -> None:
    """`on_closed` that is set after the end is called in the next iteration of the loop, with the same error."""
    both = Both()
    reason = ProtocolError("gone")
    both.left.abort(reason)
    both.pump()
    late: list[Exception | None] = []
    both.left.on_closed = late.append
    assert late == []
    both.loop.advance()
    assert late == [reason]


def test_aborted_before_it_was_made() -> None:
    """A connection that is aborted before it has a transport closes the transport as soon as it gets one."""
    loop, log = ManualLoop(), Log()
    connection = log.connection(loop, server())
    connection.abort()
    connection.connection_made(FakeTransport(loop, connection))
    loop.advance()
    assert log.closed == [None]
    assert loop.timers == 0
