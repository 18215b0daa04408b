"""Counts the changes of an app, wakes those who wait for one, and passes changes to watchers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from lightwork.changes import Change
from lightwork.state.ops import Op, op_change

__all__ = ["ChangeHub", "ChangeStream"]

_FEED_LIMIT = 1_000_000


class ChangeHub:
    """Counts the changes of a tree of components, and passes them to watchers. Belongs to the loop's thread.

    Attributes:
        version: Grows with every change. If it has changed since a pass began, another pass runs.
        is_watched: Whether there is a watcher, which receives each change itself.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.version: int = 0
        self.is_watched: bool = False
        self._watchers: list[Callable[[Change], None]] = []
        self._next: asyncio.Future[None] | None = None
        self._closed = False
        self._events: set[asyncio.Event] = set()

    def watch(self, watcher: Callable[[Change], None]) -> Callable[[], None]:
        """Call `watcher` with every change, in the loop; return a function that stops it. A watcher may raise."""
        self._watchers.append(watcher)
        self.is_watched = True
        return lambda: self.unwatch(watcher)

    def unwatch(self, watcher: Callable[[Change], None]) -> None:
        """Stop calling `watcher`. An unknown watcher is ignored."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            self.is_watched = bool(self._watchers)

    def changed(self, changes: Sequence[Change] = ()) -> None:
        """Count a change, wake the waiters, and pass `changes` to the watchers."""
        self.version += 1
        if self._next is not None:
            waiting, self._next = self._next, None
            waiting.set_result(None)
        if changes:
            self.tell(changes)

    def edited(self, name: str, ops: Sequence[Op]) -> None:
        """Count an edit of a component's state, and pass it to the watchers."""
        self.changed([op_change(name, op) for op in ops] if self._watchers else ())

    def tell(self, changes: Sequence[Change]) -> None:
        """Pass changes to the watchers without counting them. For a change that does not concern the flow: a log line.

        An exception of a watcher goes to the loop's exception handler.
        """
        for watcher in tuple(self._watchers):
            for change in changes:
                try:
                    watcher(change)
                except Exception as error:
                    self._loop.call_exception_handler(
                        {"message": "a watcher of an app raised", "exception": error, "watcher": watcher}
                    )

    async def wait_change(self, since: int) -> None:
        """Return when the version differs from `since`, or the hub is closed."""
        while self.version == since and not self._closed:
            if self._next is None:
                self._next = self._loop.create_future()
            await asyncio.shield(self._next)

    def close(self) -> None:
        """Close the hub, because nothing changes any more, and wake all waiters."""
        self._closed = True
        self.changed()
        for event in list(self._events):
            event.set()

    async def wait(self, event: asyncio.Event) -> None:
        """Return when the event is set, or the hub is closed."""
        self._events.add(event)
        try:
            if not self._closed:
                await event.wait()
        finally:
            self._events.discard(event)

    @property
    def closed(self) -> bool:
        """Whether nothing will change any more."""
        return self._closed

    def changes(self) -> ChangeStream:
        """Return a stream of every change from now on, until the hub is closed."""
        return ChangeStream(self)


class ChangeStream:
    """An async iterator over the changes of a tree. It ends when the hub is closed; `aclose` ends it at once."""

    def __init__(self, hub: ChangeHub) -> None:
        self._hub = hub
        self._waiting: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._has_lost = False
        self._unwatch = hub.watch(self._take)

    def _take(self, change: Change) -> None:
        if len(self._waiting) < _FEED_LIMIT:
            self._waiting.append(change)
        else:
            self._has_lost = True
        self._wake.set()

    def __aiter__(self) -> ChangeStream:
        return self

    async def __anext__(self) -> Change:
        """Return the next change.

        Raises:
            BufferError: The reader fell a million changes behind, so changes are missing here.
        """
        while not self._waiting:
            if self._has_lost:
                self._has_lost = False
                raise BufferError(
                    f"the reader of changes() fell {_FEED_LIMIT} changes behind, so some were dropped; read faster"
                )
            if self._hub.closed:
                self._unwatch()
                raise StopAsyncIteration
            self._wake.clear()
            await self._hub.wait(self._wake)
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Stop receiving changes."""
        self._unwatch()
