"""Every life-cycle rule: what happens to works and calls, decided without a clock, a socket or a task.

`Machine.handle` takes one event and gives the commands it leads to. `TABLE` says which events are expected
in which phase of a worker, and what answers them. An event that is not in the table, and is neither late
(`LATE`) nor about a work that is forgotten, is a bug of ours and raises `MachineError` with the recent story.

Not here: values of arguments and results (opaque bytes), state and its deltas (`lightwork.engine.mirror`),
and connections (`lightwork.link`), which only report that they were lost or restored.

The phases of a worker::

    absent -> starting -> up -> stopping -> absent
                 |        |  ^      ^
                 |        v  |      |
                 |        cut ------+
                 +------------------+

A call goes from pending over running to exactly one of succeeded, failed, stopped; a retry takes it back
to pending. Asked to cancel but not yet cancelled (`_Call.ending`) is a state of its own: the first of the
worker's answer, the worker's end and the end of the grace period settles it, and a result that arrives
in that state counts, since the work was done.
"""

from __future__ import annotations

import enum
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from lightwork.engine.events import (
    Adopt,
    CallCancelled,
    CallFailed,
    CallRunning,
    CallSubmitted,
    CallSucceeded,
    CancelRequested,
    Command,
    EndWorker,
    Event,
    Forget,
    Launch,
    LaunchFailed,
    LinkLost,
    LinkRestored,
    Outcome,
    Policy,
    Publish,
    SendCall,
    SendCancel,
    SendStop,
    Settle,
    StartRequested,
    StartTimer,
    StopRequested,
    StopTimer,
    Timer,
    TimerFired,
    WorkAdded,
    WorkerExited,
    WorkerGone,
    WorkerReady,
    WorkerStopping,
    WorkerUp,
    WorkRemoved,
)
from lightwork.errors import LightworkError
from lightwork.status import Reason, Stage, WorkStatus
from lightwork.wire import ErrorInfo

__all__ = ["TABLE", "Machine", "MachineError", "Phase"]


class MachineError(LightworkError):
    """An event came in a phase in which it cannot: a bug of lightwork. The message has the recent story."""


class Phase(enum.StrEnum):
    """Where the worker of a work stands."""

    ABSENT = "absent"
    STARTING = "starting"
    UP = "up"
    CUT = "cut"
    STOPPING = "stopping"


class _Call:
    """One call that is not over.

    Attributes:
        id, hash, args: As submitted.
        attempt: Which try it is, from 1.
        sent: Whether the present worker has it.
        ending: Why the worker was asked to cancel it; None while it was not.
        delayed: Whether it waits for the delay of a retry.
    """

    __slots__ = ("args", "attempt", "delayed", "ending", "hash", "id", "sent")

    def __init__(self, id: int, hash: str, args: bytes) -> None:
        self.id, self.hash, self.args = id, hash, args
        self.attempt = 1
        self.sent = False
        self.ending: Reason | None = None
        self.delayed = False


class _Work:
    """One work.

    Attributes:
        phase: Where its worker stands.
        attempt: Number of launches, the present one included.
        queue: Calls that no worker has, in order; all and only those with ``sent`` False that are not delayed.
        running: Calls that the worker has, by id; empty in ``absent``.
        calls: Every call that is not over, by id.
        in_flight: The calls that another one may join, by hash; none that is ending.
        results: Successes by hash, where ``cache_calls`` is set.
        failed: Hashes of calls whose latest outcome was a failure; kept for explanations only, bounded.
        restart: In ``stopping``: whether a start was asked for meanwhile.
        stop_reason: In ``stopping``: what the statuses of the calls that it stops will say.
        verdict: In ``stopping``: the failure that led to it, for calls still with the worker.
        removed: Whether it is forgotten once its worker is absent.
    """

    __slots__ = (
        "attempt", "calls", "failed", "id", "in_flight", "name", "phase", "policy", "queue", "removed", "restart",
        "results", "running", "stop_reason", "verdict",
    )  # fmt: skip

    def __init__(self, id: int, name: str, policy: Policy) -> None:
        self.id, self.name, self.policy = id, name, policy
        self.phase = Phase.ABSENT
        self.attempt = 0
        self.queue: deque[_Call] = deque()
        self.running: dict[int, _Call] = {}
        self.calls: dict[int, _Call] = {}
        self.in_flight: dict[str, _Call] = {}
        self.results: dict[str, tuple[int, Outcome]] = {}
        self.failed: OrderedDict[str, int] = OrderedDict()
        self.restart = False
        self.stop_reason: Reason | None = None
        self.verdict: tuple[Stage, Reason, str] | None = None
        self.removed = False


