"""What the calls of a plain ``def run`` flow have come to, from a pass that is cut short to those that repeat it.

A plain pass ends at the first call that has not succeeded, and is repeated from its first line. All repetitions up
to one that comes to its end are one run of the flow's code, so each call in it is made once: when the line is
reached again it is answered from here, also where the work caches nothing. After that run

- a call that is in flight, or that has failed, is remembered while each run asks for it: a failure is not repeated
  in a loop. A run that does not ask forgets it, so the job of a schedule that failed is tried at the next firing;
- one that has succeeded is forgotten; a work that caches nothing does it anew in the next run, which follows at once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightwork.calls import Call
from lightwork.status import Stage

__all__ = ["PassMemory"]


class PassMemory:
    """The calls of plain passes. Used by the thread of a pass while that runs, and by the loop's between passes."""

    def __init__(self) -> None:
        # By work, and by the hash of the arguments: in the order in which a run asks.
        self._calls: dict[int, dict[str, list[Call[Any]]]] = {}
        self._asked: Counter[tuple[int, str]] = Counter()
        self._uncached: set[int] = set()

    def recall(self, work: int, hash: str) -> Call[Any] | None:
        """The call that this line of the flow made in an earlier pass, None if the pass comes there first."""
        nth = self._asked[work, hash]
        known = self._calls.get(work, {}).get(hash, ())
        if nth >= len(known):
            return None
        self._asked[work, hash] += 1
        return known[nth]

    def note(self, work: int, call: Call[Any], *, is_cached: bool) -> None:
        """The pass has made a call of a work that keeps its results or does not."""
        if not is_cached:
            self._uncached.add(work)
        self._calls.setdefault(work, {}).setdefault(call.hash, []).append(call)
        self._asked[work, call.hash] += 1

    def forget(self, work: int) -> None:
        """The work was started, stopped or removed: what is asked of it from now on is new."""
        self._calls.pop(work, None)
        self._uncached.discard(work)

    def end_pass(self, *, is_complete: bool) -> bool:
        """The pass has ended. Gives whether a call that it was answered from here will be made anew by the next."""
        asked, self._asked = self._asked, Counter()
        if not is_complete:
            return False
        kept: dict[int, dict[str, list[Call[Any]]]] = {}
        is_anew = False
        for work, hash in asked:
            calls = self._calls.get(work, {}).get(hash, [])
            lasting = [call for call in calls if call.status.stage is not Stage.SUCCEEDED]
            if lasting:
                kept.setdefault(work, {})[hash] = lasting
            is_anew = is_anew or (work in self._uncached and len(lasting) < len(calls))
        self._calls = kept
        return is_anew
