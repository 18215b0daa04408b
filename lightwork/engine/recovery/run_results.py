"""What the calls of works that cache nothing have come to, for a run of the flow's code that is made again.

When a scheduler was killed, its flow's ``run`` begins again from its first line. A call of a work that caches its
results is answered from those. One of a work that does not is answered from here: each success of the interrupted run
answers one call with the same arguments of the repeated one, in order. When a run comes to its end, all are forgotten.

Bounded: of a run that makes very many such calls the first ones are kept, since the repeated run asks for those first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lightwork.engine.recovery.records import Answer, Asked
from lightwork.engine.rules.events import Outcome
from lightwork.status import Stage

__all__ = ["Answers"]

_MOST = 10_000
_MOST_BYTES = 64 << 20


class Answers:
    """The calls that the present run of the flow's code has made of works that cache nothing.

    Args:
        answers: What some of them have come to.
        asked: Those that are not over.
    """

    def __init__(self, answers: Iterable[Answer] = (), asked: Iterable[Asked] = ()) -> None:
        self._kept: list[Answer] = []
        self._bytes = 0
        self._asked: dict[int, Asked] = {one.call: one for one in asked}
        self._open: dict[tuple[int, str], deque[Answer]] = {}
        self._unclaimed: set[int] = set()
        for answer in answers:
            self._keep(answer)

    @property
    def answers(self) -> list[Answer]:
        """What is kept, in the order in which it came."""
        return list(self._kept)

    @property
    def asked(self) -> list[Asked]:
        """The calls that are not over."""
        return list(self._asked.values())

    def ask(self, asked: Asked) -> None:
        """The run has made a call."""
        self._asked[asked.call] = asked

    def settle(self, call: int, outcome: Outcome) -> None:
        """A call is over, whoever made it."""
        asked = self._asked.pop(call, None)
        if asked is None:
            return
        if outcome.status.stage is Stage.SUCCEEDED:
            answer = Answer(asked.work, call, asked.hash, outcome)
            self._keep(answer)
            if call in self._unclaimed:
                self._offer(answer)
        self._unclaimed.discard(call)

    def end_run(self) -> None:
        """The run has come to its end: the next one makes its calls anew."""
        self._kept.clear()
        self._bytes = 0
        self._asked.clear()
        self._open.clear()
        self._unclaimed.clear()

    # --- for the repeated run ---------------------------------------------------------------------

    def reopen(self) -> None:
        """The run is made again from its first line."""
        self._open.clear()
        for answer in self._kept:
            self._offer(answer)
        self._unclaimed = set(self._asked)

    def recall(self, work: int, hash: str) -> Answer | None:
        """What answers a call that the repeated run makes, None if it is to be made."""
        found = self._open.get((work, hash))
        return found.popleft() if found else None

    def recover(self, asked: Asked) -> None:
        """A call of the interrupted run has come to light."""
        self._asked[asked.call] = asked
        self._unclaimed.add(asked.call)

    def claim(self, call: int) -> None:
        """The repeated run has joined a call that was in flight: its outcome answers that, and no other."""
        self._unclaimed.discard(call)

    def _offer(self, answer: Answer) -> None:
        self._open.setdefault((answer.work, answer.hash), deque()).append(answer)

    def _keep(self, answer: Answer) -> None:
        size = len(answer.outcome.value or b"")
        if len(self._kept) < _MOST and self._bytes + size <= _MOST_BYTES:
            self._kept.append(answer)
            self._bytes += size
