"""Pauses between attempts that grow."""

from __future__ import annotations

__all__ = ["Backoff"]


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
