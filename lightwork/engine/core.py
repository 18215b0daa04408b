"""What the parts of the engine share: the machine and its timers, the clock, and whose turn it is.

Every event enters the machine by `Core.feed`, in the loop's thread. A plain ``def run`` pass has a thread of its own.
While it lasts, events from outside are held back (`Core.external`), so that the pass sees one state.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from lightwork.changes import Change, StatusChanged
from lightwork.components.call import Call
from lightwork.components.driver import PassEnded
from lightwork.config import Config
from lightwork.engine.changes import ChangeHub
from lightwork.engine.journal import Journal
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import Machine
from lightwork.status import WorkStatus

__all__ = ["Core", "Handlers"]

T = TypeVar("T")

Handlers = Mapping[type[ev.Command], Callable[[Any], None]]
"""The function that carries out each command, by the command's type. A `match` would ask isinstance for each case."""


class Core:
    """The machine, its timers and its clock. It belongs to the loop's thread, in which it must be made.

    Args:
        config: Of the app.
        hub: Notified of every change.
        journal: Records every event.
        fail: Called with an exception that nobody else gets: it fails the app.

    Attributes:
        loop: The app's event loop.
        thread: The loop's thread.
        journal: As given, until the engine opens another one.
        pass_thread: The thread of the plain pass that runs, 0 without one.
        is_closed: Whether the app ends: nothing new is taken on.
        observers: Called with each event, the commands that it led to, and the time, before they are carried out.
        machine: Decides.
        held: What came from outside and waits until the plain pass that runs has ended; None without one.
    """

    def __init__(self, config: Config, hub: ChangeHub, journal: Journal, fail: Callable[[BaseException], None]) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.thread: int = threading.get_ident()
        self.config = config
        self.hub = hub
        self.journal = journal
        self.fail = fail
        self.pass_thread = 0
        self.is_closed = False
        self.observers: list[Callable[[ev.Event, Sequence[ev.Command], float], None]] = []
        self.machine: Machine = Machine()
        self.held: list[Callable[[], None]] | None = None
        self._handlers: Handlers = {}
        self._outbox: list[Change] = []  # leaves when the present event is dealt with, if anybody watches
        self._has_news = False
        self._timers: dict[ev.Timer, asyncio.TimerHandle] = {}
        self._depth = 0
        self._now = 0.0

    def carry_out_with(self, handlers: Handlers) -> None:
        """Carry out the machine's commands with these functions from now on.

        Raises:
            TypeError: A command has no handler, or a handler has no command.
        """
        wanted = set(get_args(ev.Command))
        if handlers.keys() != wanted:
            names = sorted(kind.__name__ for kind in handlers.keys() ^ wanted)
            raise TypeError(f"the handlers must be those of every command, and differ in {', '.join(names)}")
        self._handlers = handlers

    # --- the machine ------------------------------------------------------------------------------

    def tick(self) -> float:
        """Return the time, which never goes back, in seconds since the epoch."""
        now = time.time()
        if now > self._now:  # otherwise the clock was set back: the machine's time is not
            self._now = now
        return self._now

    def feed(self, event: ev.Event, now: float | None = None) -> None:
        """Give the machine an event, carry out its commands, then notify the watchers. In the loop's thread only.

        Args:
            event: What has happened.
            now: The time, from `tick`, of an event whose cause is recorded already; None for now.
        """
        if now is None:
            now = self.tick()
            self.journal.happened(event, now)
        self._depth += 1
        try:
            commands = self.machine.handle(event, now)
            for observe in self.observers:
                observe(event, commands, now)
            handlers = self._handlers
            for command in commands:
                handlers[type(command)](command)
        finally:
            self._depth -= 1
        if self._has_news and not self._depth:
            self._has_news = False
            if self._outbox:
                changes, self._outbox = self._outbox, []
                self.hub.changed(changes)
            else:
                self.hub.changed()

    def publish(self, name: str, status: WorkStatus) -> None:
        """Notify the watchers of a work's new status when the present event is dealt with."""
        self._has_news = True
        if self.hub.is_watched:
            self._outbox.append(StatusChanged(name, status))

    def resume(self, machine: Machine, now: float) -> None:
        """Continue with a machine whose time was `now`."""
        self.machine = machine
        self._now = now

    # --- timers -----------------------------------------------------------------------------------

    def timers(self) -> list[tuple[ev.Timer, float]]:
        """Return the timers that run, with the time at which they fire."""
        return [
            (timer, self._now + max(0.0, handle.when() - self.loop.time())) for timer, handle in self._timers.items()
        ]

    def start_timer(self, timer: ev.Timer, delay: float) -> None:
        """Feed `TimerFired` after `delay` seconds. A timer of this name that runs is replaced."""
        self.stop_timer(timer)
        self._timers[timer] = self.loop.call_later(delay, self._on_timer, timer)

    def stop_timer(self, timer: ev.Timer) -> None:
        """Stop a timer if it runs."""
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

    # --- whose turn it is -------------------------------------------------------------------------

    def external(self, act: Callable[[], None]) -> None:
        """Act on something from outside: now, or after the plain pass that runs."""
        if self.held is not None:
            self.held.append(act)
        else:
            act()

    def hold(self) -> None:
        """Hold back events from outside: a plain pass begins."""
        self.held = []

    def release(self) -> None:
        """Let everything happen that was held back: the plain pass has ended."""
        held, self.held = self.held or [], None
        for act in held:
            act()

    def wait_in_pass(self, call: Call[Any]) -> None:
        """Wait for a call, in the thread of a plain pass. What comes from outside happens meanwhile.

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
        """Do something in the loop's thread: now in that thread, otherwise as soon as the loop comes to it."""
        if threading.get_ident() == self.thread:
            act()
        else:
            self.loop.call_soon_threadsafe(act)