_RETRIED: Final = frozenset(
    {
        Reason.USER_EXCEPTION,
        Reason.TIMEOUT,
        Reason.CRASHED,
        Reason.OOM,
        Reason.LOST,
        Reason.LAUNCH_FAILED,
        Reason.SPOT_RETRIEVAL,
    }
)
_STORY_LENGTH: Final = 60
_FAILED_KEPT: Final = 100


class Machine:
    """Decides. One for each app; single-threaded; `now` never goes back."""

    def __init__(self) -> None:
        self._works: dict[int, _Work] = {}
        self._commands: list[Command] = []
        self._now = 0.0
        self._story: deque[str] = deque(maxlen=_STORY_LENGTH)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in an event; give the commands to carry out, in order.

        Args:
            event: What happened.
            now: Seconds since the epoch by the scheduler's clock.

        Raises:
            MachineError: The event is impossible where the work stands.
        """
        self._now = now
        if type(event) is WorkAdded:
            self._works[event.work] = _Work(event.work, event.name, event.policy)
            return []
        work = self._works.get(event.work)
        if work is None:
            if type(event) in _MAY_BE_UNKNOWN:
                return []
            raise MachineError(f"{event!r} is about a work that is not known")
        self._story.append(f"{work.name} {work.phase} #{work.attempt}: {type(event).__name__}")
        attempt = getattr(event, "attempt", None)
        if attempt is not None and attempt != work.attempt:
            return []
        answer = TABLE.get((work.phase, type(event)))
        if answer is None:
            if type(event) in LATE:
                return []
            raise MachineError(
                f"{type(event).__name__} cannot come while the worker of {work.name} is {work.phase}: {event!r}\n"
                f"the story so far:\n" + "\n".join(self._story)
            )
        self._commands = []
        answer(self, work, event)
        return self._commands

    # --- for tests, statistics and the journal ----------------------------------------------------

    def phase(self, work: int) -> Phase:
        """Where a work's worker stands."""
        return self._works[work].phase

    @property
    def is_idle(self) -> bool:
        """Whether no worker is there or on its way, and no call waits."""
        return all(one.phase is Phase.ABSENT and not one.calls for one in self._works.values())

    # --- orders -----------------------------------------------------------------------------------

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _publish(
        self, work: _Work, stage: Stage, reason: Reason | None = None, message: str | None = None
    ) -> None:
        self._do(Publish(work.id, WorkStatus(stage, self._now, reason, message)))

    def _publish_call(
        self, work: _Work, call: _Call, stage: Stage, reason: Reason | None = None, message: str | None = None
    ) -> WorkStatus:
        status = WorkStatus(stage, self._now, reason, message, 1, call.id, call.attempt)
        self._do(Publish(work.id, status, call.hash))
        return status

    def _launch(self, work: _Work) -> None:
        work.attempt += 1
        work.phase = Phase.STARTING
        work.restart = False
        work.stop_reason = work.verdict = None
        self._do(Launch(work.id, work.attempt))
        self._do(StartTimer(work.id, Timer("launch", work.id), work.policy.launch_timeout))

    # --- calls ------------------------------------------------------------------------------------

    def _submit(self, work: _Work, event: CallSubmitted) -> None:
        joined = work.in_flight.get(event.hash)
        if joined is not None:
            self._do(Adopt(work.id, event.call, joined.id, f"joined call {joined.id}, in flight with the same arguments"))
            return
        known = work.results.get(event.hash)
        if known is not None:
            earlier, outcome = known
            reason = f"answered by call {earlier}, which succeeded with the same arguments"
            self._do(Adopt(work.id, event.call, earlier, reason, outcome))
            return
        self._do(Adopt(work.id, event.call, None, self._why_new(work, event.hash)))
        call = _Call(event.call, event.hash, event.args)
        work.calls[call.id] = call
        work.in_flight[call.hash] = call
        work.queue.append(call)
        self._publish_call(work, call, Stage.PENDING)
        self._go_on(work)

    def _why_new(self, work: _Work, hash: str) -> str:
        if not work.policy.cache_calls:
            return "runs: cache_calls is False"
        failed = work.failed.get(hash)
        if failed is not None:
            return f"runs: call {failed} with the same arguments did not succeed"
        return "runs: no call with these arguments has succeeded"

    def _go_on(self, work: _Work) -> None:
        """Do what the queue asks for, where the worker stands."""
        if work.phase is Phase.ABSENT:
            if work.queue and not work.removed:
                self._launch(work)
        elif work.phase is Phase.UP:
            while work.queue and len(work.running) < work.policy.concurrency:
                call = work.queue.popleft()
                call.sent = True
                work.running[call.id] = call
                self._do(SendCall(work.id, call.id, call.args))

    def _settle(
        self, work: _Work, call: _Call, stage: Stage, reason: Reason | None = None, message: str | None = None,
        *, value: bytes | None = None, error: ErrorInfo | None = None, swallowed: bool = False,
    ) -> None:  # fmt: skip
        status = self._publish_call(work, call, stage, reason, message)
        outcome = Outcome(status, value, error, swallowed)
        self._drop(work, call)
        if stage is Stage.SUCCEEDED:
            work.failed.pop(call.hash, None)
            if work.policy.cache_calls:
                work.results[call.hash] = call.id, outcome
        else:
            work.failed[call.hash] = call.id
            while len(work.failed) > _FAILED_KEPT:
                work.failed.popitem(last=False)
        self._do(Settle(work.id, call.id, outcome))

    def _drop(self, work: _Work, call: _Call) -> None:
        """Take a call out of everything."""
        self._withdraw(work, call)
        del work.calls[call.id]
        if work.in_flight.get(call.hash) is call:
            del work.in_flight[call.hash]

    def _withdraw(self, work: _Work, call: _Call) -> None:
        """Take a call from its worker, or from the queue."""
        if call.delayed:
            call.delayed = False
            self._do(StopTimer(work.id, Timer("retry", work.id, call.id)))
        elif call.sent:
            call.sent = False
            work.running.pop(call.id, None)
            if work.policy.timeout is not None:
                self._do(StopTimer(work.id, Timer("timeout", work.id, call.id)))
            if call.ending is not None:
                self._do(StopTimer(work.id, Timer("cancel", work.id, call.id)))
        else:
            work.queue.remove(call)

    def _fail(
        self, work: _Work, call: _Call, reason: Reason, message: str, error: ErrorInfo | None = None,
        swallowed: bool = False,
    ) -> None:  # fmt: skip
        """A try came to nothing: try again if there is one left, else settle."""
        if reason in _RETRIED and call.attempt <= work.policy.retries and not swallowed and not work.removed:
            self._withdraw(work, call)
            call.ending = None
            work.in_flight.setdefault(call.hash, call)
            call.attempt += 1
            call.delayed = True
            self._publish_call(work, call, Stage.PENDING, reason, message)
            self._do(StartTimer(work.id, Timer("retry", work.id, call.id), _delay(work.policy, call)))
            return
        self._settle(work, call, Stage.FAILED, reason, message, error=error, swallowed=swallowed)

    def _end(self, work: _Work, call: _Call, reason: Reason) -> None:
        """Ask the worker to cancel a call that it has."""
        call.ending = reason
        if work.in_flight.get(call.hash) is call:
            del work.in_flight[call.hash]
        self._do(SendCancel(work.id, call.id))
        self._do(StartTimer(work.id, Timer("cancel", work.id, call.id), work.policy.grace))

    def _finish_ended(self, work: _Work, call: _Call) -> None:
        """A call whose end was asked for has ended."""
        if call.ending is Reason.TIMEOUT:
            self._fail(work, call, Reason.TIMEOUT, f"the run took longer than {work.policy.timeout:g} s")
        else:
            self._settle(work, call, Stage.STOPPED, call.ending or Reason.CANCELLED)

    def _cancel(self, work: _Work, event: CancelRequested) -> None:
        call = work.calls.get(event.call)
        if call is None or call.ending is Reason.CANCELLED:
            return
        if not call.sent:
            self._settle(work, call, Stage.STOPPED, Reason.CANCELLED, "cancelled before it ran")
        elif call.ending is not None:
            call.ending = Reason.CANCELLED
        elif work.phase is Phase.STOPPING:
            call.ending = Reason.CANCELLED
            self._do(StartTimer(work.id, Timer("cancel", work.id, call.id), work.policy.grace))
        else:
            self._end(work, call, Reason.CANCELLED)

    def _running(self, work: _Work, event: CallRunning) -> None:
        call = work.running.get(event.call)
        if call is None:
            return
        self._publish_call(work, call, Stage.RUNNING)
        if work.policy.timeout is not None and call.ending is None:
            self._do(StartTimer(work.id, Timer("timeout", work.id, call.id), work.policy.timeout))

    def _succeeded(self, work: _Work, event: CallSucceeded) -> None:
        call = work.running.get(event.call)
        if call is not None:
            self._settle(work, call, Stage.SUCCEEDED, value=event.value)
            self._go_on(work)

    def _failed(self, work: _Work, event: CallFailed) -> None:
        call = work.running.get(event.call)
        if call is not None:
            self._fail(work, call, event.reason, event.error.message, event.error, event.swallowed)
            self._go_on(work)

    def _cancelled(self, work: _Work, event: CallCancelled) -> None:
        call = work.running.get(event.call)
        if call is None:
            return
        if call.ending is not None:
            self._finish_ended(work, call)
        else:
            self._settle(work, call, Stage.STOPPED, work.stop_reason or Reason.CANCELLED)
        self._go_on(work)

    # --- timers -----------------------------------------------------------------------------------

    def _timer(self, work: _Work, event: TimerFired) -> None:
        timer = event.timer
        call = work.calls.get(timer.call)
        if timer.kind == "retry":
            self._retry(work, call)
        elif timer.kind == "timeout":
            if call is not None and call.sent and call.ending is None and work.phase in (Phase.UP, Phase.CUT):
                self._end(work, call, Reason.TIMEOUT)
        elif timer.kind == "cancel":
            # It ignores the cancellation: only the end of its process ends it.
            if call is not None and call.sent:
                self._force(work, call)
        elif timer.kind == "launch":
            if work.phase is Phase.STARTING:
                message = f"not ready within {work.policy.launch_timeout:g} s"
                self._give_up(work, Reason.TIMEOUT, message)
        elif timer.kind == "window":
            if work.phase is Phase.CUT:
                message = f"no connection for {work.policy.reconnect_window:g} s"
                self._give_up(work, Reason.LOST, message)
        elif timer.kind == "force" and work.phase is Phase.STOPPING:
            self._do(EndWorker(work.id, work.attempt, 0.0))

    def _retry(self, work: _Work, call: _Call | None) -> None:
        if call is not None and call.delayed:
            call.delayed = False
            work.queue.append(call)
            self._go_on(work)

    def _force(self, work: _Work, culprit: _Call) -> None:
        """End the process of a call that ignores its cancellation; other calls in it are lost with it."""
        if work.phase is not Phase.STOPPING:
            message = f"its worker had to be ended, since call {culprit.id} ignored its cancellation"
            for call in [one for one in work.running.values() if one.ending is None]:
                self._fail(work, call, Reason.CRASHED, message)
            self._leave(work)
            work.phase = Phase.STOPPING
            work.verdict = Stage.STOPPED, Reason.CANCELLED, f"call {culprit.id} ignored its cancellation"
        self._do(EndWorker(work.id, work.attempt, 0.0))

    # --- the worker -------------------------------------------------------------------------------

    def _start(self, work: _Work, event: StartRequested) -> None:
        if work.phase is Phase.ABSENT:
            self._launch(work)
        elif work.phase is Phase.STOPPING:
            work.restart = True
        elif work.phase is not Phase.STARTING:
            self._do(WorkerUp(work.id))

    def _ready(self, work: _Work, event: WorkerReady) -> None:
        self._do(StopTimer(work.id, Timer("launch", work.id)))
        work.phase = Phase.UP
        self._publish(work, Stage.STARTED)
        self._do(WorkerUp(work.id))
        self._go_on(work)

    def _launch_failed(self, work: _Work, event: LaunchFailed) -> None:
        self._leave(work)
        work.phase = Phase.ABSENT
        self._fail_start(work, event.reason, event.message)
        self._do(WorkerGone(work.id, event.message))
        self._after(work)

    def _fail_start(self, work: _Work, reason: Reason, message: str, error: ErrorInfo | None = None) -> None:
        """No worker came up: whatever waited for it fails."""
        self._publish(work, Stage.FAILED, reason, message)
        for call in list(work.queue):
            self._fail(work, call, reason, message, error)

    def _give_up(self, work: _Work, reason: Reason, message: str) -> None:
        """Do not wait for this worker any longer; its process is ended, and its calls fail once it is."""
        self._leave(work)
        starting = work.phase is Phase.STARTING
        work.phase = Phase.STOPPING
        if starting:
            self._fail_start(work, reason, message)
        else:
            work.verdict = Stage.FAILED, reason, message
        self._do(EndWorker(work.id, work.attempt, 0.0))

    def _leave(self, work: _Work) -> None:
        """Stop the timers of the phase."""
        if work.phase is Phase.STARTING:
            self._do(StopTimer(work.id, Timer("launch", work.id)))
        elif work.phase is Phase.CUT:
            self._do(StopTimer(work.id, Timer("window", work.id)))
        elif work.phase is Phase.STOPPING:
            self._do(StopTimer(work.id, Timer("force", work.id)))

    def _cut(self, work: _Work, event: LinkLost) -> None:
        work.phase = Phase.CUT
        self._do(StartTimer(work.id, Timer("window", work.id), work.policy.reconnect_window))

    def _restored(self, work: _Work, event: LinkRestored) -> None:
        self._leave(work)
        work.phase = Phase.UP
        self._go_on(work)

    def _stop(self, work: _Work, event: StopRequested | WorkRemoved) -> None:
        reason = event.reason if isinstance(event, StopRequested) else None
        if isinstance(event, WorkRemoved):
            work.removed = True
        for call in [one for one in work.calls.values() if not one.sent]:
            self._settle(work, call, Stage.STOPPED, reason, "stopped before it ran")
        work.restart = False
        if work.phase is Phase.ABSENT:
            self._do(WorkerGone(work.id))
            self._after(work)
            return
        if work.phase is Phase.STOPPING:
            return
        reachable = work.phase is Phase.UP
        self._leave(work)
        work.phase = Phase.STOPPING
        work.stop_reason = reason
        grace = work.policy.grace
        if reachable:
            self._do(SendStop(work.id, grace))
            # The worker needs the whole of its grace, and a moment to say so.
            self._do(StartTimer(work.id, Timer("force", work.id), grace + 1.0))
        else:
            self._do(EndWorker(work.id, work.attempt, grace))

    def _stopping(self, work: _Work, event: WorkerStopping) -> None:
        if work.phase is Phase.STARTING:
            self._leave(work)
            work.phase = Phase.STOPPING
            error = event.error
            reason = event.reason or Reason.LAUNCH_FAILED
            message = error.message if error is not None else "the worker ended before it was ready"
            self._fail_start(work, reason, message, error)
        elif work.phase is not Phase.STOPPING:
            self._leave(work)
            work.phase = Phase.STOPPING
            work.stop_reason = event.reason
            work.verdict = Stage.STOPPED, event.reason or Reason.CANCELLED, "the worker was asked to end"
        else:
            return
        self._do(StartTimer(work.id, Timer("force", work.id), work.policy.grace))

    def _exited(self, work: _Work, event: WorkerExited) -> None:
        before = work.phase
        self._leave(work)
        work.phase = Phase.ABSENT
        if before is Phase.STARTING:
            message = f"the worker ended before it was ready: {event.message}"
            failure: str | None = message
            self._fail_start(work, Reason.LAUNCH_FAILED, message)
        else:
            failure = None
            self._end_calls(work, before, event)
            self._publish_end(work, before, event)
        self._do(WorkerGone(work.id, failure))
        self._after(work)

    def _end_calls(self, work: _Work, before: Phase, event: WorkerExited) -> None:
        """Settle what the worker had when it ended."""
        for call in list(work.running.values()):
            if call.ending is not None:
                self._finish_ended(work, call)
            elif work.verdict is not None and work.verdict[0] is Stage.STOPPED:
                self._stop_or_retry(work, call, work.verdict[1])
            elif work.verdict is not None:
                self._fail(work, call, *work.verdict[1:])
            elif before is Phase.STOPPING:
                self._settle(work, call, Stage.STOPPED, work.stop_reason)
            else:
                self._fail(work, call, event.reason, event.message)

    def _stop_or_retry(self, work: _Work, call: _Call, reason: Reason) -> None:
        if reason is Reason.SPOT_RETRIEVAL and call.attempt <= work.policy.retries:
            self._fail(work, call, reason, "the machine was taken back")
        else:
            self._settle(work, call, Stage.STOPPED, reason)

    def _publish_end(self, work: _Work, before: Phase, event: WorkerExited) -> None:
        if work.verdict is not None:
            self._publish(work, *work.verdict)
        elif before is Phase.STOPPING:
            self._publish(work, Stage.STOPPED, work.stop_reason)
        else:
            self._publish(work, Stage.FAILED, event.reason, event.message)

    def _after(self, work: _Work) -> None:
        """The worker is absent: forget the work, or start it again if something waits."""
        if work.removed:
            del self._works[work.id]
            self._do(Forget(work.id))
        elif work.restart or work.queue:
            self._launch(work)

    def _nothing(self, work: _Work, event: Event) -> None:
        """A fact that changes nothing in this phase, and is expected."""


