"""Who of this machine's schedulers lives: each holds a file locked that is named after it.

A process that dies lets go of the lock, whatever killed it, so no clock and no renewal is in it. The pid inside
settles the one case in which a lock outlives its holder: a child that was forked has it, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import socket
from pathlib import Path

from lightwork_runtimes.cloud._options import CloudOptions

__all__ = ["Leases", "this_machine"]


@functools.cache
def this_machine() -> str:
    """Names this machine: its host name, and something of its own that is no secret."""
    try:
        identity = Path("/etc/machine-id").read_text("utf-8").strip()
    except OSError:
        identity = ""
    digest = hashlib.sha256(f"lightwork {identity} {socket.gethostname()}".encode()).hexdigest()[:12]
    return f"{socket.gethostname()[:40]}-{digest}"


class Leases:
    """The leases of one runtime. Several may hold one for the same owner.

    Args:
        options: Of the profile: where the files are.
    """

    def __init__(self, options: CloudOptions) -> None:
        self._folder = Path(options.state_folder) / "owners"
        self._held: dict[str, int] = {}

    def hold(self, owner: str) -> None:
        """Say that the scheduler of this id lives, until `drop` or the end of this process."""
        if owner in self._held:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if _is_named(descriptor, self._path(owner)):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                    self._held[owner] = descriptor
                    return
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # somebody who took it for a dead one's has just removed it

    def drop(self) -> None:
        """Let go of all of them."""
        while self._held:
            _, descriptor = self._held.popitem()
            os.close(descriptor)

    def lives(self, owner: str) -> bool:
        """Whether a scheduler of this id lives on this machine. Removes what a dead one has left."""
        path = self._path(owner)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _exists(os.pread(descriptor, 32, 0))
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return False
        finally:
            os.close(descriptor)

    def _path(self, owner: str) -> Path:
        # An id from a tag may be anything.
        safe = owner if owner.replace("-", "").isalnum() else hashlib.sha256(owner.encode()).hexdigest()
        return self._folder / safe


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _exists(pid: bytes) -> bool:
    """Whether there is such a process. Of one that has written nothing yet, the lock alone tells."""
    if not pid:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
