"""What works use at this moment: processor, memory and processes; each question goes to the work's own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from lightwork.engine.engine import Engine
from lightwork.engine.workers.entries import WorkEntry
from lightwork.errors import LightworkError
from lightwork.link import messages, reports
from lightwork.server.types import Usage, UsageTotal

__all__ = ["Usages", "ask_worker"]

_USAGE_WITHIN = 1.0
_EVERY = 2.0
"""Seconds between two samples while somebody follows."""

_APART = 0.3
"""Seconds between the two samples that are needed for a first number."""

_FRESH = 30.0


async def ask_worker(engine: Engine, entry: WorkEntry, what: messages.QueryKind, timeout: float) -> bytes:
    """What the worker of a work answers, in JSON.

    Raises:
        TimeoutError: It has no worker, or that does not answer.
    """
    worker = entry.worker
    if worker is None:
        raise TimeoutError
    return await engine.queries.ask(worker, what, timeout)


class Usages:
    """Samples what works use, while somebody wants to know. Belongs to the loop's thread.

    Args:
        engine: Of the app.
        tell: Called with samples while they are followed.
    """

    def __init__(self, engine: Engine, tell: Callable[[Iterable[Usage]], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._before: dict[tuple[int, int], tuple[float, float]] = {}  # of a worker: when, and seconds by then
        self._task: asyncio.Task[None] | None = None
        self._latest: tuple[float, UsageTotal] | None = None

    @property
    def load(self) -> UsageTotal | None:
        """What all works used when they were last sampled; None where that is too long ago."""
        if self._latest is None or self._latest[0] + _FRESH < time.time():
            return None
        return self._latest[1]

    def follow(self, wanted: bool) -> None:
        """Sample again and again from now on, or not any more."""
        if wanted and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="lightwork usage")
        elif not wanted and self._task is not None:
            self._task.cancel()
            self._task = None

    async def aclose(self) -> None:
        """Sample no more. May be repeated."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _serve(self) -> None:
        while True:
            self._tell(await self.sample())
            await asyncio.sleep(_EVERY)

    async def sample(self) -> list[Usage]:
        """What every work uses that has a process and answers in time."""
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

    async def _take(self, entries: list[WorkEntry]) -> list[Usage]:
        found = await asyncio.gather(*map(self._one, entries))
        return [one for one in found if one is not None]

    async def _one(self, entry: WorkEntry) -> Usage | None:
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
        return Usage(entry.name, time.time(), round(share * 100, 2), used.memory, used.processes)
