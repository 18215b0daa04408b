"""The ports of a profile and of its works' services, which follow from names: a later scheduler finds the same."""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Container
from itertools import count

__all__ = ["service_ports", "usual_ports"]

_NUM_PORTS = 8
_PROFILES = range(20000, 22000)
_NEAR, _FAR = range(22000, 27000), range(27000, 32000)
"""Below those that Linux gives to outgoing connections, and no two the same: here and there may be one machine."""


def usual_ports(profile: str) -> list[int]:
    """Ports of the far side's loopback for a profile that names none.

    The same on every start, so that workers which lost one scheduler find the next.
    """
    digest = hashlib.sha256(f"{socket.gethostname()} {getpass.getuser()} {profile}".encode()).digest()
    first = int.from_bytes(digest[:8], "big")
    return [_PROFILES[(first + step * 1499) % len(_PROFILES)] for step in range(_NUM_PORTS)]


def service_ports(launch: str, taken: Container[int]) -> tuple[int, int]:
    """For the service of a launch, a port here and one there: seldom another's, and the same for a later scheduler.

    Args:
        launch: Its name.
        taken: Ports of the far side's loopback at which its workers dial.
    """
    digest = hashlib.sha256(launch.encode()).digest()
    near, first = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    far = next(port for step in count(first) if (port := _FAR[step % len(_FAR)]) not in taken)
    return _NEAR[near % len(_NEAR)], far
