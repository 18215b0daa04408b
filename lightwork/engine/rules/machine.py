"""Every life-cycle rule of works and calls, recovery included, decided without a clock, a socket or a task.

`Machine.handle` takes one event and returns the commands that follow from it. `TABLE` lists the events that are
expected in each phase of a worker, the method that handles each, and the phases that can follow; docs/lifecycle.md is
drawn from it. An event that is neither in the table, nor late (`LATE`), nor about a forgotten work, is a bug of
lightwork and raises `MachineError` with the recent story.

Not here: values of arguments and results (opaque bytes), state and its deltas (`lightwork.engine.workers.replica`),
and connections (`lightwork.link`), which only report that they were lost or restored.

The phases of a worker::

    absent -> starting -> up -> stopping -> absent
                 |        |  ^      ^
                 |        v  |      |
                 |        cut ------+
                 +------------------+

A worker may end in every phase. If calls wait then, the next worker is launched.

A call goes from pending over running to exactly one of succeeded, failed, stopped; a retry takes it back to pending.
Told to cancel but not yet cancelled (`ModelCall.ending`) is a state of its own. The first of the worker's answer, the
worker's end and the end of the grace period ends that state. A result that arrives in that state counts, since the work
was done. So does a result that arrives while the worker is stopping.

A killed scheduler has told its workers more than its journal says, and has heard more from them. Another scheduler goes
on from the journal. `SchedulerResumed` tells the machine so. The worker returns and says which calls it has
(`WorkerReturned`), then sends everything again that is not in the journal. When that has arrived (`WorkerCaughtUp`) the
machine sends what the worker lacks. `Contact` is the state of this exchange.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, assert_never

from lightwork.engine.rules.call_rules import CallRules, take_from_flight
from lightwork.engine.rules.events import (
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
    LaunchWorker,
    LinkLost,
    LinkRestored,
    SchedulerResumed,
    SendStop,
    StartRequested,
    StartTimer,
    StopRequested,
    StopTimer,
    Timer,
    TimerFired,
    WorkAdded,
    WorkerCaughtUp,
    WorkerExited,
    WorkerGone,
    WorkerLaunchFailed,
    WorkerNeverLaunched,
    WorkerReady,
    WorkerReturned,
    WorkerStopping,
    WorkerUp,
    WorkRemoved,
)
from lightwork.engine.rules.model import Contact, ModelCall, ModelWork, Phase, Verdict
from lightwork.errors import LightworkError
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, Stage

__all__ = ["LATE", "TABLE", "Machine", "MachineError", "Phase", "Row"]


class MachineError(LightworkError):
    """An event came in a phase in which it cannot come: a bug of lightwork. The message has the recent story."""


_STORY_LENGTH: Final = 60
_FORCE_MARGIN: Final = 1.0
"""Seconds beyond its grace period that a worker has to report its end: it may use the whole grace period."""


class Machine(CallRules):
    """Decides about every work of an app. Single-threaded; `now` never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self._works: dict[int, ModelWork] = {}
        self._story: deque[tuple[float, str, Phase, int, type, int | None]] = deque(maxlen=_STORY_LENGTH)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Handle an event; return the commands to carry out, in order.

        A late event changes nothing: one of an attempt that has ended, or about a work that is forgotten.

        Args:
            event: What happened.
            now: Seconds since the epoch by the scheduler's clock.

        Raises:
            MachineError: The event cannot come in the present phase of the work. Nothing was changed.
        """
        self._now = now
        kind = type(event)
        work = self._works.get(event.work)
        if work is None:
            self._without_work(event)
            return []
        self._story.append((now, work.name, work.phase, work.attempt, kind, getattr(event, "call", None)))
        if getattr(event, "attempt", work.attempt) != work.attempt:
            return []
        answer = _ANSWERS[work.phase].get(kind)
        if answer is None:
            if kind in LATE:
                return []
            raise self._impossible(work, event, f"while its worker is {work.phase}")
        if work.removed and kind is CallSubmitted:
            raise self._impossible(work, event, "after it was removed")
        self._commands = []
        answer(self, work, event)
        return self._commands

    def _without_work(self, event: Event) -> None:
        """Add a new work. Ignore an event about a forgotten work."""
        if isinstance(event, WorkAdded):
            self._works[event.work] = ModelWork(event.work, event.name, event.policy)
        elif type(event) not in _MAY_BE_UNKNOWN:
            raise MachineError(f"{event!r} is about an unknown work")

    # --- for tests, statistics and the journal ----------------------------------------------------

    def works(self) -> list[ModelWork]:
        """Return every work that is not forgotten. Do not change them."""
        return list(self._works.values())

    def work(self, number: int) -> ModelWork:
        """Return one of them. Raises `KeyError` for a work that is forgotten."""
        return self._works[number]

    def restore(self, works: Iterable[ModelWork]) -> None:
        """Replace all works by these."""
        self._works = {work.id: work for work in works}

    def phase(self, work: int) -> Phase:
        """Return the phase of a work's worker. Raises `KeyError` for a work that is forgotten."""
        return self._works[work].phase

    @property
    def is_idle(self) -> bool:
        """Whether no work has a worker, launched or being launched, and no call waits."""
        return all(one.phase is Phase.ABSENT and not one.calls for one in self._works.values())

    def story(self) -> list[str]:
        """Return the latest events, oldest first, a line each: time, work, phase, attempt, event."""
        return [
            f"{now:.3f} {name} {phase} #{attempt}: {event.__name__}" + ("" if call is None else f" of call {call}")
            for now, name, phase, attempt, event, call in self._story
        ]

    def _impossible(self, work: ModelWork, event: Event, why: str) -> MachineError:
        story = "\n".join(self.story())
        return MachineError(f"{event!r} cannot come for {work.name} {why}\nthe story so far:\n{story}")

    # --- timers -----------------------------------------------------------------------------------

    def _timer(self, work: ModelWork, event: TimerFired) -> None:
        """The timer does its work if there is still a reason: see `lightwork.engine.rules.events.Timer`."""
        kind, call = event.timer.kind, work.calls.get(event.timer.call)
        match kind:
            case "launch":
                if work.phase is Phase.STARTING:
                    self._give_up(work, Reason.TIMEOUT, f"not ready within {work.policy.launch_timeout:g} s")
            case "window":
                if work.phase is Phase.CUT:
                    self._give_up(work, Reason.LOST, f"no connection for {work.policy.reconnect_window:g} s")
            case "force":
                if work.phase is Phase.STOPPING:
                    self._do(EndWorker(work.id, work.attempt, 0.0))
            case "idle":
                if work.phase is Phase.UP and not work.calls:
                    self._end_idle(work)
            case "timeout":
                if call is not None and call.sent and call.ending is None and work.phase is not Phase.STOPPING:
                    self._end(work, call, Reason.TIMEOUT)
            case "cancel":
                if call is not None and call.ending is not None:
                    self._force(work, call)
            case "retry":
                if call is not None and call.delayed:
                    call.delayed = False
                    work.queue.append(call)
                    self._go_on(work)
            case _:
                assert_never(kind)

    def _end_idle(self, work: ModelWork) -> None:
        """End a worker that has had no call for too long. The next call launches another one."""
        message = f"no call for {work.policy.idle_timeout:g} s (idle_timeout)"
        self._begin_stop(work, (Stage.STOPPED, None, message))
        self._send(work, SendStop(work.id, work.policy.grace))
        self._start_force(work)

    def _start_force(self, work: ModelWork) -> None:
        self._do(StartTimer(work.id, Timer("force", work.id), work.policy.grace + _FORCE_MARGIN))

    def _force(self, work: ModelWork, culprit: ModelCall) -> None:
        """End the process of a call that ignores its cancellation; the other calls of the process are lost with it."""
        if work.phase is not Phase.STOPPING:
            lost = f"its worker was ended by force, since call {culprit.id} ignored its cancellation"
            for call in [one for one in work.running.values() if one.ending is None]:
                self._fail(work, call, Reason.CRASHED, lost)
            self._begin_stop(work, (Stage.STOPPED, Reason.CANCELLED, f"call {culprit.id} ignored its cancellation"))
        self._do(EndWorker(work.id, work.attempt, 0.0))

    # --- the worker comes up ----------------------------------------------------------------------

    def _launch(self, work: ModelWork) -> None:
        work.attempt += 1
        work.phase = Phase.STARTING
        work.halted = work.restart = False
        self._do(LaunchWorker(work.id, work.attempt))
        self._start_launch_timer(work)

    def _start_launch_timer(self, work: ModelWork) -> None:
        self._do(StartTimer(work.id, Timer("launch", work.id), work.policy.launch_timeout))

    def _start(self, work: ModelWork, event: StartRequested) -> None:
        """A worker is launched, now or once the present one has ended. A worker that is up is enough."""
        if work.phase is Phase.ABSENT:
            self._launch(work)
        elif work.phase is Phase.STOPPING:
            work.restart = not work.removed
        elif work.phase is not Phase.STARTING:
            self._do(WorkerUp(work.id))

    def _ready(self, work: ModelWork, event: WorkerReady) -> None:
        """The worker is up, and gets the calls of the queue."""
        if work.contact is Contact.AWAY:  # it connects for the first time: the killed scheduler has sent it nothing
            self._meet(work)
        self._come_up(work)
        self._go_on(work)

    def _come_up(self, work: ModelWork) -> None:
        self._leave(work)
        work.phase = Phase.UP
        self._publish(work, Stage.STARTED)
        self._do(WorkerUp(work.id))

    def _ready_too_late(self, work: ModelWork, event: WorkerReady) -> None:
        """The worker is told to end: until now only its runtime could tell it, and may have no way to."""
        if work.contact is Contact.AWAY:
            self._meet(work)
        self._send(work, SendStop(work.id, work.policy.grace))

    def _ready_again(self, work: ModelWork, event: WorkerReady) -> None:
        """Nothing: the worker has returned with calls, so it was known to be ready. From another worker it is a bug."""
        if work.contact is Contact.LIVE:
            raise self._impossible(work, event, f"while its worker is {work.phase}")

    def _fail_start(self, work: ModelWork, reason: Reason, message: str, error: ErrorInfo | None = None) -> None:
        """No worker came up: the starts and the calls that waited for it fail."""
        work.failure = message
        self._publish(work, Stage.FAILED, reason, message)
        for call in list(work.queue):
            self._fail(work, call, reason, message, error)

    def _cut(self, work: ModelWork, event: LinkLost) -> None:
        """The worker has the reconnect window to connect again."""
        self._leave(work)
        work.phase = Phase.CUT
        self._start_window(work)

    def _start_window(self, work: ModelWork) -> None:
        self._do(StartTimer(work.id, Timer("window", work.id), work.policy.reconnect_window))

    def _restored(self, work: ModelWork, event: LinkRestored) -> None:
        """The worker is connected again, and has everything that it had."""
        self._leave(work)
        work.phase = Phase.UP
        self._go_on(work)

    # --- after a killed scheduler -----------------------------------------------------------------

    def _resumed(self, work: ModelWork, event: SchedulerResumed) -> None:
        """The worker is not connected, and has the time anew that its phase gives it to connect or to end."""
        if work.phase is Phase.ABSENT:
            return
        work.contact = Contact.AWAY
        match work.phase:
            case Phase.STARTING:
                self._start_launch_timer(work)
            case Phase.UP:
                self._leave(work)
                work.phase = Phase.CUT
                self._start_window(work)
            case Phase.CUT:
                self._start_window(work)
            case Phase.STOPPING:  # the killed scheduler may not have come to tell it, or its runtime
                within = max(work.policy.reconnect_window, work.policy.grace + _FORCE_MARGIN)
                self._do(StartTimer(work.id, Timer("force", work.id), within))
            case _:
                assert_never(work.phase)

    def _returned(self, work: ModelWork, event: WorkerReturned) -> None:
        """The worker is back. The calls that it has are taken into the books; a worker that has some was ready."""
        work.contact = Contact.BEHIND
        if work.phase is Phase.CUT:
            self._leave(work)
            work.phase = Phase.UP
        elif work.phase is Phase.STARTING and event.calls:
            self._come_up(work)
        for call, hash in event.calls:
            self._recover(work, call, hash)
        self._go_on(work)

    def _caught_up(self, work: ModelWork, event: WorkerCaughtUp) -> None:
        """The worker gets what is in force and has not reached it: calls and cancellations, or the request to end."""
        work.contact = Contact.LIVE
        if work.phase is Phase.STOPPING:
            self._send(work, SendStop(work.id, work.policy.grace))
            self._start_force(work)
        else:
            self._reconcile(work, event.calls)
            self._go_on(work)

    def _never_launched(self, work: ModelWork, event: WorkerNeverLaunched) -> None:
        """The worker is launched now, unless it is not wanted any more. A worker that was up has ended unseen."""
        if work.phase is Phase.STARTING:
            self._meet(work)
            self._do(LaunchWorker(work.id, work.attempt, again=True))
            self._start_launch_timer(work)
        else:
            self._worker_ended(work, Reason.LOST, "its runtime does not know it any more")

    def _meet(self, work: ModelWork) -> None:
        """From now on the machine knows everything about the worker."""
        work.contact = Contact.LIVE
        work.over.clear()

    def _policy_changed(self, work: ModelWork, event: WorkAdded) -> None:
        """The code that makes the work again may give it another policy, which counts from now on."""
        before, work.policy = work.policy, event.policy
        if not event.policy.cache_calls:
            work.results.clear()
        if event.policy.timeout != before.timeout:
            for call in work.running.values():
                if event.policy.timeout is None:
                    self._do(StopTimer(work.id, Timer("timeout", work.id, call.id)))
                elif call.ran and call.ending is None:
                    self._do(StartTimer(work.id, Timer("timeout", work.id, call.id), event.policy.timeout))
        if event.policy.idle_timeout is None and work.phase is Phase.UP:
            self._do(StopTimer(work.id, Timer("idle", work.id)))
        self._go_on(work)

    # --- the worker ends --------------------------------------------------------------------------

    def _leave(self, work: ModelWork) -> None:
        """Stop the timer of the phase."""
        if work.phase is Phase.STARTING:
            self._do(StopTimer(work.id, Timer("launch", work.id)))
        elif work.phase is Phase.UP:
            if work.policy.idle_timeout is not None:
                self._do(StopTimer(work.id, Timer("idle", work.id)))
        elif work.phase is Phase.CUT:
            self._do(StopTimer(work.id, Timer("window", work.id)))
        elif work.phase is Phase.STOPPING:
            self._do(StopTimer(work.id, Timer("force", work.id)))

    def _begin_stop(self, work: ModelWork, verdict: Verdict | None) -> None:
        """The worker is to end. Its calls cannot be joined any more: most likely they will not be done."""
        self._leave(work)
        work.phase = Phase.STOPPING
        work.verdict = verdict
        for call in work.running.values():
            take_from_flight(work, call)

    def _give_up(self, work: ModelWork, reason: Reason, message: str) -> None:
        """Wait no longer for this worker: end its process. Its calls fail once the process has ended."""
        if work.phase is Phase.STARTING:
            self._begin_stop(work, None)
            self._fail_start(work, reason, message)
        else:
            self._begin_stop(work, (Stage.FAILED, reason, message))
        self._do(EndWorker(work.id, work.attempt, 0.0))

    def _stop(self, work: ModelWork, event: StopRequested | WorkRemoved) -> None:
        """Calls that wait are stopped at once. The worker ends within the grace period, or by force after it."""
        reason = event.reason if isinstance(event, StopRequested) else None
        work.removed = work.removed or isinstance(event, WorkRemoved)
        work.halted, work.restart = True, False
        for call in [one for one in work.calls.values() if not one.sent]:
            self._settle(work, call, Stage.STOPPED, reason, "stopped before it ran")
        if work.phase is Phase.STOPPING:
            return
        if work.phase is Phase.ABSENT:
            self._gone(work)
            return
        grace, reachable = work.policy.grace, work.phase is Phase.UP
        self._begin_stop(work, (Stage.STOPPED, reason, None))
        self._send(work, SendStop(work.id, grace))
        if not reachable:  # it has no connection, or is about to dial
            self._do(EndWorker(work.id, work.attempt, grace))
        self._start_force(work)

    def _stopping(self, work: ModelWork, event: WorkerStopping) -> None:
        """The worker ends by itself. If it never was up, the calls that waited for it fail."""
        if work.phase is Phase.STARTING:
            message = event.error.message if event.error is not None else "the worker ended before it was ready"
            self._begin_stop(work, None)
            self._fail_start(work, event.reason or Reason.LAUNCH_FAILED, message, event.error)
        else:
            reason = event.reason or Reason.CANCELLED
            self._begin_stop(work, (Stage.STOPPED, reason, "the worker was asked to end"))
        self._start_force(work)

    def _launch_failed(self, work: ModelWork, event: WorkerLaunchFailed) -> None:
        """There is no worker. The calls that waited for it fail."""
        self._leave(work)
        work.phase = Phase.ABSENT
        self._fail_start(work, event.reason, event.message)
        self._gone(work)

    def _exited(self, work: ModelWork, event: WorkerExited | WorkerLaunchFailed) -> None:
        """The worker's calls fail, or are stopped if it was to end. Another worker is launched if calls wait."""
        self._worker_ended(work, event.reason, event.message)

    def _worker_ended(self, work: ModelWork, reason: Reason, message: str) -> None:
        """The worker is absent. A worker that was stopping ends as its verdict says, whatever the reason here."""
        before = work.phase
        self._leave(work)
        work.phase = Phase.ABSENT
        if before is Phase.STARTING:
            self._fail_start(work, Reason.LAUNCH_FAILED, f"the worker ended before it was ready: {message}")
        elif before is not Phase.STOPPING:
            work.verdict = Stage.FAILED, reason, message
        for call in list(work.running.values()):
            self._finish_with_worker(work, call)
        if work.verdict is not None:
            self._publish(work, *work.verdict)
        self._gone(work)

    def _gone(self, work: ModelWork) -> None:
        """The worker is absent: forget the work, or launch a worker if a start or a call waits."""
        # The open starts are answered now. If one was requested since the stop, the next launch answers all of them.
        self._do(WorkerGone(work.id, None if work.restart else work.failure or "it was stopped"))
        work.verdict = work.failure = None
        self._meet(work)
        if work.removed:
            del self._works[work.id]
            self._do(Forget(work.id))
        elif work.restart:
            self._launch(work)
        else:
            self._go_on(work)

    def _nothing(self, work: ModelWork, event: Event) -> None:
        """Nothing."""


