"""Which of this machine's schedulers live: each holds a lock on a file that is named after its id.

A process that dies loses the lock, whatever killed it. So neither a clock nor renewals are needed. A forked child
inherits the lock and may hold it longer than the scheduler lives. The pid in the file tells this one case apart.
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
    """Return a name for this machine: its host name, and a digest of its machine id, which is no secret."""
    try:
        identity = Path("/etc/machine-id").read_text("utf-8").strip()
    except OSError:
        identity = ""
    digest = hashlib.sha256(f"lightwork {identity} {socket.gethostname()}".encode()).hexdigest()[:12]
    return f"{socket.gethostname()[:40]}-{digest}"


class Leases:
    """The leases of one runtime. Several runtimes may hold a lease for the same owner.

    Args:
        options: The profile's options, with the folder of the files.
    """

    def __init__(self, options: CloudOptions) -> None:
        self._folder = Path(options.state_folder) / "owners"
        self._held: dict[str, int] = {}

    def hold(self, owner: str) -> None:
        """Record that the scheduler with this id lives, until `drop` or the end of this process."""
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
            os.close(descriptor)  # another process has just removed the file as that of a dead scheduler

    def drop(self) -> None:
        """Release all leases."""
        while self._held:
            _, descriptor = self._held.popitem()
            os.close(descriptor)

    def lives(self, owner: str) -> bool:
        """Whether a scheduler with this id lives on this machine. Removes the file of a dead one."""
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
        # An id from a tag may hold any characters.
        safe = owner if owner.replace("-", "").isalnum() else hashlib.sha256(owner.encode()).hexdigest()
        return self._folder / safe


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _exists(pid: bytes) -> bool:
    """Whether the process exists. An empty pid counts as existing: the holder has locked but not written yet."""
    if not pid:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
