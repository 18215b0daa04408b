"""Small things that the framework and its runtimes both need: a back-off, a test of addresses, names of signals."""

from __future__ import annotations

import ipaddress
import signal

__all__ = ["Backoff", "is_loopback", "signal_name"]


class Backoff:
    """Pauses between attempts: each one is longer than the one before, up to a limit.

    Args:
        first: Seconds of the first pause.
        longest: Seconds of the longest pause.
        factor: How much longer each pause is.
    """

    def __init__(self, first: float, longest: float, factor: float = 2.0) -> None:
        self._first = first
        self._longest = longest
        self._factor = factor
        self._next = first

    @property
    def pause(self) -> float:
        """Seconds of the next pause."""
        return self._next

    def advance(self) -> float:
        """Return the seconds of the next pause, and make the one after it longer."""
        pause = self._next
        self._next = min(pause * self._factor, self._longest)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again: an attempt has succeeded."""
        self._next = self._first


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: ``localhost``, a name below it, or a loopback address."""
    name = host.partition("%")[0].strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def signal_name(number: int) -> str:
    """Return the name of a signal, such as ``SIGTERM``; ``signal 99`` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
