"""The calls of a plain ``def run`` flow, remembered from an interrupted pass for the passes that repeat it.

A plain pass ends at the first call that has not succeeded, and is repeated from its first line. All repetitions up to
the first complete pass are one run of the flow's code. Each call in a run is made once: when its line is reached again,
the remembered call answers it, even if the work caches nothing. After the run:

- A call that is in flight or has failed stays remembered as long as each run makes it again, so a failure is not
  repeated in a loop. A run that does not make the call forgets it. A failed call of a run in which a schedule had fired
  does not answer the run of a later firing, so the job of a schedule is tried again.
- A call that has succeeded is forgotten. A work that caches nothing runs it again in the next run, which follows at
  once.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightwork.components.call import Call
from lightwork.status import Stage

__all__ = ["PassCalls"]


class PassCalls:
    """The calls of plain passes. The thread of a pass uses it during the pass, the loop's thread between passes."""

    def __init__(self) -> None:
        # By work and by the hash of the arguments; in the order in which a run makes the calls.
        self._calls: dict[int, dict[str, list[Call[Any]]]] = {}
        self._asked: Counter[tuple[int, str]] = Counter()
        self._uncached: set[int] = set()
        # Calls that were first made when a schedule had fired, and since then never without one. The first set has
        # those of earlier passes, the second those of this pass.
        self._scheduled: set[int] = set()
        self._scheduled_now: set[int] = set()

    def recall(self, work: int, hash: str, *, schedule_fired: bool) -> Call[Any] | None:
        """Return the call that this line of the flow made in an earlier pass, None if the call must be made now.

        Args:
            work: Number of the work.
            hash: Hash of the arguments.
            schedule_fired: Whether the pass has seen that a schedule has fired.
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
        """Remember a call that the pass has made.

        Args:
            work: Number of the work.
            call: The call.
            is_cached: Whether the work caches its results.
            schedule_fired: Whether the pass has seen that a schedule has fired.
        """
        if schedule_fired:
            self._scheduled_now.add(call.id)
        if not is_cached:
            self._uncached.add(work)
        self._calls.setdefault(work, {}).setdefault(call.hash, []).append(call)
        self._asked[work, call.hash] += 1

    def forget(self, work: int) -> None:
        """Forget the calls of a work that was started, stopped or removed: calls from now on are new."""
        self._calls.pop(work, None)
        self._uncached.discard(work)

    def end_pass(self, *, is_complete: bool) -> bool:
        """Handle the end of the pass. Return whether the next pass will repeat a call that this pass recalled."""
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
