"""Starting works: one, and many."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from typing import Any

from benchmarks import peers
from benchmarks.harness import Budget, Report, Scale
from benchmarks.works import Increment, Waiting, increment
from lightwork import App
from lightwork.changes import Change, StatusChanged
from lightwork.status import Stage

WARM_UP = 3


async def watch_running(changes: AsyncIterator[Change], name: str) -> float:
    """Record when the work of that name is seen running."""
    async for change in changes:
        if isinstance(change, StatusChanged) and change.name == name and change.status.stage is Stage.RUNNING:
            return time.perf_counter()
    raise RuntimeError("the app ended")


async def start_works(count: int, **settings: Any) -> list[float]:
    """Return the seconds from the first call of each new work to `running`; `settings` are those for the app."""
    works = [Increment() for _ in range(WARM_UP + count)]
    took = []
    async with App(Waiting(works), **settings) as app, asyncio.TaskGroup() as group:
        for n, work in enumerate(works):
            async with aclosing(app.changes()) as changes:
                watcher = group.create_task(watch_running(changes, work.name))
                start = time.perf_counter()
                call = work.submit(n)
                took.append(await watcher - start)
                if await call != n + 1:
                    raise ValueError(f"a wrong answer to {n}")
    return took[WARM_UP:]


def start_pool(method: str) -> float:
    """Return the seconds to the first result of a new pool of one process."""
    start = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        if pool.submit(increment, 1).result() != 2:
            raise ValueError("a wrong answer")
        return time.perf_counter() - start


def measure_one(report: Report, scale: Scale) -> None:
    """Measure a new work of a running app, and a new process of the standard library."""
    subject = "start of a work to running"
    row = report.add(subject, "lightwork, local", "ms", [s * 1e3 for s in asyncio.run(start_works(scale.starts))])
    for method in multiprocessing.get_all_start_methods():
        start_pool(method)  # forkserver's helper process starts once
        taken = [start_pool(method) * 1e3 for _ in range(max(3, scale.starts // 5))]
        report.add(subject, f"ProcessPoolExecutor, {method}, to the first answer", "ms", taken)
    report.budgets.append(Budget(f"{subject}, local, warm fork server", "ms", 15.0, row.median))


async def run_works(count: int) -> float:
    """Return the seconds to start an app, call `count` new works once each, and end everything."""
    start = time.perf_counter()
    works = [Increment() for _ in range(count)]
    async with App(Waiting(works)):
        answers = await asyncio.gather(*[work.submit(n) for n, work in enumerate(works)])
    if answers != [n + 1 for n in range(count)]:
        raise ValueError("a wrong answer")
    return time.perf_counter() - start


def measure_many(report: Report, scale: Scale) -> None:
    """Measure apps of different sizes, in turns; the largest once, because it takes long and needs memory."""
    everybody: dict[str, Callable[[int], float]] = {"lightwork": lambda count: asyncio.run(run_works(count))}
    if importlib.util.find_spec("ray"):
        everybody["ray"] = peers.run_ray_actors
    samples: dict[tuple[str, int], list[float]] = {}
    for repeat in range(3):
        for who, run in everybody.items():
            for count in scale.works:
                if (count < 500 or repeat == 0) and (who == "lightwork" or count <= 50):
                    samples.setdefault((who, count), []).append(run(count))
    medians: dict[int, float] = {}
    for (who, count), taken in samples.items():
        row = report.add(f"{count} works: start, call, finish", who, "s", taken)
        if who == "lightwork":
            medians[count] = row.median
    if 200 in medians:
        report.budgets.append(Budget("200 works started, called and finished", "s", 2.0, medians[200]))
    few, many = min(medians), max(medians)
    flat = medians[many] / many / (medians[few] / few)
    report.budgets.append(Budget(f"time per work, {many} works against {few}", "×", 1.2, flat))


def measure(report: Report, scale: Scale) -> None:
    """Measure one start, then many."""
    measure_one(report, scale)
    measure_many(report, scale)
