"""What a `LocalRuntime` and its launcher say to each other over their socket pair.

A frame is four bytes of length and one tagged struct in msgpack. Each `Launch` carries one file
descriptor (SCM_RIGHTS): the worker's standard input. So the ticket goes from the scheduler into that
pipe and never through the launcher, whose memory every later worker is a copy of.
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
        fork: Whether workers are forked; else they are spawned.
        entry_module: Imported before the first fork if it can be.
        preload: Imported before the first fork; a failure is an error.
        warmup: ``package.module:function`` called before the first fork, so that what it does for the first time is
            done.
        scheduler: Pid of the scheduler, the launcher's parent.
    """

    fork: bool
    entry_module: str
    preload: list[str]
    warmup: str
    scheduler: int


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Start what is described in this launch folder. One descriptor travels with it."""

    folder: str


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """Nothing more will come: end when the last worker has ended. Answered by `Finishing`."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The modules are imported. `error` is the traceback of a preload that failed, else empty."""

    error: str


class Launched(msgspec.Struct, frozen=True, tag="launched"):
    """Answers `Launch`: there is a process, or it was stopped before there was one."""

    folder: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Answers `Launch`: nothing was started and the folder is gone. `for_good` tells Rejected from NoCapacity."""

    folder: str
    for_good: bool
    message: str


class Finishing(msgspec.Struct, frozen=True, tag="finishing"):
    """Answers `Finish`: how many workers the launcher stays for."""

    workers: int


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """The launcher is about to die of an error of its own; its traceback."""

    message: str


ToLauncher = Setup | Launch | Finish
FromLauncher = Ready | Launched | Refused | Finishing | Broken

_encoder = msgspec.msgpack.Encoder()
decode_to_launcher = msgspec.msgpack.Decoder(ToLauncher).decode
decode_from_launcher = msgspec.msgpack.Decoder(FromLauncher).decode


def frame(message: ToLauncher | FromLauncher) -> bytes:
    """The bytes of one frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Cuts a byte stream into frames. Both ends are ours, so there is no limit to guard."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take in bytes; return the bodies of the frames they complete."""
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
