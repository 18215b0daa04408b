"""Cached folders: independent processes make, use and remove them, synchronized by file locks.

Beside a folder ``X`` there are two empty files:

- ``X.lock`` is locked exclusively by the process that makes or removes the folder.
- ``X.used`` is locked shared by all processes that use the folder, and exclusively by the process that removes it. Its
  time is the time of the last use.

The locks are ``flock`` locks: the kernel releases them when the last process with the descriptor ends, even if it is
killed. A user waits for a removal no longer than a rename takes. A removal never waits: a locked folder stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["MARKER", "cache_folder", "claim", "discard", "entries", "hold", "locked", "remove_tree"]

MARKER = "lightwork.json"
"""The file that marks an environment as complete. It has the facts that the environment was made from."""

_GONE, _NEW = ".gone-", ".new"
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_LONGEST = 200


def cache_folder(name: str) -> str:
    """Return the user's cache folder of that name."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    parent = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
    return f"{parent}/lightwork/{name}"


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the exclusive lock of this path. Only one process at a time has it. Blocks until it is free."""
    fd = _take(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def claim(folder: str) -> int:
    """Use a folder, as `hold` does, even if it does not exist yet.

    If no file can be written beside it, for example because it belongs to another user, the folder can still be used.
    Its owner does not see the use then.
    """
    try:
        os.makedirs(os.path.dirname(folder), 0o700, exist_ok=True)
        fd = _take(f"{folder}.used", fcntl.LOCK_SH)
    except OSError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        os.utime(fd)
    return fd


def hold(folder: str, marker: str = "") -> int | None:
    """Use a folder. It is not removed while a copy of the returned descriptor is open in any process.

    Args:
        folder: Path of the folder.
        marker: Name of a file that marks the folder as complete.

    Returns:
        The descriptor; None if the folder does not exist or is not complete.
    """
    whole = os.path.join(folder, marker)
    if not os.path.exists(whole):
        return None
    fd = claim(folder)
    if os.path.exists(whole):
        return fd
    os.close(fd)
    return None


def discard(parent: str, name: str) -> bool:
    """Remove a folder, unless it is used or being made. Return whether it is gone.

    This also removes the rest of a removal that was killed.

    Args:
        parent: Folder that contains it.
        name: Its name in `parent`. A name that `entries` does not return removes nothing.

    Raises:
        OSError: Something in the folder cannot be removed.
    """
    if not name or name.startswith(".") or os.path.basename(name) != name:
        return True
    folder = f"{parent}/{name}"
    gone = f"{parent}/{_GONE}{name}-{os.urandom(4).hex()}"  # a path that no other process uses
    with contextlib.ExitStack() as stack:
        for suffix in (".lock", ".used"):
            try:
                fd = _take(f"{folder}{suffix}", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except FileNotFoundError:  # `parent` does not exist
                return True
            stack.callback(os.close, fd)
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, gone)  # in one step, so that no process finds a half-removed folder
        remove_tree(f"{folder}{_NEW}")
        # A process that waits for one of these locks sees that the file is gone, and makes a new one.
        for suffix in (".used", ".lock", ".log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}{suffix}")
    for left in os.listdir(parent):
        if left.startswith(f"{_GONE}{name}-"):
            remove_tree(f"{parent}/{left}")
    return True


def entries(parent: str, kind: str) -> list[dict[str, Any]]:
    """Return the fields of a `lightwork.runtime.Cached`, except the place, for each folder in `parent`. Blocks."""
    try:
        names = {name[: -len(_NEW)] if name.endswith(_NEW) else name for name in os.listdir(parent)}
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        folder = f"{parent}/{name}"
        if not name.startswith(".") and (os.path.isdir(folder) or os.path.isdir(f"{folder}{_NEW}")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append({"kind": kind, "name": name, **_look(folder)})
    return found


def _look(folder: str) -> dict[str, Any]:
    in_use = _is_held(f"{folder}.lock") or _is_held(f"{folder}.used")
    try:
        since = os.stat(f"{folder}.used").st_mtime
    except FileNotFoundError:  # it was not used yet
        since = os.stat(folder if os.path.isdir(folder) else f"{folder}{_NEW}").st_mtime
    return {
        "size": _size(folder) + _size(f"{folder}{_NEW}"),
        "unused_for": 0.0 if in_use else max(0.0, time.time() - since),
        "in_use": in_use,
        "detail": _made_of(f"{folder}/{MARKER}"),
    }


def _made_of(path: str) -> str:
    """Return requirements and commands of an environment, without passwords."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return ""
    text = ", ".join([*facts.get("requirements", ()), *facts.get("commands", ())])
    return _CREDENTIALS.sub("***", text)[:_LONGEST]


def _size(path: str) -> int:
    """Return the disk usage in bytes of the files below a folder."""
    total = 0
    seen = set()
    for parent, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(f"{parent}/{name}")
                if info.st_nlink == 1 or info.st_ino not in seen:
                    seen.add(info.st_ino)
                    total += info.st_blocks * 512
    return total


def _take(path: str, how: int) -> int:
    """Return a descriptor with a lock of the file at `path`. Retry if the file was removed during the wait."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_held(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove_tree(path: str) -> None:
    """Remove a folder. Another process may do the same at the same time."""

    def failed(function: Any, path: str, info: Any) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=failed)
