"""Records the inputs of a scheduler, so that another scheduler can continue where this one was killed.

Recording is one append to a queue. The journal's thread requests the queued records in batches. Each batch is handed
over in one step of the loop, so records that belong together are never split over two batches. A worker's frame is
acknowledged when the batch that holds it is on disk. Until then the worker keeps the frame, so the next scheduler
receives every frame that a killed scheduler has taken in and not written.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lightwork._version import __version__
from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.journal import BoundListener
from lightwork.engine.recovery import records as rec
from lightwork.engine.recovery.replay import Replay
from lightwork.engine.recovery.run_results import RunResults
from lightwork.engine.recovery.snapshot import dump_values
from lightwork.engine.rules.events import Event, Outcome
from lightwork.errors import JournalError, LightworkError
from lightwork.journal.lock import FileLock
from lightwork.journal.store import Store
from lightwork.journal.writer import Job, Writer
from lightwork.link.peer import Peer
from lightwork.runtime import Ref
from lightwork.state.ops import Op
from lightwork.state.state import State

__all__ = ["OpenedJournal", "Recorder", "open_journal", "read_journal"]

_BLOCK = 1024
"""How many call numbers are reserved at a time. A call may reach its worker before its record reaches the disk, so the
next scheduler must not use a number that the killed one may have used."""

_MOST_LOG = 16 << 20
"""Bytes of records after which a snapshot is due. It is `_LOG_RATIO` times the size of the last snapshot if that is
more."""

_LOG_RATIO = 4

_LOOK_EVERY = 0.1
"""Seconds between two checks for a failed writer, while the loop waits for the writer."""

_END_WITHIN = 10.0
"""At the end of the app: seconds that people have to free space on a full disk."""

_CHECKPOINT_EVERY = 60.0
"""Seconds between two snapshots that are made only as checkpoints for people."""


class OpenedJournal(NamedTuple):
    """A journal that is open for writing.

    Attributes:
        store, lock: The file, and the lock on it.
        owner: Id of the scheduler, which its runtimes know.
        replay: The restored contents; None for a new run.
        address: Where its workers dial; None for a new run.
    """

    store: Store
    lock: FileLock
    owner: str
    replay: Replay | None
    address: BoundListener | None


def open_journal(path: Path, app: str, owner: str, *, resume: bool, kept: int) -> OpenedJournal:
    """Open the journal of an app, or create it.

    Args:
        path: The file.
        app: Name of the app.
        owner: Id of the scheduler for a new run.
        resume: Whether to continue the run in the journal. A journal without a run starts a new one.
        kept: How many statuses are kept of each work.

    Raises:
        JournalError: The journal cannot be used. The message says what to do.
    """
    lock = FileLock(path)
    try:
        if not Store.exists(path):
            store = Store.create(path)
            store.set_meta({"app": app.encode(), "owner": owner.encode()})
            return OpenedJournal(store, lock, owner, None, None)
        store = Store.open(path)
        try:
            return _reopen(store, lock, app, owner, resume=resume, kept=kept)
        except BaseException:
            store.close()
            raise
    except BaseException:
        lock.release()
        raise


def _reopen(store: Store, lock: FileLock, app: str, owner: str, *, resume: bool, kept: int) -> OpenedJournal:
    meta = store.meta()
    path, theirs = store.path, meta.get("app", b"").decode()
    if theirs != app:
        raise JournalError(
            f"the journal {path} belongs to the app {theirs!r}, but this app is {app!r}: use a separate path for each "
            "app"
        )
    replay = read_journal(store, kept=kept)
    if not replay.runs:  # its scheduler was killed before it began to write
        return OpenedJournal(store, lock, owner, None, None)
    if not resume:
        if not replay.is_over:
            raise JournalError(
                f"the journal {path} holds a run that has not ended: continue it with --resume (in Python "
                "resume=True), or use another path"
            )
        # The final state of that run stays in the file as a checkpoint.
        store.set_meta({"owner": owner.encode()})
        return OpenedJournal(store, lock, owner, None, None)
    wrote = meta.get("lightwork", b"").decode()
    if wrote != __version__ and not replay.is_over:
        raise JournalError(
            f"the journal {path} holds a run of lightwork {wrote} that has not ended, but this is lightwork "
            f"{__version__}: continue it with lightwork {wrote}, or restore its latest checkpoint with "
            "`lightwork checkpoint restore`"
        )
    address = msgspec.msgpack.decode(meta["address"], type=BoundListener) if "address" in meta else None
    return OpenedJournal(store, lock, meta.get("owner", owner.encode()).decode(), replay, address)


def read_journal(store: Store, number: int | None = None, *, kept: int = 100) -> Replay:
    """Replay a journal to its end, or only up to its snapshot `number`.

    Raises:
        JournalError: The journal is damaged.
    """
    try:
        found = store.snapshot(number)
        seq, make_snapshot = (0, None) if found is None else (found[0], rec.decode_snapshot(found[1]))
        replay = Replay(make_snapshot, kept=kept)
        if number is None:
            for batch in store.batches(seq):
                replay.take_all(rec.decode_batch(batch))
    except (msgspec.MsgspecError, LightworkError) as error:
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"the journal {store.path} is damaged: {error}. Nothing was changed") from error
    return replay


class Recorder:
    """The `Journal` of a running app. It makes the records, and the writer's thread writes them.

    `put` and `edited` may be called in any thread, everything else in the loop's thread.

    Args:
        opened: The journal.
        failed: Called in the loop with an error of the journal that waiting cannot fix.
        make_snapshot: Makes a snapshot of the running engine.
        states: Returns every state that is in the snapshot.

    Attributes:
        run_results: See `lightwork.engine.recovery.run_results`.
        replay: The restored contents of the journal; None for a new run.
        statics, profiles: See `lightwork.engine.recovery.records.Snapshot`.
        generation: How many schedulers have written to this journal, this one included.
        is_over: Whether the app has ended gracefully.
        latest_call: The highest call number that was used.
        reserved: The highest reserved call number.
    """

    is_kept = True

    def __init__(
        self,
        opened: OpenedJournal,
        failed: Callable[[BaseException], None],
        make_snapshot: Callable[[], rec.Snapshot],
        states: Callable[[], Iterable[State]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._failed = failed
        self._make_snapshot = make_snapshot
        self._states = states
        self._waiting: deque[rec.Record] = deque()
        self._is_woken = False
        self._has_begun = False
        self._is_closed = False
        self._heard: dict[Peer[Any], int] = {}  # by peer: its latest frame number that waits for acknowledgement
        self._commits: list[Callable[[], None]] = []
        self._flows: dict[Flow, bytes] = {}
        self._log_size = 0
        self._snapshot_size = 0
        self._snapshot_at = self._loop.time()
        self.replay: Replay | None = opened.replay
        replay = opened.replay or Replay()
        self.run_results: RunResults = RunResults(replay.run_results.results, replay.run_results.calls_made)
        self.statics: dict[str, Any] = replay.statics
        self.profiles: dict[str, Any] = replay.profiles
        self.generation: int = replay.runs + 1
        self.is_over: bool = False
        # The killed scheduler may have given out every number that it had reserved.
        self.latest_call: int = replay.latest_call if replay.is_over else replay.calls
        self.reserved: int = self.latest_call + _BLOCK
        self._reserved_safely = self.latest_call
        self._writer = Writer(opened.store, self._on_asked, self._on_failed)

    @property
    def owner(self) -> str:
        """Id of the scheduler, which its runtimes know."""
        return self._opened.owner

    @property
    def address(self) -> BoundListener | None:
        """Where the workers of the killed scheduler dial."""
        return self._opened.address

    def begin(self, listener: BoundListener) -> None:
        """Write from now on, beginning with a snapshot of this moment.

        Raises:
            JournalError: The journal cannot be written.
        """
        self._opened.store.set_meta({"address": rec.encode(listener), "lightwork": __version__.encode()})
        self._writer.start()
        self._has_begun = True
        self._reserve()
        self._snapshot("resumed" if self.replay is not None else "began")

    # --- recording --------------------------------------------------------------------------------

    def put(self, record: rec.Record) -> None:
        """Queue a record for the writer."""
        self._waiting.append(record)
        if not self._is_woken:
            self._is_woken = True
            self._writer.wake()

    def happened(self, event: Event, now: float) -> None:
        """See `Journal`."""
        self.put(rec.Happened(now, event))

    def frame_received(
        self, work: int, attempt: int, number: int, now: float, body: bytes, peer: Peer[Any] | None
    ) -> None:
        """See `Journal`."""
        if peer is not None:
            self._heard[peer] = number
        self.put(rec.Framed(work, attempt, number, now, body))

    def edited(self, name: str, op: Op) -> None:
        """See `Journal`."""
        self.put(rec.Edited(name, rec.encode(op)))

    def launch_begun(self, work: int, attempt: int, name: str, launch: bytes, secret: bytes, profile: str) -> None:
        """See `Journal`."""
        self.profiles[profile] = None
        self.put(rec.LaunchBegun(work, attempt, name, launch, secret, profile))

    def placed(self, work: int, attempt: int, ref: Ref) -> None:
        """See `Journal`."""
        self.put(rec.Placed(work, attempt, ref))

    def welcomed(self, work: int, attempt: int, *, picks_port: bool) -> None:
        """See `Journal`."""
        self.put(rec.Welcomed(work, attempt, picks_port))

    def output_read(self, work: int, attempt: int, offset: int) -> None:
        """See `Journal`."""
        self.put(rec.WorkerOutput(work, attempt, offset))

    # --- calls of works that cache nothing ----------------------------------------------------------

    def call_made(self, work: int, call: int, hash: str) -> None:
        """See `Journal`."""
        made = rec.CallMade(work, call, hash)
        self.put(made)
        self.run_results.call_made(made)

    def call_recovered(self, work: int, call: int, hash: str) -> None:
        """See `Journal`. If a pass has made the call, its outcome answers that pass."""
        made = rec.CallMade(work, call, hash)
        self.put(made)
        self.run_results.recover(made)

    def call_joined(self, call: int) -> None:
        """See `Journal`."""
        self.run_results.claim(call)

    def call_settled(self, call: int, outcome: Outcome) -> None:
        """See `Journal`."""
        self.run_results.settle(call, outcome)

    def recall(self, work: int, hash: str) -> tuple[int, Outcome] | None:
        """See `Journal`."""
        found = self.run_results.recall(work, hash)
        return None if found is None else (found.call, found.outcome)

    # --- components -------------------------------------------------------------------------------

    def component_added(self, component: Flow | Work, number: int, *, is_static: bool) -> None:
        """See `Journal`."""
        name, state = component.name, component._state
        progress = self._watch_progress(component) if isinstance(component, Flow) else b""
        if is_static:
            self.statics[name] = None
        with state.lock:
            self.put(rec.Added(name, number, dump_values(state.snapshot()), progress, is_static))

    def component_removed(self, name: str, component: Flow | Work | None = None) -> None:
        """See `Journal`."""
        if isinstance(component, Flow):
            self._flows.pop(component, None)
        self.put(rec.Removed(name))

    def watch(self, flow: Flow) -> None:
        """Record the progress of a flow from now on; its component is in the journal already."""
        self._watch_progress(flow)

    def _watch_progress(self, flow: Flow) -> bytes:
        self._flows[flow] = progress = rec.encode(flow._progress.snapshot())
        return progress

    def _put_progress(self) -> None:
        """Queue the progress of flows that has changed. Nothing reports it, so it is compared at each batch."""
        for flow, known in self._flows.items():
            progress = flow._progress
            if progress.schedules or progress.iterations or len(known) > 1:
                data = rec.encode(progress.snapshot())
                if data != known:
                    self._flows[flow] = data
                    self._waiting.append(rec.Progressed(flow.name, data))

    def next_call(self) -> int:
        """Return a number that no call of this journal has had."""
        self.latest_call += 1
        if self.latest_call > self.reserved - _BLOCK // 2:
            self.reserved += _BLOCK
            self.put(rec.Reserved(self.reserved))
            self._reserve()
        if self.latest_call > self._reserved_safely:
            self.sync()
        return self.latest_call

    def _reserve(self) -> None:
        reserved = self.reserved

        def on_disk() -> None:
            self._reserved_safely = max(self._reserved_safely, reserved)

        self.when_committed(on_disk)

    def run_ended(self) -> None:
        """See `Journal`."""
        self.run_results.end_run()
        self.put(rec.RunEnded())
        if self._loop.time() >= self._snapshot_at + _CHECKPOINT_EVERY and self._log_size:
            self._snapshot("after a pass")

    # --- committing -------------------------------------------------------------------------------

    def when_committed(self, act: Callable[[], None]) -> None:
        """Call `act` in the loop as soon as everything that was recorded so far is on disk."""
        self._commits.append(act)
        self._is_woken = True
        self._writer.urge()

    async def committed(self) -> None:
        """Return when everything that was recorded so far is on disk."""
        future = self._loop.create_future()
        self.when_committed(lambda: None if future.done() else future.set_result(None))
        await future

    def sync(self) -> None:
        """Block the loop until everything is on disk.

        Raises:
            JournalError: The journal cannot be written.
        """
        if not self._has_begun:
            return  # the first snapshot will include it, and nothing was sent to a worker yet
        over = threading.Event()
        self._hand_over(over.set)
        while not over.wait(_LOOK_EVERY):
            if self._writer.error is not None:
                raise self._writer.error
        self._reserved_safely = self.reserved

    def _on_asked(self) -> None:
        """Hand over a batch, because the writer is ready. Called in the writer's thread."""
        self._soon(lambda: self._hand_over(is_asked=True))

    def _on_failed(self, error: JournalError) -> None:
        """Report that nothing more can be written. Called in the writer's thread."""
        self._soon(lambda: self._failed(error))

    def _soon(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            return  # the loop is closed: nobody waits for this, and the writer has its last job

    def _hand_over(
        self,
        told: Callable[[], None] | None = None,
        *,
        snapshot: tuple[bytes, str] | None = None,
        is_asked: bool = False,
        is_last: bool = False,
    ) -> None:
        """Give the queued records to the writer.

        Args:
            told: Called in the writer's thread when they are on disk.
            snapshot: A snapshot of this moment and its label. It is written instead of the records that led to it.
            is_asked: See `Job`.
            is_last: See `Job`.
        """
        if self._is_closed:
            return
        self._is_woken = False  # before the queue is emptied, so that a record after that wakes the writer
        self._put_progress()
        waiting = self._waiting
        records = [waiting.popleft() for _ in range(len(waiting))]
        # Encoded in the loop's thread: in the writer's thread it would hold the interpreter's lock and gain nothing.
        data = rec.encode(records) if records and snapshot is None else b""
        heard, self._heard = self._heard, {}
        commits, self._commits = self._commits, []

        def write(store: Store) -> None:
            if snapshot is not None:
                store.add_snapshot(*snapshot)
            elif data:
                store.append(data)
                self._log_size += len(data)

        def done() -> None:
            if told is not None:
                told()
            if heard or commits or self._log_size > max(_MOST_LOG, _LOG_RATIO * self._snapshot_size):
                self._soon(lambda: self._on_committed(heard, commits))

        self._writer.put(Job(write, done, is_asked=is_asked, is_last=is_last))

    def _on_committed(self, heard: Mapping[Peer[Any], int], commits: list[Callable[[], None]]) -> None:
        for peer, number in heard.items():
            peer.keep(number)
        for act in commits:
            act()
        if self._log_size > max(_MOST_LOG, _LOG_RATIO * self._snapshot_size) and not self._is_closed:
            self._snapshot("the log was long")

    def _snapshot(self, label: str) -> None:
        """Write a snapshot of this moment; later records continue from it."""
        self._snapshot_at = self._loop.time()
        with ExitStack() as stack:
            for state in self._states():  # no edit of another thread falls between the records and the snapshot
                stack.enter_context(state.lock)
            data = rec.encode(self._make_snapshot())
            self._snapshot_size = len(data)
            self._log_size = 0
            self._hand_over(snapshot=(data, label))

    # --- ending -----------------------------------------------------------------------------------

    async def aclose(self, *, is_over: bool) -> None:
        """Write the queued records and close the file. `is_over`: the app has ended gracefully, and no worker is left.

        Raises:
            JournalError: Not everything could be written.
        """
        try:
            if is_over:
                self.is_over = True
                self._snapshot("the app ended")
            self._hand_over(is_last=True)
            self._is_closed = True
            await asyncio.to_thread(self._writer.join, _END_WITHIN)
        finally:
            self.release()

    def release(self) -> None:
        """Close the file and release its lock, without writing anything more."""
        self._is_closed = True
        self._opened.store.close()
        self._opened.lock.release()
