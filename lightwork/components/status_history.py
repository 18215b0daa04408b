"""What the scheduler has seen of one work: its statuses, bounded, and what must survive the bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from lightwork.status import Reason, Stage, WorkStatus

__all__ = ["StatusHistory", "aggregate_timeouts"]

# To look up a member of an enum in its class takes CPython 3.11 ten times as long as a global.
_STARTED, _PENDING, _RUNNING, _SUCCEEDED = Stage.STARTED, Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED


class StatusHistory:
    """The statuses of a work in order, the latest `kept` of them, and counts over all of them.

    Attributes:
        statuses: The latest ones, oldest first.
        num_successes: Calls that succeeded, ever.
        num_timeouts: Timeouts since the latest success.
        first_request: When the first call after the latest success was asked for, None if none was.
        started: Whether the work is up: between ``started`` and its end.
        latest_call: Hash of the latest call, None before the first.
    """

    def __init__(self, kept: int = 100) -> None:
        self.statuses: deque[WorkStatus] = deque(maxlen=kept)
        self.num_successes: int = 0
        self.num_timeouts: int = 0
        self.first_request: float | None = None
        self.started: bool = False
        self._calls: dict[str, WorkStatus] = {}  # at times twice as many as are kept, see `_drop_oldest`
        self.latest_call: str | None = None
        self._kept = kept

    @property
    def status(self) -> WorkStatus:
        """The latest status; timeouts in a row are one status with a count, dated from the first request."""
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
        """Latest status of each call, the latest `kept` calls by hash, oldest first."""
        self._drop_oldest()
        return self._calls

    def add(self, status: WorkStatus, call_hash: str | None = None) -> None:
        """Take in the next status, which belongs to the call of that hash if to any."""
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
        # Many at a time: to find the first of a dict whose first ones are deleted one by one takes longer each time.
        for call_hash in list(islice(self._calls, max(0, len(self._calls) - self._kept))):
            del self._calls[call_hash]


def aggregate_timeouts(statuses: Sequence[WorkStatus]) -> WorkStatus:
    """The timeouts after the latest success as one status: the first request's time, the number of timeouts.

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
