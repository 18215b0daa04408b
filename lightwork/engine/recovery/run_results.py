"""What the calls of works that cache nothing have come to, for a run of the flow's code that is made again.

When a scheduler was killed, its flow's ``run`` begins again from its first line. A call of a work that caches its
results is answered from those. One of a work that does not is answered from here: each success of the interrupted run
answers one call with the same arguments of the repeated one, in order. When a run comes to its end, all are forgotten.

Bounded: of a run that makes very many such calls the first ones are kept, since the repeated run asks for those first.
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
    """The calls that the present run of the flow's code has made of works that cache nothing.

    Args:
        results: What some of them have come to.
        calls_made: Those that are not over.
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
        """What is kept, in the order in which it came."""
        return list(self._kept)

    @property
    def calls_made(self) -> list[CallMade]:
        """The calls that are not over."""
        return list(self._calls_made.values())

    def call_made(self, call: CallMade) -> None:
        """The run has made a call."""
        self._calls_made[call.call] = call

    def settle(self, call: int, outcome: Outcome) -> None:
        """A call is over, whoever made it."""
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
        """The run has come to its end: the next one makes its calls anew."""
        self._kept.clear()
        self._bytes = 0
        self._calls_made.clear()
        self._open.clear()
        self._unclaimed.clear()

    # --- for the repeated run ---------------------------------------------------------------------

    def reopen(self) -> None:
        """The run is made again from its first line."""
        self._open.clear()
        for answer in self._kept:
            self._offer(answer)
        self._unclaimed = set(self._calls_made)

    def recall(self, work: int, hash: str) -> RunResult | None:
        """What answers a call that the repeated run makes, None if it is to be made."""
        found = self._open.get((work, hash))
        return found.popleft() if found else None

    def recover(self, call: CallMade) -> None:
        """A call of the interrupted run has come to light."""
        self._calls_made[call.call] = call
        self._unclaimed.add(call.call)

    def claim(self, call: int) -> None:
        """The repeated run has joined a call that was in flight: its outcome answers that, and no other."""
        self._unclaimed.discard(call)

    def _offer(self, answer: RunResult) -> None:
        self._open.setdefault((answer.work, answer.hash), deque()).append(answer)

    def _keep(self, answer: RunResult) -> None:
        size = len(answer.outcome.value or b"")
        if len(self._kept) < _MOST and self._bytes + size <= _MOST_BYTES:
            self._kept.append(answer)
            self._bytes += size
