"""The history of calls and workers, for the HTTP API and the dashboard. It is bounded, and kept only if it is needed.

It observes the events and commands of the machine (`Core.observers`) and changes nothing. Arguments, results and errors
stay encoded; they are decoded when they are read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, assert_never

import msgspec

from lightwork.components.signature import RunSignature
from lightwork.engine.core import Core
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.entries import Entries, WorkEntry
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Stage, WorkStatus

__all__ = ["AttemptRecord", "CallRecord", "History", "WorkHistory"]

_CALLS_KEPT = 10_000
"""How many ended calls are kept."""

_BYTES_KEPT = 64 * 1024 * 1024
"""How many bytes of their arguments and results are kept."""

_FAILURES_KEPT = 20
_ATTEMPTS_KEPT = 100


class CallRecord:
    """One submitted call. A call that joined another one has no record; the other one counts it.

    Attributes:
        id, work, hash: As in `lightwork.components.call.Call`.
        signature: Signature of the work's ``run``.
        data: The arguments, as `RunSignature.bind` returns them.
        status: The latest status.
        submitted_at, started_at, ended_at: The times of these moments; None until then.
        cached: Whether the call was answered without running.
        joined: How many further calls have joined this one while it was in flight.
        value: The return value of ``run``, in msgpack.
        error: The exception of a failed call.
    """

    __slots__ = (
        "cached",
        "data",
        "ended_at",
        "error",
        "hash",
        "id",
        "joined",
        "signature",
        "started_at",
        "status",
        "submitted_at",
        "value",
        "work",
    )

    def __init__(self, id: int, work: str, hash: str, data: bytes, signature: RunSignature, now: float) -> None:
        self.id: int = id
        self.work: str = work
        self.hash: str = hash
        self.signature: RunSignature = signature
        self.data: bytes = data
        self.status: WorkStatus = WorkStatus(Stage.PENDING, now, call=id)
        self.submitted_at: float = now
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.cached: bool = False
        self.joined: int = 0
        self.value: bytes | None = None
        self.error: ErrorInfo | None = None

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by name, as plain values."""
        return self.signature.named(self.data)

    @property
    def result(self) -> Any:
        """The return value of ``run``, as a plain value; None while there is no value."""
        return None if self.value is None else msgspec.msgpack.decode(self.value)

    @property
    def size(self) -> int:
        """Size of arguments and result in bytes."""
        return len(self.data) + len(self.value or b"")


class AttemptRecord:
    """One attempt of a work: its process, its host, its start and its end."""

    __slots__ = ("attempt", "ended_at", "host", "message", "pid", "started_at")

    def __init__(self, attempt: int, now: float) -> None:
        self.attempt: int = attempt
        self.started_at: float = now
        self.ended_at: float | None = None
        self.pid: int | None = None
        self.host: str | None = None
        self.message: str | None = None


