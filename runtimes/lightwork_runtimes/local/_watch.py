"""Wait for a file to change and for a process to end, without polling.

The caller passes an `asyncio.Event` that a change sets; several watches may set one event. One inotify descriptor
serves all files of a runtime, and one pidfd serves all waiters for one process. So an idle runtime uses no CPU. If the
platform has neither, or the kernel's limit is reached, all events are set every 0.2 s while a task waits.
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
"""Appends to a file and its removal. Removing an open file changes an attribute first: its link count."""

CONTENT = _IN_MODIFY


class Ticker:
    """Sets every watched event each 0.2 s: the fallback if the kernel cannot report changes."""

    def __init__(self) -> None:
        self._events: Counter[asyncio.Event] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watch(self, event: asyncio.Event) -> Iterator[None]:
        """Set `event` every 0.2 s while the context is entered."""
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
    """Watches for changes of files, by inotify."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._libc: ctypes.CDLL | None = None
        self._fd = -1
        self._watchers: dict[int, Counter[asyncio.Event]] = {}

    def open(self) -> None:
        """Open the inotify descriptor. Without one, `watch` falls back to the ticker."""
        if sys.platform != "linux":
            return
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_IN_FLAGS)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._watchers.clear()

    def watch(self, path: str, mask: int, event: asyncio.Event) -> AbstractContextManager[None]:
        """Set `event` at each change of `path` while the context is entered.

        A path that does not exist is watched by the ticker. One path must always be watched with the same mask: the
        kernel keeps one mask for each path.
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
            # The kernel may have dropped the watch with its file; the number is no longer in `_watchers` then.
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
            if mask & _IN_Q_OVERFLOW:  # events were lost: every waiter checks its file
                for watchers in self._watchers.values():
                    _set_all(watchers)
                continue
            _set_all(self._watchers.get(number, Counter()))
            if mask & _IN_IGNORED:
                self._watchers.pop(number, None)


class Deaths:
    """Watches for ends of processes, also of processes that are not children, by pidfd."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker
        self._watched: dict[Identity, tuple[int, Counter[asyncio.Event]]] = {}

    def watch(self, process: Identity, event: asyncio.Event) -> AbstractContextManager[None]:
        """Set `event` when `process` ends while the context is entered; at once if it has ended already."""
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
        """Close the descriptors. Tasks that still wait are woken once more."""
        for process in list(self._watched):
            self._died(process)


def _set_all(watchers: Counter[asyncio.Event]) -> None:
    for event in watchers:
        event.set()
