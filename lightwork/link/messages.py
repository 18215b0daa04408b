"""What a scheduler and a worker say to each other: the frames, and how they are cut from a byte stream.

A frame on the wire is a header, ``>IQ``: the length of the body in bytes and its sequence number, then the
body, one tagged struct in msgpack. Numbered frames (from 1, one count for each direction) are delivered
exactly once and in order over any number of connections, see `lightwork.link.session`; number 0 marks those
that may be lost with a connection. No frame towards the scheduler carries anything but data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import msgspec

from lightwork.errors import ProtocolError
from lightwork.remote_errors import ErrorInfo
from lightwork.state.ops import Op

__all__ = [
    "HEADER",
    "LOST_CODE",
    "MAX_QUERY_REPLY",
    "QUERY_REPLY_MARK",
    "VERSION",
    "Ack",
    "Bye",
    "Call",
    "Cancel",
    "Cancelled",
    "Delta",
    "Failure",
    "Frame",
    "FrameReader",
    "FromScheduler",
    "FromWorker",
    "Heartbeat",
    "Hello",
    "ProposalResult",
    "Propose",
    "Query",
    "QueryKind",
    "QueryReply",
    "Ready",
    "Refuse",
    "Result",
    "Running",
    "Stop",
    "Stopped",
    "Ticket",
    "Welcome",
    "decode_from_scheduler",
    "decode_from_worker",
    "encode",
    "max_value",
    "pack",
]

VERSION = 3
"""Version of the frames below. Two ends of different versions refuse each other by name."""

LOST_CODE = 75
"""Exit code of a worker that ends itself because it has had no connection for too long: EX_TEMPFAIL of sysexits.h."""

HEADER = struct.Struct(">IQ")
_HEADER_SIZE = HEADER.size
_unpack = HEADER.unpack_from

MAX_QUERY_REPLY = 1 << 20
"""Bytes that a worker says of itself at most, when it is asked."""

QUERY_REPLY_MARK = b"\x1e\x1elightwork-stack\x1e"
"""Begins such an answer in a worker's output, where the scheduler takes it out again."""

QueryKind = Literal["stack", "usage"]
"""What a worker can be asked about itself."""


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of every frame."""


class Ticket(msgspec.Struct, frozen=True):
    """What a worker is given on its standard input so that it can dial back.

    Attributes:
        launch: Public id of the launch, 16 bytes; says which secret is meant.
        secret: 32 bytes, known to this worker and the scheduler alone.
        routes: ``(host, port)`` candidates, best first; see `lightwork.runtime.Route`.
        dial_within: Seconds to be welcomed in; the worker ends itself after that.
        orphan_after: Seconds without a connection after which the worker ends itself.
        fingerprint: SHA-256 of the scheduler's certificate where the link is TLS, else empty.
        exclusive: Whether the worker has its process for itself: it may take the main thread, the
            signals and the exit. False for works that share a process with others.
    """

    launch: bytes
    secret: bytes
    routes: list[tuple[str, int]]
    dial_within: float
    orphan_after: float
    fingerprint: bytes = b""
    exclusive: bool = True

    def __repr__(self) -> str:
        # It ends up in tracebacks and logs; the secret must not.
        return f"Ticket(launch={self.launch.hex()}, secret=<{len(self.secret)} bytes>, routes={self.routes!r})"


# --- worker to scheduler ------------------------------------------------------------------------


class Hello(Frame, frozen=True, tag="hello"):
    """The first frame of a connection.

    What follows the host says where the worker stands, for a scheduler that was killed and goes on from its journal.

    Attributes:
        received: The last number that the worker has seen.
        welcomed: Whether it has its work already.
        sent: The last number that it has sent, to whichever scheduler.
        calls: The calls that it has, or has answered by a frame that is not acknowledged: number, hash of the
            arguments, and the number of that frame, 0 for those that are not over. The latest of very many.
        proposal: The highest number of a `Propose` that it has seen.
    """

    version: int
    lightwork: str
    python: str
    pid: int
    host: str
    received: int
    welcomed: bool = False
    sent: int = 0
    calls: list[tuple[int, str, int]] = []
    proposal: int = 0


class Ready(Frame, frozen=True, tag="ready"):
    """The work is there, and ``on_start`` has returned."""


class Running(Frame, frozen=True, tag="running"):
    """``run`` was entered for this call, and is not over. Of a run that is over at once its end alone is told."""

    call: int


class Delta(Frame, frozen=True, tag="delta"):
    """Edits that the work made to its state, in order."""

    ops: list[Op]


class ProposalResult(Frame, frozen=True, tag="proposal_result"):
    """What became of a `Propose`: edits that make the flow's side equal, and why it was refused, if it was."""

    proposal: int
    ops: list[Op]
    error: ErrorInfo | None


