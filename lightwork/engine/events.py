"""The facts that the machine is told, and the orders that it gives. All plain frozen data.

A work is named by a number that the scheduler gives it and never reuses; a worker by its work and the
attempt, the count of the work's launches: what comes from an attempt that is not the present one is late,
and is fenced off.
"""

from __future__ import annotations

import msgspec

from lightwork.status import Reason, WorkStatus
from lightwork.wire import ErrorInfo

__all__ = [
    "Adopt",
    "CallCancelled",
    "CallFailed",
    "CallRunning",
    "CallSubmitted",
    "CallSucceeded",
    "CancelRequested",
    "Command",
    "EndWorker",
    "Event",
    "Forget",
    "Launch",
    "LaunchFailed",
    "LinkLost",
    "LinkRestored",
    "Outcome",
    "Policy",
    "Publish",
    "SendCall",
    "SendCancel",
    "SendStop",
    "Settle",
    "StartRequested",
    "StartTimer",
    "StopRequested",
    "StopTimer",
    "Timer",
    "TimerFired",
    "WorkAdded",
    "WorkRemoved",
    "WorkerExited",
    "WorkerGone",
    "WorkerReady",
    "WorkerStopping",
    "WorkerUp",
]


class Policy(msgspec.Struct, frozen=True):
    """What a work was made with, as far as decisions depend on it. Times in seconds."""

    cache_calls: bool = True
    concurrency: int = 1
    timeout: float | None = None
    retries: int = 0
    retry_delay: float = 1.0
    grace: float = 5.0
    launch_timeout: float = 60.0
    reconnect_window: float = 30.0


class Timer(msgspec.Struct, frozen=True):
    """Names a timer: of a work (`call` 0) or of a call. `kind` says what it is for."""

    kind: str
    work: int
    call: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended. `value` is msgpack where it succeeded; else `reason`, and `error` where there is one."""

    status: WorkStatus
    value: bytes | None = None
    error: ErrorInfo | None = None
    swallowed: bool = False


# --- events --------------------------------------------------------------------------------------


class Fact(msgspec.Struct, frozen=True, tag=True):
    """Base of the events: `work` is the one it is about."""

    work: int


class WorkAdded(Fact, frozen=True):
    name: str
    policy: Policy


class WorkRemoved(Fact, frozen=True):
    """The work left the tree: stop it, then forget it."""


class StartRequested(Fact, frozen=True):
    pass


class StopRequested(Fact, frozen=True):
    """`reason` goes into the statuses of the calls that this stops."""

    reason: Reason | None = None


class CallSubmitted(Fact, frozen=True):
    call: int
    hash: str
    args: bytes


class CancelRequested(Fact, frozen=True):
    call: int


class LaunchFailed(Fact, frozen=True):
    attempt: int
    reason: Reason
    message: str


class WorkerReady(Fact, frozen=True):
    attempt: int


class CallRunning(Fact, frozen=True):
    attempt: int
    call: int


class CallSucceeded(Fact, frozen=True):
    attempt: int
    call: int
    value: bytes


class CallFailed(Fact, frozen=True):
    attempt: int
    call: int
    reason: Reason
    error: ErrorInfo
    swallowed: bool = False


class CallCancelled(Fact, frozen=True):
    attempt: int
    call: int


class WorkerStopping(Fact, frozen=True):
    """The worker says that it ends in order: nothing more comes from it. `error` where it never became ready."""

    attempt: int
    reason: Reason | None = None
    error: ErrorInfo | None = None


class LinkLost(Fact, frozen=True):
    attempt: int


class LinkRestored(Fact, frozen=True):
    attempt: int


class WorkerExited(Fact, frozen=True):
    """The runtime says that the worker is over. `reason` is what that means for what it was doing."""

    attempt: int
    reason: Reason
    message: str


class TimerFired(Fact, frozen=True):
    timer: Timer


Event = (
    WorkAdded
    | WorkRemoved
    | StartRequested
    | StopRequested
    | CallSubmitted
    | CancelRequested
    | LaunchFailed
    | WorkerReady
    | CallRunning
    | CallSucceeded
    | CallFailed
    | CallCancelled
    | WorkerStopping
    | LinkLost
    | LinkRestored
    | WorkerExited
    | TimerFired
)

# --- commands ------------------------------------------------------------------------------------


class Order(msgspec.Struct, frozen=True, tag=True):
    """Base of the commands: `work` is the one it is about."""

    work: int


class Launch(Order, frozen=True):
    attempt: int


class SendCall(Order, frozen=True):
    call: int
    args: bytes


class SendCancel(Order, frozen=True):
    call: int


class SendStop(Order, frozen=True):
    grace: float


class EndWorker(Order, frozen=True):
    """End the process tree through the runtime; `grace` 0 forces at once."""

    attempt: int
    grace: float


class StartTimer(Order, frozen=True):
    timer: Timer
    delay: float


class StopTimer(Order, frozen=True):
    timer: Timer


class Publish(Order, frozen=True):
    """The work has a new status; `hash` is that of the call it belongs to."""

    status: WorkStatus
    hash: str | None = None


class Adopt(Order, frozen=True):
    """The call just submitted is not a new one: it joins `to`, which is in flight or, if `cached`, has succeeded.

    `reason` says so for people, also (with `to` None) why it is a new one.
    """

    call: int
    to: int | None
    reason: str
    outcome: Outcome | None = None


class Settle(Order, frozen=True):
    """The call is over."""

    call: int
    outcome: Outcome


class WorkerUp(Order, frozen=True):
    """A requested start is done."""


class WorkerGone(Order, frozen=True):
    """No worker is left. `status` is the failure where a start came to nothing, else None."""

    failure: str | None = None


class Forget(Order, frozen=True):
    """The work was removed and nothing of it is left."""


Command = (
    Launch
    | SendCall
    | SendCancel
    | SendStop
    | EndWorker
    | StartTimer
    | StopTimer
    | Publish
    | Adopt
    | Settle
    | WorkerUp
    | WorkerGone
    | Forget
)
