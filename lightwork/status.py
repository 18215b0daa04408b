"""What is known of a work at one moment, as data."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["FINAL", "Reason", "Stage", "WorkStatus"]


class Stage(enum.StrEnum):
    """Where a work, or one call of it, stands."""

    # That of an enum is a function of Python's; these are keys on the way of every call.
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
        """Whether a call in this stage is over."""
        return self in FINAL


FINAL = frozenset({Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED})
"""The stages in which a call is over."""


class Reason(enum.StrEnum):
    """Why a work entered its stage."""

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
        stage: Where the work stands.
        timestamp: Seconds since the epoch, by the scheduler's clock; never less than that of the status before.
        reason: Why, where the stage alone does not say it.
        message: For people: an exception's text, an exit code, what a cloud said.
        count: How many times in a row this status was reported (timeouts are aggregated).
        call: Number of the call that the status belongs to, None for the work as a whole.
        attempt: Which try of that call it is, from 1.
    """

    stage: Stage
    timestamp: float
    reason: Reason | None = None
    message: str | None = None
    count: int = 1
    call: int | None = None
    attempt: int = 1
