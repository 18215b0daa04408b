"""The events that the machine handles, and the commands that it returns. All plain frozen data.

The scheduler gives each work a number and never reuses it. A worker is named by its work and its attempt, the count of
the work's launches. An event of an earlier attempt is late, and the machine ignores it.

``gc=False`` throughout: frozen data cannot be part of a cycle, and calls that are kept for the cache would otherwise
make every collection slower.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, WorkStatus

__all__ = [
    "CallCancelled",
    "CallFailed",
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
    "RestoreCall",
    "SchedulerResumed",
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
    "WorkerCaughtUp",
    "WorkerExited",
    "WorkerGone",
    "WorkerLaunchFailed",
    "WorkerNeverLaunched",
    "WorkerReady",
    "WorkerReturned",
    "WorkerStopping",
    "WorkerUp",
]


class Policy(msgspec.Struct, frozen=True):
    """The settings of a work that decisions depend on. Times in seconds.

    Attributes:
        cache_calls: Whether a call that has succeeded answers later calls with the same arguments.
        concurrency: How many calls the worker has at once, at least 1.
        timeout: How long one try of a call may run; None for no limit.
        retries: How often a call is tried again.
        retry_delay: The longest first pause before a retry; each further pause is twice as long.
        grace: How long a cancelled call, and a worker that was told to stop, may take before its process is ended.
        launch_timeout: How long a launch may take until the worker is ready.
        reconnect_window: How long a worker may be without a connection.
        idle_timeout: How long a worker that is up may be without a call before it is ended; None for no limit.
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
    """The name of a timer of a work (`call` 0) or of a call. Starting a timer that runs starts it anew.

    Attributes:
        kind: What happens when it fires. Of a work: ``launch`` the worker must be ready; ``window`` the worker must be
            connected again; ``force`` the worker must have ended; ``idle`` the worker is no longer needed. Of a call:
            ``timeout`` the run must be done; ``cancel`` the run must have ended; ``retry`` the call is tried again.
    """

    kind: Literal["launch", "window", "force", "idle", "timeout", "cancel", "retry"]
    work: int
    call: int = 0


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a call ended.

    Attributes:
        status: The last status of the call.
        value: The return value of ``run``, in msgpack, if the call succeeded; otherwise None.
        error: The exception that made the call fail, if there is one.
        swallowed: Whether ``on_exception`` swallowed the exception.
    """

    status: WorkStatus
    value: bytes | None = None
    error: ErrorInfo | None = None
    swallowed: bool = False


# --- events --------------------------------------------------------------------------------------


class EventBase(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Base of the events: `work` is the number of the work that the event is about."""

    work: int


class WorkAdded(EventBase, frozen=True):
    """The work came into the tree. A work of a killed scheduler comes again, maybe with another policy."""

    name: str
    policy: Policy


class WorkRemoved(EventBase, frozen=True):
    """The work left the tree. The machine stops it, then forgets it."""


class StartRequested(EventBase, frozen=True):
    """A start was requested, with or without calls. `WorkerUp`, or `WorkerGone` with a failure, answers it."""


class StopRequested(EventBase, frozen=True):
    """A stop was requested. `WorkerGone` answers it. `reason` goes into the statuses of everything that this stops."""

    reason: Reason | None = None


class CallSubmitted(EventBase, frozen=True):
    """A call was submitted. `ResolveSubmit` answers it; `SettleCall` ends the call if it is a new one."""

    call: int
    hash: str
    args: bytes


class SchedulerResumed(EventBase, frozen=True):
    """Another scheduler goes on from the journal of a killed one. It has a connection to no worker.

    The timers ``launch``, ``window`` and ``force`` of the work count anew from this event. The commands of the killed
    scheduler that were not carried out are lost, and so are the events that it did not write to the journal.
    """


class WorkerReturned(EventBase, frozen=True):
    """A worker that a killed scheduler has welcomed has connected to this one.

    Attributes:
        attempt: Of the worker.
        calls: The calls that the worker has, and those whose outcome is on its way: number and hash of each. The killed
            scheduler may have sent a call and not have written it to the journal.
    """

    attempt: int
    calls: tuple[tuple[int, str], ...]


class WorkerCaughtUp(EventBase, frozen=True):
    """Everything that a returned worker sent before its return has arrived.

    Attributes:
        attempt: Of the worker.
        calls: The calls that the worker had and had not answered when it returned.
    """

    attempt: int
    calls: frozenset[int]


class WorkerNeverLaunched(EventBase, frozen=True):
    """The runtime knows no worker of this attempt: a scheduler was killed, or had to wait, before it launched one."""

    attempt: int


class CancelRequested(EventBase, frozen=True):
    """A cancellation of the call was requested."""

    call: int


class WorkerLaunchFailed(EventBase, frozen=True):
    """The runtime could not launch the worker, or was told to stop it before the launch was done."""

    attempt: int
    reason: Reason
    message: str


