"""The ports of a profile and of its works' services. Computed from names, they are the same for a later scheduler."""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Container
from itertools import count

__all__ = ["service_ports", "usual_ports"]

_NUM_PORTS = 8
_PROFILES = range(20000, 22000)
_LOCAL_PORTS, _REMOTE_PORTS = range(22000, 27000), range(27000, 32000)
"""Below Linux's range of ephemeral ports. The ranges do not overlap, because both sides may be one machine."""


def usual_ports(profile: str) -> list[int]:
    """Return the ports of the remote loopback for a profile that sets none.

    They are the same on every start, so that workers that lost a scheduler find the next one.
    """
    digest = hashlib.sha256(f"{socket.gethostname()} {getpass.getuser()} {profile}".encode()).digest()
    first = int.from_bytes(digest[:8], "big")
    return [_PROFILES[(first + step * 1499) % len(_PROFILES)] for step in range(_NUM_PORTS)]


def service_ports(launch: str, taken: Container[int]) -> tuple[int, int]:
    """Return a local and a remote port for a launch's service, rarely those of another launch, the same every time.

    Args:
        launch: Name of the launch.
        taken: Ports of the remote loopback that workers connect to.
    """
    digest = hashlib.sha256(launch.encode()).digest()
    first_local, first_remote = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    candidates = (_REMOTE_PORTS[step % len(_REMOTE_PORTS)] for step in count(first_remote))
    return _LOCAL_PORTS[first_local % len(_LOCAL_PORTS)], next(port for port in candidates if port not in taken)
