"""Where a work's own service binds: what the runtime says, else a free port that no other work here is given."""

from __future__ import annotations

import os
import socket
import tempfile
import weakref
from pathlib import Path

__all__ = ["SERVICE", "assigned_service", "reserve_port"]

SERVICE = "_LIGHTWORK_SERVICE"
"""Variable of a worker: ``bind host,port,url``, each of which may be empty."""


def assigned_service() -> tuple[str, int | None, str]:
    """Where the runtime wants the service of this worker: the address and the port to bind, and the url of that port.

    The url is where others reach it, by a way that only the runtime knows. Nothing is wanted where it is empty.
    """
    host, port, url = os.environ.get(SERVICE, ",,").split(",", 2)
    return host, int(port) if port else None, url


def reserve_port(host: str, holder: object) -> int:
    """A port that was free on `host` a moment ago, reserved among all works on this machine while `holder` exists.

    Between asking the kernel and the service's own bind another work could be given the same port, so
    each port given out is a file lock; a work that gets one that is locked asks again.

    Raises:
        OSError: `host` is no address of this machine.
    """
    import fcntl

    folder = Path(tempfile.gettempdir()) / f"lightwork-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as probe:
            try:
                probe.bind((host, 0))
            except OSError as error:
                reason = f"a work cannot bind {host!r}, which is no address of its machine: {error.strerror}"
                raise OSError(error.errno, reason) from None
            port: int = probe.getsockname()[1]
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            weakref.finalize(holder, os.close, lock)
            return port
