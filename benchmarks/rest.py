"""Cost of an idle app: processor time of all its processes, and memory of the scheduler.

It runs in a fresh process, ``python -m benchmarks.rest WORKS SECONDS``, so that earlier measurements do not count.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from subprocess import run

import msgspec
import psutil

from benchmarks.harness import Budget, Report, Scale
from benchmarks.works import Increment, Waiting
from lightwork import App


class Rest(msgspec.Struct):
    """The measurements.

    Attributes:
        scheduler, works: Share of one core that the scheduler's process, and all other processes together, used.
        memory: Bytes by which the scheduler's memory grew for each work.
        processes: Number of processes.
    """

    engine: float
    works: float
    memory: float
    processes: int


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process, in nanoseconds if the kernel reports them."""
    tasks = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    if tasks:
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    times = process.cpu_times()
    return times.user + times.system


async def call_each(works: list[Increment]) -> None:
    """Call each work once and check its result."""
    answers = await asyncio.gather(*[work.submit(n) for n, work in enumerate(works)])
    if answers != [n + 1 for n in range(len(works))]:
        raise ValueError("a wrong answer")


async def start(count: int) -> None:
    """Run an app of `count` works, and end it."""
    works = [Increment() for _ in range(count)]
    async with App(Waiting(works)):
        await call_each(works)


async def rest(count: int, seconds: float) -> Rest:
    """Start works, call each once, and measure them while idle."""
    own = psutil.Process()
    await start(1)  # loads the modules that every app needs
    gc.collect()
    before = own.memory_info().rss
    async with App(Waiting(works := [Increment() for _ in range(count)])):
        await call_each(works)
        gc.collect()
        memory = (own.memory_info().rss - before) / count

        await asyncio.sleep(2)  # the work left over from the starts is done
        others = own.children(recursive=True)
        # Reading a hundred processes costs this process time, which must not fall between its own two readings.
        others_before = sum(map(processor_seconds, others))
        own_before = processor_seconds(own)
        await asyncio.sleep(seconds)
        own_after = processor_seconds(own)
        others_after = sum(map(processor_seconds, others))
    return Rest((own_after - own_before) / seconds, (others_after - others_before) / seconds, memory, len(others))


def measure(report: Report, scale: Scale) -> None:
    """Measure in one fresh process. The budget of the processor is for the app with all its works."""
    count = scale.idle_works
    command = [sys.executable, "-m", "benchmarks.rest", str(count), str(scale.idle_seconds)]
    done = run(command, stdout=-1, check=True)
    found = msgspec.json.decode(done.stdout, type=Rest)
    subject = f"at rest with {count} works"
    report.add(subject, "scheduler", "% of a core", [found.engine * 100])
    report.add(subject, f"the other {found.processes} processes", "% of a core", [found.works * 100])
    report.add("memory of the scheduler for each work", "lightwork", "kB", [found.memory / 1e3])
    whole = (found.engine + found.works) * 100
    report.budgets.append(Budget(f"an app {subject}, all processes", "% of a core", 0.1, whole))
    report.budgets.append(Budget("memory of the scheduler per idle work", "kB", 100.0, found.memory / 1e3))


if __name__ == "__main__":
    result = asyncio.run(rest(int(sys.argv[1]), float(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(result))