class Result(Frame, frozen=True, tag="result"):
    """``run`` returned; `value` is msgpack."""

    call: int
    value: msgspec.Raw


class Failure(Frame, frozen=True, tag="failure"):
    """``run`` raised, could not be entered, or returned what cannot be encoded. `reason` is a `Reason`.

    `swallowed` says that ``on_exception`` took the exception.
    """

    call: int
    reason: str
    error: ErrorInfo
    swallowed: bool = False


class Cancelled(Frame, frozen=True, tag="cancelled"):
    """The call was cancelled before or while it ran."""

    call: int


class Stopped(Frame, frozen=True, tag="stopped"):
    """The worker ends in order: it takes no more calls, cancels those that it has, and exits within its grace period.

    `reason` is a `Reason` or empty. `error` is set where the work never became ready: it could not be unpacked, or
    ``on_start`` raised.
    """

    reason: str
    error: ErrorInfo | None = None


class Bye(Frame, frozen=True, tag="bye"):
    """Nothing follows. The worker ends when this is acknowledged, and so all before it; that is done at once."""


class QueryReply(Frame, frozen=True, tag="query_reply"):
    """Answers `Query`: JSON, at most `MAX_QUERY_REPLY` bytes. Unnumbered: who asked asks again."""

    number: int
    data: bytes


class Heartbeat(Frame, frozen=True, tag="beat"):
    """I am here. Sent by either side when it has been silent for a while."""


class Ack(Frame, frozen=True, tag="ack"):
    """All numbers up to this one have been taken in."""

    number: int


# --- scheduler to worker ------------------------------------------------------------------------


class Welcome(Frame, frozen=True, tag="welcome"):
    """Answers `Hello`.

    Attributes:
        received: The last number that the scheduler has seen from this worker.
        work: cloudpickle of the work with its state; empty on a reconnect.
        name: Name of the work in the tree.
        paths: Folders for ``sys.path``, in front.
        heartbeat: Seconds of silence after which a heartbeat is due, None for none.
        grace: Seconds that a cancelled synchronous ``run`` and the hooks of a stop have.
    """

    received: int
    work: bytes
    name: str
    paths: list[str]
    heartbeat: float | None
    grace: float
    max_frame: int


class Refuse(Frame, frozen=True, tag="refuse"):
    """Answers `Hello`: this worker is not wanted, and why. It ends itself."""

    message: str


class Call(Frame, frozen=True, tag="call"):
    """Run this.

    Attributes:
        id: Number of the call.
        args: The bound arguments in msgpack, see `lightwork.components.signature`.
        hash: Equal for equal arguments.
    """

    id: int
    args: bytes
    hash: str = ""


class Cancel(Frame, frozen=True, tag="cancel"):
    """Cancel this call; answered by `Cancelled`, or by what it came to before."""

    call: int


class Propose(Frame, frozen=True, tag="propose"):
    """An edit that the flow proposes.

    `expected` is the packed value that the flow saw at the path; `has_expected` whether there was one, None
    where that does not matter. A splice whose start is -1 is an append.
    """

    proposal: int
    op: Op
    expected: Any
    has_expected: bool | None


class Query(Frame, frozen=True, tag="query"):
    """Say where the threads and tasks of the process are, or what it uses; answered by `QueryReply`. Unnumbered."""

    number: int
    what: QueryKind


class Stop(Frame, frozen=True, tag="stop"):
    """End in order: cancel what runs, call ``on_exit``, send `Stopped`, exit."""

    grace: float
    reason: str = ""


