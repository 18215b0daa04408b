"""Writes the output of works in a separate thread: a caller hands over lines and does not wait.

Nothing is dropped. If the disk is slow or full, lines wait here, up to `ROOM` bytes. Then the readers of the works'
output wait in `wait_room`, and the runtimes keep the output. The works are not affected.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from lightwork._logging import get_logger
from lightwork.logfiles.layout import ENTRY, Segment, name_of, segments, stem_of

__all__ = ["ROOM", "RUNS_KEPT", "LogWriter", "begin_run"]

ROOM = 16 * 1024 * 1024
"""Bytes that may wait for the disk before readers must wait."""

RUNS_KEPT = 20
"""Number of runs whose logs are kept in one folder."""

_SEGMENTS = 8
"""Number of segments in `max_bytes`. The deletion of the oldest segment loses one such part at once."""

_LEAST_SEGMENT = 64 * 1024
_MOST_OPEN = 64
_PAUSE = 0.5
"""Seconds between two attempts to write after an error of the disk."""

_LAST_TRIES = 5.0
"""Seconds of further attempts after the app has ended."""

_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")

_log = get_logger("lightwork.logs")

T = TypeVar("T")

_Block = tuple[str, bytes, int, int, float]


class _Series:
    """The segments of one work and their sizes."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.number = 0
        self.size = 0
        self.sizes: list[tuple[Segment, int]] = []  # the full segments


