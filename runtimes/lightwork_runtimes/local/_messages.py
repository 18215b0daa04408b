"""The messages between a `LocalRuntime` and its launcher, over a socket pair.

A frame is four bytes of length and one tagged struct in msgpack. Each `Launch` carries one file descriptor
(SCM_RIGHTS): the worker's standard input. So the scheduler writes the ticket directly into that pipe. The ticket never
goes through the launcher, because every later worker is a copy of the launcher's memory.
"""

from __future__ import annotations

import struct

import msgspec

__all__ = [
    "Broken",
    "Finish",
    "Finishing",
    "FrameBuffer",
    "FromLauncher",
    "Launch",
    "Launched",
    "Ready",
    "Refused",
    "Setup",
    "ToLauncher",
    "decode_from_launcher",
    "decode_to_launcher",
    "frame",
]

_LENGTH = struct.Struct(">I")


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first frame.

    Attributes:
        fork: Whether workers are forked; otherwise they are spawned.
        entry_module: Module imported before the first fork. A failure is ignored.
        preload: Modules imported before the first fork. A failure is an error.
        warmup: ``package.module:function`` called before the first fork, so that workers need not repeat its one-time
            work.
        scheduler: Pid of the scheduler, the launcher's parent.
    """

    fork: bool
    entry_module: str
    preload: list[str]
    warmup: str
    scheduler: int


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Start the worker of this launch folder. The frame carries one descriptor, the worker's standard input."""

    folder: str


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """End when the last worker has ended; no more launches follow. The answer is `Finishing`."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The modules are imported. `error` is the traceback of a failed preload, otherwise empty."""

    error: str


class Launched(msgspec.Struct, frozen=True, tag="launched"):
    """The process was started, or the launch was stopped before the start. Answers `Launch`."""

    folder: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Nothing was started, and the folder was removed. Answers `Launch`.

    `for_good` means `Rejected`; otherwise it is `NoCapacity`.
    """

    folder: str
    for_good: bool
    message: str


class Finishing(msgspec.Struct, frozen=True, tag="finishing"):
    """The launcher stays until this number of workers has ended. Answers `Finish`."""

    workers: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The launcher failed and is about to exit. `message` is the traceback."""

    message: str


ToLauncher = Setup | Launch | Finish
FromLauncher = Ready | Launched | Refused | Finishing | Broken

_encoder = msgspec.msgpack.Encoder()
decode_to_launcher = msgspec.msgpack.Decoder(ToLauncher).decode
decode_from_launcher = msgspec.msgpack.Decoder(FromLauncher).decode


def frame(message: ToLauncher | FromLauncher) -> bytes:
    """Return the bytes of one frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Splits a byte stream into frames. Both ends are trusted, so there is no size limit."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Append bytes. Return the bodies of the frames that are complete now."""
        buffer = self._buffer
        buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            bodies.append(bytes(buffer[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
        return bodies
