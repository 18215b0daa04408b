"""A warm call, awaited one by one: a round trip to another process, with every result checked."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

from benchmarks import echo, peers
from benchmarks.harness import Batch, Budget, Contender, LoopFactory, Report, Scale, take_turns
from benchmarks.works import Increment, Waiting, increment
from lightwork import App

SUBJECT = "a warm call"


def calling(work: Increment) -> Batch:
    """Yield a function that calls a work of a running app, one call after the other."""

    async def batch(count: int) -> float:
        start = time.perf_counter()
        for n in range(count):
            if await work.run(n) != n + 1:
                raise ValueError(f"a wrong answer to {n}")
        return time.perf_counter() - start

    return batch


class LightworkCall:
    """`await work.run(n)` in an app with one work."""

    def __init__(self, name: str, loop_factory: LoopFactory | None = None, *, journal: str | None = None) -> None:
        self.name = name
        self.loop_factory = loop_factory
        self._journal = journal

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        async with App(Waiting([work]), journal=self._journal):
            yield calling(work)


class PoolCall:
    """`ProcessPoolExecutor` of one process, awaited from asyncio."""

    name = "ProcessPoolExecutor"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1) as pool:

            async def batch(count: int) -> float:
                start = time.perf_counter()
                for n in range(count):
                    if await loop.run_in_executor(pool, increment, n) != n + 1:
                        raise ValueError(f"a wrong answer to {n}")
                return time.perf_counter() - start

            yield batch


def contenders() -> list[Contender]:
    """Return every contender that is installed, lightwork first."""
    found: list[Contender] = [LightworkCall("lightwork", None)]
    if factory := echo.uvloop_factory():
        found.append(LightworkCall("lightwork on uvloop", factory))
    found += [*echo.references(), PoolCall()]
    if importlib.util.find_spec("ray"):
        found.append(peers.RayCall())
    if importlib.util.find_spec("distributed"):
        found.append(peers.DaskCall())
    if importlib.util.find_spec("lightning_app"):
        found.append(peers.LightningCall())
    return found


def measure(report: Report, scale: Scale) -> None:
    """Measure warm calls of all contenders in turns."""
    everybody = contenders()
    samples = take_turns(everybody, scale.repeats, scale.calls)
    rows = {name: report.add(SUBJECT, name, "µs", [s * 1e6 for s in taken]) for name, taken in samples.items()}
    mine = rows["lightwork"].median
    for reference in (
        "bare echo, asyncio streams",
        "bare echo, asyncio Protocol",
        "the same, its buffers kept",
    ):
        report.budgets.append(Budget(f"{SUBJECT} against {reference}", "×", 1.5, mine / rows[reference].median))
