"""The statuses of one work as the scheduler has seen them: a bounded list, and counts that outlive the bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from lightwork.status import Reason, Stage, WorkStatus

__all__ = ["StatusHistory", "aggregate_timeouts"]

# In CPython 3.11 the lookup of an enum member in its class takes ten times as long as the lookup of a global.
_STARTED, _PENDING, _RUNNING, _SUCCEEDED = Stage.STARTED, Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED


class StatusHistory:
    """The latest `kept` statuses of a work in order, and counts over all of its statuses.

    Attributes:
        statuses: The latest statuses, oldest first.
        num_successes: All calls that succeeded so far.
        num_timeouts: Timeouts since the latest success.
        first_request: When the first call after the latest success was requested; None if there was no call.
        started: Whether the work is up: from ``started`` to its end.
        latest_call: Hash of the latest call, None before the first.
    """

    def __init__(self, kept: int = 100) -> None:
        self.statuses: deque[WorkStatus] = deque(maxlen=kept)
        self.num_successes: int = 0
        self.num_timeouts: int = 0
        self.first_request: float | None = None
        self.started: bool = False
        self._calls: dict[str, WorkStatus] = {}  # up to twice `kept` at times, see `_drop_oldest`
        self.latest_call: str | None = None
        self._kept = kept

    @property
    def status(self) -> WorkStatus:
        """The latest status. Timeouts in a row are one status with a count, dated from the first request."""
        if not self.statuses:
            return WorkStatus(Stage.NOT_STARTED, 0.0)
        latest = self.statuses[-1]
        if latest.reason is not Reason.TIMEOUT or self.num_timeouts < 1:
            return latest
        return WorkStatus(
            latest.stage,
            self.first_request if self.first_request is not None else latest.timestamp,
            latest.reason,
            latest.message,
            self.num_timeouts,
            latest.call,
            latest.attempt,
        )

    @property
    def calls(self) -> dict[str, WorkStatus]:
        """The latest status of each of the latest `kept` calls, by hash, oldest call first."""
        self._drop_oldest()
        return self._calls

    def add(self, status: WorkStatus, call_hash: str | None = None) -> None:
        """Add the next status. `call_hash` is the hash of its call, None for a status of the work."""
        self.statuses.append(status)
        stage = status.stage
        if stage is _RUNNING:
            pass
        elif stage is _SUCCEEDED:
            self.num_successes += 1
            self.num_timeouts, self.first_request = 0, None
        elif stage is _PENDING:
            if self.first_request is None:
                self.first_request = status.timestamp
        elif stage is _STARTED:
            self.started = True
        else:
            if status.reason is Reason.TIMEOUT:
                self.num_timeouts += 1
            if status.call is None:
                self.started = False
        if call_hash is not None:
            if call_hash != self.latest_call:
                self.latest_call = call_hash
                self._calls.pop(call_hash, None)
                if len(self._calls) > 2 * self._kept:
                    self._drop_oldest()
            self._calls[call_hash] = status

    def _drop_oldest(self) -> None:
        # Many at a time: a dict whose first keys are deleted one by one needs longer each time to find its first key.
        for call_hash in list(islice(self._calls, max(0, len(self._calls) - self._kept))):
            del self._calls[call_hash]


def aggregate_timeouts(statuses: Sequence[WorkStatus]) -> WorkStatus:
    """Return the timeouts after the latest success as one status: the first request's time, the number of timeouts.

    Raises:
        ValueError: There is no timeout after the latest success.
    """
    latest = max((index for index, one in enumerate(statuses) if one.stage is Stage.SUCCEEDED), default=-1)
    after = list(statuses)[latest + 1 :]
    timeouts = [one for one in after if one.reason is Reason.TIMEOUT]
    if not timeouts:
        raise ValueError("none of these statuses after the latest success is a timeout")
    requests = [one for one in after if one.stage is Stage.PENDING] or after
    last = timeouts[-1]
    return WorkStatus(
        last.stage, requests[0].timestamp, last.reason, last.message, len(timeouts), last.call, last.attempt
    )
