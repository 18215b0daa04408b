"""What a call gives its caller, made of what the machine says came of it."""

from __future__ import annotations

import asyncio
from typing import Any

from lightwork.components.work import Work
from lightwork.engine.rules.events import Outcome
from lightwork.errors import CallStopped, CallTimeout, InvalidReturnValue, LaunchFailed, WorkerDied, WorkError
from lightwork.remote_errors import rebuild_error
from lightwork.status import Reason, Stage

__all__ = ["call_error", "decode_value"]

_DIED = frozenset({Reason.CRASHED, Reason.OOM, Reason.LOST, Reason.SPOT_RETRIEVAL})


def decode_value(work: Work, name: str, value: bytes) -> Any:
    """What ``run`` returned.

    Raises:
        InvalidReturnValue: It cannot be made here: the annotated type's own code raised.
    """
    try:
        return work._signature.result(value)
    except Exception as error:
        raise InvalidReturnValue(
            f"{name} returned a value that cannot be decoded here: {type(error).__name__}: {error}", work=name
        ) from error


def call_error(work: Work, name: str, outcome: Outcome, start_error: BaseException | None) -> BaseException | None:
    """What awaiting a call that did not succeed raises; None where it gives None.

    Args:
        work: Whose call it was.
        name: The work's name.
        outcome: What came of it.
        start_error: Why the work's latest worker did not come up, the cause of a `LaunchFailed`.
    """
    status = outcome.status
    if status.reason is Reason.CANCELLED:
        return asyncio.CancelledError(f"call {status.call} of {name} was cancelled")
    if outcome.swallowed or not work._raise_exception:
        return None
    if outcome.error is not None and status.reason is Reason.USER_EXCEPTION:
        return rebuild_error(outcome.error, work=name)
    message = f"call {status.call} of {name}: {status.message or status.reason or status.stage}"
    error = _kind(outcome)(message, work=name)
    if isinstance(error, LaunchFailed):
        error.__cause__ = rebuild_error(outcome.error, work=name) if outcome.error is not None else start_error
    return error


def _kind(outcome: Outcome) -> type[WorkError]:
    status = outcome.status
    if status.stage is Stage.STOPPED:
        return CallStopped
    if status.reason is Reason.TIMEOUT:
        return CallTimeout
    if status.reason is Reason.INVALID_RETURN_VALUE:
        return InvalidReturnValue
    return WorkerDied if status.reason in _DIED else LaunchFailed
