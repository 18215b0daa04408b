"""Passes the output of works from their runtimes to the disk and to watchers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lightwork.changes import LogLine
from lightwork.engine.changes import ChangeHub

if TYPE_CHECKING:
    from lightwork.logfiles import LogWriter

__all__ = ["LineCutter", "Output"]

_LONGEST_LINE = 64 * 1024


class Output:
    """Numbers the lines of all works, and passes them on. Belongs to the loop's thread.

    Args:
        hub: Receives each line if it has watchers.

    Attributes:
        writer: Writes the lines to the disk; None if they are not kept.
    """

    def __init__(self, hub: ChangeHub) -> None:
        self._hub = hub
        self._next = 1
        self.writer: LogWriter | None = None

    def take(self, work: str, data: bytes) -> None:
        """Take in whole lines of a work, as `LineCutter` returns them. Never waits."""
        count = data.count(b"\n")
        if not count:
            return
        now = time.time()
        if self.writer is not None:
            first = self.writer.write(work, data, count, now)
        else:
            first, self._next = self._next, self._next + count
        if self._hub.is_watched:
            lines = data[:-1].split(b"\n")
            self._hub.tell([LogLine(work, _text(line), now, seq) for seq, line in enumerate(lines, first)])

    async def wait_room(self) -> None:
        """Return when the writer has room. Callers wait for this before they read output, so the queue is bounded."""
        if self.writer is not None:
            await self.writer.wait_room()


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")


class LineCutter:
    """Cuts output into whole lines of bytes. A line longer than 64 kB is cut there, to bound the memory."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take in output; return the lines that it completes, each with its line end."""
        data = self._rest + data if self._rest else data
        end = data.rfind(b"\n") + 1
        whole, rest = data[:end], data[end:]
        if len(rest) > _LONGEST_LINE:
            pieces = [whole]
            while len(rest) > _LONGEST_LINE:
                cut = _LONGEST_LINE
                while cut > _LONGEST_LINE - 4 and rest[cut] & 0xC0 == 0x80:
                    cut -= 1  # do not cut inside a UTF-8 character
                pieces += [rest[:cut], b"\n"]
                rest = rest[cut:]
            whole = b"".join(pieces)
        self._rest = rest
        return whole

    @property
    def waiting(self) -> int:
        """How many bytes of an incomplete line are held."""
        return len(self._rest)

    def rest(self) -> bytes:
        """Return the incomplete line as a whole one, at the end of the output; empty if there is no rest."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest else b""
