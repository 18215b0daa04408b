"""Reads the output of works, in either direction. It reads only the requested parts. Everything here blocks."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from lightwork.logfiles.layout import ENTRY, LogIndexEntry, LogRecord, Segment, name_of, segments

__all__ = ["LogPage", "LogReader"]

_FIRST_CHUNK = 8 * 1024
_CHUNK = 512 * 1024
"""Bytes of lines to read at once, at first and at most: the last lines of 1,000 works need few bytes of each."""

_ENTRIES = 1024
"""Index entries to read at once."""

_BUDGET = 256 * 1024 * 1024
"""Bytes that one search reads at most. The caller requests the next page to search further."""


class LogPage(msgspec.Struct, frozen=True):
    """Lines in order.

    Attributes:
        items: The lines.
        first, last: Numbers of the first and the last examined line; 0 if there is none.
        more: Whether there are more lines in the requested direction.
    """

    items: list[LogRecord]
    first: int
    last: int
    more: bool


class _Found:
    """A line; with `text` None, the place where a search has stopped. Ordered by number."""

    __slots__ = ("seq", "text", "time", "work")

    def __init__(self, seq: int, work: str, time: float, text: str | None) -> None:
        self.seq = seq
        self.work = work
        self.time = time
        self.text = text

    def __lt__(self, other: _Found) -> bool:
        return self.seq < other.seq


class LogReader:
    """Reads the log folder of one run, during the run or afterwards. It keeps no file open.

    Args:
        folder: The run's folder. A missing folder has no lines.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def works(self) -> list[str]:
        """Return the names of the works with output, sorted."""
        return sorted(name_of(self._folder, stem) for stem in segments(self._folder))

    def read(
        self,
        works: Sequence[str] | None = None,
        *,
        tail: int | None = None,
        after: int | None = None,
        before: int | None = None,
        search: str | None = None,
        limit: int = 100,
    ) -> LogPage:
        """Return lines of some works, merged in the order of their arrival.

        With `after`, returns the first lines after it, at most `limit`. Otherwise, returns the last lines (before
        `before`, if given): `tail` lines if given, otherwise `limit`.

        Args:
            works: Names of the works; None for all.
            tail: Number of lines to return from the end.
            after: Return only lines after the line with this number.
            before: Return only lines before the line with this number.
            search: Return only lines that contain this text, in any case.
            limit: Largest number of lines.
        """
        is_forward = after is not None and tail is None
        wanted = limit if tail is None else tail
        low = 0 if after is None else after + 1
        high = 2**63 if before is None else before
        budget = [_BUDGET]
        streams = [
            self._scan(series, name, low, high, search, budget, is_forward)
            for stem, series in segments(self._folder).items()
            for name in [name_of(self._folder, stem)]
            if works is None or name in works
        ]
        found: list[_Found] = []
        more = False
        stopped_at = None
        for one in heapq.merge(*streams, reverse=not is_forward):
            if one.text is None:
                more, stopped_at = True, one.seq
                break
            if len(found) >= wanted:
                more = True
                break
            found.append(one)
        return self._page(found, is_forward, more, stopped_at, low, high)

    def _page(
        self, found: list[_Found], is_forward: bool, more: bool, stopped_at: int | None, low: int, high: int
    ) -> LogPage:
        if not is_forward:
            found.reverse()
        items = [LogRecord(one.seq, one.work, one.time, one.text or "") for one in found]
        known_low, known_high = self._bounds()
        first, last = max(low, known_low), min(high - 1, known_high)
        if more:  # examined up to the last found line, or up to the place where the search has stopped
            edge = stopped_at
            if edge is None:
                edge = (items[-1].seq if is_forward else items[0].seq) if items else (low if is_forward else high)
            first, last = (first, edge) if is_forward else (edge, last)
        return LogPage(items, first if first <= last else 0, last if first <= last else 0, more)

    def _bounds(self) -> tuple[int, int]:
        """Return the lowest and the highest number of the lines in the folder."""
        low, high = 2**63, 0
        for series in segments(self._folder).values():
            for segment in (series[0], series[-1]):
                with _Opened(segment) as opened:
                    if opened.count:
                        low = min(low, opened.entry(0).first)
                        high = max(high, opened.entry(opened.count - 1).end - 1)
        return low, high

    def pieces(self, work: str) -> Iterator[bytes]:
        """Yield the whole existing output of one work, unchanged, in pieces."""
        for stem, series in segments(self._folder).items():
            if name_of(self._folder, stem) != work:
                continue
            for segment in series:
                try:
                    file = segment.lines.open("rb")
                except FileNotFoundError:  # deleted meanwhile, as the oldest
                    continue
                with file:
                    while piece := file.read(_CHUNK):
                        yield piece

    # --- one work ---------------------------------------------------------------------------------

    def _scan(
        self,
        series: list[Segment],
        work: str,
        low: int,
        high: int,
        search: str | None,
        budget: list[int],
        is_forward: bool,
    ) -> Iterator[_Found]:
        """Yield the lines of one work with numbers from `low` to below `high`, in the requested direction."""
        needle = _needle(search)
        chunk = _FIRST_CHUNK
        for segment in series if is_forward else reversed(series):
            at = low if is_forward else high
            while True:
                with _Opened(segment) as opened:
                    entries = opened.batch(at, high, chunk) if is_forward else opened.batch_before(low, at, chunk)
                    data = opened.read(entries)
                if not entries:
                    break
                at = entries[-1].end if is_forward else entries[0].first
                chunk = min(chunk * 2, _CHUNK)
                budget[0] -= len(data)
                if needle is None or needle.may_be_in(data):
                    yield from _lines(entries, data, work, low, high, needle, is_forward)
                if budget[0] <= 0 and needle is not None:
                    yield _Found(at - 1 if is_forward else at, work, 0.0, None)
                    return


