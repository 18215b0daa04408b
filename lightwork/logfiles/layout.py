"""The names of the files in a run's log folder, and the format of an index."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

__all__ = ["ENTRY", "LogIndexEntry", "LogRecord", "Segment", "latest_run", "name_of", "segments", "stem_of"]

ENTRY = struct.Struct("<QQdII")
"""Format of an index entry: offset, number of the first line, time, number of lines, bytes. The lines of an entry
arrived together."""

_LONGEST_STEM = 160
_SEGMENT = re.compile(r"(?P<stem>.+)\.(?P<number>\d{6,})\.log")


class LogRecord(msgspec.Struct, frozen=True):
    """A line that a work wrote. `seq` counts the lines of all works of a run; `time` is by the scheduler's clock."""

    seq: int
    work: str
    time: float
    text: str


@dataclass(frozen=True, slots=True)
class LogIndexEntry:
    """Lines that arrived together: their place in the segment, their numbers and their time."""

    offset: int
    first: int
    time: float
    count: int
    size: int

    @property
    def end(self) -> int:
        """The number after the last line."""
        return self.first + self.count


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A segment: the file of the lines and the file of their index."""

    number: int
    lines: Path
    index: Path


def stem_of(work: str) -> str:
    """Return the stem of a work's files: the work's name, with the characters escaped that a file name cannot have."""
    stem = quote(work, safe="").replace("~", "%7E")
    if len(stem) <= _LONGEST_STEM:
        return stem
    return f"{stem[:_LONGEST_STEM]}~{blake2b(work.encode(errors='surrogatepass'), digest_size=8).hexdigest()}"


def name_of(folder: Path, stem: str) -> str:
    """Return the name of the work whose files have this stem."""
    if "~" not in stem:
        return unquote(stem)
    try:
        return (folder / f"{stem}.name").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return stem


def segments(folder: Path) -> dict[str, list[Segment]]:
    """Return the segments in a folder by the stem of their work, oldest first. A missing folder has no segments."""
    found: dict[str, list[Segment]] = {}
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return {}
    for name in names:
        match = _SEGMENT.fullmatch(name)
        if match is not None:
            index = folder / f"{name.removesuffix('.log')}.idx"
            found.setdefault(match["stem"], []).append(Segment(int(match["number"]), folder / name, index))
    for series in found.values():
        series.sort()
    return found


def latest_run(folder: Path) -> Path | None:
    """Return the log folder of the latest run in `folder`, as made by `begin_run`; None if there is none."""
    try:
        run = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = folder / run
    return found if _is_name(run) and found.is_dir() else None


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and not set(text) & {"/", "\0"}
