"""The rules of the machine that are about calls: queued, joined, answered, sent, ended, tried again, settled.

The part of `lightwork.engine.rules.machine` that its table needs and that no phase of a worker changes. The methods are
called by `Machine` alone.
"""

from __future__ import annotations

import zlib
from typing import Final

from lightwork.engine.rules.events import (
    CallCancelled,
    CallFailed,
    CallRecovered,
    CallRunning,
    CallSubmitted,
    CallSucceeded,
    CancelRequested,
    Command,
    Outcome,
    Policy,
    PublishStatus,
    ResolveSubmit,
    SendCall,
    SendCancel,
    SettleCall,
    StartTimer,
    StopTimer,
    Timer,
)
from lightwork.engine.rules.model import ModelCall, ModelWork, Phase
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, Stage, WorkStatus

__all__ = ["CallRules", "take_from_flight"]

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
"""Reasons after which another try may go better. A value that cannot be encoded will not be next time."""

_FAILED_KEPT: Final = 100

# For the rules of every call: to look up a member of an enum in its class takes CPython 3.11 ten times as long.
_ABSENT, _UP = Phase.ABSENT, Phase.UP
_PENDING, _RUNNING, _SUCCEEDED = Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED


class CallRules:
    """Base of the machine: gives commands, and knows what becomes of calls."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._now = 0.0

    def _launch(self, work: ModelWork) -> None:
        """Have a worker brought up; there is none."""
        raise NotImplementedError

    # --- orders -----------------------------------------------------------------------------------

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _publish(self, work: ModelWork, stage: Stage, reason: Reason | None = None, message: str | None = None) -> None:
        self._do(PublishStatus(work.id, WorkStatus(stage, self._now, reason, message)))

    def _status(
        self, call: ModelCall, stage: Stage, reason: Reason | None = None, message: str | None = None
    ) -> WorkStatus:
        return WorkStatus(stage, self._now, reason, message, 1, call.id, call.attempt)

    def _publish_call(
        self, work: ModelWork, call: ModelCall, stage: Stage, reason: Reason | None = None, message: str | None = None
    ) -> None:
        self._commands.append(PublishStatus(work.id, self._status(call, stage, reason, message), call.hash))

    # --- calls ------------------------------------------------------------------------------------

    def _submit(self, work: ModelWork, event: CallSubmitted) -> None:
        """A call that is in flight is joined, one that has succeeded is answered, any other is queued."""
        joined = work.in_flight.get(event.hash)
        if joined is not None:
            reason = f"joined call {joined.id}, in flight with the same arguments"
            self._do(ResolveSubmit(work.id, event.call, joined.id, reason, hash=event.hash))
            return
        known = work.results.get(event.hash)
        if known is not None:
            earlier, outcome = known
            self._do(ResolveSubmit(work.id, event.call, earlier, _answered_by(earlier), outcome, hash=event.hash))
            return
        call = ModelCall(event.call, event.hash, event.args)
        adopt = ResolveSubmit(
            work.id, call.id, None, _why_new(work, call.hash), None, self._status(call, _PENDING), call.hash
        )
        work.calls[call.id] = call
        work.in_flight[call.hash] = call
        work.queue.append(call)
        if work.phase is _UP:
            self._go_on(work)  # first, so that the worker is at it while the rest is done here
            self._commands.append(adopt)
        else:
            self._commands.append(adopt)
            self._go_on(work)

    def _recover(self, work: ModelWork, event: CallRecovered) -> None:
        """The worker has the call. One that was not known cannot be tried again, since its arguments are not."""
        call = work.calls.get(event.call)
        if call is None:
            call = work.calls[event.call] = ModelCall(event.call, event.hash, b"")
            call.attempt = work.policy.retries + 1
            if work.phase is not Phase.STOPPING:
                work.in_flight.setdefault(call.hash, call)
            self._publish_call(work, call, _PENDING)
        elif call.sent:
            return
        else:
            self._withdraw(work, call)
        call.sent = True
        work.running[call.id] = call

    def _go_on(self, work: ModelWork) -> None:
        """Do what the queue asks for, where the worker stands."""
        if work.phase is _UP:
            while work.queue and len(work.running) < work.policy.concurrency and (call := self._next(work)) is not None:
                work.queue.popleft()
                call.sent = True
                work.running[call.id] = call
                self._commands.append(SendCall(work.id, call.id, call.args, call.hash))
            if work.policy.idle_timeout is not None:
                self._mind_idle(work)
        elif work.phase is _ABSENT and self._next(work) is not None:
            self._launch(work)

    def _mind_idle(self, work: ModelWork) -> None:
        """A worker that is up and has no call, not even one that waits to be tried again, has its time for that."""
        if work.phase is _UP and work.policy.idle_timeout is not None:
            timer = Timer("idle", work.id)
            if work.calls:
                self._do(StopTimer(work.id, timer))
            else:
                self._do(StartTimer(work.id, timer, work.policy.idle_timeout))

    def _next(self, work: ModelWork) -> ModelCall | None:
        """The first call of the queue that has to run.

        Before it there may be some whose answer is known by now: they were queued because the earlier call had been
        asked to end, and then its result came all the same.
        """
        while work.queue:
            call = work.queue[0]
            known = work.results.get(call.hash)
            if known is None:
                return call
            earlier, outcome = known
            self._settle(work, call, _SUCCEEDED, None, _answered_by(earlier), value=outcome.value)
        return None

    def _settle(
        self, work: ModelWork, call: ModelCall, stage: Stage, reason: Reason | None = None, message: str | None = None,
        *, value: bytes | None = None, error: ErrorInfo | None = None, swallowed: bool = False,
        ran: WorkStatus | None = None,
    ) -> None:  # fmt: skip
        """The call is over."""
        outcome = Outcome(self._status(call, stage, reason, message), value, error, swallowed)
        self._withdraw(work, call)
        del work.calls[call.id]
        take_from_flight(work, call)
        if stage is _SUCCEEDED:
            if work.failed:
                work.failed.pop(call.hash, None)
            if work.policy.cache_calls:
                work.results.setdefault(call.hash, (call.id, outcome))
        else:
            work.failed[call.hash] = call.id
            if len(work.failed) > _FAILED_KEPT:
                work.failed.popitem(last=False)
        self._commands.append(SettleCall(work.id, call.id, outcome, call.hash, ran))

    def _withdraw(self, work: ModelWork, call: ModelCall) -> None:
        """Take a call from its worker, from the queue, or from its delay, with its timers."""
        if call.delayed:
            call.delayed = False
            self._do(StopTimer(work.id, Timer("retry", work.id, call.id)))
        elif call.sent:
            call.sent = False
            del work.running[call.id]
            if work.policy.timeout is not None:
                self._do(StopTimer(work.id, Timer("timeout", work.id, call.id)))
            if call.ending is not None:
                call.ending = None
                self._do(StopTimer(work.id, Timer("cancel", work.id, call.id)))
        else:
            work.queue.remove(call)

    def _fail(
        self, work: ModelWork, call: ModelCall, reason: Reason, message: str | None, error: ErrorInfo | None = None,
        swallowed: bool = False,
    ) -> None:  # fmt: skip
        """A try came to nothing: try again if that is allowed, else settle."""
        if swallowed or not _may_retry(work, call, reason):
            self._settle(work, call, Stage.FAILED, reason, message, error=error, swallowed=swallowed)
            return
        self._withdraw(work, call)
        work.in_flight.setdefault(call.hash, call)
        call.attempt += 1
        call.ran = False
        call.delayed = True
        self._publish_call(work, call, _PENDING, reason, message)
        self._do(StartTimer(work.id, Timer("retry", work.id, call.id), _delay(work.policy, call)))

    def _end(self, work: ModelWork, call: ModelCall, reason: Reason) -> None:
        """A call that the worker has must end."""
        call.ending = reason
        take_from_flight(work, call)
        if work.phase is not Phase.STOPPING:  # there it cancels every call by itself
            self._do(SendCancel(work.id, call.id))
        self._do(StartTimer(work.id, Timer("cancel", work.id, call.id), work.policy.grace))

    def _finish_ended(self, work: ModelWork, call: ModelCall) -> None:
        """A call whose end was asked for has ended."""
        if call.ending is Reason.TIMEOUT:
            self._fail(work, call, Reason.TIMEOUT, f"the run took longer than {work.policy.timeout:g} s")
        else:
            self._settle(work, call, Stage.STOPPED, call.ending)

    def _finish_with_worker(self, work: ModelWork, call: ModelCall) -> None:
        """A call has ended because its worker does."""
        if call.ending is not None:
            self._finish_ended(work, call)
            return
        assert work.verdict is not None
        stage, reason, message = work.verdict
        if reason is not None and (stage is Stage.FAILED or _may_retry(work, call, reason)):
            self._fail(work, call, reason, message)
        else:
            self._settle(work, call, Stage.STOPPED, reason, message)

    def _cancel(self, work: ModelWork, event: CancelRequested) -> None:
        """A call that waits is stopped at once; one that the worker has is ended, within the grace period."""
        call = work.calls.get(event.call)
        if call is None:
            return
        if not call.sent:
            self._settle(work, call, Stage.STOPPED, Reason.CANCELLED, "cancelled before it ran")
            self._mind_idle(work)
        elif call.ending is not None:
            call.ending = Reason.CANCELLED
        else:
            self._end(work, call, Reason.CANCELLED)

    def _running(self, work: ModelWork, event: CallRunning) -> None:
        """The call is running, and its timeout counts from now."""
        call = work.running.get(event.call)
        if call is None:
            return
        self._has_run(work, call)
        if work.policy.timeout is not None and call.ending is None:
            self._do(StartTimer(work.id, Timer("timeout", work.id, call.id), work.policy.timeout))

    def _has_run(self, work: ModelWork, call: ModelCall) -> None:
        """The worker says that it runs, or what came of it: of a run that is over at once that says both."""
        if not call.ran:
            call.ran = True
            self._publish_call(work, call, _RUNNING)

    def _succeeded(self, work: ModelWork, event: CallSucceeded) -> None:
        """The call has succeeded, whatever was asked of it meanwhile."""
        call = work.running.get(event.call)
        if call is not None:
            ran = None if call.ran else self._status(call, _RUNNING)
            self._settle(work, call, _SUCCEEDED, value=event.value, ran=ran)
            self._go_on(work)

    def _failed(self, work: ModelWork, event: CallFailed) -> None:
        """The call is tried again if a try is left and nobody asked for its end, else it has failed."""
        call = work.running.get(event.call)
        if call is not None:
            self._has_run(work, call)
            self._fail(work, call, event.reason, event.error.message, event.error, event.swallowed)
            self._go_on(work)

    def _cancelled(self, work: ModelWork, event: CallCancelled) -> None:
        """The call has ended for the reason for which its end was asked, or by itself."""
        call = work.running.get(event.call)
        if call is None:
            return
        if call.ending is not None:
            self._finish_ended(work, call)
        elif work.phase is Phase.STOPPING:
            self._finish_with_worker(work, call)
        else:
            self._settle(work, call, Stage.STOPPED, Reason.CANCELLED)
        self._go_on(work)


def take_from_flight(work: ModelWork, call: ModelCall) -> None:
    """Let no other call join this one."""
    if work.in_flight.get(call.hash) is call:
        del work.in_flight[call.hash]


def _may_retry(work: ModelWork, call: ModelCall, reason: Reason) -> bool:
    """Whether a call that came to nothing for this reason is tried again."""
    wanted = not work.halted and call.ending is not Reason.CANCELLED
    return wanted and reason in _RETRIED and call.attempt <= work.policy.retries


def _delay(policy: Policy, call: ModelCall) -> float:
    """Seconds before the present retry: doubled each time, jittered by a number that is the call's own."""
    jitter = zlib.crc32(f"{call.id}/{call.attempt}".encode()) / 2**32
    return float(policy.retry_delay * 2 ** min(call.attempt - 2, 20) * (0.5 + jitter / 2))


def _answered_by(earlier: int) -> str:
    return f"answered by call {earlier}, which succeeded with the same arguments"


def _why_new(work: ModelWork, hash: str) -> str:
    if not work.policy.cache_calls:
        return "runs: cache_calls is False"
    failed = work.failed.get(hash)
    if failed is not None:
        return f"runs: call {failed} with the same arguments did not succeed"
    return "runs: no call with these arguments has succeeded"
