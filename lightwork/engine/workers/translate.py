"""Translates a worker's frames into events of the machine, both as they arrive and when read from a journal."""

from __future__ import annotations

from typing import assert_never

from lightwork.engine.rules import events as ev
from lightwork.errors import LightworkError, ProtocolError
from lightwork.link import messages
from lightwork.status import Reason

__all__ = ["event_of"]


def event_of(work: int, attempt: int, frame: messages.FromWorker) -> ev.Event | None:
    """Return the event for a worker's frame, None for a frame that does not concern the machine.

    Raises:
        ProtocolError: The frame has an invalid reason.
        LightworkError: A worker that was welcomed must not send this kind of frame here.
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
        case messages.Hello() | messages.QueryReply() | messages.Heartbeat() | messages.Ack():
            raise LightworkError(f"unexpected {type(frame).__name__} frame from a worker that was welcomed")
        case _:
            assert_never(frame)


def _reason(text: str) -> Reason:
    """Return the reason in a worker's frame.

    Raises:
        ProtocolError: The text is not a valid reason.
    """
    try:
        return Reason(text)
    except ValueError:
        raise ProtocolError(f"a worker's reason must be one of {', '.join(Reason)}, got {text!r:.80}") from None
