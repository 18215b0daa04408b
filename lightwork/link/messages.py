"""The frames between a scheduler and a worker, and the reader that cuts them from a byte stream.

A frame on the wire is a header and a body. The header is ``>IQ``: the length of the body in bytes and the sequence
number. The body is one tagged struct in msgpack. Each direction counts its frames from 1. A numbered frame is delivered
exactly once and in order over any number of connections, see `lightwork.link.session`. A frame with number 0 may be
lost with its connection. A frame to the scheduler carries data only.
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
"""Version of the frames below. Ends of different versions refuse each other; the error names both versions."""

LOST_CODE = 75
"""Exit code of a worker that exits because it had no connection for too long: EX_TEMPFAIL of sysexits.h."""

HEADER = struct.Struct(">IQ")
_HEADER_SIZE = HEADER.size
_unpack = HEADER.unpack_from

MAX_QUERY_REPLY = 1 << 20
"""Longest reply of a worker to a `Query`, in bytes."""

QUERY_REPLY_MARK = b"\x1e\x1elightwork-stack\x1e"
"""Prefix of a query reply in a worker's output. The scheduler removes the reply from the output."""

QueryKind = Literal["stack", "usage"]
"""The queries that a worker answers about itself."""


class Frame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of every frame."""


class Ticket(msgspec.Struct, frozen=True):
    """The data that a worker reads from its standard input to dial back.

    Attributes:
        launch: Public id of the launch, 16 bytes; it selects the secret.
        secret: 32 bytes; only this worker and the scheduler know them.
        routes: ``(host, port)`` candidates, best first; see `lightwork.runtime.Address`.
        dial_within: Seconds within which the scheduler must welcome the worker; otherwise the worker exits.
        orphan_after: Seconds without a connection after which the worker exits.
        fingerprint: SHA-256 of the scheduler's certificate if the link is TLS; otherwise empty.
        exclusive: Whether the worker has the process to itself and may use the main thread, the signals and the
            exit. False for works that share a process.
    """

    launch: bytes
    secret: bytes
    routes: list[tuple[str, int]]
    dial_within: float
    orphan_after: float
    fingerprint: bytes = b""
    exclusive: bool = True

    def __repr__(self) -> str:
        # A ticket's repr appears in tracebacks and logs; the secret must not.
        return f"Ticket(launch={self.launch.hex()}, secret=<{len(self.secret)} bytes>, routes={self.routes!r})"


# --- worker to scheduler ------------------------------------------------------------------------


class Hello(Frame, frozen=True, tag="hello"):
    """The first frame of a connection.

    The fields after `host` are the worker's progress, for a scheduler that was killed and resumes from its journal.

    Attributes:
        received: The last frame number that the worker has received.
        welcomed: Whether the worker already has its work.
        sent: The last frame number that the worker has sent, to any scheduler.
        calls: The worker's unfinished calls, and the finished calls whose last frame is not acknowledged. Each item is
            the call's number, the hash of its arguments, and the number of its last frame (0 for an unfinished call).
            If there are very many, only the latest.
        proposal: The highest number of a `Propose` that the worker has received.
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
    """The work is unpacked, and ``on_start`` has returned."""


class Running(Frame, frozen=True, tag="running"):
    """``run`` was entered for this call and has not ended. A run that ends at once sends only its end."""

    call: int


class Delta(Frame, frozen=True, tag="delta"):
    """Edits that the work made to its state, in order."""

    ops: list[Op]


class ProposalResult(Frame, frozen=True, tag="proposal_result"):
    """The outcome of a `Propose`: edits that make the flow's copy equal, and the error if the work refused it."""

    proposal: int
    ops: list[Op]
    error: ErrorInfo | None


class Result(Frame, frozen=True, tag="result"):
    """``run`` returned; `value` is in msgpack."""

    call: int
    value: msgspec.Raw


class Failure(Frame, frozen=True, tag="failure"):
    """``run`` raised, could not be entered, or returned a value that cannot be encoded. `reason` is a `Reason`.

    `swallowed` is true if ``on_exception`` handled the exception.
    """

    call: int
    reason: str
    error: ErrorInfo
    swallowed: bool = False


class Cancelled(Frame, frozen=True, tag="cancelled"):
    """The call was cancelled before it ran or while it ran."""

    call: int


class Stopped(Frame, frozen=True, tag="stopped"):
    """The worker ends gracefully: it takes no more calls, cancels its calls, and exits within its grace period.

    `reason` is a `Reason` or empty. `error` is set if the work never became ready: it could not be unpacked, or
    ``on_start`` raised.
    """

    reason: str
    error: ErrorInfo | None = None


class Bye(Frame, frozen=True, tag="bye"):
    """The last frame. The worker ends when this frame, and so every frame before it, is acknowledged.

    The scheduler acknowledges it at once.
    """


