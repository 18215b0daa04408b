"""The engine's events, read once for all waiting tasks, instead of one waiting request for each container.

An event only wakes the tasks that wait for its container. They then query its state. So a repeated event or an event
for another container does no harm. When the stream breaks, all tasks are woken, so that no lost event matters.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import anyio.abc

from lightwork.runtime import Unreachable
from lightwork_runtimes.docker._engine import DockerEngine
from lightwork_runtimes.docker._report import OWNER

__all__ = ["Events"]

_KINDS = ["start", "die", "destroy"]


class Events:
    """Wakes the tasks that wait for a change of a container.

    Args:
        engine: The engine whose events are read.
        tasks: The task group for the task that reads the events. It starts at the first wait.
    """

    def __init__(self, engine: DockerEngine, tasks: anyio.abc.TaskGroup) -> None:
        self._engine = engine
        self._tasks = tasks
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._opened: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def watch(self, name: str, changed: asyncio.Event) -> Iterator[None]:
        """Set `changed` whenever the container's state may have changed."""
        waiting = self._waiting.setdefault(name, set())
        waiting.add(changed)
        try:
            yield
        finally:
            waiting.discard(changed)
            if not waiting:
                self._waiting.pop(name, None)

    async def ready(self) -> None:
        """Wait until events are being read. Call it before querying the engine, so that no change is missed.

        Raises:
            Unreachable: The events cannot be read.
        """
        if self._opened is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._tasks.start_soon(self._read, self._opened, name="lightwork docker events")
        await asyncio.shield(self._opened)

    async def _read(self, opened: asyncio.Future[None]) -> None:
        failure: Exception = Unreachable(f"the Docker engine {self._engine.address} has ended its events")
        try:
            # From a past time, because the engine confirms the request before it listens. Recent events are repeated.
            async for event in self._engine.events(self._engine.now, OWNER, _KINDS):
                if not opened.done():
                    opened.set_result(None)
                if event:
                    self._wake(event["Actor"]["Attributes"].get("name", ""))
        except Exception as error:
            failure = error  # a waiting task receives it, or queries again and fails there
        finally:
            self._opened = None
            if not opened.done():
                opened.set_exception(failure)
                opened.exception()  # mark it as retrieved: the waiting task may have been cancelled
            for name in list(self._waiting):
                self._wake(name)

    def _wake(self, name: str) -> None:
        for changed in self._waiting.get(name, ()):
            changed.set()
