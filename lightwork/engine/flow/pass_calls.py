"""What the calls of a plain ``def run`` flow have come to, from a pass that is cut short to those that repeat it.

A plain pass ends at the first call that has not succeeded, and is repeated from its first line. All repetitions up
to one that comes to its end are one run of the flow's code, so each call in it is made once: when the line is
reached again it is answered from here, also where the work caches nothing. After that run

- a call that is in flight, or that has failed, is remembered while each run asks for it: a failure is not repeated
  in a loop. A run that does not ask forgets it. A failure of a run that was told that a schedule has fired is
  not remembered by the run of another firing, so the job of a schedule is tried again;
- one that has succeeded is forgotten; a work that caches nothing does it anew in the next run, which follows at once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightwork.components.call import Call
from lightwork.status import Stage

__all__ = ["PassCalls"]


class PassCalls:
    """The calls of plain passes. Used by the thread of a pass while that runs, and by the loop's between passes."""

    def __init__(self) -> None:
        # By work, and by the hash of the arguments: in the order in which a run asks.
        self._calls: dict[int, dict[str, list[Call[Any]]]] = {}
        self._asked: Counter[tuple[int, str]] = Counter()
        self._uncached: set[int] = set()
        # Calls first made when a schedule was true, and not asked for otherwise since: of earlier passes, and of this.
        self._scheduled: set[int] = set()
        self._scheduled_now: set[int] = set()

    def recall(self, work: int, hash: str, *, schedule_fired: bool) -> Call[Any] | None:
        """The call that this line of the flow made in an earlier pass, None if it is to be made.

        Args:
            work: The work.
            hash: Of the arguments.
            schedule_fired: Whether the pass was told that a schedule has fired.
        """
        nth = self._asked[work, hash]
        known = self._calls.get(work, {}).get(hash, [])
        if nth >= len(known):
            return None
        call = known[nth]
        if not schedule_fired:
            self._scheduled.discard(call.id)
        elif call.id in self._scheduled and call.done:
            del known[nth]
            return None
        self._asked[work, hash] += 1
        return call

    def remember(self, work: int, call: Call[Any], *, is_cached: bool, schedule_fired: bool) -> None:
        """The pass has made a call.

        Args:
            work: The work.
            call: The call.
            is_cached: Whether the work keeps its results.
            schedule_fired: Whether the pass was told that a schedule has fired.
        """
        if schedule_fired:
            self._scheduled_now.add(call.id)
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
        self._scheduled |= self._scheduled_now
        self._scheduled_now.clear()
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
        self._scheduled &= {call.id for hashes in kept.values() for calls in hashes.values() for call in calls}
        return is_anew
