"""The facts that the machine is told, and the orders that it gives. All plain frozen data.

A work is named by a number that the scheduler gives it and never reuses; a worker by its work and the
attempt, the count of the work's launches: what comes from an attempt that is not the present one is late,
and is fenced off.

``gc=False`` throughout: frozen data cannot be part of a cycle, and calls that are kept for the cache would
otherwise make every collection slower.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, WorkStatus

__all__ = [
    "CallCancelled",
    "CallFailed",
    "CallRecovered",
    "CallRunning",
    "CallSubmitted",
    "CallSucceeded",
    "CancelRequested",
    "Command",
    "CommandBase",
    "EndWorker",
    "Event",
    "EventBase",
    "Forget",
    "LaunchWorker",
    "LinkLost",
    "LinkRestored",
    "Outcome",
    "Policy",
    "PublishStatus",
    "ResolveSubmit",
    "SendCall",
    "SendCancel",
    "SendStop",
    "SettleCall",
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
    "WorkerLaunchFailed",
    "WorkerReady",
    "WorkerStopping",
    "WorkerUp",
]


class Policy(msgspec.Struct, frozen=True):
    """What a work was made with, as far as decisions depend on it. Times in seconds.

    Attributes:
        cache_calls: Whether a call that has succeeded answers later ones with the same arguments.
        concurrency: How many calls the worker has at once, at least 1.
        timeout: How long one try of a call may run; None for ever.
        retries: How often a call is tried again.
        retry_delay: The first pause before a retry, at most; each further one is twice as long.
        grace: How long a cancelled call, and a worker that was asked to stop, may take before its process is ended.
        launch_timeout: How long a launch may take until the worker is ready.
        reconnect_window: How long a worker may be without a connection.
        idle_timeout: How long a worker that is up may be without a call; then it is ended. None for ever.
    """

    cache_calls: bool = True
    concurrency: int = 1
    timeout: float | None = None
    retries: int = 0
    retry_delay: float = 1.0
    grace: float = 5.0
    launch_timeout: float = 60.0
    reconnect_window: float = 30.0
    idle_timeout: float | None = None


class Timer(msgspec.Struct, frozen=True, gc=False):
    """Names a timer: of a work (`call` 0) or of a call. Starting one that runs starts it anew.

    Attributes:
        kind: ``launch`` the worker must be ready; ``window`` it must be connected again; ``force`` it must have ended;
            ``idle`` it is no longer needed; ``timeout`` the call must be done; ``cancel`` it must have ended; ``retry``
            it is tried again.
    """

    kind: Literal["launch", "window", "force", "idle", "timeout", "cancel", "retry"]
    work: int
    call: int = 0


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a call ended.

    Attributes:
        status: Its last one.
        value: What ``run`` returned, in msgpack, where it succeeded; else None.
        error: What was raised, where that is why it failed.
        swallowed: Whether ``on_exception`` took it.
    """

    status: WorkStatus
    value: bytes | None = None
    error: ErrorInfo | None = None
    swallowed: bool = False


# --- events --------------------------------------------------------------------------------------


