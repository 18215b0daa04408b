"""The connections of workers: who is let in, what is sent along with the welcome, and what each frame means."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from lightwork import wire
from lightwork._version import __version__
from lightwork.calls import Operation
from lightwork.engine import events as ev
from lightwork.engine.core import Core, Entry, finish_all
from lightwork.engine.mirror import Mirror
from lightwork.engine.workers import Worker
from lightwork.errors import LightworkError, ProposalRefused, ProtocolError, StateError, UsageError
from lightwork.link.connection import Connection
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.remote import rebuild_error
from lightwork.status import Reason
from lightwork.work import Work

__all__ = ["Links", "pickle_work"]


class Links:
    """Ties connections to workers, and their frames to the machine and the tree.

    Args:
        core: What the frames are fed to.
        end: Ends a worker by force.
    """

    def __init__(self, core: Core, end: Callable[[Worker, float], None]) -> None:
        self._core = core
        self._end = end

    # --- letting in -------------------------------------------------------------------------------

    def find_secret(self, launch: bytes) -> bytes | None:
        """The secret of a launch whose worker is wanted."""
        worker = self._core.workers.get(launch)
        return None if worker is None else worker.secret

    def on_hello(self, connection: Connection, launch: bytes, hello: wire.Hello) -> None:
        """A worker has proved its launch: welcome it, or tell it to end itself."""
        worker = self._core.workers.get(launch)
        entry = None if worker is None else self._core.entries.get(worker.work)
        if worker is None or entry is None or entry.worker is not worker:
            _refuse(connection, "this worker is not wanted any more")
            return
        if (hello.version, hello.lightwork) != (wire.VERSION, __version__):
            text = (
                f"the worker has lightwork {hello.lightwork} (wire {hello.version}), the scheduler {__version__} "
                f"(wire {wire.VERSION}): install the same version where the works run"
            )
            if worker.peer is None:
                worker.refusal = text
            _refuse(connection, text)
            return
        worker.hello = hello
        if worker.peer is None:
            self._welcome_first(connection, entry, worker, hello)
        else:
            self._welcome(connection, worker, worker.peer, hello, b"" if hello.received else worker.pickled, entry)
            self._core.external(lambda: self._core.feed(ev.LinkRestored(entry.id, worker.attempt)))

    def _welcome_first(self, connection: Connection, entry: Entry, worker: Worker, hello: wire.Hello) -> None:
        try:
            worker.pickled = pickle_work(entry.work)
        except UsageError as error:
            worker.refusal = str(error)
            entry.start_error = error
            _refuse(connection, worker.refusal)
            return
        peer: Peer[wire.FromWorker] = Peer(
            lambda frame: self._on_frame(entry, worker, frame),
            wire.decode_from_worker,
            self._core.config.max_frame,
            ack_delay=None,
        )
        peer.beat(self._core.config.heartbeat)
        worker.peer = peer
        entry.picks_port = entry.work._port is None
        worker.mirror = Mirror(
            entry.work._state,
            lambda frame: self._core.in_loop_soon(lambda: self._propose(entry, peer, frame)),
            lambda op: self.edited(entry, op),
        )
        self._welcome(connection, worker, peer, hello, worker.pickled, entry)

    def _welcome(
        self, connection: Connection, worker: Worker, peer: Peer[Any], hello: wire.Hello, work: bytes, entry: Entry
    ) -> None:
        config = self._core.config
        welcome = wire.Welcome(
            peer.received, work, entry.name, list(sys.path), config.heartbeat, config.grace, config.max_frame
        )
        connection.send(wire.pack(wire.encode(welcome)))
        worker.cut.clear()
        connection.on_closed = lambda error: self._on_cut(entry, worker, connection)
        peer.attach(connection, hello.received)

    def _on_cut(self, entry: Entry, worker: Worker, connection: Connection) -> None:
        assert worker.peer is not None
        if worker.peer.connection is not connection and worker.peer.connection is not None:
            return
        worker.peer.detach(connection)
        worker.cut.set()
        self._core.external(lambda: self._core.feed(ev.LinkLost(entry.id, worker.attempt)))

    # --- sending ----------------------------------------------------------------------------------

    def send(self, entry: Entry, frame: wire.Frame) -> None:
        """Send to the present worker; without one that was welcomed, nothing happens."""
        if entry.worker is not None and entry.worker.peer is not None:
            entry.worker.peer.send(frame)

    def _propose(self, entry: Entry, peer: Peer[Any], frame: wire.FlowDelta) -> None:
        if peer.closed:
            return  # proposed in another thread while the worker went: the flow owns the state again, edit included
        try:
            peer.send(frame)
        except FrameTooLarge as error:
            self._core.fail(StateError(f"the value assigned to {entry.name}.{frame.op[1][0]} is too large: {error}"))

    def propose(self, entry: Entry, edit: Callable[[], None]) -> Operation:
        """See `Scheduler.propose`."""
        operation = Operation(self._core.loop)
        worker = entry.worker
        mirror = worker.mirror if worker is not None else None
        if worker is None or mirror is None or not mirror.is_tied:
            edit()
            operation.finish()
            return operation
        before = mirror.latest
        try:
            edit()
        finally:
            latest = mirror.latest
            worker.outside.update(dict.fromkeys(range(before + 1, latest + 1), operation))
        if latest == before:  # nothing that changes anything
            operation.finish()
        return operation

    def edited(self, entry: Entry, op: wire.Op) -> None:
        """The flow has edited its copy of a work's state."""
        self._core.in_loop_soon(lambda: self._core.tree.edited(entry.name, (op,)))

    # --- receiving --------------------------------------------------------------------------------

    def _on_frame(self, entry: Entry, worker: Worker, frame: wire.FromWorker) -> None:
        if type(frame) is wire.Bye:
            if worker.peer is not None:
                worker.peer.acknowledge()
        elif self._core.is_holding:
            self._core.external(lambda: self._take(entry, worker, frame))
        else:
            self._take(entry, worker, frame)

    def _take(self, entry: Entry, worker: Worker, frame: wire.FromWorker) -> None:
        if entry.worker is not worker:
            return
        attempt, feed = worker.attempt, self._core.feed
        # First those that come all the time, by their very type: a `match` asks isinstance for each case.
        if type(frame) is wire.Result:
            feed(ev.CallSucceeded(entry.id, attempt, frame.call, bytes(frame.value)))
            return
        if type(frame) is wire.Delta:
            ops = frame.ops
            self._apply(entry, worker, lambda mirror: mirror.apply(ops))
            return
        match frame:
            case wire.Running():
                feed(ev.CallRunning(entry.id, attempt, frame.call))
            case wire.Failure():
                reason = _reason(frame.reason)
                feed(ev.CallFailed(entry.id, attempt, frame.call, reason, frame.error, frame.swallowed))
            case wire.Cancelled():
                feed(ev.CallCancelled(entry.id, attempt, frame.call))
            case wire.Ready():
                worker.pickled = b""
                feed(ev.WorkerReady(entry.id, attempt))
            case wire.Answer():
                self._apply(entry, worker, lambda mirror: mirror.answer(frame.proposal, frame.ops))
                self._on_answer(entry, worker, frame)
            case wire.Stopped():
                if frame.error is not None:
                    entry.start_error = rebuild_error(frame.error, work=entry.name)
                reason_or_none = _reason(frame.reason) if frame.reason else None
                feed(ev.WorkerStopping(entry.id, attempt, reason_or_none, frame.error))
            case _:
                raise LightworkError(f"{type(frame).__name__} is not expected here")

    def _apply(self, entry: Entry, worker: Worker, apply: Callable[[Mirror], Sequence[wire.Op]]) -> None:
        assert worker.mirror is not None
        try:
            ops = apply(worker.mirror)
        except StateError as error:
            worker.refusal = f"its state cannot be followed: {error}"
            self._end(worker, 0.0)
            return
        if ops:
            self._core.tree.edited(entry.name, ops)

    def _on_answer(self, entry: Entry, worker: Worker, frame: wire.Answer) -> None:
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

    def check_confirmed(self, entry: Entry) -> None:
        """End the waits for proposals if none is open."""
        mirror = entry.worker.mirror if entry.worker is not None else None
        if entry.confirms and (mirror is None or not mirror.num_pending):
            refusals, entry.refusals = entry.refusals, []
            finish_all(entry.confirms, refusals[0] if refusals else None)

    def close(self, entry: Entry, worker: Worker) -> None:
        """The worker is gone: the flow owns the state again."""
        self._core.workers.pop(worker.launch, None)
        if worker.peer is not None:
            worker.peer.close()
        if worker.mirror is not None:
            worker.mirror.close(entry.work._edited)
        finish_all(list(worker.outside.values()))  # who has asked for edits has them: nobody is there to refuse
        worker.outside.clear()


def _refuse(connection: Connection, text: str) -> None:
    connection.send(wire.pack(wire.encode(wire.Refuse(text))))
    connection.close()


def pickle_work(work: Work) -> bytes:
    """The work as a worker unpacks it.

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


def _reason(text: str) -> Reason:
    """A reason that a worker gives; raises `ProtocolError` where it is none."""
    try:
        return Reason(text)
    except ValueError:
        raise ProtocolError(f"a worker gives the reason {text!r:.80}, which is none") from None
