"""The ports of a profile and of its works' services, which follow from names: a later scheduler finds the same."""

from __future__ import annotations

import getpass
import hashlib
import socket

__all__ = ["service_ports", "usual_ports"]

_NUM_PORTS = 8
_FIRST_PORT, _LAST_PORT = 20000, 32000
"""Below those that Linux gives to outgoing connections."""


def usual_ports(profile: str) -> list[int]:
    """Ports of the far side's loopback for a profile that names none.

    The same on every start, so that workers which lost one scheduler find the next.
    """
    seed = f"{socket.gethostname()} {getpass.getuser()} {profile}"
    width = _LAST_PORT - _FIRST_PORT
    digest = hashlib.sha256(seed.encode()).digest()
    first = int.from_bytes(digest[:8], "big")
    return [_FIRST_PORT + (first + step * 1499) % width for step in range(_NUM_PORTS)]


def service_ports(launch: str) -> tuple[int, int]:
    """For the service of a launch, a port here and one there: seldom another's, and the same for a later scheduler."""
    digest = hashlib.sha256(launch.encode()).digest()
    half = (_LAST_PORT - _FIRST_PORT) // 2
    # Never the same: here and there may be one machine.
    near, far = (int.from_bytes(part, "big") % half for part in (digest[:8], digest[8:16]))
    return _FIRST_PORT + near, _FIRST_PORT + half + far
