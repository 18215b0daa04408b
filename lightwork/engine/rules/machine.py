"""Every life-cycle rule: what happens to works and calls, decided without a clock, a socket or a task.

`Machine.handle` takes one event and gives the commands it leads to. `TABLE` says which events are expected
in which phase of a worker, what answers them, and which phases they can lead to; docs/lifecycle.md is drawn
from it. An event that is not in the table, and is neither late (`LATE`) nor about a work that is forgotten,
is a bug of ours and raises `MachineError` with the recent story.

Not here: values of arguments and results (opaque bytes), state and its deltas (`lightwork.engine.workers.replica`),
and connections (`lightwork.link`), which only report that they were lost or restored.

The phases of a worker::

    absent -> starting -> up -> stopping -> absent
                 |        |  ^      ^
                 |        v  |      |
                 |        cut ------+
                 +------------------+

A worker may end in every phase; what waits for one then has the next one launched.

A call goes from pending over running to exactly one of succeeded, failed, stopped; a retry takes it back
to pending. Asked to cancel but not yet cancelled (`ModelCall.ending`) is a state of its own: the first of the
worker's answer, the worker's end and the end of the grace period settles it, and a result that arrives
in that state counts, since the work was done. So does one that arrives while the worker is stopping.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, assert_never

from lightwork.engine.rules.call_rules import CallRules, take_from_flight
from lightwork.engine.rules.events import (
    CallCancelled,
    CallFailed,
    CallRecovered,
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
    SendStop,
    StartRequested,
    StartTimer,
    StopRequested,
    StopTimer,
    Timer,
    TimerFired,
    WorkAdded,
    WorkerExited,
    WorkerGone,
    WorkerLaunchFailed,
    WorkerReady,
    WorkerStopping,
    WorkerUp,
    WorkRemoved,
)
from lightwork.engine.rules.model import ModelCall, ModelWork, Phase, Verdict
from lightwork.errors import LightworkError
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, Stage

__all__ = ["LATE", "TABLE", "Machine", "MachineError", "Phase", "Row"]


class MachineError(LightworkError):
    """An event came in a phase in which it cannot: a bug of lightwork. The message has the recent story."""


_STORY_LENGTH: Final = 60
_FORCE_MARGIN: Final = 1.0
"""Seconds beyond its grace period that a worker has to say that it has ended: it needs the whole of its grace."""


class Machine(CallRules):
    """Decides. One for each app; single-threaded; `now` never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self._works: dict[int, ModelWork] = {}
        self._story: deque[tuple[float, str, Phase, int, type, int | None]] = deque(maxlen=_STORY_LENGTH)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in an event; give the commands to carry out, in order.

        What is late, because it comes from an attempt that is over or is about a work that is forgotten, leads
        to nothing.

        Args:
            event: What happened.
            now: Seconds since the epoch by the scheduler's clock.

        Raises:
            MachineError: The event is impossible where the work stands. Nothing was changed.
        """
        self._now = now
        kind = type(event)
        work = self._works.get(event.work)
        if work is None or kind is WorkAdded:
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
        """The event is about a work that is forgotten, or makes one known."""
        if isinstance(event, WorkAdded):
            self._add(event)
        elif type(event) not in _MAY_BE_UNKNOWN:
            raise MachineError(f"{event!r} is about a work that is not known")

    def _add(self, event: WorkAdded) -> None:
        """A work that a killed scheduler knew is known already, and is made by code that may say something else now."""
        known = self._works.get(event.work)
        if known is None:
            self._works[event.work] = ModelWork(event.work, event.name, event.policy)
            return
        known.policy = event.policy
        if not event.policy.cache_calls:
            known.results.clear()

    # --- for tests, statistics and the journal ----------------------------------------------------

    def works(self) -> list[ModelWork]:
        """Every work that is not forgotten. Look, and change nothing."""
        return list(self._works.values())

    def work(self, number: int) -> ModelWork:
        """One of them. Raises `KeyError` for a work that is forgotten."""
        return self._works[number]

    def restore(self, works: Iterable[ModelWork]) -> None:
        """Know these, and no others."""
        self._works = {work.id: work for work in works}

    def phase(self, work: int) -> Phase:
        """Where a work's worker stands. Raises `KeyError` for a work that is forgotten."""
        return self._works[work].phase

    @property
    def is_idle(self) -> bool:
        """Whether no worker is there or on its way, and no call waits."""
        return all(one.phase is Phase.ABSENT and not one.calls for one in self._works.values())

    def story(self) -> list[str]:
        """The latest events, oldest first, a line each: when, which work, where it stood, what came."""
        return [
            f"{now:.3f} {name} {phase} #{attempt}: {event.__name__}" + ("" if call is None else f" of call {call}")
            for now, name, phase, attempt, event, call in self._story
        ]

    def _impossible(self, work: ModelWork, event: Event, why: str) -> MachineError:
        story = "\n".join(self.story())
        return MachineError(f"{event!r} cannot come for {work.name} {why}\nthe story so far:\n{story}")

    # --- timers -----------------------------------------------------------------------------------

    def _timer(self, work: ModelWork, event: TimerFired) -> None:
        """What the timer was for happens, if it still can: see `lightwork.engine.rules.events.Timer`."""
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
        """The worker has had nothing to do for too long. It is not stopped for good: the next call launches another."""
        message = f"no call for {work.policy.idle_timeout:g} s (idle_timeout)"
        self._begin_stop(work, (Stage.STOPPED, None, message))
        self._do(SendStop(work.id, work.policy.grace))
        self._do(StartTimer(work.id, Timer("force", work.id), work.policy.grace + _FORCE_MARGIN))

    def _force(self, work: ModelWork, culprit: ModelCall) -> None:
        """End the process of a call that ignores its cancellation; other calls in it are lost with it."""
        if work.phase is not Phase.STOPPING:
            lost = f"its worker had to be ended, since call {culprit.id} ignored its cancellation"
            for call in [one for one in work.running.values() if one.ending is None]:
                self._fail(work, call, Reason.CRASHED, lost)
            self._begin_stop(work, (Stage.STOPPED, Reason.CANCELLED, f"call {culprit.id} ignored its cancellation"))
        self._do(EndWorker(work.id, work.attempt, 0.0))

    # --- the worker comes up ----------------------------------------------------------------------

    def _launch(self, work: ModelWork) -> None:
        work.attempt += 1
        work.phase = Phase.STARTING
        work.verdict = work.failure = None
        work.halted = work.restart = False
        self._do(LaunchWorker(work.id, work.attempt))
        self._do(StartTimer(work.id, Timer("launch", work.id), work.policy.launch_timeout))

    def _start(self, work: ModelWork, event: StartRequested) -> None:
        """A worker is launched, or will be once the present one has stopped; one that is there is enough."""
        if work.phase is Phase.ABSENT:
            self._launch(work)
        elif work.phase is Phase.STOPPING:
            work.restart = not work.removed
        elif work.phase is not Phase.STARTING:
            self._do(WorkerUp(work.id))

    def _ready(self, work: ModelWork, event: WorkerReady) -> None:
        """The worker is up, and gets what is queued."""
        self._leave(work)
        work.phase = Phase.UP
        self._publish(work, Stage.STARTED)
        self._do(WorkerUp(work.id))
        self._go_on(work)

    def _ready_too_late(self, work: ModelWork, event: WorkerReady) -> None:
        """The worker is told to end: until now it could be asked only by its runtime, which may know no way to ask."""
        self._do(SendStop(work.id, work.policy.grace))

    def _fail_start(self, work: ModelWork, reason: Reason, message: str, error: ErrorInfo | None = None) -> None:
        """No worker came up: whatever waited for it fails."""
        work.failure = message
        self._publish(work, Stage.FAILED, reason, message)
        for call in list(work.queue):
            self._fail(work, call, reason, message, error)

    def _cut(self, work: ModelWork, event: LinkLost) -> None:
        """The worker has the reconnect window to come back."""
        self._leave(work)
        work.phase = Phase.CUT
        self._do(StartTimer(work.id, Timer("window", work.id), work.policy.reconnect_window))

    def _restored(self, work: ModelWork, event: LinkRestored) -> None:
        """The worker is back, with everything that it had."""
        self._leave(work)
        work.phase = Phase.UP
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
        """From now on the worker is to end. What it still has cannot be joined: it will most likely not be done."""
        self._leave(work)
        work.phase = Phase.STOPPING
        work.verdict = verdict
        for call in work.running.values():
            take_from_flight(work, call)

    def _give_up(self, work: ModelWork, reason: Reason, message: str) -> None:
        """Do not wait for this worker any longer; its process is ended, and its calls fail once it is."""
        if work.phase is Phase.STARTING:
            self._begin_stop(work, None)
            self._fail_start(work, reason, message)
        else:
            self._begin_stop(work, (Stage.FAILED, reason, message))
        self._do(EndWorker(work.id, work.attempt, 0.0))

    def _stop(self, work: ModelWork, event: StopRequested | WorkRemoved) -> None:
        """Calls that wait are stopped at once; the worker ends within the grace period, or by force after it."""
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
        self._do(SendStop(work.id, grace))
        if not reachable:  # it may have no connection, or be about to dial
            self._do(EndWorker(work.id, work.attempt, grace))
        self._do(StartTimer(work.id, Timer("force", work.id), grace + _FORCE_MARGIN))

    def _stopping(self, work: ModelWork, event: WorkerStopping) -> None:
        """The worker ends by itself; if it never was up, what waited for it fails."""
        if work.phase is Phase.STARTING:
            message = event.error.message if event.error is not None else "the worker ended before it was ready"
            self._begin_stop(work, None)
            self._fail_start(work, event.reason or Reason.LAUNCH_FAILED, message, event.error)
        else:
            reason = event.reason or Reason.CANCELLED
            self._begin_stop(work, (Stage.STOPPED, reason, "the worker was asked to end"))
        self._do(StartTimer(work.id, Timer("force", work.id), work.policy.grace + _FORCE_MARGIN))

    def _launch_failed(self, work: ModelWork, event: WorkerLaunchFailed) -> None:
        """There is no worker; what waited for it fails."""
        self._leave(work)
        work.phase = Phase.ABSENT
        self._fail_start(work, event.reason, event.message)
        self._gone(work)

    def _exited(self, work: ModelWork, event: WorkerExited | WorkerLaunchFailed) -> None:
        """The calls that the worker had fail, or are stopped if it was to end; another is launched if some wait."""
        before = work.phase
        self._leave(work)
        work.phase = Phase.ABSENT
        if before is Phase.STARTING:
            self._fail_start(work, Reason.LAUNCH_FAILED, f"the worker ended before it was ready: {event.message}")
        elif before is not Phase.STOPPING:
            work.verdict = Stage.FAILED, event.reason, event.message
        for call in list(work.running.values()):
            self._finish_with_worker(work, call)
        if work.verdict is not None:
            self._publish(work, *work.verdict)
        self._gone(work)

    def _gone(self, work: ModelWork) -> None:
        """The worker is absent: forget the work, or start it again if something waits."""
        # Starts that were asked for before are answered now, unless one was asked for since: the next launch is theirs.
        self._do(WorkerGone(work.id, None if work.restart else work.failure or "it was stopped"))
        work.verdict = work.failure = None
        if work.removed:
            del self._works[work.id]
            self._do(Forget(work.id))
        elif work.restart:
            self._launch(work)
        else:
            self._go_on(work)

    def _nothing(self, work: ModelWork, event: Event) -> None:
        """Nothing: it is expected and changes nothing."""


