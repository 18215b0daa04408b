"""Waiting for a file to change and for a process to end, without looking again and again.

Whoever waits brings an `asyncio.Event` and says what shall set it; one event may be set from several
sides. One inotify descriptor serves all files of a runtime, and one pidfd all who wait for one process: at
rest nothing runs. Where the platform has neither, or the kernel gives no more of them, all events are set
every 0.2 s while somebody waits.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from lightwork_runtimes.local._process import HAS_PIDFD, Identity, open_pidfd

__all__ = ["CONTENT", "RECORD", "Deaths", "Files", "Ticker"]

INTERVAL = 0.2

_IN_MODIFY, _IN_ATTRIB, _IN_DELETE_SELF = 0x2, 0x4, 0x400
_IN_Q_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_IN_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_EVENT = struct.Struct("iIII")

RECORD = _IN_MODIFY | _IN_ATTRIB | _IN_DELETE_SELF
"""What is added to a file, and its end: one that somebody has open loses its name first, which is an attribute."""

CONTENT = _IN_MODIFY


class Ticker:
    """Sets every event it was given each 0.2 s: the way out where the kernel tells nothing."""

    def __init__(self) -> None:
        self._events: Counter[asyncio.Event] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watch(self, event: asyncio.Event) -> Iterator[None]:
        """Set `event` again and again while inside."""
        self._events[event] += 1
        if self._timer is None:
            self._tick()
        try:
            yield
        finally:
            self._events[event] -= 1
            if not self._events[event]:
                del self._events[event]

    def _tick(self) -> None:
        for event in self._events:
            event.set()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._tick) if self._events else None

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Files:
    """Changes of files, by inotify."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._libc: ctypes.CDLL | None = None
        self._fd = -1
        self._watchers: dict[int, Counter[asyncio.Event]] = {}

    def open(self) -> None:
        """Ask the kernel for a descriptor; without one `watch` falls back to the ticker."""
        if sys.platform != "linux":
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_IN_FLAGS)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._watchers.clear()

    def watch(self, path: str, mask: int, event: asyncio.Event) -> AbstractContextManager[None]:
        """Set `event` at each change of `path` while inside; at once if it is not there.

        One path must always be watched with the same mask: the kernel keeps one for each.
        """
        number = self._add(path, mask)
        if number is None:
            return self._ticker.watch(event)
        return self._watched(number, event)

    def _add(self, path: str, mask: int) -> int | None:
        if self._fd < 0 or self._libc is None:
            return None
        number: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        return number if number >= 0 else None

    @contextmanager
    def _watched(self, number: int, event: asyncio.Event) -> Iterator[None]:
        watchers = self._watchers.setdefault(number, Counter())
        watchers[event] += 1
        try:
            yield
        finally:
            watchers[event] -= 1
            if not watchers[event]:
                del watchers[event]
            # The kernel may have dropped the watch with its file, and the number was forgotten then.
            if not watchers and self._watchers.get(number) is watchers:
                del self._watchers[number]
                if self._fd >= 0 and self._libc is not None:
                    self._libc.inotify_rm_watch(self._fd, number)

    def _drain(self) -> None:
        data = os.read(self._fd, 65536)
        start = 0
        while start < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, start)
            start += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:  # events were lost: everybody looks for themselves
                for watchers in self._watchers.values():
                    _set_all(watchers)
                continue
            _set_all(self._watchers.get(number, Counter()))
            if mask & _IN_IGNORED:
                self._watchers.pop(number, None)


class Deaths:
    """Ends of processes, ours or not, by pidfd."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._watched: dict[Identity, tuple[int, Counter[asyncio.Event]]] = {}

    def watch(self, process: Identity, event: asyncio.Event) -> AbstractContextManager[None]:
        """Set `event` when `process` has ended while inside; at once if it has already."""
        if not HAS_PIDFD:
            return self._ticker.watch(event)
        return self._watch(process, event)

    @contextmanager
    def _watch(self, process: Identity, event: asyncio.Event) -> Iterator[None]:
        if process not in self._watched and not self._open(process):
            event.set()
            yield
            return
        watchers = self._watched[process][1]
        watchers[event] += 1
        try:
            yield
        finally:
            watchers[event] -= 1
            if not watchers[event]:
                del watchers[event]
            if not watchers and process in self._watched and self._watched[process][1] is watchers:
                self._close(process)

    def _open(self, process: Identity) -> bool:
        fd = open_pidfd(process)
        if fd is None:
            return False
        self._watched[process] = (fd, Counter())
        asyncio.get_running_loop().add_reader(fd, self._died, process)
        return True

    def _died(self, process: Identity) -> None:
        watchers = self._watched[process][1]
        self._close(process)
        _set_all(watchers)

    def _close(self, process: Identity) -> None:
        fd, _ = self._watched.pop(process)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)

    def close(self) -> None:
        """Give the descriptors back; who still waits is woken once more."""
        for process in list(self._watched):
            self._died(process)


def _set_all(watchers: Counter[asyncio.Event]) -> None:
    for event in watchers:
        event.set()
