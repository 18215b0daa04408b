"""What a worker's frames mean to the machine: for those that arrive, and for those that are read from a journal."""

from __future__ import annotations

from lightwork.engine.rules import events as ev
from lightwork.errors import LightworkError, ProtocolError
from lightwork.link import messages
from lightwork.status import Reason

__all__ = ["event_of"]


def event_of(work: int, attempt: int, frame: messages.FromWorker) -> ev.Event | None:
    """The event that a frame of a worker is, None where it is about the state alone.

    Raises:
        ProtocolError: It gives a reason that is none.
        LightworkError: It is no frame of a worker that was welcomed.
    """
    match frame:
        case messages.Delta() | messages.ProposalResult() | messages.Bye():
            return None
        case messages.Running():
            return ev.CallRunning(work, attempt, frame.call)
        case messages.Result():
            return ev.CallSucceeded(work, attempt, frame.call, bytes(frame.value))
        case messages.Failure():
            return ev.CallFailed(work, attempt, frame.call, _reason(frame.reason), frame.error, frame.swallowed)
        case messages.Cancelled():
            return ev.CallCancelled(work, attempt, frame.call)
        case messages.Ready():
            return ev.WorkerReady(work, attempt)
        case messages.Stopped():
            return ev.WorkerStopping(work, attempt, _reason(frame.reason) if frame.reason else None, frame.error)
        case _:
            raise LightworkError(f"{type(frame).__name__} is not expected here")


def _reason(text: str) -> Reason:
    """A reason that a worker gives; raises `ProtocolError` where it is none."""
    try:
        return Reason(text)
    except ValueError:
        raise ProtocolError(f"a worker gives the reason {text!r:.80}, which is none") from None
