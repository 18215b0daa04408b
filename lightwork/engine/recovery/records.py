"""What a journal says: records of what came into the scheduler from outside, and images of what they come to.

The machine is a function of its events, and a state of its edits, so what is written down is what they were given, in
order, and never what came of it. `lightwork.engine.recovery.replay` makes the one of the other.

All plain data. A change here is a change of `lightwork.journal.store.SCHEMA`.
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
    """The machine was told this, at that time."""

    now: float
    event: Event


class Framed(JournalRecord, frozen=True, tag="frame"):
    """A worker's numbered frame was taken in, at that time. `body` is as it came."""

    work: int
    attempt: int
    number: int
    now: float
    body: bytes


class Edited(JournalRecord, frozen=True, tag="edit"):
    """A component's state was edited on this side, and no worker owned it. `op` is msgpack."""

    name: str
    op: bytes


class Added(JournalRecord, frozen=True, tag="add"):
    """A component came into the tree.

    Attributes:
        name: Its name.
        work: Its number in the machine, 0 for a flow.
        values: Its attributes, packed, in msgpack.
        progress: A flow's, in msgpack.
        is_static: Whether it was there when the app started.
    """

    name: str
    work: int
    values: bytes
    progress: bytes
    is_static: bool


class Removed(JournalRecord, frozen=True, tag="remove"):
    """A component left the tree."""

    name: str


class LaunchBegun(JournalRecord, frozen=True, tag="launch"):
    """A worker is about to be launched. On disk before it is."""

    work: int
    attempt: int
    name: str
    launch: bytes
    secret: bytes
    profile: str


class Placed(JournalRecord, frozen=True, tag="place"):
    """It was launched, and is here."""

    work: int
    attempt: int
    ref: Ref


class Welcomed(JournalRecord, frozen=True, tag="welcome"):
    """It is given the work as that is now. On disk before it is."""

    work: int
    attempt: int
    picks_port: bool


class WorkerOutput(JournalRecord, frozen=True, tag="output"):
    """Its output up to this byte was told."""

    work: int
    attempt: int
    offset: int


class Progressed(JournalRecord, frozen=True, tag="progress"):
    """A flow's schedules and iterations are these now, in msgpack."""

    name: str
    progress: bytes


class CallMade(JournalRecord, frozen=True, tag="ask"):
    """A pass of the flow has made this call, of a work that caches nothing."""

    work: int
    call: int
    hash: str


class Reserved(JournalRecord, frozen=True, tag="reserve"):
    """Calls get numbers up to this one. On disk before the first of them is given out."""

    calls: int


class RunEnded(JournalRecord, frozen=True, tag="end"):
    """The flow's code has come to its end, in one pass or over several that were cut short."""


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

# --- images ---------------------------------------------------------------------------------------


class CallSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A `lightwork.engine.rules.model.ModelCall`."""

    id: int
    hash: str
    args: bytes
    attempt: int
    sent: bool
    ran: bool
    ending: Reason | None
    delayed: bool


class WorkSnapshot(msgspec.Struct, frozen=True):
    """A `lightwork.engine.rules.model.ModelWork`; what refers to calls does so by number."""

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
    """A `lightwork.components.status_history.WorkRecord`."""

    statuses: list[WorkStatus]
    num_successes: int
    num_timeouts: int
    first_request: float | None
    started: bool
    calls: list[tuple[str, WorkStatus]]
    latest_call: str | None


class ComponentSnapshot(msgspec.Struct, frozen=True):
    """A component; see `Added`. A work that has left the tree has none."""

    name: str
    work: int
    values: bytes
    progress: bytes


class WorkerSnapshot(msgspec.Struct):
    """A worker that is not gone.

    Attributes:
        work, attempt, name, launch, secret, profile: As `LaunchBegun` says.
        ref: Where it is; None until that is known.
        received: The number of its latest frame that was taken in.
        picks_port: See `Welcomed`.
        offset: How much of its output was told, in bytes.
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
        return f"WorkerImage({self.name!r}, received={self.received})"


class RunResult(msgspec.Struct, frozen=True):
    """What a call of an unfinished run of the flow's code came to; see `lightwork.engine.recovery.run_results`."""

    work: int
    call: int
    hash: str
    outcome: Outcome


class Snapshot(msgspec.Struct):
    """Everything that a scheduler must know to go on.

    Attributes:
        now: When it was made, by the machine's clock.
        works: Of the machine.
        records: By the work's number.
        timers: Those that run, with the time at which they fire.
        components: The tree.
        statics: Names of the components that were there when the app started, present or not.
        workers: Those that are not gone.
        due: Attempts whose launch was ordered and not begun, by the work's number.
        answers: See `lightwork.engine.recovery.run_results`.
        asked: The calls in flight that an unfinished run of the flow's code has made of works that cache nothing.
        profiles: Of the runtimes that were used.
        calls: Calls may have numbers up to this one.
        latest_call, latest_work: The highest numbers that are known to have been given out.
        runs: How often the journal was opened for writing.
        is_over: Whether the app has ended in order: no worker is left.
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
