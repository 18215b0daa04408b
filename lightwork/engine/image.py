"""The machine, the statuses and the states as data, and back."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork.components.flow import Flow
from lightwork.components.status_history import WorkRecord
from lightwork.engine.records import (
    CallImage,
    ComponentImage,
    Image,
    RecordImage,
    WorkerImage,
    WorkImage,
    encode,
)
from lightwork.engine.rules.machine import Machine
from lightwork.engine.rules.model import ModelCall, ModelWork
from lightwork.state.values import packed, unpacked

if TYPE_CHECKING:
    from lightwork.components.component import Component
    from lightwork.engine.core import Core
    from lightwork.engine.recorder import Recorder
    from lightwork.engine.replay import Known
    from lightwork.engine.workers import Worker

__all__ = ["dump_machine", "dump_record", "dump_values", "live_image", "load_machine", "load_record", "load_values"]

_decode = msgspec.msgpack.Decoder().decode


def dump_machine(machine: Machine) -> list[WorkImage]:
    """Everything that a machine knows, but for its story."""
    return [_dump_work(work) for work in machine.works()]


def load_machine(works: list[WorkImage]) -> Machine:
    """A machine that decides as the one that was dumped would have."""
    machine = Machine()
    machine.restore(_load_work(work) for work in works)
    return machine


def _dump_work(work: ModelWork) -> WorkImage:
    calls = [
        CallImage(call.id, call.hash, call.args, call.attempt, call.sent, call.ran, call.ending, call.delayed)
        for call in work.calls.values()
    ]
    return WorkImage(
        work.id,
        work.name,
        work.policy,
        work.phase,
        work.attempt,
        calls,
        [call.id for call in work.queue],
        list(work.running),
        {hash: call.id for hash, call in work.in_flight.items()},
        dict(work.results),
        list(work.failed.items()),
        work.verdict,
        work.failure,
        work.halted,
        work.restart,
        work.removed,
    )


def _load_work(image: WorkImage) -> ModelWork:
    work = ModelWork(image.id, image.name, image.policy)
    for one in image.calls:
        call = work.calls[one.id] = ModelCall(one.id, one.hash, one.args)
        call.attempt, call.sent, call.ran = one.attempt, one.sent, one.ran
        call.ending, call.delayed = one.ending, one.delayed
    work.phase, work.attempt = image.phase, image.attempt
    work.queue = deque(work.calls[number] for number in image.queue)
    work.running = {number: work.calls[number] for number in image.running}
    work.in_flight = {hash: work.calls[number] for hash, number in image.in_flight.items()}
    work.results = dict(image.results)
    work.failed = OrderedDict(image.failed)
    work.verdict, work.failure = image.verdict, image.failure
    work.halted, work.restart, work.removed = image.halted, image.restart, image.removed
    return work


def dump_record(record: WorkRecord) -> RecordImage:
    """The statuses of a work, and what is counted over all of them."""
    return RecordImage(
        list(record.statuses),
        record.num_successes,
        record.num_timeouts,
        record.first_request,
        record.started,
        list(record.calls.items()),
        record.latest_call,
    )


def load_record(image: RecordImage, kept: int) -> WorkRecord:
    """A record as it was dumped; it keeps `kept` statuses from now on."""
    record = WorkRecord(kept)
    record.statuses.extend(image.statuses)
    record.num_successes, record.num_timeouts = image.num_successes, image.num_timeouts
    record.first_request, record.started = image.first_request, image.started
    record.calls.update(image.calls[-kept:])
    record.latest_call = image.latest_call
    return record


def dump_values(values: dict[str, Any]) -> bytes:
    """Plain values of a state, in msgpack."""
    return encode({name: packed(value) for name, value in values.items()})


def load_values(data: bytes) -> dict[str, Any]:
    """The plain values that were dumped."""
    return {name: unpacked(value) for name, value in _decode(data).items()}


def live_image(
    core: Core, recorder: Recorder, components: Iterable[tuple[Component, int]], missing: Iterable[Known]
) -> Image:
    """Of a scheduler as it is. In the loop's thread, with the locks of all states held.

    Args:
        core: Its machine, its works and their workers.
        recorder: What only a journal asks for.
        components: The tree; each component with its number, 0 for a flow.
        missing: What was known of components that have not come back after a killed scheduler.
    """
    known = [_component(core, component, number) for component, number in components]
    known += [ComponentImage(one.name, one.work, dump_values(one.state.snapshot()), one.progress) for one in missing]
    entries = core.entries.values()
    return Image(
        now=core.tick(),
        works=dump_machine(core.machine),
        records={entry.id: dump_record(entry.work._record) for entry in entries},
        timers=core.timers(),
        components=known,
        statics=list(recorder.statics),
        workers=[_worker(entry.worker) for entry in entries if entry.worker is not None],
        due={entry.id: entry.due for entry in entries if entry.due},
        answers=recorder.answers.answers,
        asked=recorder.answers.asked,
        profiles=list(recorder.profiles),
        calls=recorder.reserved,
        latest_call=recorder.latest_call,
        latest_work=core.latest_work,
        runs=recorder.generation,
        is_over=recorder.is_over,
    )


def _component(core: Core, component: Component, number: int) -> ComponentImage:
    worker = core.entries[number].worker if number else None
    mirror = worker.mirror if worker is not None else None
    values = component._state.snapshot() if mirror is None else mirror.confirmed()
    progress = encode(component._progress.snapshot()) if isinstance(component, Flow) else b""
    return ComponentImage(component.name, number, dump_values(values), progress)


def _worker(worker: Worker) -> WorkerImage:
    return WorkerImage(
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
