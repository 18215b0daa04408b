"""The results of calls of works that cache nothing, kept for a repeated run of the flow's code.

After a scheduler was killed, its flow's ``run`` begins again from its first line. If a work caches its results, the
cache answers its calls. If not, the results kept here answer them: each success of the interrupted run answers one call
of the repeated run with the same arguments, in order. When a run ends, all results are forgotten.

The results are bounded. Of a run that makes very many such calls the first results are kept, because the repeated run
makes those calls first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lightwork.engine.recovery.records import CallMade, RunResult
from lightwork.engine.rules.events import Outcome
from lightwork.status import Stage

__all__ = ["RunResults"]

_MOST = 10_000
_MOST_BYTES = 64 << 20


class RunResults:
    """The calls that the current run of the flow's code has made of works that cache nothing.

    Args:
        results: The results of those that have succeeded.
        calls_made: Those that have not ended.
    """

    def __init__(self, results: Iterable[RunResult] = (), calls_made: Iterable[CallMade] = ()) -> None:
        self._kept: list[RunResult] = []
        self._bytes = 0
        self._calls_made: dict[int, CallMade] = {one.call: one for one in calls_made}
        self._open: dict[tuple[int, str], deque[RunResult]] = {}
        self._unclaimed: set[int] = set()
        for answer in results:
            self._keep(answer)

    @property
    def results(self) -> list[RunResult]:
        """The results that are kept, in the order in which they came."""
        return list(self._kept)

    @property
    def calls_made(self) -> list[CallMade]:
        """The calls that have not ended."""
        return list(self._calls_made.values())

    def call_made(self, call: CallMade) -> None:
        """Record that the run has made a call."""
        self._calls_made[call.call] = call

    def settle(self, call: int, outcome: Outcome) -> None:
        """Record the end of a call. A call that the run has not made is ignored."""
        made = self._calls_made.pop(call, None)
        if made is None:
            return
        if outcome.status.stage is Stage.SUCCEEDED:
            answer = RunResult(made.work, call, made.hash, outcome)
            self._keep(answer)
            if call in self._unclaimed:
                self._offer(answer)
        self._unclaimed.discard(call)

    def end_run(self) -> None:
        """Forget everything, because the run has ended: the next run makes its calls again."""
        self._kept.clear()
        self._bytes = 0
        self._calls_made.clear()
        self._open.clear()
        self._unclaimed.clear()

    # --- for the repeated run ---------------------------------------------------------------------

    def reopen(self) -> None:
        """Offer all results again, because the run is repeated from its first line."""
        self._open.clear()
        for answer in self._kept:
            self._offer(answer)
        self._unclaimed = set(self._calls_made)

    def recall(self, work: int, hash: str) -> RunResult | None:
        """Return the result that answers a call of the repeated run, None if the call must be made."""
        found = self._open.get((work, hash))
        return found.popleft() if found else None

    def recover(self, call: CallMade) -> None:
        """Record a call of the interrupted run that the journal does not have but a worker does."""
        self._calls_made[call.call] = call
        self._unclaimed.add(call.call)

    def claim(self, call: int) -> None:
        """Record that the repeated run has joined a call in flight: its outcome answers no other call."""
        self._unclaimed.discard(call)

    def _offer(self, answer: RunResult) -> None:
        self._open.setdefault((answer.work, answer.hash), deque()).append(answer)

    def _keep(self, answer: RunResult) -> None:
        size = len(answer.outcome.value or b"")
        if len(self._kept) < _MOST and self._bytes + size <= _MOST_BYTES:
            self._kept.append(answer)
            self._bytes += size