def _lines(
    entries: list[LogIndexEntry], data: bytes, work: str, low: int, high: int, needle: _Needle | None, is_forward: bool
) -> Iterator[_Found]:
    start = entries[0].offset
    for entry in entries if is_forward else reversed(entries):
        lines = data[entry.offset - start : entry.offset - start + entry.size].split(b"\n")[: entry.count]
        numbered = enumerate(lines, entry.first)
        for seq, line in numbered if is_forward else reversed(list(numbered)):
            if low <= seq < high:
                text = line.decode(errors="replace").rstrip("\r")
                if needle is None or needle.is_in(text):
                    yield _Found(seq, work, entry.time, text)


class _Needle:
    """A text to search for, in any case."""

    def __init__(self, text: str) -> None:
        self._folded = text.casefold()
        self._bytes = text.lower().encode() if text.isascii() else None

    def may_be_in(self, data: bytes) -> bool:
        """Return whether a line in the data may contain the text. This check is fast for ASCII."""
        return self._bytes is None or self._bytes in data.lower()

    def is_in(self, text: str) -> bool:
        """Return whether a line contains the text."""
        return self._folded in text.casefold()


def _needle(search: str | None) -> _Needle | None:
    return _Needle(search) if search else None


class _Opened:
    """A segment that is open for reading; empty if it was deleted meanwhile.

    Attributes:
        count: Number of entries in its index.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._lines = self._index = -1
        self.count = 0

    def __enter__(self) -> _Opened:
        try:
            self._index = os.open(self._segment.index, os.O_RDONLY | os.O_CLOEXEC)
            self._lines = os.open(self._segment.lines, os.O_RDONLY | os.O_CLOEXEC)
            self.count = os.fstat(self._index).st_size // ENTRY.size
        except FileNotFoundError:
            self.count = 0
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._lines, self._index):
            if descriptor >= 0:
                os.close(descriptor)

    def entry(self, number: int) -> LogIndexEntry:
        """Return the index entry with this position."""
        return self._entries(number, number + 1)[0]

    def _entries(self, start: int, stop: int) -> list[LogIndexEntry]:
        data = os.pread(self._index, (stop - start) * ENTRY.size, start * ENTRY.size)
        return [LogIndexEntry(*fields) for fields in ENTRY.iter_unpack(data)]

    def _bisect(self, is_left: Callable[[LogIndexEntry], bool]) -> int:
        """Return the position of the first entry for which `is_left` is false."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if is_left(self.entry(middle)):
                low = middle + 1
            else:
                high = middle
        return low

    def batch(self, low: int, high: int, most: int) -> list[LogIndexEntry]:
        """Return the first entries with a line from `low` to below `high`, of about `most` bytes, in order."""
        start = self._bisect(lambda entry: entry.end <= low)
        stop = self._bisect(lambda entry: entry.first < high)
        return _fitting(self._entries(start, min(start + _ENTRIES, stop)), most) if start < stop else []

    def batch_before(self, low: int, high: int, most: int) -> list[LogIndexEntry]:
        """Return the last entries with a line from `low` to below `high`, of about `most` bytes, in order."""
        start = self._bisect(lambda entry: entry.end <= low)
        stop = self._bisect(lambda entry: entry.first < high)
        return _fitting(self._entries(max(start, stop - _ENTRIES), stop)[::-1], most)[::-1] if start < stop else []

    def read(self, entries: list[LogIndexEntry]) -> bytes:
        """Return the bytes of consecutive entries."""
        if not entries:
            return b""
        size = entries[-1].offset + entries[-1].size - entries[0].offset
        return os.pread(self._lines, size, entries[0].offset)


def _fitting(entries: list[LogIndexEntry], most: int) -> list[LogIndexEntry]:
    """Return the first entries that have at most `most` bytes together, but at least one entry."""
    size = 0
    for number, entry in enumerate(entries):
        size += entry.size
        if size > most and number:
            return entries[:number]
    return entries
