"""`Engine`, which turns requests of the components into events of the machine, and its commands into I/O.

It holds no policy. `lightwork.engine.calls` keeps the calls, `lightwork.engine.workers` starts and follows workers,
`lightwork.engine.handlers` carries out commands, and `lightwork.engine.core` holds what these parts share.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightwork._logging import get_logger
from lightwork.changes import Change, ComponentAdded, ComponentRemoved
from lightwork.components.call import Call, Operation
from lightwork.components.component import Component, Node
from lightwork.components.flow import Flow
from lightwork.components.status_history import StatusHistory
from lightwork.components.work import Work
from lightwork.config import Config
from lightwork.engine.calls import CallRegistry
from lightwork.engine.changes import ChangeHub
from lightwork.engine.core import Core
from lightwork.engine.flow.passes import in_pass
from lightwork.engine.flow.schedules import Schedules
from lightwork.engine.handlers import CommandHandlers
from lightwork.engine.journal import BoundListener, NoJournal
from lightwork.engine.listener.listener import Listener
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.connections import Connections
from lightwork.engine.workers.entries import Entries, WorkEntry
from lightwork.engine.workers.launcher import Launcher
from lightwork.engine.workers.output import Output
from lightwork.engine.workers.queries import Queries
from lightwork.engine.workers.runtimes import Runtimes
from lightwork.link import messages
from lightwork.runtime import Address, ListenerAddress, Runtime
from lightwork.state.ops import Op
from lightwork.state.state import State

if TYPE_CHECKING:
    from datetime import datetime

    from lightwork.engine.recovery.records import Snapshot
    from lightwork.engine.recovery.resume import Resume

__all__ = ["Engine"]

_FORCE_MARGIN = 2.0
"""Seconds beyond the grace period after which the end of an app is forced."""

_PORT_WITHIN = 5.0
"""Seconds to wait for the port that the workers of a killed scheduler dial. A worker that dials in vain can be
connected to itself for a moment, where the kernel also gives the port to clients."""

_GIVE_UP = 30.0
"""Seconds that runtimes have to carry out the forced end of an app."""

_log = get_logger("lightwork.engine")


class Engine:
    """Runs the works of one tree. It is the `lightwork.components.driver.Driver` of the tree's components.

    Args:
        config: Of the app.
        hub: Notified of every change.
        given: Runtimes that are passed as instances, by profile.
        fail: Called with an exception that nobody else gets: it fails the app.
        request_stop, request_fail: Called by a flow's ``stop`` and ``fail``.
        reshaped: Called when a component has entered or left the tree.

    Attributes:
        schedules: Of all its flows.
        entries: Every work of the tree, and its worker.
        output: Takes what works print.
        queries: Ask workers about themselves.
    """

    def __init__(
        self,
        config: Config,
        hub: ChangeHub,
        given: Mapping[str, Runtime],
        *,
        fail: Callable[[BaseException], None],
        request_stop: Callable[[str | None], None],
        request_fail: Callable[[str | None], None],
        reshaped: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._hub = hub
        self._given = given
        self.request_stop = request_stop
        self.request_fail = request_fail
        self._reshaped = reshaped
        self._core = core = Core(config, hub, NoJournal(f"lw{os.urandom(8).hex()}"), fail)
        self.entries: Entries = Entries(core)
        self.output: Output = Output(hub)
        self.queries: Queries = Queries()
        self.schedules: Schedules = Schedules(core.loop, hub)
        self._calls = CallRegistry(core, self.entries, self, lambda: self.schedules.schedule_fired)
        self._launcher = Launcher(core, self.entries, self.output, self.queries)
        self._connections = Connections(core, self.entries, self.queries, self._launcher.end)
        self._listener = Listener(
            self._connections.find_secret,
            self._connections.on_hello,
            config.max_frame,
            max_unauthenticated=config.max_unauthenticated,
        )
        self._runtimes: Runtimes | None = None
        self._root: Flow | None = None
        self._resume: Resume | None = None
        self._has_begun = False
        self._force = asyncio.Event()
        handlers = CommandHandlers(core, self.entries, self._calls, self._launcher, self._connections)
        core.carry_out_with(handlers.table())
        self.run: Callable[[Work, tuple[Any, ...], dict[str, Any]], Any] = self._calls.run
        self.submit: Callable[[Work, tuple[Any, ...], dict[str, Any]], Call[Any]] = self._calls.submit
        self.schedule: Callable[[Flow, str, str, datetime | None], bool] = self.schedules.ask
        self.unretrieved: Callable[[Call[Any]], None] = self._calls.unretrieved
        self.in_loop_soon: Callable[[Callable[[], None]], None] = core.in_loop_soon

    # --- life -------------------------------------------------------------------------------------

    async def open(self, group: asyncio.TaskGroup, root: Flow) -> None:
        """Open the journal, if one is kept, and listen. The tasks of works go into `group`.

        Raises:
            ConfigError: The address cannot be bound, or TLS is needed and cannot be had.
            JournalError: The journal cannot be used.
            StateError: The journal belongs to another tree.
        """
        config = self._config
        self._root = root
        self._runtimes = Runtimes(config, self._given, group)
        if config.journal is not None:
            await self._open_journal(config.journal, root)
        host, port = await self._listen()
        advertise, socket = config.advertise, self._listener.socket
        address = ListenerAddress(advertise or host, port, self._listener.accept, "" if advertise else socket)
        self._launcher.open(group, self._runtimes, address, self._listener.fingerprint)
        if self._resume is not None:
            await self._resume.enter_runtimes(self._runtimes)

    async def _open_journal(self, path: str, root: Flow) -> None:
        # Imported here: only a kept journal needs SQLite.
        from lightwork.engine.recovery.live_snapshot import live_snapshot
        from lightwork.engine.recovery.recorder import Recorder, open_journal
        from lightwork.engine.recovery.resume import Resume, check_tree

        app, owner, kept = _app_name(root), self._core.journal.owner, self._config.statuses_kept

        def take_snapshot() -> Snapshot:
            """Return everything that another scheduler must know to continue."""
            missing = self._resume.states() if self._resume is not None else ()
            return live_snapshot(self._core, self.entries, recorder, self._components(), missing)

        opened = await asyncio.to_thread(open_journal, Path(path), app, owner, resume=self._config.resume, kept=kept)
        try:
            replay = opened.replay
            if replay is not None:
                check_tree(root, replay)
                for profile in replay.profiles:
                    assert self._runtimes is not None
                    self._runtimes.check(profile)
            recorder = Recorder(opened, self._core.fail, take_snapshot, self._states)
        except BaseException:
            opened.store.close()
            opened.lock.release()
            raise
        self._core.journal = recorder
        if replay is not None:
            self._resume = Resume(
                self._core, self.entries, self._calls, self._launcher, self._connections, recorder, replay
            )
            self._resume.restore()

    async def _listen(self) -> tuple[str, int]:
        """Bind the configured address, or the address that the workers of a killed scheduler dial."""
        config = self._config
        there = self._core.journal.address if self.is_resumed else None
        if there is None:
            return await self._listener.start(config.host, config.port)
        self._listener.certificate = there.certificate
        return await self._listener.start(there.host, there.port, socket=there.socket, within=_PORT_WITHIN)

    async def begin(self) -> None:
        """Launch works from now on, and follow those of a killed scheduler.

        Call it when the tree is complete and everything is open.

        If this is never called, `aclose` leaves the workers and the journal of a killed scheduler as they were.

        Raises:
            JournalError: The journal cannot be written.
        """
        # The bound address, not the advertised one: a later scheduler binds it again.
        listener = self._listener
        self._core.journal.begin(BoundListener(*listener.bound, listener.socket, listener.certificate))
        self._has_begun = True
        if self._resume is not None:
            self._resume.follow()
            await self._resume.wait_returned()

    @property
    def is_resumed(self) -> bool:
        """Whether the engine continues an app that had not ended."""
        return self._resume is not None and not self._resume.was_over

    @property
    def unclaimed(self) -> list[str]:
        """Names of running works of a killed scheduler that the flow has not made again."""
        return [] if self._resume is None else self._resume.unclaimed

    def give_up(self, name: str) -> bool:
        """End a work that the flow has not made again. Return False if there is no such work."""
        return self._resume is not None and self._resume.give_up(name)

    async def aclose(self) -> None:
        """End every work, gracefully within the grace period and by force after it, and release everything.

        Raises:
            JournalError: Not everything could be written to the journal.
        """
        self._core.is_closed = True
        self.release_frames()
        if self._resume is not None and not self._has_begun:
            await self._abandon()
            return
        for entry in list(self.entries.by_number.values()):
            self._core.feed(ev.StopRequested(entry.id))
        # Both tasks are awaited below, whatever happens to the works.
        gone = asyncio.create_task(self._launcher.wait_gone())
        forced = asyncio.create_task(self._force.wait())
        grace = self._config.grace + _FORCE_MARGIN
        await asyncio.wait({gone, forced}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not gone.done():
            self._kill_all()
            await asyncio.wait({gone}, timeout=_GIVE_UP)
        if not gone.done():
            await self._launcher.give_up()
        await gone
        await asyncio.wait({forced})
        is_over = not self.entries.workers
        await self._let_go()
        if self._has_begun:
            await self._core.journal.aclose(is_over=is_over)
        else:
            self._core.journal.release()

    async def _let_go(self) -> None:
        if self._resume is not None:
            self._resume.close()
        self.schedules.close()
        self._core.stop_timers()
        if self._runtimes is not None:
            self._runtimes.close()
        await self._listener.aclose()

    async def _abandon(self) -> None:
        """Leave everything to the next scheduler, within the reconnect window: this one could not resume."""
        for worker in list(self.entries.workers.values()):
            if worker.peer is not None:
                worker.peer.close()
        await self._let_go()
        self._core.journal.release()

    def kill(self) -> None:
        """End every work by force, now or as soon as `aclose` runs."""
        self._force.set()

    def _kill_all(self) -> None:
        workers = list(self.entries.workers.values())
        if not workers:
            return  # the last worker is being released
        _log.warning("works are ended by force", works=[worker.name for worker in workers])
        for worker in workers:
            self._launcher.end(worker, 0.0)

    @property
    def address(self) -> Address:
        """The address that workers dial."""
        return self._launcher.address

    @property
    def core(self) -> Core:
        """The state that the engine's parts share, for observers."""
        return self._core

    def check_runtime(self, work: Work) -> None:
        """Raise `ConfigError` if the work's runtime cannot be made."""
        assert self._runtimes is not None
        self._runtimes.check(self._config.runtime_for(work.name, work._runtime))

    # --- requests of components -------------------------------------------------------------------

    def cancel(self, call: Call[Any]) -> None:
        """See `Driver.cancel`."""
        self._core.in_loop(lambda: self._core.feed(ev.CancelRequested(call._work_id, call.id)))

    def start(self, work: Work) -> Operation:
        """See `Work.start`."""
        entry = self.entries.of(work)
        self._calls.pass_calls.forget(entry.id)
        operation = Operation(self._core.loop)
        entry.starts.append(operation)
        self._core.in_loop(lambda: self._core.feed(ev.StartRequested(entry.id)))
        return operation

    def stop(self, work: Work, *, delete: bool) -> Operation:
        """See `Work.stop`. A runtime releases what it made when the worker has ended, so `delete` adds nothing."""
        entry = self.entries.of(work)
        self._calls.pass_calls.forget(entry.id)
        operation = Operation(self._core.loop)
        entry.stops.append(operation)
        self._core.in_loop(lambda: self._core.feed(ev.StopRequested(entry.id)))
        return operation

    def wait_confirmed(self, work: Work) -> Operation:
        """See `Work.wait_confirmed`."""
        entry = self.entries.of(work)
        operation = Operation(self._core.loop)
        entry.confirms.append(operation)
        self._core.in_loop(lambda: self._connections.check_confirmed(entry))
        return operation

    def propose(self, work: Work, edit: Callable[[], None]) -> Operation:
        """Edit a work's state for a caller outside of the flow. A refusal goes to that caller, not to the flow.

        In the loop's thread. Exceptions of `edit` are raised here. The operation is done when the work has answered.

        Raises:
            UsageError: The work is in no running app.
        """
        return self._connections.propose(self.entries.of(work), edit)

    def cancel_call(self, entry: WorkEntry, number: int) -> None:
        """Cancel a call by its number, in the loop's thread. A call that has ended is left alone."""
        self._core.feed(ev.CancelRequested(entry.id, number))

    def in_pass(self) -> bool:
        """See `Driver.in_pass`."""
        return in_pass.get() is self

    # --- the tree ---------------------------------------------------------------------------------

    def added(self, node: Node) -> None:
        """See `Driver.added`."""
        self._core.in_loop(lambda: self._add(node))

    def _add(self, node: Node) -> None:
        changes: list[Change] = []
        for one in node._walk():
            if isinstance(one, Work):
                self._add_work(one)
            if isinstance(one, Flow):
                self._add_flow(one)
            if isinstance(one, Component):
                changes.append(ComponentAdded(one.name))
        self._reshaped()
        self._hub.changed(changes)

    def _add_flow(self, flow: Flow) -> None:
        if self._resume is None or not self._resume.take_back_flow(flow):
            self._core.journal.component_added(flow, 0, is_static=not self._has_begun)

    def _add_work(self, work: Work) -> None:
        core, config = self._core, self._config
        known = self._resume.take_back(work) if self._resume is not None else None
        entry = known or WorkEntry(self.entries.next_number(), work)
        self.entries.add(entry)
        if known is None:
            work.__dict__["_status_history"] = StatusHistory(config.statuses_kept)
            core.journal.component_added(work, entry.id, is_static=not self._has_begun)
        work._state.max_bytes = messages.max_value(config.max_frame)
        profile = config.runtime_for(work.name, work._runtime)
        extra, is_costly = (0.0, False) if self._runtimes is None else self._runtimes.nature(profile)
        policy = ev.Policy(
            cache_calls=work._cache_calls,
            concurrency=work._concurrency,
            timeout=work._timeout,
            retries=work._retries,
            retry_delay=work._retry_delay,
            grace=config.grace,
            launch_timeout=config.launch_timeout + extra,
            # An idle process costs nothing on a machine that runs anyway.
            idle_timeout=work.cloud_compute.idle_timeout if is_costly and work.cloud_compute is not None else None,
            reconnect_window=config.reconnect_window,
        )
        core.feed(ev.WorkAdded(entry.id, entry.name, policy))
        if known is not None and self._resume is not None:
            self._resume.go_on(known)

    def removed(self, node: Node) -> None:
        """See `Driver.removed`."""
        self._core.in_loop(lambda: self._remove(node))

    def _remove(self, node: Node) -> None:
        changes: list[Change] = []
        for one in node._walk():
            if isinstance(one, (Flow, Work)):
                self._core.journal.component_removed(one.name, one)
                changes.append(ComponentRemoved(one.name))
            if isinstance(one, Work) and (entry := self.entries.by_work.pop(one, None)) is not None:
                self._core.feed(ev.WorkRemoved(entry.id))
        self._reshaped()
        self._hub.changed(changes)

    def edited(self, component: Component, op: Op) -> None:
        """See `Driver.edited`."""
        self._core.journal.edited(component.name, op)
        if threading.get_ident() == self._core.thread:
            self._hub.edited(component.name, (op,))
        else:
            self._core.loop.call_soon_threadsafe(self._hub.edited, component.name, (op,))

    # --- passes -----------------------------------------------------------------------------------

    def begin_pass(self) -> None:
        """Begin a pass of the flow."""
        self._calls.passes += 1
        self.schedules.begin_pass()

    def leave_pass(self, *, is_complete: bool) -> None:
        """Settle the schedules of a pass that has ended the app."""
        self.schedules.end_pass(is_complete=is_complete)

    def end_pass(self, *, is_complete: bool) -> None:
        """End a pass, completed or cut short. Another one follows at once if it would get other answers.

        A call that failed before the pass began, and that nobody awaits, fails the app.
        """
        if is_complete:
            self._end_run()
        has_schedule = self.schedules.end_pass(is_complete=is_complete)
        if self._calls.pass_calls.end_pass(is_complete=is_complete) or has_schedule:
            self._hub.changed()
        self._calls.check_failed()

    def end_app(self, *, is_success: bool) -> None:
        """End the last pass: the flow has ended the app. A pass that ends it as a success counts as complete."""
        if is_success:
            self._end_run()

    def _end_run(self) -> None:
        self._core.journal.run_ended()
        if self._resume is not None and self._has_begun:
            self._resume.end()

    # --- the journal ------------------------------------------------------------------------------

    def _components(self) -> Iterator[tuple[Component, int]]:
        """Yield every component of the tree with its number, 0 for a flow."""
        for node in self._root._walk() if self._root is not None else ():
            if isinstance(node, Flow):
                yield node, 0
            elif isinstance(node, Work) and (entry := self.entries.by_work.get(node)) is not None:
                yield node, entry.id

    def _states(self) -> Iterator[State]:
        return (component._state for component, _ in self._components())

    @property
    def is_held(self) -> bool:
        """Whether a plain pass runs in its thread."""
        return self._core.held is not None

    def hold_frames(self) -> None:
        """Hold back events from outside: a plain pass begins."""
        self._core.hold()

    def release_frames(self) -> None:
        """Let everything happen that was held back: the plain pass has ended."""
        self._core.release()

    def enter_pass_thread(self) -> None:
        """Called in the thread of a plain pass, before it."""
        self._core.pass_thread = threading.get_ident()

    def leave_pass_thread(self) -> None:
        """Called in the thread of a plain pass, after it."""
        self._core.pass_thread = 0


def _app_name(root: Flow) -> str:
    """Return the name that distinguishes this app's journal from those of other apps."""
    works = root.works()
    return type(works[0]).__qualname__ if type(root).__name__ == "_RunWork" else type(root).__qualname__
