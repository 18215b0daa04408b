"""Converts the machine, the statuses and the states to data and back."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import msgspec

from lightwork.components.status_history import StatusHistory
from lightwork.engine.recovery.records import (
    CallSnapshot,
    HistorySnapshot,
    WorkSnapshot,
    encode,
)
from lightwork.engine.rules.machine import Machine
from lightwork.engine.rules.model import ModelCall, ModelWork
from lightwork.state.values import packed, unpacked

__all__ = ["dump_history", "dump_machine", "dump_values", "load_history", "load_machine", "load_values"]

_decode = msgspec.msgpack.Decoder().decode


def dump_machine(machine: Machine) -> list[WorkSnapshot]:
    """Return the works of a machine as data, without its story."""
    return [_dump_work(work) for work in machine.works()]


def load_machine(works: list[WorkSnapshot]) -> Machine:
    """Return a machine that decides as the dumped one would."""
    machine = Machine()
    machine.restore(_load_work(work) for work in works)
    return machine


def _dump_work(work: ModelWork) -> WorkSnapshot:
    calls = [
        CallSnapshot(call.id, call.hash, call.args, call.attempt, call.sent, call.ran, call.ending, call.delayed)
        for call in work.calls.values()
    ]
    return WorkSnapshot(
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
        work.contact,
        sorted(work.over),
    )


def _load_work(snapshot: WorkSnapshot) -> ModelWork:
    work = ModelWork(snapshot.id, snapshot.name, snapshot.policy)
    for one in snapshot.calls:
        call = work.calls[one.id] = ModelCall(one.id, one.hash, one.args)
        call.attempt, call.sent, call.ran = one.attempt, one.sent, one.ran
        call.ending, call.delayed = one.ending, one.delayed
    work.phase, work.attempt = snapshot.phase, snapshot.attempt
    work.queue = deque(work.calls[number] for number in snapshot.queue)
    work.running = {number: work.calls[number] for number in snapshot.running}
    work.in_flight = {hash: work.calls[number] for hash, number in snapshot.in_flight.items()}
    work.results = dict(snapshot.results)
    work.failed = OrderedDict(snapshot.failed)
    work.verdict, work.failure = snapshot.verdict, snapshot.failure
    work.halted, work.restart, work.removed = snapshot.halted, snapshot.restart, snapshot.removed
    work.contact, work.over = snapshot.contact, set(snapshot.over)
    return work


def dump_history(record: StatusHistory) -> HistorySnapshot:
    """Return the statuses of a work, and the counts over all of them, as data."""
    return HistorySnapshot(
        list(record.statuses),
        record.num_successes,
        record.num_timeouts,
        record.first_request,
        record.started,
        list(record.calls.items()),
        record.latest_call,
    )


def load_history(snapshot: HistorySnapshot, kept: int) -> StatusHistory:
    """Return the dumped history; from now on it keeps `kept` statuses."""
    record = StatusHistory(kept)
    record.statuses.extend(snapshot.statuses)
    record.num_successes, record.num_timeouts = snapshot.num_successes, snapshot.num_timeouts
    record.first_request, record.started = snapshot.first_request, snapshot.started
    record.calls.update(snapshot.calls[-kept:])
    record.latest_call = snapshot.latest_call
    return record


def dump_values(values: dict[str, Any]) -> bytes:
    """Encode the plain values of a state in msgpack."""
    return encode({name: packed(value) for name, value in values.items()})


def load_values(data: bytes) -> dict[str, Any]:
    """Decode the values that `dump_values` encoded."""
    return {name: unpacked(value) for name, value in _decode(data).items()}
