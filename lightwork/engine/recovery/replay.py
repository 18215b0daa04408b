"""Restores a scheduler's knowledge from the records of a journal: the machine, the statuses, the states, the workers.

The machine receives the same events as then, and makes the same decisions. Its commands are not carried out; the replay
notes their effect. It adds a status to the work's history, a timer to the running timers, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec

from lightwork.components.status_history import StatusHistory
from lightwork.engine.recovery import records as rec
from lightwork.engine.recovery.run_results import RunResults
from lightwork.engine.recovery.snapshot import (
    dump_history,
    dump_machine,
    dump_values,
    load_history,
    load_machine,
    load_values,
)
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import Machine, MachineError
from lightwork.engine.rules.model import Phase
from lightwork.engine.workers.translate import event_of
from lightwork.errors import LightworkError, StateError
from lightwork.link import messages
from lightwork.state.state import State
from lightwork.status import Reason

__all__ = ["KnownComponent", "Replay", "abandon_workers"]

_LEFT_BEHIND = "its worker was left behind when a checkpoint was restored"

_decode_op = msgspec.msgpack.Decoder().decode


class KnownComponent:
    """A component of the tree.

    Attributes:
        name: Its name.
        work: Its number in the machine, 0 for a flow.
        state: Its attributes. While a worker has the work, these are the values that the worker has confirmed.
        progress: The progress of a flow, in msgpack; empty for a work.
    """

    def __init__(self, name: str, work: int, values: bytes, progress: bytes) -> None:
        self.name = name
        self.work = work
        self.progress = progress
        self.state: State = State(name, {})
        for attribute, value in load_values(values).items():
            self.state.restore(attribute, value)


class Replay:
    """The result of a journal: the knowledge of its scheduler.

    Args:
        snapshot: The snapshot from which to start; None starts from nothing.
        kept: How many statuses are kept of each work.

    Attributes:
        machine: The restored machine.
        timers, workers, due, profiles, statics, now, calls, latest_call, latest_work, runs, is_over: See
            `lightwork.engine.recovery.records.Snapshot`.
        records: The statuses of each work, by its number.
        components: The components in the tree, by name.
        run_results: See `lightwork.engine.recovery.run_results`.
    """

    def __init__(self, snapshot: rec.Snapshot | None = None, *, kept: int = 100) -> None:
        snapshot = snapshot or rec.Snapshot()
        self._kept = kept
        self.machine: Machine = load_machine(snapshot.works)
        self.records: dict[int, StatusHistory] = {
            number: load_history(one, kept) for number, one in snapshot.records.items()
        }
        self.timers: dict[ev.Timer, float] = dict(snapshot.timers)
        self.components: dict[str, KnownComponent] = {
            one.name: KnownComponent(one.name, one.work, one.values, one.progress) for one in snapshot.components
        }
        self._by_work = {one.work: one for one in self.components.values() if one.work}
        self.statics: dict[str, None] = dict.fromkeys(snapshot.statics)
        self.workers: dict[int, rec.WorkerSnapshot] = {one.work: one for one in snapshot.workers}
        self.due: dict[int, int] = dict(snapshot.due)
        self.run_results: RunResults = RunResults(snapshot.run_results, snapshot.calls_made)
        self.profiles: dict[str, None] = dict.fromkeys(snapshot.profiles)
        self.now: float = snapshot.now
        self.calls: int = snapshot.calls
        self.latest_call: int = snapshot.latest_call
        self.latest_work: int = snapshot.latest_work
        self.runs: int = snapshot.runs
        self.is_over: bool = snapshot.is_over

    def snapshot(self) -> rec.Snapshot:
        """Return all of it as data."""
        components = [
            rec.ComponentSnapshot(one.name, one.work, dump_values(one.state.snapshot()), one.progress)
            for one in self.components.values()
        ]
        return rec.Snapshot(
            now=self.now,
            works=dump_machine(self.machine),
            records={number: dump_history(record) for number, record in self.records.items()},
            timers=list(self.timers.items()),
            components=components,
            statics=list(self.statics),
            workers=list(self.workers.values()),
            due=self.due,
            run_results=self.run_results.results,
            calls_made=self.run_results.calls_made,
            profiles=list(self.profiles),
            calls=self.calls,
            latest_call=self.latest_call,
            latest_work=self.latest_work,
            runs=self.runs,
            is_over=self.is_over,
        )

    # --- records ----------------------------------------------------------------------------------

    def take_all(self, records: Iterable[rec.Record]) -> None:
        """Take in the next records."""
        for record in records:
            self.take(record)

    def take(self, record: rec.Record) -> None:
        """Take in the next record. A record about a component or a worker that is gone by now has no effect."""
        self.is_over = False
        match record:
            case rec.Framed():
                self._frame(record)
            case rec.Happened():
                self._feed(record.event, record.now)
            case rec.Edited():
                known = self.components.get(record.name)
                if known is not None:
                    known.state.apply([_decode_op(record.op)])
            case rec.Added():
                self._add(record)
            case rec.Removed():
                known = self.components.pop(record.name, None)
                if known is not None:
                    self._by_work.pop(known.work, None)
            case rec.Progressed():
                if record.name in self.components:
                    self.components[record.name].progress = record.progress
            case rec.CallMade():
                self.run_results.call_made(record)
            case rec.RunEnded():
                self.run_results.end_run()
            case rec.Reserved():
                self.calls = record.calls
            case rec.LaunchBegun():
                self._launch(record)
            case rec.Placed() | rec.Welcomed() | rec.WorkerOutput():
                self._worker(record)
            case _:
                assert_never(record)

    def _add(self, record: rec.Added) -> None:
        known = KnownComponent(record.name, record.work, record.values, record.progress)
        self.components[record.name] = known
        if record.work:
            self._by_work[record.work] = known
        if record.is_static:
            self.statics[record.name] = None

    def _launch(self, record: rec.LaunchBegun) -> None:
        self.due.pop(record.work, None)
        self.profiles[record.profile] = None
        self.workers[record.work] = rec.WorkerSnapshot(
            record.work, record.attempt, record.name, record.launch, record.secret, record.profile
        )

    def _worker(self, record: rec.Placed | rec.Welcomed | rec.WorkerOutput) -> None:
        worker = self.workers.get(record.work)
        if worker is None or worker.attempt != record.attempt:
            return
        match record:
            case rec.Placed():
                worker.ref = record.ref
            case rec.Welcomed():
                worker.picks_port = record.picks_port
            case rec.WorkerOutput():
                worker.offset = record.offset
            case _:
                assert_never(record)

    # --- frames of workers ------------------------------------------------------------------------

    def _frame(self, record: rec.Framed) -> None:
        worker = self.workers.get(record.work)
        if worker is None or worker.attempt != record.attempt or record.number <= worker.received:
            return
        worker.received = record.number
        try:
            frame = messages.decode_from_worker(record.body)
            self._apply(record.work, frame)
            event = event_of(record.work, record.attempt, frame)
        except LightworkError:
            return  # the scheduler refused the frame then, too, and ended its worker
        if event is not None:
            self._feed(event, record.now)

    def _apply(self, work: int, frame: messages.FromWorker) -> None:
        known = self._by_work.get(work)
        if known is not None and isinstance(frame, (messages.Delta, messages.ProposalResult)):
            try:
                known.state.apply(frame.ops)
            except StateError:
                return  # the scheduler could not apply the edits then either, and ended the worker

    # --- the machine ------------------------------------------------------------------------------

    def _feed(self, event: ev.Event, now: float) -> None:
        self.now = max(self.now, now)
        if isinstance(event, ev.CallSubmitted):
            self.latest_call = max(self.latest_call, event.call)
        elif isinstance(event, ev.TimerFired):
            self.timers.pop(event.timer, None)
        elif isinstance(event, ev.WorkAdded):
            self.latest_work = max(self.latest_work, event.work)
            self.records.setdefault(event.work, StatusHistory(self._kept))
        try:
            commands = self.machine.handle(event, now)
        except MachineError:
            return  # the machine raised then, too, and nothing was changed
        for command in commands:
            self._note(command)

    def _note(self, command: ev.Command) -> None:
        match command:
            case ev.PublishStatus():
                self.records[command.work].add(command.status, command.hash)
            case ev.StartTimer():
                self.timers[command.timer] = self.now + command.delay
            case ev.StopTimer():
                self.timers.pop(command.timer, None)
            case ev.ResolveSubmit():
                if command.status is not None:
                    self.records[command.work].add(command.status, command.hash)
            case ev.SettleCall():
                if command.ran is not None:
                    self.records[command.work].add(command.ran, command.hash)
                self.records[command.work].add(command.outcome.status, command.hash)
                self.run_results.settle(command.call, command.outcome)
            case ev.LaunchWorker():
                self.due[command.work] = command.attempt
            case ev.WorkerGone():
                self.workers.pop(command.work, None)
                self.due.pop(command.work, None)
            case ev.Forget():
                self.records.pop(command.work, None)
            case ev.SendCall() | ev.SendCancel() | ev.SendStop() | ev.EndWorker() | ev.WorkerUp() | ev.RestoreCall():
                pass  # the scheduler carried it out then, and it changed nothing that the replay keeps
            case _:
                assert_never(command)


def abandon_workers(replay: Replay) -> rec.Snapshot:
    """Return a snapshot as of an app that has ended gracefully: states and results, no worker. Uses the replay up."""
    for work in replay.machine.works():
        replay.take(rec.Happened(replay.now, ev.StopRequested(work.id)))
        if work.phase is not Phase.ABSENT:
            replay.take(rec.Happened(replay.now, ev.WorkerExited(work.id, work.attempt, Reason.LOST, _LEFT_BEHIND)))
    for known in replay.components.values():
        for name in ("_url", "_internal_ip", "_public_ip") if known.work else ():
            known.state.restore(name, "")
    replay.workers.clear()
    replay.due.clear()
    replay.timers.clear()
    replay.profiles.clear()
    replay.is_over = True
    return replay.snapshot()
