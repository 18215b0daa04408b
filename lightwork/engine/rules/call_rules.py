"""The rules for calls: how they are queued, joined, answered, sent, cancelled, tried again and settled.

This is the part of `lightwork.engine.rules.machine` that changes no phase of a worker. `Machine` alone calls the
methods.
"""

from __future__ import annotations

import zlib
from typing import Final

from lightwork.engine.rules.events import (
    CallCancelled,
    CallFailed,
    CallRunning,
    CallSubmitted,
    CallSucceeded,
    CancelRequested,
    Command,
    Outcome,
    Policy,
    PublishStatus,
    ResolveSubmit,
    RestoreCall,
    SendCall,
    SendCancel,
    SendStop,
    SettleCall,
    StartTimer,
    StopTimer,
    Timer,
)
from lightwork.engine.rules.model import Contact, ModelCall, ModelWork, Phase
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
"""Reasons after which another try may succeed. A value that cannot be encoded will fail again."""

_FAILED_KEPT: Final = 100

# Constants for the rules that each call passes: CPython 3.11 takes ten times as long to look up a member of an enum.
_ABSENT, _UP = Phase.ABSENT, Phase.UP
_LIVE = Contact.LIVE
_PENDING, _RUNNING, _SUCCEEDED = Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED


class CallRules:
    """Base of the machine: collects its commands and holds the rules for calls."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._now = 0.0

    def _launch(self, work: ModelWork) -> None:
        """Launch a worker; there is none."""
        raise NotImplementedError

    # --- commands ---------------------------------------------------------------------------------

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _send(self, work: ModelWork, command: SendCall | SendCancel | SendStop) -> None:
        """Send to a worker in contact. What is not sent here and is in force later, `_reconcile` sends."""
        if work.contact is _LIVE:
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
        if call.id not in work.over:
            self._commands.append(PublishStatus(work.id, self._status(call, stage, reason, message), call.hash))

    # --- calls ------------------------------------------------------------------------------------

    def _submit(self, work: ModelWork, event: CallSubmitted) -> None:
        """The call joins one in flight, or an earlier success answers it, or it is queued."""
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
            self._go_on(work)  # first, so that the worker runs the call while the rest is done here
            self._commands.append(adopt)
        else:
            self._commands.append(adopt)
            self._go_on(work)

    # --- calls of a killed scheduler --------------------------------------------------------------

    def _recover(self, work: ModelWork, number: int, hash: str) -> None:
        """The worker has this call, whatever the books say."""
        call = work.calls.get(number)
        if call is None:
            call = work.calls[number] = ModelCall(number, hash, b"")
            if number in work.over:
                self._enter_running(work, call)
                self._end(work, call, Reason.CANCELLED)
                return
            self._do(RestoreCall(work.id, number, hash))
            self._publish_call(work, call, _PENDING)
            if work.phase is not Phase.STOPPING:
                work.in_flight.setdefault(hash, call)
        elif call.sent:
            return
        else:
            self._withdraw(work, call)
            if work.phase is Phase.STOPPING:
                take_from_flight(work, call)
        self._enter_running(work, call)

    def _enter_running(self, work: ModelWork, call: ModelCall) -> None:
        call.sent = True
        work.running[call.id] = call

    def _reconcile(self, work: ModelWork, there: frozenset[int]) -> None:
        """Bring the worker, which has the calls `there`, to what the books say."""
        for call in list(work.running.values()):
            if call.id in there:
                if call.ending is not None:
                    self._do(SendCancel(work.id, call.id))
            elif call.ending is not None:
                self._finish_ended(work, call)
            elif (known := work.results.get(call.hash)) is not None:
                self._answer(work, call, *known)
            else:
                self._do(SendCall(work.id, call.id, call.args, call.hash))

    # --- the queue and the ends -------------------------------------------------------------------

    def _go_on(self, work: ModelWork) -> None:
        """Send the next calls to a worker that is up, or launch a worker for them."""
        if work.phase is _UP:
            while work.queue and len(work.running) < work.policy.concurrency and (call := self._next(work)) is not None:
                work.queue.popleft()
                call.sent = True
                work.running[call.id] = call
                if work.contact is _LIVE:  # as `_send` does, without the price of a method for each call
                    self._commands.append(SendCall(work.id, call.id, call.args, call.hash))
            if work.policy.idle_timeout is not None:
                self._mind_idle(work)
        elif work.phase is _ABSENT and self._next(work) is not None:
            self._launch(work)

    def _mind_idle(self, work: ModelWork) -> None:
        """Start the time of a worker that is up and has no call, not even a delayed one; with a call, stop it."""
        if work.phase is _UP and work.policy.idle_timeout is not None:
            timer = Timer("idle", work.id)
            if work.calls:
                self._do(StopTimer(work.id, timer))
            else:
                self._do(StartTimer(work.id, timer, work.policy.idle_timeout))

    def _next(self, work: ModelWork) -> ModelCall | None:
        """Return the first call of the queue that has to run.

        Settle the calls before it whose result is known by now. They were queued because the earlier call was being
        cancelled, and then that call succeeded all the same.
        """
        while work.queue:
            call = work.queue[0]
            known = work.results.get(call.hash)
            if known is None:
                return call
            self._answer(work, call, *known)
        return None

    def _answer(self, work: ModelWork, call: ModelCall, earlier: int, outcome: Outcome) -> None:
        """An earlier call with the same arguments has succeeded: its result is the result of this one."""
        self._settle(work, call, _SUCCEEDED, None, _answered_by(earlier), value=outcome.value)

    def _settle(
        self, work: ModelWork, call: ModelCall, stage: Stage, reason: Reason | None = None, message: str | None = None,
        *, value: bytes | None = None, error: ErrorInfo | None = None, swallowed: bool = False,
        ran: WorkStatus | None = None,
    ) -> None:  # fmt: skip
        """End the call. If its end was published while the worker was away, only a success is kept."""
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
        if call.id not in work.over:
            self._commands.append(SettleCall(work.id, call.id, outcome, call.hash, ran))
            if work.contact is Contact.AWAY:
                work.over.add(call.id)

    def _withdraw(self, work: ModelWork, call: ModelCall) -> None:
        """Take a call from its worker, from the queue, or from its delay. Stop its timers."""
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
        """End a try that failed: try again if that is allowed, otherwise settle the call."""
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
        """Cancel a call that the worker has."""
        call.ending = reason
        take_from_flight(work, call)
        if work.phase is not Phase.STOPPING:  # a worker that stops cancels every call by itself
            self._send(work, SendCancel(work.id, call.id))
        self._do(StartTimer(work.id, Timer("cancel", work.id, call.id), work.policy.grace))

    def _finish_ended(self, work: ModelWork, call: ModelCall) -> None:
        """A call that was told to end has ended."""
        if call.ending is Reason.TIMEOUT:
            limit = work.policy.timeout
            message = "the run took too long" if limit is None else f"the run took longer than {limit:g} s"
            self._fail(work, call, Reason.TIMEOUT, message)
        else:
            self._settle(work, call, Stage.STOPPED, call.ending)

    def _finish_with_worker(self, work: ModelWork, call: ModelCall) -> None:
        """A call has ended because its worker ends."""
        if call.ending is not None:
            self._finish_ended(work, call)
            return
        # Without a verdict the worker never became ready, and a call that it has was recovered later.
        stage, reason, message = work.verdict or (Stage.FAILED, Reason.LAUNCH_FAILED, work.failure)
        if reason is not None and (stage is Stage.FAILED or _may_retry(work, call, reason)):
            self._fail(work, call, reason, message)
        else:
            self._settle(work, call, Stage.STOPPED, reason, message)

    def _cancel(self, work: ModelWork, event: CancelRequested) -> None:
        """A call that waits is stopped at once. A call that the worker has is cancelled, within the grace period."""
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
        """Publish once that the try runs. Its end says so, too, if it is the first thing that the worker says."""
        if not call.ran:
            call.ran = True
            self._publish_call(work, call, _RUNNING)

    def _succeeded(self, work: ModelWork, event: CallSucceeded) -> None:
        """The call has succeeded, even if it was told to end meanwhile."""
        call = work.running.get(event.call)
        if call is not None:
            ran = None if call.ran else self._status(call, _RUNNING)
            self._settle(work, call, _SUCCEEDED, value=event.value, ran=ran)
            self._go_on(work)

    def _failed(self, work: ModelWork, event: CallFailed) -> None:
        """The call is tried again if a try is left and nobody cancelled it; otherwise it has failed."""
        call = work.running.get(event.call)
        if call is not None:
            self._has_run(work, call)
            self._fail(work, call, event.reason, event.error.message, event.error, event.swallowed)
            self._go_on(work)

    def _cancelled(self, work: ModelWork, event: CallCancelled) -> None:
        """The call has ended for the reason for which it was told to end, or by itself."""
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
    """Let no later call join this one."""
    if work.in_flight.get(call.hash) is call:
        del work.in_flight[call.hash]


def _may_retry(work: ModelWork, call: ModelCall, reason: Reason) -> bool:
    """Whether a call whose try failed for this reason is tried again."""
    wanted = not work.halted and call.ending is not Reason.CANCELLED and call.args != b""
    return wanted and reason in _RETRIED and call.attempt <= work.policy.retries


def _delay(policy: Policy, call: ModelCall) -> float:
    """Seconds before the present retry: doubled each time, with a jitter that depends on the call and its attempt."""
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