class Row(NamedTuple):
    """What follows when an event comes in a phase.

    Attributes:
        answer: Decides; the first line of its docstring says what happens.
        to: The phases that the worker may be in after it; None stands for a work that is forgotten.
    """

    answer: Callable[[Machine, ModelWork, Any], None]
    to: tuple[Phase | None, ...]


_M = Machine
_ABSENT, _STARTING, _UP, _CUT, _STOPPING = Phase
_WITH_CALLS = (_UP, _CUT, _STOPPING)

TABLE: Final[dict[tuple[Phase, type], Row]] = {
    # Orders of the user's.
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
    # What the runtime says. A launch that is stopped before it is done counts as one that failed.
    (_STARTING, WorkerLaunchFailed): Row(_M._launch_failed, (_ABSENT,)),
    (_STOPPING, WorkerLaunchFailed): Row(_M._exited, (_ABSENT, _STARTING, None)),
    (_STARTING, WorkerExited): Row(_M._exited, (_ABSENT,)),
    (_UP, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING)),
    (_CUT, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING)),
    (_STOPPING, WorkerExited): Row(_M._exited, (_ABSENT, _STARTING, None)),
    # What the link says.
    (_STARTING, LinkLost): Row(_M._nothing, (_STARTING,)),
    (_STARTING, LinkRestored): Row(_M._nothing, (_STARTING,)),
    (_UP, LinkLost): Row(_M._cut, (_CUT,)),
    (_CUT, LinkRestored): Row(_M._restored, (_UP,)),
    (_STOPPING, LinkLost): Row(_M._nothing, (_STOPPING,)),
    (_STOPPING, LinkRestored): Row(_M._nothing, (_STOPPING,)),
    # What the worker says.
    (_STARTING, WorkerReady): Row(_M._ready, (_UP,)),
    (_STOPPING, WorkerReady): Row(_M._ready_too_late, (_STOPPING,)),
    **{(phase, CallRunning): Row(_M._running, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallSucceeded): Row(_M._succeeded, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallRecovered): Row(_M._recover, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallFailed): Row(_M._failed, (phase,)) for phase in _WITH_CALLS},
    **{(phase, CallCancelled): Row(_M._cancelled, (phase,)) for phase in _WITH_CALLS},
    **{(phase, WorkerStopping): Row(_M._stopping, (_STOPPING,)) for phase in (_STARTING, _UP, _CUT)},
    (_STOPPING, WorkerStopping): Row(_M._nothing, (_STOPPING,)),
}
"""What answers which event in which phase of the worker."""

_ANSWERS: Final = {
    phase: {kind: row.answer for (within, kind), row in TABLE.items() if within is phase} for phase in Phase
}
"""The answers of `TABLE` by phase and event: a pair of both would have to be made and hashed for each event."""

LATE: Final[frozenset[type]] = frozenset(
    {
        LinkLost,
        LinkRestored,
        WorkerExited,
        WorkerStopping,
        CallRunning,
        CallSucceeded,
        CallFailed,
        CallCancelled,
        CallRecovered,
    }
)
"""Facts that may still arrive when the phase in which they matter is over, and then lead to nothing."""

_MAY_BE_UNKNOWN: Final = LATE | {
    TimerFired,
    WorkerLaunchFailed,
    WorkerReady,
    CancelRequested,
    StopRequested,
    WorkRemoved,
}