class LogWriter:
    """Writes into the folder of one run. Made and used in the loop's thread.

    Args:
        folder: The run's folder; made if it does not exist. Its existing lines stay, and the numbers continue.
        max_bytes: Approximate limit of the output of one work, in bytes; the oldest lines are deleted.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._segment = max(max_bytes // _SEGMENTS, _LEAST_SEGMENT)
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._series: dict[str, _Series] = {}
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._next = self._take_stock()
        self._given = 0  # bytes handed over; set by the loop only
        self._written = 0  # bytes written; set by the thread only
        self._queue: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._loop = asyncio.get_running_loop()
        self._give_up_at: float | None = None
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="lightwork logs", daemon=True)
        self._thread.start()

    def _take_stock(self) -> int:
        """Continue the files of an earlier writer; return the next line number."""
        following = 1
        for stem, found in segments(self.folder).items():
            series = self._series[name_of(self.folder, stem)] = _Series(stem)
            series.number = found[-1].number
            series.sizes = [(one, one.lines.stat().st_size) for one in found]
            for one in found:
                with contextlib.suppress(OSError):
                    data = one.index.read_bytes()
                    whole = len(data) // ENTRY.size
                    if whole:
                        _, first, _, count, _ = ENTRY.unpack_from(data, (whole - 1) * ENTRY.size)
                        following = max(following, first + count)
        return following

    # --- handing over -----------------------------------------------------------------------------

    def write(self, work: str, data: bytes, count: int, time: float) -> int:
        """Hand over `count` whole lines of a work; return the number of the first line. Never waits."""
        first = self._next
        self._next += count
        self._given += len(data)
        self._queue.put((work, data, count, first, time))
        return first

    @property
    def backlog(self) -> int:
        """Number of bytes that wait for the disk."""
        return self._given - self._written

    async def wait_room(self) -> None:
        """Wait until at most `ROOM` bytes wait for the disk. Cancelling it changes nothing."""
        while self.backlog > ROOM:
            await self._wait_written(self._given - ROOM)

    async def wait_written(self) -> None:
        """Wait until everything that was handed over so far can be read. Cancelling it changes nothing."""
        await self._wait_written(self._given)

    async def _wait_written(self, mark: int) -> None:
        if self._written >= mark:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((mark, future))
        if self._written >= mark:  # written before the thread could see this waiter
            self._wake()
        await future

    def _wake(self) -> None:
        written = self._written
        for mark, future in self._waiting:
            if mark <= written and not future.done():
                future.set_result(None)
        self._waiting = [(mark, future) for mark, future in self._waiting if not future.done()]

    async def aclose(self) -> None:
        """Write the waiting lines and close the files. May be called twice. Lines that a full disk refuses are lost."""
        if self._lock < 0:
            return
        self._give_up_at = time.monotonic() + _LAST_TRIES
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._wake()
        os.close(self._lock)
        self._lock = -1

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            blocks = [self._queue.get()]
            while not self._queue.empty():
                blocks.append(self._queue.get())
            is_last = blocks[-1] is None
            by_work: dict[str, list[_Block]] = {}
            for block in blocks:
                if block is not None:
                    by_work.setdefault(block[0], []).append(block)
            for work, its in by_work.items():
                self._append(work, its)
            if self._waiting:
                self._loop.call_soon_threadsafe(self._wake)
            if is_last:
                break
        for descriptors in self._open.values():
            _close(descriptors)
        self._open.clear()

    def _append(self, work: str, blocks: list[_Block]) -> None:
        """Write blocks of one work. After an error, try again until the write succeeds or the app has ended."""
        left = blocks
        while left:
            series = self._try(lambda: self._prepare(work))
            if series is None:
                break
            room = self._segment - series.size
            taken, size = 0, 0
            for block in left:
                if taken and size + len(block[1]) > room:
                    break
                taken, size = taken + 1, size + len(block[1])
            entries = []
            at = series.size
            for _, data, count, first, moment in left[:taken]:
                entries.append(ENTRY.pack(at, first, moment, count, len(data)))
                at += len(data)
            lines, index = self._open[work]
            data = b"".join([block[1] for block in left[:taken]])
            # The index is written last, so that its entries name only existing lines.
            if not (self._put(lines, data) and self._put(index, b"".join(entries))):
                break
            series.size = at
            self._written += size
            left = left[taken:]
        if left:
            lost = sum(block[2] for block in left)
            self._written += sum(len(block[1]) for block in left)
            _log.error(
                "lines of a work were lost: the disk refused them", work=work, lines=lost, folder=str(self.folder)
            )

    def _put(self, descriptor: int, data: bytes) -> bool:
        done = 0
        while done < len(data):
            written = self._try(partial(os.write, descriptor, memoryview(data)[done:]))
            if written is None:
                return False
            done += written
        return True

    def _try(self, act: Callable[[], T]) -> T | None:
        while True:
            try:
                outcome = act()
            except OSError as error:
                if self._give_up_at is not None and time.monotonic() > self._give_up_at:
                    return None
                if not self._is_failing:
                    self._is_failing = True
                    _log.warning(
                        "the disk refuses lines of works; they wait", folder=str(self.folder), error=str(error)
                    )
                time.sleep(_PAUSE)
            else:
                self._is_failing = False
                return outcome

    # --- segments ---------------------------------------------------------------------------------

    def _prepare(self, work: str) -> _Series:
        """Open the work's current segment, or a new segment if that one is full."""
        series = self._series.get(work)
        if series is None:
            series = self._series[work] = _Series(stem_of(work))
            if "~" in series.stem:
                (self.folder / f"{series.stem}.name").write_text(work, encoding="utf-8")
        if series.number == 0 or series.size >= self._segment or work not in self._open:
            self._roll(work, series)
        self._open.move_to_end(work)
        return series

    def _roll(self, work: str, series: _Series) -> None:
        has_one = work in self._open or series.size
        if series.number == 0 or series.size >= self._segment or not has_one:
            if series.size:
                series.sizes.append((self._segment_of(series), series.size))
            self._close(work)
            series.number, series.size = series.number + 1, 0
            self._drop_oldest(series)
        segment = self._segment_of(series)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        lines = os.open(segment.lines, flags, 0o644)
        try:
            self._open[work] = lines, os.open(segment.index, flags, 0o644)
        except OSError:
            os.close(lines)
            raise
        while len(self._open) > _MOST_OPEN:
            _close(self._open.popitem(last=False)[1])

    def _segment_of(self, series: _Series) -> Segment:
        base = f"{series.stem}.{series.number:06}"
        return Segment(series.number, self.folder / f"{base}.log", self.folder / f"{base}.idx")

    def _close(self, work: str) -> None:
        descriptors = self._open.pop(work, None)
        if descriptors is not None:
            _close(descriptors)

    def _drop_oldest(self, series: _Series) -> None:
        while series.sizes and sum(size for _, size in series.sizes) > self._max_bytes - self._segment:
            segment, _ = series.sizes.pop(0)
            for path in (segment.lines, segment.index):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def _close(descriptors: tuple[int, int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def begin_run(folder: Path, run: str) -> Path:
    """Make the folder of a run in the folder of all runs, mark it as the latest, and delete the oldest runs.

    Return its absolute path.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder = folder.absolute()
    made = folder / run
    made.mkdir(parents=True, exist_ok=True)
    if folder.parent.name == ".lightwork":
        ignore = folder.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    aside = folder / f".latest-{run}"
    aside.write_text(f"{run}\n")
    aside.replace(folder / "latest")
    runs = sorted(path for path in folder.iterdir() if _RUN.fullmatch(path.name) and path.name != run)
    for old in runs[: max(0, len(runs) + 1 - RUNS_KEPT)]:
        _remove_run(old)
    return made


def _remove_run(folder: Path) -> None:
    """Delete the logs of a run that has ended; keep the logs of a run that still writes."""
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)
