"""The machine, the statuses and the states as data, and back."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import msgspec

from lightwork.components.status_history import WorkRecord
from lightwork.engine.recovery.records import (
    CallImage,
    RecordImage,
    WorkImage,
    encode,
)
from lightwork.engine.rules.machine import Machine
from lightwork.engine.rules.model import ModelCall, ModelWork
from lightwork.state.values import packed, unpacked

__all__ = ["dump_machine", "dump_record", "dump_values", "load_machine", "load_record", "load_values"]

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
