"""One launched worker, from its launch to its release."""

from __future__ import annotations

import asyncio
import enum
import secrets
from typing import TYPE_CHECKING

from lightwork._common.system import signal_name
from lightwork.link import messages
from lightwork.link.peer import Peer
from lightwork.runtime import Cause, Ref, Report, Runtime, Standing
from lightwork.status import Reason

if TYPE_CHECKING:
    from lightwork.components.call import Operation
    from lightwork.engine.workers.replica import Replica

__all__ = ["Adoption", "Worker", "explain"]


class Adoption(enum.Enum):
    """How far a worker has come back that a killed scheduler has launched.

    `NONE`: this scheduler has launched it. `AWAITED`: it has not connected yet. `CATCHING_UP`: it has connected, and
    frames that it sent to the killed scheduler are still coming in. `RETURNED`: all of them have come in.
    """

    NONE = "none"
    AWAITED = "awaited"
    CATCHING_UP = "catching up"
    RETURNED = "returned"


class Worker:
    """One attempt of one work.

    Attributes:
        work, attempt: Number of its work, and of the launch.
        name: `lightwork.runtime.Spec.name`.
        launch: Public id of the launch, 16 bytes.
        secret: Proves the launch, 32 bytes.
        runtime, ref: The place where it runs; None until it is launched.
        launching: The task that launches it.
        is_unwanted: Whether its end was requested during the launch.
        peer: The scheduler's end of the link, from the first welcome on.
        replica: The flow's copy of its state, from the first welcome on.
        pickled: The pickle of the work, from the first welcome until the worker is ready: the welcome may be lost.
        hello: Its latest `Hello`.
        outside: Operations that wait for the answers to proposals from outside of the flow, by proposal number.
        output_read: Bytes of its output that were read.
        cut: Set while there is no connection.
        refusal: Why the scheduler itself has refused it or given it up; explains its end.
        given_up: Set when its runtime could not end it. Nobody waits for the runtime's report any longer.
        adoption: Whether a killed scheduler has launched it, and how far it has come back.
        returned: Set once it is known where an adopted worker stands: it has come back, it has ended, or it waits for
            its work.
        received: The number of its latest frame that was taken in.
        picks_port: Whether the work could choose its port when the worker was welcomed.
        offset: Bytes of its output that were published.
        profile: The profile of its runtime.
    """

    def __init__(
        self, work: int, attempt: int, name: str, profile: str, launch: bytes = b"", secret: bytes = b""
    ) -> None:
        self.work = work
        self.attempt = attempt
        self.name = name
        self.profile = profile
        self.launch: bytes = launch or secrets.token_bytes(16)
        self.secret: bytes = secret or secrets.token_bytes(32)
        self.adoption: Adoption = Adoption.AWAITED if launch else Adoption.NONE
        self.returned: asyncio.Event = asyncio.Event()
        self.received = 0
        self.picks_port = False
        self.offset = 0
        self.runtime: Runtime | None = None
        self.ref: Ref | None = None
        self.launching: asyncio.Task[Ref] | None = None
        self.is_unwanted = False
        self.peer: Peer[messages.FromWorker] | None = None
        self.replica: Replica | None = None
        self.pickled = b""
        self.hello: messages.Hello | None = None
        self.outside: dict[int, Operation] = {}
        self.output_read = 0
        self.cut: asyncio.Event = asyncio.Event()
        self.cut.set()
        self.refusal = ""
        self.given_up: asyncio.Event = asyncio.Event()


def explain(report: Report) -> tuple[Reason, str]:
    """Return the reason and the message that a runtime's report gives to the calls of the worker."""
    detail = f": {report.detail}" if report.detail else ""
    if report.cause is Cause.OOM:
        return Reason.OOM, f"the process was ended because memory ran out{detail}"
    if report.cause is Cause.PREEMPTED:
        return Reason.SPOT_RETRIEVAL, f"the machine was taken back{detail}"
    if report.cause is Cause.LIFETIME:
        return Reason.TIMEOUT, f"the machine's lifetime was over{detail}"
    if report.cause is Cause.START_FAILED:
        return Reason.LAUNCH_FAILED, f"the process could not be started{detail}"
    if report.standing is not Standing.EXITED or report.exit_code is None:
        return Reason.LOST, f"the process is gone, and its runtime does not know why{detail}"
    if report.exit_code == messages.LOST_CODE:
        return Reason.LOST, f"the worker ended itself: it had no connection for too long{detail}"
    if report.exit_code < 0:
        return Reason.CRASHED, f"the process was ended by {signal_name(-report.exit_code)}{detail}"
    return Reason.CRASHED, f"the process exited with code {report.exit_code}{detail}"
