"""The status of a work, as data."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["FINAL", "Reason", "Stage", "WorkStatus"]


class Stage(enum.StrEnum):
    """Stage of a work or of one call."""

    # `Enum.__hash__` is a Python function. Stages are dictionary keys in the path of every call.
    __hash__ = str.__hash__

    NOT_STARTED = "not_started"
    STARTED = "started"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        """Whether a call in this stage has ended."""
        return self in FINAL


FINAL = frozenset({Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED})
"""The stages in which a call has ended."""


class Reason(enum.StrEnum):
    """Reason why a work entered its stage."""

    TIMEOUT = "timeout"
    USER_EXCEPTION = "user_exception"
    INVALID_RETURN_VALUE = "invalid_return_value"
    SPOT_RETRIEVAL = "spot_retrieval"
    SIGTERM_SIGNAL_HANDLER = "sigterm_signal_handler"
    PENDING = "pending"
    CRASHED = "crashed"
    OOM = "oom"
    LOST = "lost"
    LAUNCH_FAILED = "launch_failed"
    CANCELLED = "cancelled"


class WorkStatus(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One status of a work.

    Attributes:
        stage: Stage of the work.
        timestamp: Seconds since the epoch, by the scheduler's clock; never earlier than the previous status.
        reason: Reason for the stage, None if the stage needs none.
        message: Text for people: an exception's text, an exit code, a message of a cloud.
        count: Number of times in a row that this status was reported (timeouts are aggregated).
        call: Number of the call that the status belongs to, None for the work as a whole.
        attempt: Number of the attempt of that call, from 1.
    """

    stage: Stage
    timestamp: float
    reason: Reason | None = None
    message: str | None = None
    count: int = 1
    call: int | None = None
    attempt: int = 1
