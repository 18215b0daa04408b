"""Free ports that no two works of this machine are given at once."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import IO

__all__ = ["reserve_port"]

_held: list[IO[bytes]] = []


def reserve_port(host: str) -> int:
    """A port that was free on `host` a moment ago, reserved among all works on this machine until this process ends.

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
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        lock = (folder / str(port)).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            _held.append(lock)
            return port