class EventBase(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Base of the events: `work` is the one it is about."""

    work: int


class WorkAdded(EventBase, frozen=True):
    """The work came into the tree."""

    name: str
    policy: Policy


class WorkRemoved(EventBase, frozen=True):
    """The work left the tree: stop it, then forget it."""


class StartRequested(EventBase, frozen=True):
    """A worker is wanted, calls or none. Answered by `WorkerUp`, or by a `WorkerGone` with a failure."""


class StopRequested(EventBase, frozen=True):
    """No worker is wanted. Answered by `WorkerGone`. `reason` goes into the statuses of what this stops."""

    reason: Reason | None = None


class CallSubmitted(EventBase, frozen=True):
    """A call is wanted. Answered by `ResolveSubmit`. A call that this makes new is ended by a `SettleCall`."""

    call: int
    hash: str
    args: bytes


class CallRecovered(EventBase, frozen=True):
    """The worker has a call, or its outcome is on the way, that a killed scheduler has sent and not written down."""

    attempt: int
    call: int
    hash: str


class CancelRequested(EventBase, frozen=True):
    """Nobody wants the call any more."""

    call: int


class WorkerLaunchFailed(EventBase, frozen=True):
    """The runtime could not launch the worker, or was told to stop it before it had."""

    attempt: int
    reason: Reason
    message: str


class WorkerReady(EventBase, frozen=True):
    """The worker has unpacked the work, and ``on_start`` has returned."""

    attempt: int


class CallRunning(EventBase, frozen=True):
    """The worker is about to enter ``run``."""

    attempt: int
    call: int


class CallSucceeded(EventBase, frozen=True):
    """``run`` returned `value`, in msgpack."""

    attempt: int
    call: int
    value: bytes


class CallFailed(EventBase, frozen=True):
    """``run`` raised, could not be entered, or returned what cannot be encoded."""

    attempt: int
    call: int
    reason: Reason
    error: ErrorInfo
    swallowed: bool = False


class CallCancelled(EventBase, frozen=True):
    """``run`` was cancelled, or cancelled itself."""

    attempt: int
    call: int


class WorkerStopping(EventBase, frozen=True):
    """The worker says that it ends in order: nothing more comes from it. `error` where it never became ready."""

    attempt: int
    reason: Reason | None = None
    error: ErrorInfo | None = None


class LinkLost(EventBase, frozen=True):
    """The worker has no connection."""

    attempt: int


class LinkRestored(EventBase, frozen=True):
    """The worker has a connection again; nothing that was sent either way is missing."""

    attempt: int


class WorkerExited(EventBase, frozen=True):
    """The runtime says that the worker is over. `reason` is what that means for what it was doing."""

    attempt: int
    reason: Reason
    message: str


class TimerFired(EventBase, frozen=True):
    """A timer that was started, and neither stopped nor started anew, is over."""

    timer: Timer


Event = (
    WorkAdded
    | WorkRemoved
    | StartRequested
    | StopRequested
    | CallSubmitted
    | CallRecovered
    | CancelRequested
    | WorkerLaunchFailed
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


class CommandBase(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Base of the commands: `work` is the one it is about."""

    work: int


class LaunchWorker(CommandBase, frozen=True):
    """Bring a worker up; no other one of the work is left."""

    attempt: int


class SendCall(CommandBase, frozen=True):
    """Have the worker run this."""

    call: int
    args: bytes
    hash: str


class SendCancel(CommandBase, frozen=True):
    """Have the worker cancel a call that it was sent, which it may have answered by now."""

    call: int


class SendStop(CommandBase, frozen=True):
    """Have the worker cancel what it runs and end, within `grace` seconds. One without a connection is not told."""

    grace: float


class EndWorker(CommandBase, frozen=True):
    """End the process tree through the runtime; `grace` 0 forces at once."""

    attempt: int
    grace: float


class StartTimer(CommandBase, frozen=True):
    """Send `TimerFired` in `delay` seconds; one of the same name that still runs is replaced."""

    timer: Timer
    delay: float


class StopTimer(CommandBase, frozen=True):
    """Do not send it after all. The timer may never have been started."""

    timer: Timer


class PublishStatus(CommandBase, frozen=True):
    """The work has a new status; `hash` is that of the call it belongs to.

    The first status of a call comes with `ResolveSubmit`. The last one comes with `SettleCall`, which may also bring
    the one before it.
    """

    status: WorkStatus
    hash: str | None = None


class ResolveSubmit(CommandBase, frozen=True):
    """What becomes of the call just submitted.

    Attributes:
        call: The one submitted.
        to: The call whose outcome it has: one in flight, or one that has succeeded. None where it is a new one.
        reason: Which of those and why, for people.
        outcome: That of `to` where that has succeeded, else None.
        status: With which a new one begins.
        hash: Of its arguments.
    """

    call: int
    to: int | None
    reason: str
    outcome: Outcome | None = None
    status: WorkStatus | None = None
    hash: str = ""


class SettleCall(CommandBase, frozen=True):
    """The call is over; the status of its outcome is its last.

    Attributes:
        call: Which.
        outcome: How it ended.
        hash: Of its arguments.
        ran: The status before the last, of a run that was over before anybody was told that it runs; else None.
    """

    call: int
    outcome: Outcome
    hash: str
    ran: WorkStatus | None = None


class WorkerUp(CommandBase, frozen=True):
    """The worker is up: every start that was asked for is done."""


class WorkerGone(CommandBase, frozen=True):
    """No worker is left: every stop that was asked for is done.

    `failure` says why to the starts that were asked for and are not done; None where those stay in force, since the
    next launch follows at once.
    """

    failure: str | None = None


class Forget(CommandBase, frozen=True):
    """The work was removed and nothing of it is left."""


Command = (
    LaunchWorker
    | SendCall
    | SendCancel
    | SendStop
    | EndWorker
    | StartTimer
    | StopTimer
    | PublishStatus
    | ResolveSubmit
    | SettleCall
    | WorkerUp
    | WorkerGone
    | Forget
)
