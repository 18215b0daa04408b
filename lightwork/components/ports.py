"""The address of a work's own service: from the runtime, otherwise a free port that no other work here gets."""

from __future__ import annotations

import os
import socket
import tempfile
import weakref
from pathlib import Path

__all__ = ["SERVICE", "assigned_service", "reserve_port"]

SERVICE = "_LIGHTWORK_SERVICE"
"""Environment variable of a worker: ``bind host,port,url``. Each part may be empty."""


def assigned_service() -> tuple[str, int | None, str]:
    """Return the address and the port that this worker's service must bind, and the URL of that port.

    Other works reach the service at the URL, by a route that only the runtime knows. An empty part leaves the choice to
    the work.
    """
    host, port, url = os.environ.get(SERVICE, ",,").split(",", 2)
    return host, int(port) if port else None, url


def reserve_port(host: str, holder: object) -> int:
    """Return a port that was free on `host` a moment ago. No other work on this machine gets it while `holder` exists.

    Between the kernel's answer and the service's own bind, another work could get the same port. So each reserved port
    has a file lock. A work that gets a locked port asks the kernel again.

    Raises:
        OSError: `host` is not an address of this machine.
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
