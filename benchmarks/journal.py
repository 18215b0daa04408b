"""Cost of a journal, and the time until an app continues after its scheduler was killed.

``python -m benchmarks.journal PATH COUNT`` runs the scheduler: it starts works and waits to be killed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from benchmarks.calls import LightworkCall
from benchmarks.deltas import watch_appends
from benchmarks.harness import Batch, Budget, Report, Scale, take_turns
from benchmarks.works import Appends, Holds, Waiting
from lightwork import App

AWAY = 3.0
"""Seconds without a scheduler. After this time workers dial at their lowest rate."""


def journal_of(folder: str, name: str | None) -> str | None:
    """Return the path of a journal in a folder, or None without a journal."""
    return None if name is None else str(Path(folder, name))


class Deltas:
    """Appends to a list; a watcher in the flow's process sees each value."""

    loop_factory = None

    def __init__(self, name: str, folder: str, journal: str | None) -> None:
        self.name = name
        self._journal = journal_of(folder, journal)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Appends()
        first = 0
        async with App(Waiting([work]), journal=self._journal) as app:

            async def batch(count: int) -> float:
                nonlocal first
                async with aclosing(app.changes()) as changes, asyncio.TaskGroup() as group:
                    start = time.perf_counter()
                    watcher = group.create_task(watch_appends(changes, work, first, count))
                    await work.run(first, count)
                    await watcher
                    first += count
                    return time.perf_counter() - start

            yield batch


def measure_cost(report: Report, scale: Scale) -> None:
    """Measure the same app with and without a journal, in turns."""
    plain, kept = "without a journal", "with a journal"
    with tempfile.TemporaryDirectory() as folder:
        contenders = [LightworkCall(plain), LightworkCall(kept, journal=journal_of(folder, "calls"))]
        calls = take_turns(contenders, scale.repeats, scale.calls)
        deltas = take_turns(
            [Deltas(plain, folder, None), Deltas(kept, folder, "deltas")], scale.repeats // 2 + 1, scale.deltas
        )
    slow = {who: report.add("a warm call", who, "µs", [s * 1e6 for s in taken]) for who, taken in calls.items()}
    rate = {
        who: report.add("changes seen by the flow", who, "/s", [1 / s for s in taken]) for who, taken in deltas.items()
    }
    cost = slow[kept].median / slow[plain].median
    report.budgets.append(Budget("a warm call with a journal, against one without", "×", 1.2, cost))
    share = rate[kept].median / rate[plain].median
    report.budgets.append(Budget("changes a second with a journal, against without", "×", 0.7, share, at_least=True))


async def hold(path: str, count: int) -> None:
    """Run the scheduler that is killed; report when all works are in a call."""
    works = [Holds() for _ in range(count)]
    async with App(Waiting(works), journal=path) as app:
        calls = [work.submit() for work in works]
        await app.wait_for(lambda: all(work.is_held for work in works))
        await app._running().engine.core.journal.committed()
        print("ready", flush=True)
        await asyncio.gather(*calls)


async def resume(path: str, count: int) -> float:
    """Return the seconds from the start of the next scheduler until every work is connected again, in its call."""
    works = [Holds() for _ in range(count)]
    start = time.perf_counter()
    async with App(Waiting(works), journal=path, resume=True) as app:
        await app.wait_for(lambda: all(work.is_held and work.is_running for work in works))
        took = time.perf_counter() - start
        pids = {work.pid for work in works}
        if len(pids) != count:
            raise ValueError(f"{len(pids)} processes of {count} works")
    return took


def measure_resume(report: Report, scale: Scale) -> None:
    """Kill a scheduler in another process, and resume its journal here."""
    count = 200 if 200 in scale.works else max(scale.works)
    taken = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "journal"))
            command = [sys.executable, "-m", "benchmarks.journal", path, str(count)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                if process.stdout.readline() != b"ready\n":
                    raise RuntimeError("the scheduler did not come up")
                process.kill()
            time.sleep(AWAY)
            taken.append(asyncio.run(resume(path, count)))
    row = report.add(f"resume of an app of {count} live works", "lightwork", "s", taken)
    report.budgets.append(Budget(f"resume of an app of {count} live works", "s", 3.0, row.median))


def measure(report: Report, scale: Scale) -> None:
    """Measure the cost, then the resume."""
    measure_cost(report, scale)
    measure_resume(report, scale)


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], int(sys.argv[2])))
