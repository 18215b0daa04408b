"""Time until a flow notices a dead worker, and until it has all edits of a worker that was cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import aclosing, suppress

from benchmarks.harness import Budget, Report, Scale
from benchmarks.works import Waiting
from lightwork import App, Work
from lightwork.changes import StateChanged
from lightwork.errors import WorkerDied
from lightwork_runtimes.local import LocalOptions
from tests.chaos.proxy import FaultProxy, LocalThroughProxies, proxies

BACKLOG = 10_000


def meet(pipe: str, mode: str) -> None:
    """Wait at a named pipe until the other side has opened it too."""
    open(pipe, mode).close()


class Mortal(Work):
    """Runs until it is killed."""

    def __init__(self) -> None:
        super().__init__(parallel=True, cache_calls=False)
        self.pid = 0

    async def run(self, n: int) -> None:
        self.pid = os.getpid()
        await asyncio.Event().wait()


class Cut(Work):
    """Makes edits that cannot coalesce after it has met the flow, and then meets the flow again."""

    def __init__(self) -> None:
        super().__init__(parallel=True, cache_calls=False)
        self.table: dict[str, list[int]] = {}

    def run(self, folder: str, count: int) -> int:
        meet(f"{folder}/go", "r")
        for n in range(count):
            self.table[str(n)] = [n]
        meet(f"{folder}/done", "w")
        return count


async def bare_death() -> float:
    """Return the seconds from the kill of a bare child process until asyncio reports it: the lower limit for a flow."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    start = time.perf_counter()
    child.kill()
    await child.wait()
    return time.perf_counter() - start


async def measure_deaths(report: Report, scale: Scale) -> None:
    """Kill a worker during a call; the call fails with the death."""
    work = Mortal()
    late: list[float] = []
    bare: list[float] = []
    async with App(Waiting([work]), runtime="local") as app:
        for n in range(scale.starts):
            call = work.submit(n)
            await app.wait_for(lambda: work.pid > 0)
            start = time.perf_counter()
            os.kill(work.pid, signal.SIGKILL)
            with suppress(WorkerDied):
                await call
            late.append((time.perf_counter() - start) * 1e3)
            if work.status.message is None or "SIGKILL" not in work.status.message:
                raise ValueError(f"the status must be SIGKILL, got {work.status}")
            work.pid = 0
            bare.append(await bare_death() * 1e3)
    report.add("a death is in the flow", "of a bare child, in asyncio", "ms", bare)
    row = report.add("a death is in the flow", "of a worker in a call", "ms", late)
    report.budgets.append(Budget("a death is in the flow", "ms", 50.0, row.median))


async def catch_up(proxy: FaultProxy, app: App[Waiting], work: Cut) -> tuple[float, float]:
    """Cut the work off, let it make its edits, and open the connection again.

    Return the seconds from then to the last edit, and the part of them in which this process computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("go", "done"):
            os.mkfifo(f"{folder}/{name}")
        call = work.submit(folder, BACKLOG)
        await app.wait_for(lambda: work.status.call == call.id and work.status.stage == "running")
        proxy.is_closed_to_new = True
        for line in proxy.lines:
            line.cut()
        await asyncio.to_thread(meet, f"{folder}/go", "w")
        await asyncio.to_thread(meet, f"{folder}/done", "r")
        async with aclosing(app.changes()) as changes:
            seen = 0
            start, computed = time.perf_counter(), time.process_time()
            proxy.is_closed_to_new = False
            async for change in changes:
                if isinstance(change, StateChanged) and change.name == work.name and len(change.path) == 2:
                    seen += 1
                    if change.path[1] == str(BACKLOG - 1):
                        break
            took = time.perf_counter() - start, time.process_time() - computed
        await call
    if seen != BACKLOG:
        raise ValueError(f"{seen} edits were seen of {BACKLOG}")
    return took


async def measure_reconnect(report: Report, scale: Scale) -> None:
    """Measure with a new work each time: its process and its table are new."""
    took: list[tuple[float, float]] = []
    for _ in range(max(3, scale.repeats // 2)):
        work = Cut()
        async with proxies() as (proxy,):
            runtimes = {"local": LocalThroughProxies(LocalOptions(), [proxy.route], {})}
            async with App(Waiting([work]), runtime="local", runtimes=runtimes) as app:
                proxy.upstream = app.address
                took.append(await catch_up(proxy, app, work))
    subject = f"reconnect and {BACKLOG:,} edits"
    row = report.add(subject, "from when the way is open again", "s", [one[0] for one in took])
    report.add(subject, "of that the flow's process computes, proxy and all", "s", [one[1] for one in took])
    report.budgets.append(Budget(f"reconnect and {BACKLOG:,} buffered edits", "s", 1.0, row.median))


def measure(report: Report, scale: Scale) -> None:
    """Measure deaths, then cuts."""
    for part in (measure_deaths, measure_reconnect):
        asyncio.run(part(report, scale))
