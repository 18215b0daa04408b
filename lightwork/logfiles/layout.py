"""What the files of a run's log folder are called, and what stands in an index."""

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
"""An entry of an index: offset, number of the first line, time, lines, bytes. The lines of one entry came together."""

_LONGEST_STEM = 160
_SEGMENT = re.compile(r"(?P<stem>.+)\.(?P<number>\d{6,})\.log")


class LogRecord(msgspec.Struct, frozen=True):
    """A line that a work wrote. `seq` grows over all works of a run; `time` is the scheduler's."""

    seq: int
    work: str
    time: float
    text: str


@dataclass(frozen=True, slots=True)
class LogIndexEntry:
    """Lines that came together: where they are in the segment, and which they are."""

    offset: int
    first: int
    time: float
    count: int
    size: int

    @property
    def end(self) -> int:
        """The number after the last one."""
        return self.first + self.count


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Two files, of lines and of their index."""

    number: int
    lines: Path
    index: Path


def stem_of(work: str) -> str:
    """What the files of a work begin with: its name, with everything escaped that a file's name may not have."""
    stem = quote(work, safe="").replace("~", "%7E")
    if len(stem) <= _LONGEST_STEM:
        return stem
    return f"{stem[:_LONGEST_STEM]}~{blake2b(work.encode(errors='surrogatepass'), digest_size=8).hexdigest()}"


def name_of(folder: Path, stem: str) -> str:
    """The work whose files begin like that."""
    if "~" not in stem:
        return unquote(stem)
    try:
        return (folder / f"{stem}.name").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return stem


def segments(folder: Path) -> dict[str, list[Segment]]:
    """The segments in a folder by the stem of their work, oldest first. A folder that is not there has none."""
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
    """The log folder of the latest run below `folder`, as `begin_run` has made it; None where there is none."""
    try:
        run = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = folder / run
    return found if _is_name(run) and found.is_dir() else None


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and not set(text) & {"/", "\0"}
