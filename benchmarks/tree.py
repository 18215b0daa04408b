"""Cost of a large tree: a change in one work of 1,000 against one of ten, and a pass of an idle flow."""

from __future__ import annotations

import asyncio
import time

from benchmarks.harness import Budget, Report, Scale
from lightwork import App, Flow, Work
from lightwork.changes import Change, StateChanged

SUBJECT = "a change in one work of a flow"
PASS = "a pass of an idle flow after one change"
SIZES = (10, 1000)
ATTRIBUTES = 10


class Wide(Work):
    """One work of many; each has ten attributes, so that a thousand works have ten thousand."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        for number in range(ATTRIBUTES):
            setattr(self, f"attribute_{number}", number)

    async def run(self, start: int, count: int) -> int:
        for value in range(start, start + count):
            self.attribute_0 = value
            await asyncio.sleep(0)  # each change leaves in a separate frame
        return count


class Many(Flow):
    """Holds the works. Every change makes it run again, and the run does nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.children = [Wide() for _ in range(size)]
        self._passes: list[float] = []
        self._ran = asyncio.Event()

    async def run(self) -> None:
        self._passes.append(time.perf_counter())
        self._ran.set()


async def measure_changes(report: Report, scale: Scale) -> None:
    """Measure the time for each change, all of them seen by a watcher, in turns for both sizes."""
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    flows = {size: Many(size) for size in SIZES}
    apps = {size: App(flow) for size, flow in flows.items()}
    async with apps[SIZES[0]], apps[SIZES[1]]:
        for repeat in range(scale.repeats + 1):
            for size, app in apps.items():
                work, seen = flows[size].children[size // 2], 0

                def watch(change: Change, name: str = work.name) -> None:
                    nonlocal seen
                    if isinstance(change, StateChanged) and change.name == name and change.path == ("attribute_0",):
                        seen += 1

                unwatch = app.watch(watch)
                start = time.perf_counter()
                await work.submit(1 + repeat * scale.edits, scale.edits)
                took = time.perf_counter() - start
                unwatch()
                if repeat:  # the first round is the warm-up
                    samples[size].append(took / seen * 1e6)
    rows = {size: report.add(SUBJECT, f"of {size:,} works", "µs", taken) for size, taken in samples.items()}
    small, large = (rows[size].median for size in SIZES)
    report.budgets.append(Budget(f"{SUBJECT} of 1,000 against one of 10", "×", 1.2, large / small))


async def measure_passes(report: Report, scale: Scale) -> None:
    """Measure from the arrival of a work's change to the end of the pass that it causes, in a flow of 1,000 works."""
    flow = Many(SIZES[1])
    applied: list[float] = []
    async with App(flow) as app:
        work = flow.children[0]
        await work.submit(1, 1)
        name = work.name

        def watch(change: Change) -> None:
            if isinstance(change, StateChanged) and change.name == name and change.path == ("attribute_0",):
                applied.append(time.perf_counter())

        app.watch(watch)
        for repeat in range(scale.latencies):
            await work.submit(10 + repeat, 1)
            while flow._passes[-1] <= applied[-1]:
                flow._ran.clear()
                await flow._ran.wait()
        # The first pass after each change.
        taken = [min(done for done in flow._passes if done > start) - start for start in applied]
    row = report.add(PASS, "of 1,000 works", "µs", [seconds * 1e6 for seconds in taken])
    report.budgets.append(Budget(PASS, "µs", 100.0, row.median))


def measure(report: Report, scale: Scale) -> None:
    """Measure both."""
    asyncio.run(measure_changes(report, scale))
    asyncio.run(measure_passes(report, scale))