class WorkerReady(EventBase, frozen=True):
    """The worker unpacked the work, and ``on_start`` returned."""

    attempt: int


class CallRunning(EventBase, frozen=True):
    """The worker began to run the call: ``run`` is entered next."""

    attempt: int
    call: int


class CallSucceeded(EventBase, frozen=True):
    """``run`` returned `value`, in msgpack."""

    attempt: int
    call: int
    value: bytes


class CallFailed(EventBase, frozen=True):
    """``run`` raised, could not be entered, or returned a value that cannot be encoded."""

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
    """The worker began to end gracefully, and sends nothing more. `error` says why, if it never became ready."""

    attempt: int
    reason: Reason | None = None
    error: ErrorInfo | None = None


class LinkLost(EventBase, frozen=True):
    """The worker lost its connection."""

    attempt: int


class LinkRestored(EventBase, frozen=True):
    """The worker connected again; nothing that was sent either way is missing."""

    attempt: int


class WorkerExited(EventBase, frozen=True):
    """The runtime reported the end of the worker. `reason` is the reason for which its calls fail."""

    attempt: int
    reason: Reason
    message: str


class TimerFired(EventBase, frozen=True):
    """A timer fired that was started, and neither stopped nor started anew."""

    timer: Timer


Event = (
    WorkAdded
    | WorkRemoved
    | StartRequested
    | StopRequested
    | CallSubmitted
    | CancelRequested
    | SchedulerResumed
    | WorkerReturned
    | WorkerCaughtUp
    | WorkerNeverLaunched
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
    """Base of the commands: `work` is the number of the work that the command is about."""

    work: int


class LaunchWorker(CommandBase, frozen=True):
    """Launch a worker; no other worker of the work is left.

    `again` says that a killed scheduler may have begun this launch. What that launch made, if anything, must not be
    taken for what this one makes.
    """

    attempt: int
    again: bool = False


class SendCall(CommandBase, frozen=True):
    """Send the worker a call to run."""

    call: int
    args: bytes
    hash: str


class SendCancel(CommandBase, frozen=True):
    """Tell the worker to cancel a call that was sent to it. It may have answered the call by now."""

    call: int


class SendStop(CommandBase, frozen=True):
    """Tell the worker to cancel its calls and to end within `grace` seconds. Without a connection it may miss this."""

    grace: float


class EndWorker(CommandBase, frozen=True):
    """End the process tree through the runtime, within `grace` seconds; 0 forces the end at once."""

    attempt: int
    grace: float


class StartTimer(CommandBase, frozen=True):
    """Feed `TimerFired` in `delay` seconds. Replace a timer of the same name that still runs."""

    timer: Timer
    delay: float


class StopTimer(CommandBase, frozen=True):
    """Stop a timer. It may never have been started."""

    timer: Timer


class PublishStatus(CommandBase, frozen=True):
    """Publish a status of the work; `hash` is the hash of the call that the status belongs to.

    The first status of a submitted call comes with `ResolveSubmit`. The last status of a call comes with `SettleCall`,
    which may also bring the status before it.
    """

    status: WorkStatus
    hash: str | None = None


class ResolveSubmit(CommandBase, frozen=True):
    """Answer the submitted call: it is a new one, it joins another, or an earlier one answers it.

    Attributes:
        call: The submitted call.
        to: The call whose outcome it shares: one in flight, or one that has succeeded. None for a new call.
        reason: Which of the three, and why, for people.
        outcome: The outcome of `to` if it has succeeded; otherwise None.
        status: The first status of a new call; otherwise None.
        hash: The hash of the submitted call.
    """

    call: int
    to: int | None
    reason: str
    outcome: Outcome | None = None
    status: WorkStatus | None = None
    hash: str = ""


class RestoreCall(CommandBase, frozen=True):
    """Restore a call of a killed scheduler that is not in the journal, so that callers can join it.

    `PublishStatus` with its first status follows.
    """

    call: int
    hash: str


class SettleCall(CommandBase, frozen=True):
    """End the call; the status of its outcome is its last.

    Attributes:
        call: Its number.
        outcome: How it ended.
        hash: Of its arguments.
        ran: The status before the last, for a run that ended before its beginning was published; otherwise None.
    """

    call: int
    outcome: Outcome
    hash: str
    ran: WorkStatus | None = None


class WorkerUp(CommandBase, frozen=True):
    """Finish every start that was requested: the worker is up."""


class WorkerGone(CommandBase, frozen=True):
    """Finish every stop that was requested: no worker is left.

    `failure` is the reason for which the open starts fail. None leaves them open, since the next launch follows at
    once.
    """

    failure: str | None = None


class Forget(CommandBase, frozen=True):
    """Forget the work: it was removed, and nothing of it is left."""


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
    | RestoreCall
    | SettleCall
    | WorkerUp
    | WorkerGone
    | Forget
)
