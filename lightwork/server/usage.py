"""Samples the CPU, memory and processes that works use. Each sample is a query to the work's process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from lightwork.engine.engine import Engine
from lightwork.engine.workers.entries import WorkEntry
from lightwork.errors import LightworkError
from lightwork.link import messages, reports
from lightwork.server.types import UsageTotal, WorkUsage

__all__ = ["Usages", "ask_worker"]

_USAGE_WITHIN = 1.0
_EVERY = 2.0
"""Seconds between two samples while a client follows usage."""

_APART = 0.3
"""Seconds between the two samples from which the first CPU percentage is computed."""

_FRESH = 30.0
"""Seconds for which a total counts as recent."""


async def ask_worker(engine: Engine, entry: WorkEntry, what: messages.QueryKind, timeout: float) -> bytes:
    """Query the worker of a work and return its reply, which is JSON.

    Raises:
        TimeoutError: The work has no worker, or the worker did not reply within `timeout` seconds.
    """
    worker = entry.worker
    if worker is None:
        raise TimeoutError
    return await engine.queries.ask(worker, what, timeout)


class Usages:
    """Samples the usage of works on request, or repeatedly. Use it in the loop's thread only.

    Args:
        engine: The engine of the app.
        publish: Called with each sample while usage is followed.
    """

    def __init__(self, engine: Engine, publish: Callable[[Iterable[WorkUsage]], None]) -> None:
        self._engine = engine
        self._publish = publish
        self._before: dict[tuple[int, int], tuple[float, float]] = {}  # by worker: time of sample, CPU seconds then
        self._task: asyncio.Task[None] | None = None
        self._latest: tuple[float, UsageTotal] | None = None

    @property
    def load(self) -> UsageTotal | None:
        """Total usage of all works in the latest sample; None if it is older than 30 seconds."""
        if self._latest is None or self._latest[0] + _FRESH < time.time():
            return None
        return self._latest[1]

    def follow(self, wanted: bool) -> None:
        """Start to sample repeatedly if `wanted`, otherwise stop. Calling it again with the same value does nothing."""
        if wanted and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="lightwork usage")
        elif not wanted and self._task is not None:
            self._task.cancel()
            self._task = None

    async def aclose(self) -> None:
        """Stop to sample. Calling it again does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _serve(self) -> None:
        while True:
            self._publish(await self.sample())
            await asyncio.sleep(_EVERY)

    async def sample(self) -> list[WorkUsage]:
        """Return the usage of every work that has a process which replies in time."""
        entries = [entry for entry in self._engine.entries.by_work.values() if entry.worker is not None]
        if any(self._key(entry) not in self._before for entry in entries):
            await self._take(entries)
            await asyncio.sleep(_APART)
        found = await self._take(entries)
        known = {self._key(entry) for entry in entries}
        self._before = {key: value for key, value in self._before.items() if key in known}
        total = UsageTotal(
            sum(one.cpu for one in found), sum(one.memory for one in found), sum(one.processes for one in found)
        )
        self._latest = time.time(), total
        return found

    def _key(self, entry: WorkEntry) -> tuple[int, int]:
        return entry.id, entry.worker.attempt if entry.worker is not None else 0

    async def _take(self, entries: list[WorkEntry]) -> list[WorkUsage]:
        found = await asyncio.gather(*map(self._one, entries))
        return [one for one in found if one is not None]

    async def _one(self, entry: WorkEntry) -> WorkUsage | None:
        key = self._key(entry)
        try:
            data = await ask_worker(self._engine, entry, "usage", _USAGE_WITHIN)
            used = msgspec.json.decode(data, type=reports.Usage)
        except (TimeoutError, msgspec.DecodeError, LightworkError):
            return None
        now = time.monotonic()
        when, seconds = self._before.get(key, (now, used.cpu))
        self._before[key] = now, used.cpu
        share = max(0.0, used.cpu - seconds) / (now - when) if now > when else 0.0
        return WorkUsage(entry.name, time.time(), round(share * 100, 2), used.memory, used.processes)
