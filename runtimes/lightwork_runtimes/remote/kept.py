"""Folders that are made once and kept: how one is used, made and removed by processes that know nothing of each other.

Beside a folder ``X`` lie two empty files:

- ``X.lock`` is held alone by who makes the folder, and by who removes it.
- ``X.used`` is held together by all that use the folder, and alone by who removes it. Its time is the last use's.

They are held by ``flock``: the kernel lets go when the last process with the descriptor ends, however it does. Nobody
waits for a removal longer than a rename takes, and a removal waits for nobody: what is held stays.
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
"""The file in a complete environment that says so, and what it was made from."""

_GONE, _NEW = ".gone-", ".new"
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_LONGEST = 200


def cache_folder(name: str) -> str:
    """The folder for what this user keeps under that name."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    parent = cache if os.path.isabs(cache) else os.path.expanduser("~/.cache")
    return f"{parent}/lightwork/{name}"


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold a lock of this path; of all processes one at a time has it. Waits for it."""
    fd = _take(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def claim(folder: str) -> int:
    """Say that a folder is wanted, also one that is still to be made: as `hold`.

    Where nothing can be left beside it, as in a folder of another user's, it can be used all the same; its owner is not
    told of that.
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
    """Use a folder: it is not removed while a copy of the descriptor that this gives is open, in whatever process.

    Args:
        folder: Which.
        marker: Name of a file in it without which it is not whole.

    Returns:
        None if there is no such folder, or it is not whole.
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
    """Remove a folder unless it is used or being made; says whether it is gone. What a killed removal left goes too.

    Args:
        parent: Where it is.
        name: Its name there; one that `entries` does not give touches nothing.

    Raises:
        OSError: Something in it cannot be removed.
    """
    if not name or name.startswith(".") or os.path.basename(name) != name:
        return True
    folder = f"{parent}/{name}"
    gone = f"{parent}/{_GONE}{name}-{os.urandom(4).hex()}"  # nobody else puts anything there
    with contextlib.ExitStack() as stack:
        for suffix in (".lock", ".used"):
            try:
                fd = _take(f"{folder}{suffix}", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except FileNotFoundError:  # of the folder above: nothing was ever made there
                return True
            stack.callback(os.close, fd)
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, gone)  # in one step, so that nobody finds a folder that is half removed
        remove_tree(f"{folder}{_NEW}")
        # Who waits for one of them sees that it is not there any more, and takes another.
        for suffix in (".used", ".lock", ".log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}{suffix}")
    for left in os.listdir(parent):
        if left.startswith(f"{_GONE}{name}-"):
            remove_tree(f"{parent}/{left}")
    return True


def entries(parent: str, kind: str) -> list[dict[str, Any]]:
    """What `lightwork.runtime.Cached` says of each folder in `parent`, but for the place. Reads sizes, which blocks."""
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
    except FileNotFoundError:  # nobody has used it yet
        since = os.stat(folder if os.path.isdir(folder) else f"{folder}{_NEW}").st_mtime
    return {
        "size": _size(folder) + _size(f"{folder}{_NEW}"),
        "unused_for": 0.0 if in_use else max(0.0, time.time() - since),
        "in_use": in_use,
        "detail": _made_of(f"{folder}/{MARKER}"),
    }


def _made_of(path: str) -> str:
    """Requirements and commands of an environment, without passwords in them."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
    except (OSError, ValueError):
        return ""
    text = ", ".join([*facts.get("requirements", ()), *facts.get("commands", ())])
    return _CREDENTIALS.sub("***", text)[:_LONGEST]


def _size(path: str) -> int:
    """Bytes of the disk that the files below a folder take."""
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
    """A descriptor with a lock of the file that is at `path`: one that was removed while it was waited for is not."""
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
    """Remove a folder. Another that does the same at the same time is no error."""

    def failed(function: Any, path: str, info: Any) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=failed)