FromWorker = (
    Hello
    | Ready
    | Running
    | Delta
    | ProposalResult
    | Result
    | Failure
    | Cancelled
    | Stopped
    | Bye
    | QueryReply
    | Heartbeat
    | Ack
)
FromScheduler = Welcome | Refuse | Call | Cancel | Propose | Query | Stop | Heartbeat | Ack

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_scheduler: msgspec.msgpack.Decoder[FromScheduler] = msgspec.msgpack.Decoder(FromScheduler)

encode: Callable[[Any], bytes] = _encoder.encode

# Text that is no UTF-8 is the one thing that msgspec does not report as a DecodeError.
_NO_FRAME = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def max_value(max_frame: int) -> int:
    """How long one value of a state may be, so that the frame that carries it, with its path, is not too long."""
    return max(max_frame - 4096, max_frame // 2)


def pack(body: bytes, number: int = 0) -> bytes:
    """The bytes of one frame."""
    return HEADER.pack(len(body), number) + body


def decode_from_worker(body: bytes) -> FromWorker:
    """The frame in `body`; raises `ProtocolError` if it is none."""
    try:
        return _from_worker.decode(body)
    except _NO_FRAME as error:
        raise ProtocolError(f"a worker sent no valid frame: {error}") from None


def decode_from_scheduler(body: bytes) -> FromScheduler:
    """The frame in `body`; raises `ProtocolError` if it is none."""
    try:
        return _from_scheduler.decode(body)
    except _NO_FRAME as error:
        raise ProtocolError(f"the scheduler sent no valid frame: {error}") from None


class FrameReader:
    """Cuts a byte stream into frames, however it arrives. Holds at most one unfinished frame.

    Args:
        max_frame: Longest body accepted, in bytes.

    Attributes:
        max_frame: As given; may be changed between two calls of `feed`.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()  # the start of an unfinished frame
        self._need = _HEADER_SIZE  # how long it must get before something can be done with it

    @property
    def buffered(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take in bytes; return the frames they complete, as ``(number, body)``.

        Raises:
            ProtocolError: If a header announces more than `max_frame` bytes. Nothing after that is read, and every
                further call raises again.
        """
        # Most reads hold whole frames, and most of those a single one: they are cut from `data` itself. Only a frame
        # that spans reads is put together in the buffer, so each of its bytes is copied twice however many pieces it
        # comes in.
        if not self._buffer and len(data) >= _HEADER_SIZE:
            length, number = _unpack(data)
            if length == len(data) - _HEADER_SIZE and length <= self.max_frame:
                return [(number, data[_HEADER_SIZE:])]
        frames: list[tuple[int, bytes]] = []
        start, end = self._resume(data, frames) if self._buffer else 0, len(data)
        need = _HEADER_SIZE
        while end - start >= _HEADER_SIZE:
            length, number = _unpack(data, start)
            if length > self.max_frame:
                self._refuse(length, data[start : start + _HEADER_SIZE])
            need = _HEADER_SIZE + length
            if start + need > end:
                break
            frames.append((number, data[start + _HEADER_SIZE : start + need]))
            start += need
            need = _HEADER_SIZE
        if start < end:
            self._buffer += data[start:]
            self._need = need
        return frames

    def _resume(self, data: bytes, frames: list[tuple[int, bytes]]) -> int:
        """Go on with the unfinished frame; return how many bytes of `data` it took."""
        buffer, used = self._buffer, 0
        while True:
            stop = used + self._need - len(buffer)
            buffer += data[used:stop]
            if stop > len(data):
                return len(data)
            used = stop
            length, number = _unpack(buffer)
            if length > self.max_frame and len(buffer) == _HEADER_SIZE:
                self._refuse(length, buffer)
            self._need = _HEADER_SIZE + length
            if len(buffer) == self._need:
                with memoryview(buffer) as view:
                    frames.append((number, bytes(view[_HEADER_SIZE:])))
                self._buffer = bytearray()
                return used

    def _refuse(self, length: int, header: bytes | bytearray) -> NoReturn:
        self._buffer, self._need = bytearray(header), _HEADER_SIZE  # the next call meets it again
        raise ProtocolError(f"a frame of {length} bytes is longer than the limit of {self.max_frame}")
