"""The contents of a journal: records of the scheduler's inputs, and snapshots of the result.

The machine is a function of its events, and a state is a function of its edits. So a record holds an input, in order,
and never what followed from it. `lightwork.engine.recovery.replay` computes the result from the records.

All of this is plain data. Each change here needs a new `lightwork.journal.store.SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lightwork.engine.rules.events import Event, Outcome, Policy, Timer
from lightwork.engine.rules.model import Contact, Phase, Verdict
from lightwork.runtime import Ref
from lightwork.status import Reason, WorkStatus

__all__ = [
    "Added",
    "CallMade",
    "CallSnapshot",
    "ComponentSnapshot",
    "Edited",
    "Framed",
    "Happened",
    "HistorySnapshot",
    "JournalRecord",
    "LaunchBegun",
    "Placed",
    "Progressed",
    "Record",
    "Removed",
    "Reserved",
    "RunEnded",
    "RunResult",
    "Snapshot",
    "Welcomed",
    "WorkSnapshot",
    "WorkerOutput",
    "WorkerSnapshot",
    "decode_batch",
    "decode_snapshot",
    "encode",
]


class JournalRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of the records."""


class Happened(JournalRecord, frozen=True, tag="event"):
    """The machine received this event at this time."""

    now: float
    event: Event


class Framed(JournalRecord, frozen=True, tag="frame"):
    """A numbered frame of a worker was taken in at this time. `body` is unchanged."""

    work: int
    attempt: int
    number: int
    now: float
    body: bytes


class Edited(JournalRecord, frozen=True, tag="edit"):
    """A component's state was edited on this side, while no worker owned it. `op` is msgpack."""

    name: str
    op: bytes


class Added(JournalRecord, frozen=True, tag="add"):
    """A component was added to the tree.

    Attributes:
        name: Its name.
        work: Its number in the machine, 0 for a flow.
        values: Its attributes, packed, in msgpack.
        progress: The progress of a flow, in msgpack; empty for a work.
        is_static: Whether it was in the tree when the app started.
    """

    name: str
    work: int
    values: bytes
    progress: bytes
    is_static: bool


class Removed(JournalRecord, frozen=True, tag="remove"):
    """A component was removed from the tree."""

    name: str


class LaunchBegun(JournalRecord, frozen=True, tag="launch"):
    """The launch of a worker was about to begin. On disk before the launch begins."""

    work: int
    attempt: int
    name: str
    launch: bytes
    secret: bytes
    profile: str


class Placed(JournalRecord, frozen=True, tag="place"):
    """A worker was launched; `ref` is its place."""

    work: int
    attempt: int
    ref: Ref


class Welcomed(JournalRecord, frozen=True, tag="welcome"):
    """A worker was about to receive its work with the current state. On disk before the work is sent."""

    work: int
    attempt: int
    picks_port: bool


class WorkerOutput(JournalRecord, frozen=True, tag="output"):
    """The output of a worker was published up to this byte."""

    work: int
    attempt: int
    offset: int


class Progressed(JournalRecord, frozen=True, tag="progress"):
    """A flow's schedules and iterations changed to these, in msgpack."""

    name: str
    progress: bytes


class CallMade(JournalRecord, frozen=True, tag="ask"):
    """A pass of the flow made this call of a work that caches nothing."""

    work: int
    call: int
    hash: str


class Reserved(JournalRecord, frozen=True, tag="reserve"):
    """Call numbers up to this one were reserved. On disk before the first of them is used."""

    calls: int


class RunEnded(JournalRecord, frozen=True, tag="end"):
    """The flow's code ran to its end, in one pass or over several interrupted ones."""


Record = (
    Happened
    | Framed
    | Edited
    | Added
    | Removed
    | LaunchBegun
    | Placed
    | Welcomed
    | WorkerOutput
    | Progressed
    | CallMade
    | Reserved
    | RunEnded
)

# --- snapshots ------------------------------------------------------------------------------------


class CallSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A `lightwork.engine.rules.model.ModelCall` as data."""

    id: int
    hash: str
    args: bytes
    attempt: int
    sent: bool
    ran: bool
    ending: Reason | None
    delayed: bool


class WorkSnapshot(msgspec.Struct, frozen=True):
    """A `lightwork.engine.rules.model.ModelWork` as data. References to calls are call numbers."""

    id: int
    name: str
    policy: Policy
    phase: Phase
    attempt: int
    calls: list[CallSnapshot]
    queue: list[int]
    running: list[int]
    in_flight: dict[str, int]
    results: dict[str, tuple[int, Outcome]]
    failed: list[tuple[str, int]]
    verdict: Verdict | None
    failure: str | None
    halted: bool
    restart: bool
    removed: bool
    contact: Contact = Contact.LIVE
    over: list[int] = []


class HistorySnapshot(msgspec.Struct, frozen=True):
    """A `lightwork.components.status_history.StatusHistory` as data."""

    statuses: list[WorkStatus]
    num_successes: int
    num_timeouts: int
    first_request: float | None
    started: bool
    calls: list[tuple[str, WorkStatus]]
    latest_call: str | None


class ComponentSnapshot(msgspec.Struct, frozen=True):
    """A component in the tree; see `Added` for the attributes."""

    name: str
    work: int
    values: bytes
    progress: bytes


class WorkerSnapshot(msgspec.Struct):
    """A worker that is not gone.

    Attributes:
        work, attempt, name, launch, secret, profile: As in `LaunchBegun`.
        ref: Its place; None until that is known.
        received: The number of its latest frame that was taken in.
        picks_port: See `Welcomed`.
        offset: How many bytes of its output were published.
    """

    work: int
    attempt: int
    name: str
    launch: bytes
    secret: bytes
    profile: str
    ref: Ref | None = None
    received: int = 0
    picks_port: bool = False
    offset: int = 0

    def __repr__(self) -> str:
        return f"WorkerSnapshot({self.name!r}, received={self.received})"


class RunResult(msgspec.Struct, frozen=True):
    """The outcome of a call in an unfinished run of the flow's code; see `lightwork.engine.recovery.run_results`."""

    work: int
    call: int
    hash: str
    outcome: Outcome


class Snapshot(msgspec.Struct):
    """Everything that a scheduler needs to continue.

    Attributes:
        now: When the snapshot was made, on the machine's clock.
        works: The machine's works.
        records: The statuses of each work, by its number.
        timers: The running timers, with the time at which each fires.
        components: The components in the tree.
        statics: Names of the components that were in the tree when the app started, even if they have left it.
        workers: The workers that are not gone.
        due: Attempts whose launch was ordered and has not begun, by the work's number.
        run_results: Results of calls in an unfinished run; see `lightwork.engine.recovery.run_results`.
        calls_made: The calls in flight that an unfinished run of the flow's code has made of works that cache nothing.
        profiles: The profiles of the runtimes that were used.
        calls: The highest reserved call number.
        latest_call, latest_work: The highest call number and work number known to have been used.
        runs: How often the journal was opened for writing.
        is_over: Whether the app has ended gracefully, so that no worker is left.
    """

    now: float = 0.0
    works: list[WorkSnapshot] = []
    records: dict[int, HistorySnapshot] = {}
    timers: list[tuple[Timer, float]] = []
    components: list[ComponentSnapshot] = []
    statics: list[str] = []
    workers: list[WorkerSnapshot] = []
    due: dict[int, int] = {}
    run_results: list[RunResult] = []
    calls_made: list[CallMade] = []
    profiles: list[str] = []
    calls: int = 0
    latest_call: int = 0
    latest_work: int = 0
    runs: int = 0
    is_over: bool = False


encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
decode_batch: Callable[[bytes], list[Record]] = msgspec.msgpack.Decoder(list[Record]).decode
decode_snapshot: Callable[[bytes], Snapshot] = msgspec.msgpack.Decoder(Snapshot).decode
