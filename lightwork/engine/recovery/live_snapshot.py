"""Makes a snapshot of a running scheduler."""

from __future__ import annotations

from collections.abc import Iterable

from lightwork.components.component import Component
from lightwork.components.flow import Flow
from lightwork.engine.core import Core
from lightwork.engine.recovery.recorder import Recorder
from lightwork.engine.recovery.records import ComponentSnapshot, Snapshot, WorkerSnapshot, encode
from lightwork.engine.recovery.replay import KnownComponent
from lightwork.engine.recovery.snapshot import dump_history, dump_machine, dump_values
from lightwork.engine.workers.entries import Entries
from lightwork.engine.workers.worker import Worker

__all__ = ["live_snapshot", "load_worker"]


def live_snapshot(
    core: Core,
    entries: Entries,
    recorder: Recorder,
    components: Iterable[tuple[Component, int]],
    missing: Iterable[KnownComponent],
) -> Snapshot:
    """Return a snapshot of a running scheduler. Call it in the loop's thread, while holding the locks of all states.

    Args:
        core: The scheduler's machine and timers.
        entries: Its works and their workers.
        recorder: The data that only a journal needs.
        components: The components in the tree, each with its number, 0 for a flow.
        missing: Components of a killed scheduler that the flow has not made again.
    """
    known = [_component(entries, component, number) for component, number in components]
    known += [ComponentSnapshot(one.name, one.work, dump_values(one.state.snapshot()), one.progress) for one in missing]
    works = entries.by_number.values()
    return Snapshot(
        now=core.tick(),
        works=dump_machine(core.machine),
        records={entry.id: dump_history(entry.work._status_history) for entry in works},
        timers=core.timers(),
        components=known,
        statics=list(recorder.statics),
        workers=[_worker(entry.worker) for entry in works if entry.worker is not None],
        due={entry.id: entry.due for entry in works if entry.due},
        run_results=recorder.run_results.results,
        calls_made=recorder.run_results.calls_made,
        profiles=list(recorder.profiles),
        calls=recorder.reserved,
        latest_call=recorder.latest_call,
        latest_work=entries.latest,
        runs=recorder.generation,
        is_over=recorder.is_over,
    )


def _component(entries: Entries, component: Component, number: int) -> ComponentSnapshot:
    worker = entries.by_number[number].worker if number else None
    replica = worker.replica if worker is not None else None
    values = component._state.snapshot() if replica is None else replica.confirmed()
    progress = encode(component._progress.snapshot()) if isinstance(component, Flow) else b""
    return ComponentSnapshot(component.name, number, dump_values(values), progress)


def _worker(worker: Worker) -> WorkerSnapshot:
    return WorkerSnapshot(
        worker.work,
        worker.attempt,
        worker.name,
        worker.launch,
        worker.secret,
        worker.profile,
        worker.ref,
        worker.received,
        worker.picks_port,
        worker.offset,
    )


def load_worker(snapshot: WorkerSnapshot) -> Worker:
    """Make the `Worker` that a snapshot describes. A killed scheduler has launched its process."""
    worker = Worker(snapshot.work, snapshot.attempt, snapshot.name, snapshot.profile, snapshot.launch, snapshot.secret)
    worker.ref = snapshot.ref
    worker.received, worker.picks_port = snapshot.received, snapshot.picks_port
    worker.offset = worker.output_read = snapshot.offset
    return worker