class QueryReply(Frame, frozen=True, tag="query_reply"):
    """The reply to a `Query`: JSON, at most `MAX_QUERY_REPLY` bytes. Unnumbered: the caller repeats a lost query."""

    number: int
    data: bytes


class Heartbeat(Frame, frozen=True, tag="beat"):
    """A sign of life. Either end sends it when it has been silent for a while."""


class Ack(Frame, frozen=True, tag="ack"):
    """The sender has received every frame up to this number."""

    number: int


# --- scheduler to worker ------------------------------------------------------------------------


class Welcome(Frame, frozen=True, tag="welcome"):
    """The answer to a `Hello`: the worker may begin.

    Attributes:
        received: The last frame number that the scheduler has received from this worker.
        work: cloudpickle of the work with its state; empty on a reconnect.
        name: Name of the work in the tree.
        paths: Folders to put at the front of ``sys.path``.
        heartbeat: Seconds of silence after which a heartbeat is due; None for no heartbeats.
        grace: Seconds that a cancelled synchronous ``run`` and the hooks of a stop may take.
        max_frame: Longest frame body that either end accepts, in bytes.
    """

    received: int
    work: bytes
    name: str
    paths: list[str]
    heartbeat: float | None
    grace: float
    max_frame: int


class Refuse(Frame, frozen=True, tag="refuse"):
    """The answer to a `Hello`: the scheduler refuses the worker, for the reason in `message`. The worker exits."""

    message: str


class Call(Frame, frozen=True, tag="call"):
    """Run the work with these arguments.

    Attributes:
        id: Number of the call.
        args: The bound arguments in msgpack, see `lightwork.components.signature`.
        hash: Hash of the arguments.
    """

    id: int
    args: bytes
    hash: str = ""


class Cancel(Frame, frozen=True, tag="cancel"):
    """Cancel this call. The answer is `Cancelled`, or the call's end if that came first."""

    call: int


class Propose(Frame, frozen=True, tag="propose"):
    """Apply an edit that the flow proposes.

    `expected` is the packed value that the flow saw at the path. `has_expected` says whether a value was there, or is
    None if that does not matter. A splice whose start is -1 is an append.
    """

    proposal: int
    op: Op
    expected: Any
    has_expected: bool | None


class Query(Frame, frozen=True, tag="query"):
    """Report the stacks of the process's threads and tasks, or its resource usage, in a `QueryReply`. Unnumbered."""

    number: int
    what: QueryKind


class Stop(Frame, frozen=True, tag="stop"):
    """End gracefully: cancel the running calls, call ``on_exit``, send `Stopped`, exit."""

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

# msgspec reports every malformed input as a DecodeError, except text that is not valid UTF-8.
_NO_FRAME = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def max_value(max_frame: int) -> int:
    """Return the longest value of a state, in bytes, that fits into a frame together with its path."""
    return max(max_frame - 4096, max_frame // 2)


def pack(body: bytes, number: int = 0) -> bytes:
    """Return the bytes of one frame."""
    return HEADER.pack(len(body), number) + body


def decode_from_worker(body: bytes) -> FromWorker:
    """Decode the frame in `body`.

    Raises:
        ProtocolError: If `body` is not a valid frame of a worker.
    """
    try:
        return _from_worker.decode(body)
    except _NO_FRAME as error:
        raise ProtocolError(f"a worker sent an invalid frame: {error}") from None


def decode_from_scheduler(body: bytes) -> FromScheduler:
    """Decode the frame in `body`.

    Raises:
        ProtocolError: If `body` is not a valid frame of a scheduler.
    """
    try:
        return _from_scheduler.decode(body)
    except _NO_FRAME as error:
        raise ProtocolError(f"the scheduler sent an invalid frame: {error}") from None


class FrameReader:
    """Cuts a byte stream into frames, in pieces of any size. Holds at most one incomplete frame.

    Args:
        max_frame: Longest body accepted, in bytes.

    Attributes:
        max_frame: The argument; may be changed between two calls of `feed`.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()  # the start of an incomplete frame
        self._need = _HEADER_SIZE  # length that the buffer must reach: a whole header, then a whole frame

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Process received bytes; return the frames that they complete, as ``(number, body)``.

        Raises:
            ProtocolError: If a header announces more than `max_frame` bytes. The reader ignores all later bytes, and
                every later call raises again.
        """
        # Most reads hold whole frames, usually one. The reader cuts those from `data` itself. It assembles a frame in
        # the buffer only if the frame spans several reads. So each byte of such a frame is copied twice, for any
        # number of pieces.
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
        """Continue the incomplete frame; return how many bytes of `data` it took."""
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
        self._buffer, self._need = bytearray(header), _HEADER_SIZE  # the next call finds this header again and raises
        raise ProtocolError(f"a frame must be at most {self.max_frame} bytes (max_frame), the other end sends {length}")
