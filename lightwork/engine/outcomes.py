"""What a call gives its caller, made of what the machine says came of it."""

from __future__ import annotations

import asyncio
from typing import Any

from lightwork.engine.events import Outcome
from lightwork.errors import CallStopped, CallTimeout, InvalidReturnValue, LaunchFailed, WorkerDied, WorkError
from lightwork.remote import rebuild_error
from lightwork.status import Reason, Stage
from lightwork.work import Work

__all__ = ["call_error", "decode_value"]

_DIED = frozenset({Reason.CRASHED, Reason.OOM, Reason.LOST, Reason.SPOT_RETRIEVAL})


def decode_value(work: Work, value: bytes) -> Any:
    """What ``run`` returned."""
    return work._signature.result(value)


def call_error(work: Work, name: str, outcome: Outcome) -> BaseException | None:
    """What awaiting a call that did not succeed raises; None where it gives None."""
    status = outcome.status
    if status.reason is Reason.CANCELLED:
        return asyncio.CancelledError(f"call {status.call} of {name} was cancelled")
    if outcome.swallowed or not work._raise_exception:
        return None
    message = f"call {status.call} of {name}: {status.message or status.reason or status.stage}"
    if status.stage is Stage.STOPPED:
        return CallStopped(message, work=name)
    if status.reason is Reason.TIMEOUT:
        return CallTimeout(message, work=name)
    if status.reason is Reason.INVALID_RETURN_VALUE:
        return InvalidReturnValue(message, work=name)
    if outcome.error is not None and status.reason is Reason.USER_EXCEPTION:
        return rebuild_error(outcome.error, work=name)
    if status.reason in _DIED:
        return WorkerDied(message, work=name)
    failed = LaunchFailed(message, work=name)
    if outcome.error is not None:
        failed.__cause__ = rebuild_error(outcome.error, work=name)
    return failed
