"""The engine's events, read once for all who wait, instead of a waiting request for each container.

An event only wakes who waits for that container: what became of it is then asked. So an event that comes twice, or
for something else, does no harm, and one that is lost with the stream wakes everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import anyio.abc

from lightwork.runtime import Unreachable
from lightwork_runtimes.docker._engine import Engine
from lightwork_runtimes.docker._report import OWNER

__all__ = ["Events"]

_KINDS = ["start", "die", "destroy"]


class Events:
    """Wakes those who wait for something to happen to a container.

    Args:
        engine: Whose events.
        tasks: Holds the task that reads them, from the first wait on.
    """

    def __init__(self, engine: Engine, tasks: anyio.abc.TaskGroup) -> None:
        self._engine = engine
        self._tasks = tasks
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._opened: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def watch(self, name: str, changed: asyncio.Event) -> Iterator[None]:
        """Set `changed` whenever something may have happened to the container."""
        waiting = self._waiting.setdefault(name, set())
        waiting.add(changed)
        try:
            yield
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(name, None)

    async def ready(self) -> None:
        """Return when events are being read. Call it before asking the engine, then nothing falls in between.

        Raises:
            Unreachable: They cannot be.
        """
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._tasks.start_soon(self._read, self._opened, name="lightwork docker events")
        await asyncio.shield(self._opened)

    async def _read(self, opened: asyncio.Future[None]) -> None:
        failure: Exception = Unreachable(f"the Docker engine {self._engine.address} has ended its events")
        try:
            # From a moment in the past, as the engine confirms before it listens: what happened since comes again.
            async for event in self._engine.events(self._engine.now, OWNER, _KINDS):
                if not opened.done():
                    opened.set_result(None)
                if event:
                    self._wake(event["Actor"]["Attributes"].get("name", ""))
        except Exception as error:
            failure = error  # who waits gets it, or asks again and finds out
        finally:
            self._opened = None
            if not opened.done():
                opened.set_exception(failure)
                opened.exception()  # seen: who asked for it may have been cancelled
            for name in list(self._waiting):
                self._wake(name)

    def _wake(self, name: str) -> None:
        for changed in self._waiting.get(name, ()):
            changed.set()
