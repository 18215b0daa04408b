"""Keeps a second process away from a file, for as long as this one lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lightwork.errors import JournalError

__all__ = ["FileLock"]


class FileLock:
    """A lock on a file beside the one that is meant, with the pid of its holder in it.

    The kernel lets go of it when the process ends, whatever ended it; the file stays. It cannot be the journal itself:
    SQLite has locks of its own on that, and is confused by others.

    Args:
        path: What is to be locked.

    Raises:
        JournalError: Another process, or another app of this one, holds it, or the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        beside = path.with_name(f"{path.name}-lock")
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be written: {beside}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise JournalError(
                f"the journal {path} is in use by the scheduler with pid {holder}: two cannot write one journal. Wait "
                "until that one has ended, or use another path"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of it. May be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