def _delay(policy: Policy, call: _Call) -> float:
    """Seconds before the present retry: doubled each time, jittered by a number that is the call's own."""
    jitter = zlib.crc32(f"{call.id}/{call.attempt}".encode()) / 2**32
    return float(policy.retry_delay * 2 ** min(call.attempt - 2, 20) * (0.5 + jitter / 2))


_Answer = Callable[[Machine, _Work, Any], None]
_M = Machine
_ANY = tuple(Phase)

TABLE: Final[dict[tuple[Phase, type], _Answer]] = {
    **{(phase, CallSubmitted): _M._submit for phase in _ANY},
    **{(phase, CancelRequested): _M._cancel for phase in _ANY},
    **{(phase, TimerFired): _M._timer for phase in _ANY},
    **{(phase, StartRequested): _M._start for phase in _ANY},
    **{(phase, StopRequested): _M._stop for phase in _ANY},
    **{(phase, WorkRemoved): _M._stop for phase in _ANY},
    (Phase.STARTING, LaunchFailed): _M._launch_failed,
    (Phase.STARTING, WorkerReady): _M._ready,
    (Phase.STARTING, WorkerStopping): _M._stopping,
    (Phase.STARTING, WorkerExited): _M._exited,
    (Phase.STARTING, LinkLost): _M._nothing,
    (Phase.STARTING, LinkRestored): _M._nothing,
    (Phase.UP, CallRunning): _M._running,
    (Phase.UP, CallSucceeded): _M._succeeded,
    (Phase.UP, CallFailed): _M._failed,
    (Phase.UP, CallCancelled): _M._cancelled,
    (Phase.UP, WorkerStopping): _M._stopping,
    (Phase.UP, LinkLost): _M._cut,
    (Phase.UP, WorkerExited): _M._exited,
    (Phase.CUT, LinkRestored): _M._restored,
    (Phase.CUT, WorkerExited): _M._exited,
    (Phase.STOPPING, LaunchFailed): _M._exited,
    (Phase.STOPPING, WorkerReady): _M._nothing,
    (Phase.STOPPING, CallRunning): _M._running,
    (Phase.STOPPING, CallSucceeded): _M._succeeded,
    (Phase.STOPPING, CallFailed): _M._failed,
    (Phase.STOPPING, CallCancelled): _M._cancelled,
    (Phase.STOPPING, WorkerStopping): _M._stopping,
    (Phase.STOPPING, LinkLost): _M._nothing,
    (Phase.STOPPING, LinkRestored): _M._nothing,
    (Phase.STOPPING, WorkerExited): _M._exited,
}
"""What answers which event in which phase of the worker."""

LATE: Final[frozenset[type]] = frozenset(
    {LinkLost, LinkRestored, WorkerExited, WorkerStopping, CallRunning, CallSucceeded, CallFailed, CallCancelled}
)
"""Facts that may still arrive when the phase in which they matter is over."""

_MAY_BE_UNKNOWN: Final = LATE | {TimerFired, LaunchFailed, WorkerReady, CancelRequested, StopRequested, WorkRemoved}
