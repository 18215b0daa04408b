"""What the parts of the scheduler share: the machine and its timers, the works, and whose turn it is.

Everything that happens enters the machine by `Core.feed`, in the loop's thread. A plain ``def run`` pass has a
thread of its own; while it lasts what comes from outside is held back (`Core.external`), so that it sees one state.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lightwork.changes import Change, StatusChanged
from lightwork.components.call import Call, Operation
from lightwork.components.driver import PassEnded
from lightwork.components.work import Work
from lightwork.config import Config
from lightwork.engine.changes import ChangeHub
from lightwork.engine.recovery.records import Happened
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import Machine
from lightwork.engine.workers.output import Output
from lightwork.engine.workers.queries import Queries
from lightwork.engine.workers.worker import Worker
from lightwork.errors import ProposalRefused, UsageError
from lightwork.status import WorkStatus

if TYPE_CHECKING:
    from lightwork.engine.recovery.recorder import Recorder

__all__ = ["Core", "WorkEntry", "finish_all"]

T = TypeVar("T")


class WorkEntry:
    """One work of the tree.

    Attributes:
        id: Its number in the machine.
        work, name: Itself, and its name when it was added. While the tree has not got it back after a killed scheduler
            it is a stand-in, and in no tree.
        is_missing: Whether it is that.
        due: Attempt whose launch waits for it to come back, 0 for none.
        knocks: What workers that wait for it to come back have to be told then.
        worker: The present one, None while there is none.
        starts: Operations that wait for a worker to be up.
        stops: Operations that wait for the worker to be gone.
        confirms: Operations that wait for all proposals to be answered.
        refusals: Refused proposals that nobody was told of.
        start_error: Why the latest worker that never came up did not, where there is an exception.
    """

    def __init__(self, id: int, work: Work, name: str = "") -> None:
        self.id = id
        self.work = work
        self.name = name or work.name
        self.is_missing = False
        self.due = 0
        self.on_returned: list[Callable[[], None]] = []
        self.worker: Worker | None = None
        self.starts: list[Operation] = []
        self.stops: list[Operation] = []
        self.confirms: list[Operation] = []
        self.refusals: list[ProposalRefused] = []
        self.start_error: BaseException | None = None


class Core:
    """The machine, and what stands around it. Made in the loop's thread; see the module for who may call what.

    Args:
        config: Of the app.
        hub: Told of everything that changes.
        orders: What does what the machine orders, for each type of its commands; given the work's entry, too.
        fail: Called with an exception that nobody else gets: it fails the app.

    Attributes:
        loop: The app's event loop.
        output: Takes what works write.
        queries: Asks workers about themselves.
        thread: Its thread.
        entries: Every work that the machine knows, by its number.
        by_work: Those of them that are in the tree.
        workers: Every launched worker that is not gone, by the public id of its launch.
        pass_thread: The thread of the plain pass that runs, 0 without one.
        is_closed: Whether the app ends: nothing new is taken on.
        observers: Called with each event, what the machine orders because of it, and the time; before that is done.
        machine: Decides.
        recorder: Writes down what comes in; None where no journal is kept.
        latest_work: The highest number of a work that was given out.
        held: What came from outside and waits until the plain pass that runs is over; None without one.
    """

    def __init__(
        self,
        config: Config,
        hub: ChangeHub,
        orders: Mapping[type[ev.Command], Callable[[WorkEntry, Any], None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.config = config
        self.hub = hub
        self.fail = fail
        self.output = Output(hub)
        self.queries = Queries()
        self.entries: dict[int, WorkEntry] = {}
        self.by_work: dict[Work, WorkEntry] = {}
        self.workers: dict[bytes, Worker] = {}
        self._outbox: list[Change] = []  # what leaves when the present event is dealt with, if anybody watches
        self._has_news = False
        self.pass_thread = 0
        self.is_closed = False
        self.observers: list[Callable[[ev.Event, Sequence[ev.Command], float], None]] = []
        self._orders = orders
        self.machine = Machine()
        self.recorder: Recorder | None = None
        self._timers: dict[ev.Timer, asyncio.TimerHandle] = {}
        self._depth = 0
        self._now = 0.0
        self.latest_work = 0
        self._call_numbers = itertools.count(1)
        self.held: list[Callable[[], None]] | None = None

    # --- the machine ------------------------------------------------------------------------------

    def tick(self) -> float:
        """The time, which never goes back: seconds since the epoch."""
        now = time.time()
        if now > self._now:  # else the clock was set back: the machine's time is not
            self._now = now
        return self._now

    def feed(self, event: ev.Event, now: float | None = None) -> None:
        """Tell the machine, do what it orders, then tell whoever watches. In the loop's thread only.

        Args:
            event: What has happened.
            now: The time, from `tick`, of an event whose cause is written down already; None for now.
        """
        if now is None:
            now = self.tick()
            if self.recorder is not None:
                self.recorder.put(Happened(now, event))
        self._depth += 1
        try:
            commands = self.machine.handle(event, now)
            for observe in self.observers:
                observe(event, commands, now)
            orders, entries = self._orders, self.entries
            for command in commands:
                orders[type(command)](entries[command.work], command)
        finally:
            self._depth -= 1
        if self._has_news and not self._depth:
            self._has_news = False
            if self._outbox:
                changes, self._outbox = self._outbox, []
                self.hub.changed(changes)
            else:
                self.hub.changed()

    def publish(self, entry: WorkEntry, status: WorkStatus, hash: str | None) -> None:
        """A work, or its call of that hash, has a new status; told when the present event is dealt with."""
        if self.by_work.get(entry.work, entry) is entry:  # else it was taken out and put back meanwhile
            entry.work._status_history.add(status, hash)
        self._has_news = True
        if self.hub.is_watched:
            self._outbox.append(StatusChanged(entry.name, status))

    def next_work(self) -> int:
        """A number that no work of this app has had."""
        self.latest_work += 1
        return self.latest_work

    def resume(self, machine: Machine, now: float, latest_work: int) -> None:
        """Go on with a machine whose time was `now`, and which has numbered works up to `latest_work`."""
        self.machine = machine
        self._now = now
        self.latest_work = latest_work

    def next_call(self) -> int:
        """A number that no call of this app has had: people see it, so it counts calls and nothing else."""
        return next(self._call_numbers) if self.recorder is None else self.recorder.next_call()

    def timers(self) -> list[tuple[ev.Timer, float]]:
        """Those that run, with the time at which they fire."""
        return [
            (timer, self._now + max(0.0, handle.when() - self.loop.time())) for timer, handle in self._timers.items()
        ]

    def start_timer(self, timer: ev.Timer, delay: float) -> None:
        """Feed `TimerFired` after `delay` seconds; one of that name that runs is replaced."""
        self.stop_timer(timer)
        self._timers[timer] = self.loop.call_later(delay, self._on_timer, timer)

    def stop_timer(self, timer: ev.Timer) -> None:
        """Stop it if it runs."""
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def stop_timers(self) -> None:
        """Stop every timer, at the end."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()

    def _on_timer(self, timer: ev.Timer) -> None:
        self._timers.pop(timer, None)
        self.feed(ev.TimerFired(timer.work, timer))

    # --- works ------------------------------------------------------------------------------------

    def entry(self, work: Work) -> WorkEntry:
        """The entry of a work in the tree.

        Raises:
            UsageError: The work is in no app that runs.
        """
        entry = self.by_work.get(work)
        if entry is None or self.is_closed:
            raise UsageError(f"{work._label()} is in no running app: that has ended, or the work was removed from it")
        return entry

    # --- whose turn it is -------------------------------------------------------------------------

    def external(self, act: Callable[[], None]) -> None:
        """Act on something from outside: now, or after the plain pass that runs."""
        if self.held is not None:
            self.held.append(act)
        else:
            act()

    def hold(self) -> None:
        """A plain pass begins: what comes from outside waits."""
        self.held = []

    def release(self) -> None:
        """It has ended: what has waited happens now."""
        held, self.held = self.held or [], None
        for act in held:
            act()

    def wait_in_pass(self, call: Call[Any]) -> None:
        """In the thread of a plain pass: wait for the call. What comes from outside happens meanwhile.

        Raises:
            PassEnded: The app ended meanwhile.
        """
        from anyio import from_thread

        async def wait() -> None:
            self.release()
            try:
                while not call.done:
                    await call._wait()
            finally:
                if not self.is_closed:
                    self.hold()

        from_thread.run(wait)
        if self.is_closed:
            raise PassEnded

    def in_loop(self, act: Callable[[], T]) -> T:
        """Do something in the loop's thread, and wait for it."""
        if threading.get_ident() == self.thread:
            return act()
        from anyio import from_thread

        return from_thread.run_sync(act)

    def in_loop_soon(self, act: Callable[[], None]) -> None:
        """Do something in the loop's thread: now if this is it, else when it comes to it."""
        if threading.get_ident() == self.thread:
            act()
        else:
            self.loop.call_soon_threadsafe(act)


def finish_all(operations: list[Operation], error: BaseException | None = None) -> None:
    """End all of them, and empty the list."""
    for operation in operations:
        operation.finish(error)
    operations.clear()