class Row(NamedTuple):
    """What follows when an event comes in a phase.

    Attributes:
        answer: The method that handles the event; the first line of its docstring says what happens.
        to: The phases that can follow; None stands for a forgotten work.
    """

    answer: Callable[[Machine, ModelWork, Any], None]
    to: tuple[Phase | None, ...]


_M = Machine
_ABSENT, _STARTING, _UP, _CUT, _STOPPING = Phase
_WITH_CALLS = (_UP, _CUT, _STOPPING)

TABLE: Final[dict[tuple[Phase, type], Row]] = {
    # Requests of the user and the tree.
    **{(phase, WorkAdded): Row(_M._policy_changed, (phase,)) for phase in Phase},
    (_ABSENT, CallSubmitted): Row(_M._submit, (_ABSENT, _STARTING)),
    **{(phase, CallSubmitted): Row(_M._submit, (phase,)) for phase in (_STARTING, *_WITH_CALLS)},
    **{(phase, CancelRequested): Row(_M._cancel, (phase,)) for phase in Phase},
    (_ABSENT, StartRequested): Row(_M._start, (_STARTING,)),
    **{(phase, StartRequested): Row(_M._start, (phase,)) for phase in (_STARTING, *_WITH_CALLS)},
    (_ABSENT, StopRequested): Row(_M._stop, (_ABSENT,)),
    **{(phase, StopRequested): Row(_M._stop, (_STOPPING,)) for phase in (_STARTING, *_WITH_CALLS)},
    (_ABSENT, WorkRemoved): Row(_M._stop, (None,)),
    **{(phase, WorkRemoved): Row(_M._stop, (_STOPPING,)) for phase in (_STARTING, *_WITH_CALLS)},
    # Time.
    (_ABSENT, TimerFired): Row(_M._timer, (_ABSENT, _STARTING)),
    (_STARTING, TimerFired): Row(_M._timer, (_STARTING, _STOPPING)),
    (_UP, TimerFired): Row(_M._timer, (_UP, _STOPPING)),
    (_CUT, TimerFired): Row(_M._timer, (_CUT, _STOPPING)),
    (_STOPPING, TimerFired): Row(_M._timer, (_STOPPING,)),
    # Reports of the runtime. A launch that is stopped before it is done counts as a failed launch.
    (_STARTING, WorkerLaunchFailed): Row(_M._launch_failed, (_ABSENT,)),
    (_STOPPING, WorkerLaunchFailed): Row(_M._exited, (_ABSENT, _STARTING, None)),
    (_STARTING, WorkerExited): Row(_M._exited, (_ABSENT,)),
    (_UP, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING)),
    (_CUT, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING)),
    (_STOPPING, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING, None)),
    # Reports of the link.
    (_STARTING, LinkLost): Row(_M._nothing, (_STARTING,)),
    (_STARTING, LinkRestored): Row(_M._nothing, (_STARTING,)),
    (_UP, LinkLost): Row(_M._cut, (_CUT,)),
    (_CUT, LinkRestored): Row(_M._restored, (_UP,)),
    (_STOPPING, LinkLost): Row(_M._nothing, (_STOPPING,)),
    (_STOPPING, LinkRestored): Row(_M._nothing, (_STOPPING,)),
    # Another scheduler goes on where one was killed.
    **{(phase, SchedulerResumed): Row(_M._resumed, (phase,)) for phase in (_ABSENT, _STARTING, _CUT, _STOPPING)},
    (_UP, SchedulerResumed): Row(_M._resumed, (_CUT,)),
    (_STARTING, WorkerReturned): Row(_M._returned, (_STARTING, _UP)),
    (_CUT, WorkerReturned): Row(_M._returned, (_UP,)),
    (_STOPPING, WorkerReturned): Row(_M._returned, (_STOPPING,)),
    **{(phase, WorkerCaughtUp): Row(_M._caught_up, (phase,)) for phase in (_STARTING, *_WITH_CALLS)},
    (_STARTING, WorkerNeverLaunched): Row(_M._never_launched, (_STARTING,)),
    (_UP, WorkerNeverLaunched): Row(_M._never_launched, (_ABSENT, _STARTING)),
    (_CUT, WorkerNeverLaunched): Row(_M._never_launched, (_ABSENT, _STARTING)),
    (_STOPPING, WorkerNeverLaunched): Row(_M._never_launched, (_ABSENT, _STARTING, None)),
    # Messages of the worker.
    (_STARTING, WorkerReady): Row(_M._ready, (_UP,)),
    (_UP, WorkerReady): Row(_M._ready_again, (_UP,)),
    (_CUT, WorkerReady): Row(_M._ready_again, (_CUT,)),
    (_STOPPING, WorkerReady): Row(_M._ready_too_late, (_STOPPING,)),
    **{(phase, CallRunning): Row(_M._running, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallSucceeded): Row(_M._succeeded, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallFailed): Row(_M._failed, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallCancelled): Row(_M._cancelled, (phase,)) for phase in _WITH_CALLS},
    **{(phase, WorkerStopping): Row(_M._stopping, (_STOPPING,)) for phase in (_STARTING, _UP, _CUT)},
    (_STOPPING, WorkerStopping): Row(_M._nothing, (_STOPPING,)),
}
"""The method that handles each event in each phase of the worker."""

_ANSWERS: Final = {
    phase: {kind: row.answer for (within, kind), row in TABLE.items() if within is phase} for phase in Phase
}
"""The methods of `TABLE` by phase and event. A key of both would have to be made and hashed for each event."""

LATE: Final[frozenset[type]] = frozenset(
    {
        LinkLost,
        LinkRestored,
        WorkerExited,
        WorkerStopping,
        WorkerReturned,
        WorkerCaughtUp,
        WorkerNeverLaunched,
        CallRunning,
        CallSucceeded,
        CallFailed,
        CallCancelled,
    }
)
"""Events that may arrive when the phase in which they matter has passed. Then they change nothing."""

_MAY_BE_UNKNOWN: Final = LATE | {
    TimerFired,
    WorkerLaunchFailed,
    WorkerReady,
    CancelRequested,
    StopRequested,
    WorkRemoved,
}
