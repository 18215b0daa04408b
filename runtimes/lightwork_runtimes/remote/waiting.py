"""Wait for changes of files and for the end of processes, in an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

from .files import Identity

__all__ = ["CONTENT", "FOLDER", "Inotify", "watch_process"]

_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF, _MOVE_SELF = 0x2, 0x80, 0x100, 0x400, 0x800
FOLDER = _MOVED_TO | _CREATE | _DELETE_SELF | _MOVE_SELF
"""A file appeared in the folder, or the folder was removed."""

CONTENT = _MODIFY | _DELETE_SELF | _MOVE_SELF
"""The file was written or removed."""

_EVENT = struct.Struct("iIII")
_LOOK_AGAIN = 1.0
"""Seconds between two checks of a process, on kernels older than 5.3, which cannot report its end."""


class Inotify:
    """One inotify instance. All its watches have the same mask: the kernel has one watch per file and instance."""

    def __init__(self, mask: int) -> None:
        self._mask = mask
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._changed: dict[int, set[asyncio.Event]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    @contextlib.contextmanager
    def watch(self, path: str, changed: asyncio.Event) -> Iterator[None]:
        """Set `changed` at each change of `path` while the context is entered; once if it does not exist."""
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(path), self._mask)
        if number < 0:
            if not isinstance(error := OSError(ctypes.get_errno(), f"inotify: {path}"), FileNotFoundError):
                raise error
            changed.set()
            yield
            return
        self._changed.setdefault(number, set()).add(changed)
        try:
            yield
        finally:
            left = self._changed.get(number, set())
            left.discard(changed)
            if not left and self._changed.pop(number, None) is not None:
                self._libc.inotify_rm_watch(self._fd, number)  # fails if the file is gone, and the watch with it

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, 65536)
            offset = 0
            while offset < len(data):
                number, _, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                # -1: the queue overflowed, and events were lost.
                waiters = [self._changed.get(number, set())] if number >= 0 else list(self._changed.values())
                for waiter in waiters:
                    for changed in waiter:
                        changed.set()


@contextlib.contextmanager
def watch_process(process: Identity, changed: asyncio.Event) -> Iterator[None]:
    """Set `changed` when the process has ended."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        changed.set()
        yield
        return
    except (AttributeError, OSError):  # an old kernel, or a sandbox that forbids it
        with _look_again_and_again(process, changed, loop):
            yield
        return
    if not process.is_alive:  # the pid belongs to another process now
        changed.set()

    def ended() -> None:
        loop.remove_reader(fd)
        changed.set()

    loop.add_reader(fd, ended)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@contextlib.contextmanager
def _look_again_and_again(process: Identity, changed: asyncio.Event, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    timer = loop.call_soon(lambda: None)

    def look() -> None:
        nonlocal timer
        if process.is_alive:
            timer = loop.call_later(_LOOK_AGAIN, look)
        else:
            changed.set()

    look()
    try:
        yield
    finally:
        timer.cancel()
