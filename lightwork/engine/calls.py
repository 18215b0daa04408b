"""The calls of an app as callers see them: from the arguments to the `Call`, and from the outcome to its value."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

from lightwork.components.call import Call, Queued
from lightwork.components.driver import Driver, PassEnded
from lightwork.components.work import Work
from lightwork.engine.core import Core
from lightwork.engine.flow.pass_calls import PassCalls
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.events import Outcome
from lightwork.engine.workers.entries import Entries, WorkEntry
from lightwork.errors import (
    ArgumentsError,
    CallStopped,
    CallTimeout,
    InvalidReturnValue,
    LaunchFailed,
    WorkerDied,
    WorkError,
)
from lightwork.remote_errors import rebuild_error
from lightwork.status import Reason, Stage, WorkStatus

__all__ = ["CallRegistry", "call_error", "decode_value"]

_ROOM = 1024
"""Bytes of a frame that are reserved for the fields around the arguments."""


class CallRegistry:
    """Every call that has not ended.

    Args:
        core: Takes the calls as events.
        entries: The works that are called.
        driver: The driver that a `Call` uses.
        schedule_fired: Whether a schedule is true in the present pass. A plain pass then waits at its calls.

    Attributes:
        passes: Number of passes of the flow that have begun.
        pass_calls: The calls of plain passes.
    """

    def __init__(self, core: Core, entries: Entries, driver: Driver, schedule_fired: Callable[[], bool]) -> None:
        self._core = core
        self._entries = entries
        self._driver = driver
        self._calls: dict[int, Call[Any]] = {}
        self._resolved: Call[Any] | None = None
        # Failed calls that somebody still holds, with the pass in which they failed.
        self._failed: dict[int, tuple[int, weakref.ref[Call[Any]]]] = {}
        self.passes = 0
        self.pass_calls: PassCalls = PassCalls()
        self._schedule_fired = schedule_fired

    # --- submitting -------------------------------------------------------------------------------

    def run(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Driver.run`."""
        thread, core = threading.get_ident(), self._core
        if thread == core.pass_thread:
            return self._run_in_plain_pass(work, args, kwargs)
        call = self._submit(work, args, kwargs) if thread == core.thread else self.submit(work, args, kwargs)
        return Queued(call) if call._parallel else call

    def submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """See `Driver.submit`."""
        return self._core.in_loop(lambda: self._submit(work, args, kwargs))

    def _submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """`submit` in the loop's thread."""
        core = self._core
        entry = self._entries.of(work)
        data, hash = work._signature.bind(args, kwargs)
        if len(data) > core.config.max_frame - _ROOM:
            raise ArgumentsError(
                f"the arguments of {type(work).__name__}.run are {len(data):,} bytes; a call takes at most max_frame, "
                f"{core.config.max_frame:,} bytes. Pass the path of a file, or raise max_frame in the configuration"
            )
        if not work._cache_calls and self._driver.in_pass():
            answered = self._repeat(entry, hash)
            if answered is not None:
                return answered
        core.feed(ev.CallSubmitted(entry.id, core.journal.next_call(), hash, data))
        call, self._resolved = self._resolved, None
        assert call is not None  # the machine answers every submitted call with a `ResolveSubmit`
        return call

    def _make(self, entry: WorkEntry, number: int, hash: str) -> Call[Any]:
        return Call(self._driver, self._core.loop, number, entry.id, entry.name, hash, entry.work._parallel)

    def _run_in_plain_pass(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call in a plain pass, or end the pass where there is no result yet."""
        entry = self._entries.of(work)
        schedule_fired = self._schedule_fired()
        call = self.pass_calls.recall(entry.id, work._signature.bind(args, kwargs)[1], schedule_fired=schedule_fired)
        if call is None:
            call = self.submit(work, args, kwargs)
            self.pass_calls.remember(entry.id, call, is_cached=work._cache_calls, schedule_fired=schedule_fired)
        if work._parallel:
            return call
        if not call.done and schedule_fired:
            self._core.wait_in_pass(call)
        if call.done:
            return call.result()
        raise PassEnded

    # --- after a killed scheduler -----------------------------------------------------------------

    def _repeat(self, entry: WorkEntry, hash: str) -> Call[Any] | None:
        """Answer a call of a work that caches nothing from a success of the interrupted run; None to make it."""
        found = self._core.journal.recall(entry.id, hash)
        if found is None or found[1].value is None:
            return None
        number, outcome = found
        return self._answered(
            entry, number, hash, outcome, f"answered by call {number} of the run that was interrupted"
        )

    def _answered(self, entry: WorkEntry, number: int, hash: str, outcome: ev.Outcome, reason: str) -> Call[Any]:
        """Make a call that has succeeded without running."""
        assert outcome.value is not None
        call = self._make(entry, number, hash)
        call.cached = True
        call.cache_reason = reason
        self._succeed(entry, call, outcome, outcome.value)
        return call

    def restore(self, entry: WorkEntry, number: int, hash: str) -> None:
        """Make the `Call` of a call that a killed scheduler has sent and that has not ended. The flow may join it."""
        if entry.is_missing:
            return  # the flow has not made the work again, so nobody can join
        call = self._make(entry, number, hash)
        status = entry.work._status_history.calls.get(hash)
        call.status = status if status is not None and status.call == number else WorkStatus(Stage.PENDING, 0.0)
        call._interest = 0
        call._retrieved = True  # until somebody joins it
        self._calls[number] = call

    def recover(self, command: ev.RestoreCall) -> None:
        """Make the `Call` of a call that a killed scheduler has sent and not recorded."""
        self._core.journal.call_recovered(command.work, command.call, command.hash)
        self.restore(self._entries.by_number[command.work], command.call, command.hash)

    # --- commands of the machine ------------------------------------------------------------------

    def publish(self, command: ev.PublishStatus) -> None:
        """Publish a status of a work, or a status of a call that is neither its first nor its last."""
        status = command.status
        self._entries.publish(self._entries.by_number[command.work], status, command.hash)
        call = self._calls.get(status.call or 0)
        if call is not None:
            call.status = status

    def resolve(self, command: ev.ResolveSubmit) -> None:
        """Make the `Call` that was just submitted: a new one, an answered one, or one in flight that it joins."""
        entry = self._entries.by_number[command.work]
        if command.outcome is not None:
            self._resolved = self._answered(entry, command.call, command.hash, command.outcome, command.reason)
        elif command.to is not None:
            self._resolved = joined = self._calls[command.to]
            joined._join()
            self._core.journal.call_joined(joined.id)
        else:
            self._resolved = call = self._make(entry, command.call, command.hash)
            self._calls[call.id] = call
            call.cache_reason = command.reason
            if command.status is not None:
                call.status = command.status
                self._entries.publish(entry, command.status, command.hash)
            if not entry.work._cache_calls and self._driver.in_pass():
                self._core.journal.call_made(entry.id, call.id, call.hash)

    def settle(self, command: ev.SettleCall) -> None:
        """End a call and wake the tasks that await it."""
        entries, outcome = self._entries, command.outcome
        entry = entries.by_number[command.work]
        if command.ran is not None:
            entries.publish(entry, command.ran, command.hash)
        entries.publish(entry, outcome.status, command.hash)
        self._core.journal.call_settled(command.call, outcome)
        call = self._calls.pop(command.call, None)
        if call is None:
            return
        if outcome.value is not None:
            self._succeed(entry, call, outcome, outcome.value)
            return
        self._fail(call, outcome.status, call_error(entry.work, entry.name, outcome, entry.start_error))

    def _succeed(self, entry: WorkEntry, call: Call[Any], outcome: ev.Outcome, packed: bytes) -> None:
        try:
            value = decode_value(entry.work, entry.name, packed)
        except Exception as error:
            self._fail(call, outcome.status, error)
        else:
            call._settle(outcome.status, value)

    def _fail(self, call: Call[Any], status: WorkStatus, error: BaseException | None) -> None:
        # A task that awaits the call now gets the error, even if a pass begins and ends before that task runs.
        is_awaited = any(not waiter.done() for waiter in call._waiters)
        call._settle(status, error=error)
        if error is not None and not is_awaited and not isinstance(error, asyncio.CancelledError):
            number, failed = call.id, self._failed
            failed[number] = self.passes, weakref.ref(call, lambda _: failed.pop(number, None))

    # --- failures that nobody awaits --------------------------------------------------------------

    def check_failed(self) -> None:
        """Fail the app for each call that failed before the last pass began and that nobody has awaited since."""
        for number, (passed, reference) in list(self._failed.items()):
            if passed >= self.passes:
                break
            del self._failed[number]
            call = reference()
            if call is not None and not call._retrieved:
                error = call.exception()
                if error is not None:
                    self._core.fail(error)

    def unretrieved(self, call: Call[Any]) -> None:
        """See `Driver.unretrieved`. May be called in any thread, by the garbage collector."""
        error = call._error
        if error is not None and not self._core.is_closed:
            self._core.loop.call_soon_threadsafe(self._core.fail, error)


# --- outcomes for the caller ----------------------------------------------------------------------

_DIED = frozenset({Reason.CRASHED, Reason.OOM, Reason.LOST, Reason.SPOT_RETRIEVAL})


def decode_value(work: Work, name: str, value: bytes) -> Any:
    """Decode what ``run`` returned.

    Raises:
        InvalidReturnValue: The code of the annotated type raised.
    """
    try:
        return work._signature.result(value)
    except Exception as error:
        raise InvalidReturnValue(
            f"{name} returned a value that cannot be decoded here: {type(error).__name__}: {error}", work=name
        ) from error


def call_error(work: Work, name: str, outcome: Outcome, start_error: BaseException | None) -> BaseException | None:
    """Return the exception that awaiting a failed call raises; None where awaiting returns None.

    Args:
        work: The work that was called.
        name: The work's name.
        outcome: How the call ended.
        start_error: Why the work's latest worker did not come up; the cause of a `LaunchFailed`.
    """
    status = outcome.status
    if status.reason is Reason.CANCELLED:
        return asyncio.CancelledError(f"call {status.call} of {name} was cancelled")
    if outcome.swallowed or not work._raise_exception:
        return None
    if outcome.error is not None and status.reason is Reason.USER_EXCEPTION:
        return rebuild_error(outcome.error, work=name)
    message = f"call {status.call} of {name}: {status.message or status.reason or status.stage}"
    error = _kind(outcome)(message, work=name)
    if isinstance(error, LaunchFailed):
        error.__cause__ = rebuild_error(outcome.error, work=name) if outcome.error is not None else start_error
    return error


def _kind(outcome: Outcome) -> type[WorkError]:
    status = outcome.status
    if status.stage is Stage.STOPPED:
        return CallStopped
    if status.reason is Reason.TIMEOUT:
        return CallTimeout
    if status.reason is Reason.INVALID_RETURN_VALUE:
        return InvalidReturnValue
    return WorkerDied if status.reason in _DIED else LaunchFailed
