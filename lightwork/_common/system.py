"""Whether an address belongs to this machine alone, and the names of signals."""

from __future__ import annotations

import ipaddress
import signal

__all__ = ["is_loopback", "signal_name"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: ``localhost``, a name below it, or a loopback address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def signal_name(number: int) -> str:
    """Return the name of a signal, such as ``SIGTERM``; ``signal 99`` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
