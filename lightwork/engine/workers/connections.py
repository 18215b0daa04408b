"""The connections of workers: their admission, the welcome, and the frames in both directions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightwork._version import __version__
from lightwork.components.call import Operation
from lightwork.components.work import Work
from lightwork.engine.core import Core
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.entries import Entries, WorkEntry, finish_all
from lightwork.engine.workers.queries import Queries
from lightwork.engine.workers.replica import Replica
from lightwork.engine.workers.translate import event_of
from lightwork.engine.workers.worker import Adoption, Worker
from lightwork.errors import ProposalRefused, StateError, UsageError
from lightwork.link import messages
from lightwork.link.connection import Connection
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.remote_errors import rebuild_error
from lightwork.state.ops import Op

__all__ = ["Connections", "pickle_work"]


class Connections:
    """Connects workers to the machine and to the component tree.

    Args:
        core: Takes the frames as events.
        entries: Every work and worker.
        queries: Takes the replies to queries.
        end: Ends a worker by force.
    """

    def __init__(
        self,
        core: Core,
        entries: Entries,
        queries: Queries,
        end: Callable[[Worker, float], None],
    ) -> None:
        self._core = core
        self._entries = entries
        self._queries = queries
        self._end = end

    # --- admission --------------------------------------------------------------------------------

    def find_secret(self, launch: bytes) -> bytes | None:
        """Return the secret of a launch; None if nobody expects its worker."""
        worker = self._entries.workers.get(launch)
        return None if worker is None else worker.secret

    def on_hello(self, connection: Connection, launch: bytes, hello: messages.Hello) -> None:
        """Welcome a worker that has proved its launch, or refuse it."""
        worker = self._entries.workers.get(launch)
        entry = None if worker is None else self._entries.by_number.get(worker.work)
        if worker is None or entry is None or entry.worker is not worker:
            _refuse(connection, "this worker is not wanted any more")
            return
        if (hello.version, hello.lightwork) != (messages.VERSION, __version__):
            text = (
                f"the worker has lightwork {hello.lightwork} (wire {hello.version}), the scheduler {__version__} "
                f"(wire {messages.VERSION}): install the same version where the works run"
            )
            if worker.peer is None:
                worker.refusal = text
            _refuse(connection, text)
            return
        worker.hello = hello
        if worker.peer is not None and hello.welcomed:
            self._welcome(connection, worker, worker.peer, hello, b"", entry)
            self._core.external(lambda: self._core.feed(ev.LinkRestored(entry.id, worker.attempt)))
        elif worker.peer is not None:  # the first welcome was lost on its way
            self._welcome_soon(connection, entry, worker, worker.peer, hello)
        elif worker.adoption is not Adoption.NONE and hello.welcomed:
            self._welcome_adopted(connection, entry, worker, hello)
        elif entry.is_missing:
            # The flow has not made the work again yet.
            worker.returned.set()
            entry.on_returned.append(lambda: self.on_hello(connection, launch, hello) if connection.is_open else None)
        else:
            self._welcome_first(connection, entry, worker, hello)

    def _welcome_first(self, connection: Connection, entry: WorkEntry, worker: Worker, hello: messages.Hello) -> None:
        try:
            worker.pickled = pickle_work(entry.work)
        except UsageError as error:
            worker.refusal = str(error)
            entry.start_error = error
            _refuse(connection, worker.refusal)
            return
        peer = self._make_peer(entry, worker)
        worker.picks_port = entry.work._port is None
        self.tie(entry, worker)
        self._core.journal.welcomed(entry.id, worker.attempt, picks_port=worker.picks_port)
        self._welcome_soon(connection, entry, worker, peer, hello)

    def _welcome_soon(
        self, connection: Connection, entry: WorkEntry, worker: Worker, peer: Peer[Any], hello: messages.Hello
    ) -> None:
        """Send the worker its work, with the state as it is now. A journal has that state on disk before."""

        def welcome() -> None:
            if connection.is_open and not peer.closed:
                self._welcome(connection, worker, peer, hello, worker.pickled, entry)

        self._core.journal.when_committed(welcome)

    def _make_peer(self, entry: WorkEntry, worker: Worker) -> Peer[messages.FromWorker]:
        peer: Peer[messages.FromWorker] = Peer(
            partial(self._on_frame, entry, worker),
            messages.decode_from_worker,
            self._core.config.max_frame,
            ack_delay=None,
            keeps=self._core.journal.is_kept,
        )
        peer.beat(self._core.config.heartbeat)
        worker.peer = peer
        return peer

    def tie(self, entry: WorkEntry, worker: Worker, earlier: int = 0) -> None:
        """Make the worker the owner of the work's state. `earlier` is the argument of `Replica`."""
        peer = worker.peer
        assert peer is not None
        worker.replica = Replica(
            entry.work._state,
            lambda frame: self._core.in_loop_soon(lambda: self._propose(entry, peer, frame)),
            lambda op: self.edited(entry, op),
            earlier,
        )

    def _welcome(
        self,
        connection: Connection,
        worker: Worker,
        peer: Peer[Any],
        hello: messages.Hello,
        work: bytes,
        entry: WorkEntry,
    ) -> None:
        config = self._core.config
        welcome = messages.Welcome(
            peer.received, work, entry.name, list(sys.path), config.heartbeat, config.grace, config.max_frame
        )
        connection.send(messages.pack(messages.encode(welcome)))
        worker.cut.clear()
        connection.on_closed = lambda error: self._on_cut(entry, worker, connection)
        peer.attach(connection, hello.received)

    # --- after a killed scheduler -----------------------------------------------------------------

    def _welcome_adopted(self, connection: Connection, entry: WorkEntry, worker: Worker, hello: messages.Hello) -> None:
        """Continue with a worker that a killed scheduler has welcomed.

        The worker sends again every frame that the journal does not have. The journal does not say which frames reached
        the worker, so the worker says it, and the machine sends the calls that are missing.
        """
        peer = self._make_peer(entry, worker)
        peer.resume(hello.received, worker.received)
        self.tie(entry, worker, hello.proposal)
        worker.adoption = Adoption.CATCHING_UP

        def on_frame(frame: messages.FromWorker) -> None:
            self._on_frame(entry, worker, frame)
            self._core.external(catch_up)

        def returned() -> None:
            if entry.worker is worker:
                # An outcome that was recorded is not on its way any more.
                calls = tuple((call, hash) for call, hash, number in hello.calls if not 0 < number <= worker.received)
                self._core.feed(ev.WorkerReturned(entry.id, worker.attempt, calls))

        def catch_up() -> None:
            if worker.adoption is Adoption.CATCHING_UP and worker.received >= hello.sent:
                worker.adoption = Adoption.RETURNED
                peer.on_frame = partial(self._on_frame, entry, worker)
                if entry.worker is worker:
                    calls = frozenset(call for call, _, number in hello.calls if not number)
                    self._core.feed(ev.WorkerCaughtUp(entry.id, worker.attempt, calls))
                worker.returned.set()

        peer.on_frame = on_frame
        self._core.external(returned)
        self._welcome(connection, worker, peer, hello, b"", entry)
        self._core.external(catch_up)

    def _on_cut(self, entry: WorkEntry, worker: Worker, connection: Connection) -> None:
        assert worker.peer is not None
        if worker.peer.connection is not connection and worker.peer.connection is not None:
            return
        worker.peer.detach(connection)
        worker.cut.set()
        self._core.external(lambda: self._core.feed(ev.LinkLost(entry.id, worker.attempt)))

    # --- sending ----------------------------------------------------------------------------------

    def send(self, entry: WorkEntry, frame: messages.Frame) -> None:
        """Send to the present worker. Nothing happens without a worker that was welcomed."""
        worker = entry.worker
        if worker is not None and worker.peer is not None:
            worker.peer.send(frame)

    def stop(self, entry: WorkEntry, grace: float) -> None:
        """Tell the present worker to end gracefully, once the journal has everything that came from it.

        A worker that has ended cannot send anything again.
        """
        worker = entry.worker
        self._core.journal.when_committed(
            lambda: self.send(entry, messages.Stop(grace)) if entry.worker is worker else None
        )

    def _propose(self, entry: WorkEntry, peer: Peer[Any], frame: messages.Propose) -> None:
        if peer.closed:
            return  # the worker has gone meanwhile, so the flow owns the state again, with this edit
        try:
            peer.send(frame)
        except FrameTooLarge as error:
            self._core.fail(StateError(f"the value assigned to {entry.name}.{frame.op[1][0]} is too large: {error}"))

    def propose(self, entry: WorkEntry, edit: Callable[[], None]) -> Operation:
        """See `Engine.propose`."""
        operation = Operation(self._core.loop)
        worker = entry.worker
        replica = worker.replica if worker is not None else None
        if worker is None or replica is None or not replica.is_tied:
            edit()
            operation.finish()
            return operation
        before = replica.latest
        try:
            edit()
        finally:
            latest = replica.latest
            worker.outside.update(dict.fromkeys(range(before + 1, latest + 1), operation))
        if latest == before:  # the edit has changed nothing
            operation.finish()
        return operation

    def edited(self, entry: WorkEntry, op: Op) -> None:
        """Publish an edit that the flow has made in its copy of a work's state."""
        self._core.in_loop_soon(lambda: self._core.hub.edited(entry.name, (op,)))

    # --- receiving --------------------------------------------------------------------------------

    def _on_frame(self, entry: WorkEntry, worker: Worker, frame: messages.FromWorker) -> None:
        peer = worker.peer
        assert peer is not None
        if type(frame) is messages.QueryReply:
            self._queries.replied(worker, frame)
        elif type(frame) is messages.Bye and not self._core.journal.is_kept:
            peer.acknowledge()
        elif self._core.held is not None:
            if peer.withhold():  # no acknowledgement: a worker that streams reaches the end of its window and waits
                self._core.external(peer.release)
            self._core.external(partial(self._take, entry, worker, frame, peer.number, peer.body))
        else:
            self._take(entry, worker, frame, peer.number, peer.body)

    def _take(self, entry: WorkEntry, worker: Worker, frame: messages.FromWorker, number: int, body: bytes) -> None:
        if entry.worker is not worker:
            return
        now = self._core.tick()
        worker.received = number
        self._core.journal.frame_received(entry.id, worker.attempt, number, now, body, worker.peer)
        # Frequent frames first, by their exact type: a `match` asks isinstance for each case.
        if type(frame) is messages.Result:
            self._core.feed(ev.CallSucceeded(entry.id, worker.attempt, frame.call, bytes(frame.value)), now)
            return
        if type(frame) is messages.Delta:
            self._apply(entry, worker, Replica.apply, frame.ops)
            return
        if type(frame) is messages.ProposalResult:
            self._apply(entry, worker, Replica.answer, frame.proposal, frame.ops)
            self._on_answer(entry, worker, frame)
            return
        if type(frame) is messages.Bye:
            self._on_bye(worker)
            return
        if type(frame) is messages.Ready:
            worker.pickled = b""
        if type(frame) is messages.Stopped and frame.error is not None:
            entry.start_error = rebuild_error(frame.error, work=entry.name)
        event = event_of(entry.id, worker.attempt, frame)
        if event is not None:
            self._core.feed(event, now)

    def _apply(self, entry: WorkEntry, worker: Worker, apply: Callable[..., Sequence[Op]], *args: Any) -> None:
        assert worker.replica is not None
        try:
            ops = apply(worker.replica, *args)
        except StateError as error:
            worker.refusal = f"its state cannot be followed: {error}"
            self._end(worker, 0.0)
            return
        if ops:
            self._core.hub.edited(entry.name, ops)

    def _on_bye(self, worker: Worker) -> None:
        """Acknowledge the last frame of a worker once everything is on disk: the worker then exits."""
        if worker.peer is not None:
            self._core.journal.when_committed(worker.peer.acknowledge)

    def _on_answer(self, entry: WorkEntry, worker: Worker, frame: messages.ProposalResult) -> None:
        outside = worker.outside.pop(frame.proposal, None)
        error = None
        if frame.error is not None:
            error = ProposalRefused(f"{entry.name} refused a change of its state: {frame.error.message}")
        if outside is not None:
            if error is not None or outside not in worker.outside.values():
                outside.finish(error)
        elif error is not None:
            if entry.confirms:
                entry.refusals.append(error)
            else:
                self._core.fail(error)
        self.check_confirmed(entry)

    def check_confirmed(self, entry: WorkEntry) -> None:
        """Finish the operations that wait for proposals if no proposal is open."""
        replica = entry.worker.replica if entry.worker is not None else None
        if entry.confirms and (replica is None or not replica.num_pending):
            refusals, entry.refusals = entry.refusals, []
            finish_all(entry.confirms, refusals[0] if refusals else None)

    def close(self, entry: WorkEntry, worker: Worker) -> None:
        """Close the link of a worker that is gone, and give the state back to the flow."""
        worker.returned.set()
        self._entries.workers.pop(worker.launch, None)
        if worker.peer is not None:
            worker.peer.close()
        if worker.replica is not None:
            worker.replica.close(entry.work._edited, partial(self._core.journal.edited, entry.name))
        finish_all(list(worker.outside.values()))  # the edits stand: no worker is there to refuse them
        worker.outside.clear()


def _refuse(connection: Connection, text: str) -> None:
    connection.send(messages.pack(messages.encode(messages.Refuse(text))))
    connection.close()


def pickle_work(work: Work) -> bytes:
    """Pickle a work for its worker.

    Raises:
        UsageError: A private attribute cannot be sent; names it.
    """
    import cloudpickle

    try:
        pickled: bytes = cloudpickle.dumps(work)
    except Exception as error:
        for name, value in work.__getstate__()["private"].items():
            try:
                cloudpickle.dumps(value)
            except Exception as cause:
                raise UsageError(
                    f"{type(work).__name__}.{name} is a {type(value).__name__} and cannot be sent to a worker: "
                    f"{cause}. Make it in run or on_start, where it is needed"
                ) from cause
        raise UsageError(f"{type(work).__name__} cannot be sent to a worker: {error}") from error
    return pickled
