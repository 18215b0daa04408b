"""Turns the machine's commands into I/O, and what happens into the machine's events. It holds no policy.

All of it runs in the loop's thread. A plain ``def run`` pass has a thread of its own; while it lasts, frames
of workers are held back, so that it sees one state, and what it asks for is done in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from lightwork import wire
from lightwork._version import __version__
from lightwork.calls import Call, Operation, PassEnded, Queued
from lightwork.changes import Change, ComponentAdded, ComponentRemoved, StatusChanged
from lightwork.component import Component, Node
from lightwork.config import Config
from lightwork.engine import events as ev
from lightwork.engine.listener import Listener
from lightwork.engine.machine import Machine
from lightwork.engine.mirror import Mirror
from lightwork.engine.outcomes import call_error, decode_value
from lightwork.engine.runtimes import Runtimes
from lightwork.engine.tree import Tree
from lightwork.engine.workers import Worker, explain
from lightwork.errors import ArgumentsError, LightworkError, ProposalRefused, StateError, UsageError
from lightwork.link.connection import Connection
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.log import get_logger
from lightwork.record import WorkRecord
from lightwork.runtime import Ref, Rejected, Route, Runtime, Spec
from lightwork.status import Reason, Stage
from lightwork.work import Work

__all__ = ["Scheduler", "in_pass"]

T = TypeVar("T")

ENTRY = "lightwork.worker:main"

in_pass: contextvars.ContextVar[bool] = contextvars.ContextVar("lightwork_in_pass", default=False)
"""Whether the code is, or was started by, a pass of a flow."""

_END_OF_LINK = 1.0
"""Seconds to wait for the rest of a dead worker's frames, which its kernel has sent already."""

_FORCE_MARGIN = 2.0
"""Seconds beyond the grace period after which the end of an app is forced, if the works' own ends were not."""

_log = get_logger("lightwork.engine")


class Entry:
    """One work of the tree.

    Attributes:
        id: Its number in the machine.
        work, name: Itself, and its name when it was added.
        worker: The present one, None while there is none.
        starts, stops: Operations that wait for the worker to be there, and to be gone.
        confirms: Operations that wait for all proposals to be answered.
        refusals: Refused proposals that nobody was told of.
        plain_failures: Failed calls of plain passes by hash, which give the same again until a start or stop.
        picks_port: Whether the port was free to choose when the worker was welcomed.
    """

    def __init__(self, id: int, work: Work) -> None:
        self.id = id
        self.work = work
        self.name = work.name
        self.worker: Worker | None = None
        self.starts: list[Operation] = []
        self.stops: list[Operation] = []
        self.confirms: list[Operation] = []
        self.refusals: list[ProposalRefused] = []
        self.plain_failures: dict[str, Call[Any]] = {}
        self.picks_port = False