class WorkHistory:
    """The history of one work.

    Attributes:
        name: Name of the work.
        counts: Number of calls in each stage, since the history began to observe.
        running: The running calls, in the order in which they began.
        attempts: Its latest attempts, oldest first.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[Stage, int] = {}
        self.running: dict[int, None] = {}
        self.attempts: deque[AttemptRecord] = deque(maxlen=_ATTEMPTS_KEPT)

    def _moved(self, call: int, old: Stage | None, new: Stage | None) -> None:
        for stage, by in ((old, -1), (new, 1)):
            if stage is not None:
                self.counts[stage] = self.counts.get(stage, 0) + by
        if new is Stage.RUNNING:
            self.running[call] = None
        else:
            self.running.pop(call, None)


class History:
    """The history of an app. Belongs to the loop's thread. Its length is the number of calls that are kept.

    Args:
        core: The core to observe from now on.
        entries: The works that the calls belong to.

    Attributes:
        failures: The latest calls that failed, oldest first.
        touched: Called with each record that has changed, unless it is None.
    """

    def __init__(self, core: Core, entries: Entries) -> None:
        self._core = core
        self._entries = entries
        self._calls: OrderedDict[int, CallRecord] = OrderedDict()
        self._works: dict[int, WorkHistory] = {}
        self._over: deque[CallRecord] = deque()
        self._bytes = 0
        self.failures: deque[CallRecord] = deque(maxlen=_FAILURES_KEPT)
        self.touched: Callable[[CallRecord], None] | None = None
        core.observers.append(self._observe)

    def close(self) -> None:
        """Stop observing, and keep the records. May be repeated."""
        if self._observe in self._core.observers:
            self._core.observers.remove(self._observe)

    # --- reading ----------------------------------------------------------------------------------

    def call(self, number: int) -> CallRecord | None:
        """Return a call by its number, None if it is unknown or no longer kept."""
        return self._calls.get(number)

    def newest(self) -> Iterator[CallRecord]:
        """Iterate over all kept calls, newest first."""
        return reversed(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)

    def work(self, entry: WorkEntry) -> WorkHistory:
        """Return the history of a work."""
        found = self._works.get(entry.id)
        if found is None:
            found = self._works[entry.id] = WorkHistory(entry.name)
        return found

    # --- observing --------------------------------------------------------------------------------

    def _observe(self, event: ev.Event, commands: Sequence[ev.Command], now: float) -> None:
        entry = self._entries.by_number.get(event.work)
        if entry is None:
            return
        work = self.work(entry)
        match event:
            case ev.CallSubmitted():
                record = CallRecord(event.call, entry.name, event.hash, event.args, entry.work._signature, now)
                self._calls[record.id] = record
                work._moved(record.id, None, Stage.PENDING)
            case ev.WorkerReady() | ev.WorkerExited() | ev.WorkerLaunchFailed() | ev.WorkerNeverLaunched():
                self._on_worker(entry, work, event, now)
            case (
                ev.CallSucceeded()  # the frequent ones first
                | ev.CallRunning()
                | ev.CallFailed()
                | ev.CallCancelled()
                | ev.CancelRequested()
                | ev.WorkAdded()
                | ev.WorkRemoved()
                | ev.StartRequested()
                | ev.StopRequested()
                | ev.WorkerStopping()
                | ev.LinkLost()
                | ev.LinkRestored()
                | ev.TimerFired()
                | ev.SchedulerResumed()
                | ev.WorkerReturned()
                | ev.WorkerCaughtUp()
            ):
                pass  # the commands that follow from it say what changes
            case _:
                assert_never(event)
        for command in commands:
            self._on_command(entry, work, command, now)

    def _on_command(self, entry: WorkEntry, work: WorkHistory, command: ev.Command, now: float) -> None:
        match command:
            case ev.PublishStatus():
                self._on_status(work, command.status)
            case ev.ResolveSubmit():
                self._on_adopt(work, command, now)
            case ev.SettleCall():
                if command.ran is not None:
                    self._on_status(work, command.ran)
                self._on_status(work, command.outcome.status)
                self._on_settle(command)
            case ev.LaunchWorker():
                work.attempts.append(AttemptRecord(command.attempt, now))
            case ev.Forget():
                self._works.pop(entry.id, None)
            case (
                ev.SendCall()
                | ev.SendCancel()
                | ev.SendStop()
                | ev.EndWorker()
                | ev.StartTimer()
                | ev.StopTimer()
                | ev.WorkerUp()
                | ev.WorkerGone()
                | ev.RestoreCall()
            ):
                pass  # it changes no record
            case _:
                assert_never(command)

    def _on_worker(
        self,
        entry: WorkEntry,
        work: WorkHistory,
        event: ev.WorkerReady | ev.WorkerExited | ev.WorkerLaunchFailed | ev.WorkerNeverLaunched,
        now: float,
    ) -> None:
        record = next((one for one in reversed(work.attempts) if one.attempt == event.attempt), None)  # the latest
        if record is None:
            return
        hello = entry.worker.hello if entry.worker is not None else None
        if hello is not None:
            record.pid, record.host = hello.pid, hello.host
        match event:
            case ev.WorkerReady():
                pass
            case ev.WorkerExited() | ev.WorkerLaunchFailed():
                record.ended_at, record.message = now, event.message
            case ev.WorkerNeverLaunched():
                record.ended_at, record.message = now, "it was never launched"
            case _:
                assert_never(event)

    def _on_status(self, work: WorkHistory, status: WorkStatus) -> None:
        record = self._calls.get(status.call or 0)
        if record is None:
            return
        if record.status.stage is not status.stage:
            work._moved(record.id, record.status.stage, status.stage)
        record.status = status
        if status.stage is Stage.RUNNING:
            record.started_at = status.timestamp
        elif status.stage.is_final:
            self._end(record, status.timestamp)
        self._tell(record)

    def _on_adopt(self, work: WorkHistory, command: ev.ResolveSubmit, now: float) -> None:
        record = self._calls.get(command.call)
        if record is None:
            return
        if command.to is None:
            assert command.status is not None
            self._on_status(work, command.status)
            return
        if command.outcome is None:
            del self._calls[record.id]
            work._moved(record.id, record.status.stage, None)
            joined = self._calls.get(command.to)
            if joined is not None:
                joined.joined += 1
                self._tell(joined)
            return
        work._moved(record.id, record.status.stage, Stage.SUCCEEDED)
        record.status = WorkStatus(Stage.SUCCEEDED, now, None, command.reason, call=record.id)
        record.cached = True
        record.value = command.outcome.value
        self._end(record, now)
        self._tell(record)

    def _on_settle(self, command: ev.SettleCall) -> None:
        record = self._calls.get(command.call)
        if record is None:
            return
        outcome = command.outcome
        record.value, record.error = outcome.value, outcome.error
        self._bytes += len(outcome.value or b"")
        if outcome.status.stage is Stage.FAILED:
            self.failures.append(record)
        self._tell(record)

    def _end(self, record: CallRecord, now: float) -> None:
        if record.ended_at is not None:
            return
        record.ended_at = now
        self._over.append(record)
        self._bytes += record.size
        while len(self._over) > _CALLS_KEPT or (self._bytes > _BYTES_KEPT and len(self._over) > 1):
            oldest = self._over.popleft()
            self._bytes -= oldest.size
            self._calls.pop(oldest.id, None)

    def _tell(self, record: CallRecord) -> None:
        if self.touched is not None:
            self.touched(record)
