"""What a worker reports about its own process, as types: the bodies of the query replies, which are JSON.

The worker encodes these structs and the HTTP API decodes them. Neither imports the other.
"""

from __future__ import annotations

import msgspec

__all__ = ["FrameInfo", "StackDump", "Usage"]


class FrameInfo(msgspec.Struct, frozen=True):
    """One frame of a stack. `text` is the line of source code."""

    file: str
    line: int
    function: str
    text: str = ""


class StackDump(msgspec.Struct, frozen=True):
    """The stacks of all threads and asyncio tasks of a process. Each has a name and frames, outermost frame first."""

    threads: list[tuple[str, list[FrameInfo]]]
    tasks: list[tuple[str, list[FrameInfo]]]


class Usage(msgspec.Struct, frozen=True):
    """What a process and its descendants use.

    Attributes:
        cpu: Processor seconds since they started.
        memory: Resident bytes.
        processes: Number of processes.
    """

    cpu: float
    memory: int
    processes: int