class Scheduler:
    """Runs the works of one tree.

    Args:
        config: Of the app.
        tree: Told of everything that changes.
        given: Runtimes by profile that are given as instances.
        fail: Called with an exception that nobody else gets: it fails the app.
        request_stop, request_fail: What a flow's ``stop`` and ``fail`` do.
    """

    def __init__(
        self,
        config: Config,
        tree: Tree,
        given: Mapping[str, Runtime],
        *,
        fail: Callable[[BaseException], None],
        request_stop: Callable[[str | None], None],
        request_fail: Callable[[str | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._config = config
        self._tree = tree
        self._given = given
        self._fail = fail
        self.request_stop = request_stop
        self.request_fail = request_fail
        self.owner = f"lw{os.urandom(8).hex()}"
        self._machine = Machine()
        self._entries: dict[int, Entry] = {}
        self._by_work: dict[Work, Entry] = {}
        self._calls: dict[int, Call[Any]] = {}
        self._replaced: dict[int, Call[Any]] = {}
        self._plain_calls: set[int] = set()
        self._failed: deque[tuple[int, weakref.ref[Call[Any]]]] = deque()
        self._workers: dict[bytes, Worker] = {}
        self._timers: dict[ev.Timer, asyncio.TimerHandle] = {}
        self._outbox: list[Change] = []
        self._depth = 0
        self._now = 0.0
        self._numbers = 0
        self._held: list[Callable[[], None]] | None = None
        self._pass_thread = 0
        self._is_closed = False
        self._force = asyncio.Event()
        # Tasks of works must not look as if they belonged to the pass that happened to launch them.
        self._context = contextvars.copy_context()
        self._supervisors: set[asyncio.Task[None]] = set()
        self._listener = Listener(
            self._find_secret, self._on_hello, config.max_frame, max_strangers=config.max_strangers
        )
        self._address = Route("", 0)
        self._group: asyncio.TaskGroup | None = None
        self._runtimes: Runtimes | None = None

    # --- life -------------------------------------------------------------------------------------

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Listen; the tasks of works go into `group`.

        Raises:
            ConfigError: The address cannot be bound.
        """
        self._group = group
        host, port = await self._listener.start(self._config.host, self._config.port)
        self._address = Route(self._config.advertise or host, port)
        self._runtimes = Runtimes(self._config, self._given, group)

    async def aclose(self) -> None:
        """End every work, in order within the grace period, and by force after it; then let go of everything."""
        self._is_closed = True
        self.release_frames()
        for entry in list(self._entries.values()):
            self._feed(ev.StopRequested(entry.id))
        gone = asyncio.create_task(self._wait_gone())
        forced = asyncio.create_task(self._force.wait())
        await asyncio.wait({gone, forced}, timeout=self._config.grace + _FORCE_MARGIN, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not gone.done():
            self._kill_all()
        await gone
        for timer in self._timers.values():
            timer.cancel()
        if self._runtimes is not None:
            self._runtimes.close()
        await self._listener.aclose()

    async def _wait_gone(self) -> None:
        while self._supervisors:
            await asyncio.wait(set(self._supervisors))

    def kill(self) -> None:
        """End every work by force, now or as soon as the end begins."""
        self._force.set()

    def _kill_all(self) -> None:
        _log.warning("works are ended by force", works=[worker.name for worker in self._workers.values()])
        for worker in list(self._workers.values()):
            self._end_worker(worker, 0.0)

    @property
    def address(self) -> Route:
        """Where works dial."""
        return self._address

    def check_runtime(self, work: Work) -> None:
        """Raise `ConfigError` where the work's runtime cannot be made."""
        assert self._runtimes is not None
        self._runtimes.check(self._config.runtime_for(work.name, work._runtime))

    # --- the machine ------------------------------------------------------------------------------

    def _feed(self, event: ev.Event) -> None:
        self._now = max(self._now, time.time())
        self._depth += 1
        try:
            for command in self._machine.handle(event, self._now):
                self._carry_out(command)
        finally:
            self._depth -= 1
        if self._outbox and not self._depth:
            changes, self._outbox = self._outbox, []
            self._tree.changed(changes)

    def _carry_out(self, command: ev.Command) -> None:
        entry = self._entries[command.work]
        match command:
            case ev.Publish():
                entry.work._record.add(command.status, command.hash)
                call = self._calls.get(command.status.call or 0)
                if call is not None and not command.status.stage.is_final:
                    call.status = command.status
                self._outbox.append(StatusChanged(entry.name, command.status))
            case ev.SendCall():
                self._send(entry, wire.Call(command.call, command.args))
            case ev.Settle():
                self._settle(entry, command.call, command.outcome)
            case ev.Adopt():
                self._adopt(entry, command)
            case ev.StartTimer():
                self._stop_timer(command.timer)
                self._timers[command.timer] = self._loop.call_later(command.delay, self._on_timer, command.timer)
            case ev.StopTimer():
                self._stop_timer(command.timer)
            case ev.SendCancel():
                self._send(entry, wire.Cancel(command.call))
            case ev.SendStop():
                self._send(entry, wire.Stop(command.grace))
            case ev.Launch():
                self._launch(entry, command.attempt)
            case ev.EndWorker():
                if entry.worker is not None:
                    self._end_worker(entry.worker, command.grace)
            case ev.WorkerUp():
                _finish(entry.starts)
            case ev.WorkerGone():
                self._on_gone(entry, command.failure)
            case ev.Forget():
                del self._entries[entry.id]
                self._by_work.pop(entry.work, None)

    def _send(self, entry: Entry, frame: wire.Frame) -> None:
        if entry.worker is not None and entry.worker.peer is not None:
            entry.worker.peer.send(frame)

    def _stop_timer(self, timer: ev.Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _on_timer(self, timer: ev.Timer) -> None:
        self._timers.pop(timer, None)
        self._feed(ev.TimerFired(timer.work, timer))

    # --- calls ------------------------------------------------------------------------------------

    def run(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Driver.run`."""
        if threading.get_ident() == self._pass_thread:
            return self._run_in_plain_pass(work, args, kwargs)
        call = self.submit(work, args, kwargs)
        return Queued(call) if work._parallel else call

    def submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """See `Driver.submit`."""
        if threading.get_ident() != self._thread:
            return self._in_loop(lambda: self.submit(work, args, kwargs))
        entry = self._entry(work)
        data, hash = work._signature.bind(args, kwargs)
        if len(data) > self._config.max_frame - 1024:
            raise ArgumentsError(
                f"the arguments of {type(work).__name__}.run are {len(data):,} bytes; a call takes at most max_frame, "
                f"{self._config.max_frame:,} bytes. Pass the path of a file, or raise max_frame in the configuration"
            )
        self._numbers += 1
        call: Call[Any] = Call(self, self._loop, self._numbers, entry.id, entry.name, hash, work._parallel)
        self._calls[call.id] = call
        self._feed(ev.CallSubmitted(entry.id, call.id, hash, data))
        return self._replaced.pop(call.id, call)

    def _run_in_plain_pass(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a plain pass: its result if it has one, else the pass ends here."""
        entry = self._entry(work)
        failed = entry.plain_failures.get(work._signature.bind(args, kwargs)[1])
        if failed is not None:
            return failed.result()
        call = self.submit(work, args, kwargs)
        if not call.done:
            self._plain_calls.add(call.id)
        if work._parallel:
            return call
        if call.done:
            return call.result()
        raise PassEnded

    def _adopt(self, entry: Entry, command: ev.Adopt) -> None:
        call = self._calls[command.call]
        call.cache_reason = command.reason
        if command.outcome is not None and command.outcome.value is not None:
            del self._calls[call.id]
            call.cached = True
            call._settle(command.outcome.status, decode_value(entry.work, command.outcome.value))
        elif command.to is not None:
            del self._calls[call.id]
            joined = self._calls[command.to]
            joined._join()
            self._replaced[call.id] = joined

    def _settle(self, entry: Entry, number: int, outcome: ev.Outcome) -> None:
        call = self._calls.pop(number, None)
        if call is None:
            return
        if outcome.value is not None:
            call._settle(outcome.status, decode_value(entry.work, outcome.value))
            return
        error = call_error(entry.work, entry.name, outcome)
        call._settle(outcome.status, error=error)
        if number in self._plain_calls:
            self._plain_calls.discard(number)
            entry.plain_failures[call.hash] = call
        if error is not None and outcome.status.stage is Stage.FAILED:
            self._failed.append((self.passes, weakref.ref(call)))

    passes = 0
    """Passes of the flow begun so far."""

    def check_failed(self) -> None:
        """A pass has ended: a call that failed before it began, and that still nobody awaits, fails the app."""
        while self._failed and self._failed[0][0] < self.passes:
            call = self._failed.popleft()[1]()
            if call is not None and not call._retrieved and not call._waiters:
                error = call.exception()
                if error is not None:
                    self._fail(error)

    def unretrieved(self, call: Call[Any]) -> None:
        """See `Driver.unretrieved`. May be called in any thread, by the garbage collector."""
        error = call._error
        if error is not None and not self._is_closed:
            self._loop.call_soon_threadsafe(self._fail, error)

    def cancel(self, call: Call[Any]) -> None:
        """See `Driver.cancel`."""
        self._in_loop(lambda: self._feed(ev.CancelRequested(call._work_id, call.id)))

    def _entry(self, work: Work) -> Entry:
        entry = self._by_work.get(work)
        if entry is None or self._is_closed:
            raise UsageError(f"{work._label()} is in no running app: the app has ended, or the work was removed from it")
        return entry

    # --- works ------------------------------------------------------------------------------------

    def start(self, work: Work) -> Operation:
        """See `Work.start`."""
        entry = self._entry(work)
        entry.plain_failures.clear()
        operation = Operation(self._loop)
        entry.starts.append(operation)
        self._in_loop(lambda: self._feed(ev.StartRequested(entry.id)))
        return operation

    def stop(self, work: Work, *, delete: bool) -> Operation:
        """See `Work.stop`. Every runtime's things are released when the worker has ended, so `delete` adds nothing."""
        entry = self._entry(work)
        entry.plain_failures.clear()
        operation = Operation(self._loop)
        entry.stops.append(operation)
        self._in_loop(lambda: self._feed(ev.StopRequested(entry.id)))
        return operation

    def wait_confirmed(self, work: Work) -> Operation:
        """See `Work.wait_confirmed`."""
        entry = self._entry(work)
        operation = Operation(self._loop)
        entry.confirms.append(operation)
        self._in_loop(lambda: self._check_confirmed(entry))
        return operation

    def _check_confirmed(self, entry: Entry) -> None:
        mirror = entry.worker.mirror if entry.worker is not None else None
        if entry.confirms and (mirror is None or not mirror.num_pending):
            refusals, entry.refusals = entry.refusals, []
            _finish(entry.confirms, refusals[0] if refusals else None)

    def record(self, work: Work) -> WorkRecord:
        """See `Driver.record`."""
        return work._record

    def in_pass(self) -> bool:
        """See `Driver.in_pass`."""
        return in_pass.get()

    def added(self, node: Node) -> None:
        """See `Driver.added`."""
        self._in_loop(lambda: self._add(node))

    def _add(self, node: Node) -> None:
        changes: list[Change] = []
        for one in node._walk():
            if isinstance(one, Work):
                self._add_work(one)
            if isinstance(one, Component):
                changes.append(ComponentAdded(one.name))
        self._tree.changed(changes)

    def _add_work(self, work: Work) -> None:
        self._numbers += 1
        entry = Entry(self._numbers, work)
        self._entries[entry.id] = self._by_work[work] = entry
        work.__dict__["_record"] = WorkRecord(self._config.statuses_kept)
        policy = ev.Policy(
            cache_calls=work._cache_calls,
            concurrency=work._concurrency,
            timeout=work._timeout,
            retries=work._retries,
            retry_delay=work._retry_delay,
            grace=self._config.grace,
            launch_timeout=self._config.launch_timeout,
            reconnect_window=self._config.reconnect_window,
        )
        self._feed(ev.WorkAdded(entry.id, entry.name, policy))

    def removed(self, node: Node) -> None:
        """See `Driver.removed`."""
        self._in_loop(lambda: self._remove(node))

    def _remove(self, node: Node) -> None:
        changes: list[Change] = []
        for one in node._walk():
            if isinstance(one, Component):
                changes.append(ComponentRemoved(one.name))
            if isinstance(one, Work) and (entry := self._by_work.pop(one, None)) is not None:
                self._feed(ev.WorkRemoved(entry.id))
        self._tree.changed(changes)

    def edited(self, component: Component, op: wire.Op) -> None:
        """See `Driver.edited`."""
        if threading.get_ident() == self._thread:
            self._tree.edited(component.name, (op,))
        else:
            self._loop.call_soon_threadsafe(self._tree.edited, component.name, (op,))

    def _on_gone(self, entry: Entry, failure: str | None) -> None:
        worker, entry.worker = entry.worker, None
        if worker is not None:
            self._workers.pop(worker.launch, None)
            if worker.peer is not None:
                worker.peer.close()
            if worker.mirror is not None:
                worker.mirror.close(entry.work._edited)
        self._forget_address(entry)
        self._check_confirmed(entry)
        _finish(entry.stops)
        if failure is not None:
            _finish(entry.starts, LightworkError(f"{entry.name} did not start: {failure}"))

    def _forget_address(self, entry: Entry) -> None:
        """Nothing answers for a work without a worker."""
        state = entry.work._state
        gone = {"_url": "", "_internal_ip": "", "_public_ip": "", **({"_port": None} if entry.picks_port else {})}
        entry.picks_port = False
        for name, value in gone.items():
            if state.values[name] != value:
                state.set(name, value)

    # --- launching --------------------------------------------------------------------------------

    def _launch(self, entry: Entry, attempt: int) -> None:
        worker = Worker(entry.id, attempt, f"{self.owner}-{entry.name}-{entry.id}-{attempt}")
        entry.worker = worker
        self._workers[worker.launch] = worker
        self._supervise_by(self._supervise(entry, worker), f"lightwork {worker.name}")

    def _supervise_by(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(coroutine, name=name, context=self._context)
        self._supervisors.add(task)
        task.add_done_callback(self._supervisors.discard)

    async def _supervise(self, entry: Entry, worker: Worker) -> None:
        """Launch, follow, wait, release."""
        worker.launching = asyncio.ensure_future(self._bring_up(entry, worker))
        try:
            worker.ref = await worker.launching
        except (Exception, asyncio.CancelledError) as error:
            await self._clean_up_launch(worker)
            reason = Reason.CANCELLED if isinstance(error, asyncio.CancelledError) else Reason.LAUNCH_FAILED
            text = str(error) or "stopped while it was launched"
            self._external(lambda: self._feed(ev.LaunchFailed(entry.id, worker.attempt, reason, text)))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return
        assert worker.runtime is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.follow_output(self._tree, entry.name))
                report = await worker.runtime.wait(worker.ref)
            await self._wait_link_end(worker)
            reason, message = explain(report)
            message = worker.refusal or message
            self._external(lambda: self._feed(ev.WorkerExited(entry.id, worker.attempt, reason, message)))
        finally:
            await worker.runtime.release(worker.ref)

    async def _bring_up(self, entry: Entry, worker: Worker) -> Ref:
        assert self._runtimes is not None
        runtime = await self._runtimes.get(self._config.runtime_for(entry.name, entry.work._runtime))
        worker.runtime = runtime
        routes = await runtime.routes(self._address)
        if not routes:
            raise Rejected(f"the runtime {runtime.name!r} has no route back to {self._address.host}:{self._address.port}")
        ticket = wire.Ticket(
            worker.launch,
            worker.secret,
            [(route.host, route.port) for route in routes],
            dial_within=self._config.launch_timeout,
            orphan_after=self._config.reconnect_window,
        )
        spec = Spec(
            name=worker.name,
            owner=self.owner,
            entry=ENTRY,
            ticket=msgspec.msgpack.encode(ticket),
            env={"LIGHTWORK_WORK": entry.name},
            cwd=os.getcwd(),
            build=entry.work._local_build_config,
            compute=entry.work._cloud_compute,
            dial_within=self._config.launch_timeout,
            orphan_after=self._config.reconnect_window,
        )
        return await runtime.launch(spec)

    async def _clean_up_launch(self, worker: Worker) -> None:
        """Give back what a launch that failed has made."""
        if worker.runtime is None:
            return
        try:
            async with asyncio.timeout(self._config.grace):
                await worker.runtime.release(Ref(worker.runtime.name, worker.name))
        except Exception as error:
            _log.warning("what a failed launch made may be left", work=worker.name, error=str(error))

    def _end_worker(self, worker: Worker, grace: float) -> None:
        if worker.ref is None:
            if worker.launching is not None:
                worker.launching.cancel()
            return
        self._supervise_by(self._end_through_runtime(worker, grace), f"lightwork end {worker.name}")

    async def _end_through_runtime(self, worker: Worker, grace: float) -> None:
        assert worker.runtime is not None
        assert worker.ref is not None
        await worker.runtime.stop(worker.ref, grace)

    async def _wait_link_end(self, worker: Worker) -> None:
        """What a dead worker has sent may still be on its way here."""
        try:
            async with asyncio.timeout(_END_OF_LINK):
                await worker.cut.wait()
        except TimeoutError:
            _log.warning("a worker is over, but its connection is not", work=worker.name)

    # --- the link ---------------------------------------------------------------------------------

    def _find_secret(self, launch: bytes) -> bytes | None:
        worker = self._workers.get(launch)
        return None if worker is None else worker.secret

    def _on_hello(self, connection: Connection, launch: bytes, hello: wire.Hello) -> None:
        worker = self._workers.get(launch)
        entry = None if worker is None else self._entries.get(worker.work)
        if worker is None or entry is None or entry.worker is not worker:
            connection.send(wire.pack(wire.encode(wire.Refuse("this worker is not wanted any more"))))
            connection.close()
            return
        if (hello.version, hello.lightwork) != (wire.VERSION, __version__):
            worker.refusal = (
                f"the worker has lightwork {hello.lightwork} (wire {hello.version}), the scheduler {__version__} "
                f"(wire {wire.VERSION}): install the same version where the works run"
            )
            self._refuse(connection, worker)
            return
        if worker.peer is None:
            self._welcome_first(connection, entry, worker, hello)
        else:
            self._welcome(connection, worker, worker.peer, hello, b"", entry)
            self._external(lambda: self._feed(ev.LinkRestored(entry.id, worker.attempt)))

    def _refuse(self, connection: Connection, worker: Worker) -> None:
        connection.send(wire.pack(wire.encode(wire.Refuse(worker.refusal))))
        connection.close()

    def _welcome_first(self, connection: Connection, entry: Entry, worker: Worker, hello: wire.Hello) -> None:
        try:
            work = pickle_work(entry.work)
        except UsageError as error:
            worker.refusal = str(error)
            self._refuse(connection, worker)
            return
        peer: Peer[wire.FromWorker] = Peer(
            lambda frame: self._on_frame(entry, worker, frame), wire.decode_from_worker, self._config.max_frame
        )
        peer.beat(self._config.heartbeat)
        worker.peer = peer
        entry.picks_port = entry.work._port is None
        worker.mirror = Mirror(
            entry.work._state,
            lambda frame: self.in_loop_soon(lambda: self._propose(entry, peer, frame)),
            lambda op: self.edited(entry.work, op),
        )
        self._welcome(connection, worker, peer, hello, work, entry)

    def _welcome(
        self, connection: Connection, worker: Worker, peer: Peer[Any], hello: wire.Hello, work: bytes, entry: Entry
    ) -> None:
        config = self._config
        welcome = wire.Welcome(
            peer.received, work, entry.name, list(sys.path), config.heartbeat, config.grace, config.max_frame
        )
        connection.send(wire.pack(wire.encode(welcome)))
        worker.cut.clear()
        connection.on_closed = lambda error: self._on_cut(entry, worker, connection)
        peer.attach(connection, hello.received)

    def _propose(self, entry: Entry, peer: Peer[Any], frame: wire.FlowDelta) -> None:
        try:
            peer.send(frame)
        except FrameTooLarge as error:
            self._fail(StateError(f"the value assigned to {entry.name}.{frame.op[1][0]} is too large: {error}"))

    def _on_cut(self, entry: Entry, worker: Worker, connection: Connection) -> None:
        assert worker.peer is not None
        if worker.peer.connection is not connection and worker.peer.connection is not None:
            return
        worker.peer.detach(connection)
        worker.cut.set()
        self._external(lambda: self._feed(ev.LinkLost(entry.id, worker.attempt)))

    def _external(self, act: Callable[[], None]) -> None:
        """Act on something from outside: now, or after the plain pass that runs."""
        if self._held is not None:
            self._held.append(act)
        else:
            act()

    def hold_frames(self) -> None:
        """A plain pass begins: what comes from outside waits."""
        self._held = []

    def release_frames(self) -> None:
        """It has ended: what has waited happens now."""
        held, self._held = self._held or [], None
        for act in held:
            act()

    def _on_frame(self, entry: Entry, worker: Worker, frame: wire.FromWorker) -> None:
        if self._held is not None:
            self._held.append(lambda: self._take(entry, worker, frame))
        else:
            self._take(entry, worker, frame)

    def _take(self, entry: Entry, worker: Worker, frame: wire.FromWorker) -> None:
        if entry.worker is not worker:
            return
        attempt = worker.attempt
        match frame:
            case wire.Delta():
                self._apply(entry, worker, lambda mirror: mirror.apply(frame.ops), frame.ops)
            case wire.Running():
                self._feed(ev.CallRunning(entry.id, attempt, frame.call))
            case wire.Result():
                self._feed(ev.CallSucceeded(entry.id, attempt, frame.call, bytes(frame.value)))
            case wire.Failure():
                reason = Reason(frame.reason)
                self._feed(ev.CallFailed(entry.id, attempt, frame.call, reason, frame.error, frame.swallowed))
            case wire.Cancelled():
                self._feed(ev.CallCancelled(entry.id, attempt, frame.call))
            case wire.Ready():
                self._feed(ev.WorkerReady(entry.id, attempt))
            case wire.Answer():
                self._apply(entry, worker, lambda mirror: mirror.answer(frame.proposal, frame.ops), frame.ops)
                self._on_answer(entry, frame)
            case wire.Stopped():
                reason_or_none = Reason(frame.reason) if frame.reason else None
                self._feed(ev.WorkerStopping(entry.id, attempt, reason_or_none, frame.error))
            case _:
                raise LightworkError(f"{type(frame).__name__} is not expected here")

    def _apply(self, entry: Entry, worker: Worker, apply: Callable[[Mirror], None], ops: list[wire.Op]) -> None:
        assert worker.mirror is not None
        try:
            apply(worker.mirror)
        except StateError as error:
            worker.refusal = f"its state cannot be followed: {error}"
            self._end_worker(worker, 0.0)
            return
        self._tree.edited(entry.name, ops)

    def _on_answer(self, entry: Entry, frame: wire.Answer) -> None:
        if frame.error is not None:
            error = ProposalRefused(f"{entry.name} refused a change of its state: {frame.error.message}")
            if entry.confirms:
                entry.refusals.append(error)
            else:
                self._fail(error)
        self._check_confirmed(entry)

    # --- threads ----------------------------------------------------------------------------------

    def enter_pass_thread(self) -> None:
        """Called in the thread of a plain pass, before it."""
        self._pass_thread = threading.get_ident()

    def leave_pass_thread(self) -> None:
        """Called in the thread of a plain pass, after it."""
        self._pass_thread = 0

    def _in_loop(self, act: Callable[[], T]) -> T:
        """Do something in the loop's thread, and wait for it."""
        if threading.get_ident() == self._thread:
            return act()
        from anyio import from_thread

        return from_thread.run_sync(act)

    def in_loop_soon(self, act: Callable[[], None]) -> None:
        """Do something in the loop's thread: now if this is it, else when it comes to it."""
        if threading.get_ident() == self._thread:
            act()
        else:
            self._loop.call_soon_threadsafe(act)


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
                    f"{type(work).__name__}.{name} is a {type(value).__name__} and cannot be sent to a worker: {cause}. "
                    "Make it in run or on_start, where it is needed"
                ) from cause
        raise UsageError(f"{type(work).__name__} cannot be sent to a worker: {error}") from error
    return pickled


def _finish(operations: list[Operation], error: BaseException | None = None) -> None:
    for operation in operations:
        operation.finish(error)
    operations.clear()
