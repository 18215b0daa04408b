"""Deltas from a work to the flow: changes per second, the delay of one change, and the cost of a large state."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from benchmarks.harness import Budget, Report, Scale, clock
from benchmarks.works import Appends, Edits, Fills, Sets, Stamps, Waiting
from lightwork import App, Work
from lightwork.changes import Change, StateChanged

Changes = AsyncIterator[Change]


async def watch_appends(changes: Changes, work: Work, first: int, count: int) -> None:
    """Return when every value from `first` on was seen, in order; raise if one is missing."""
    expected, end = first, first + count
    async for change in changes:
        if not (isinstance(change, StateChanged) and change.name == work.name and change.kind == "splice"):
            continue
        _, removed, inserted = change.value
        if removed:  # the list is emptied before each round
            continue
        for value in inserted:
            if value != expected:
                raise ValueError(f"saw {value} where {expected} was due")
            expected += 1
        if expected == end:
            return


async def watch_sets(changes: Changes, work: Work, attribute: str, first: int, count: int) -> int:
    """Return the number of different values seen up to the last one; raise if the values of one key do not increase."""
    seen, latest = 0, dict[tuple[str | int, ...], int]()
    async for change in changes:
        if isinstance(change, StateChanged) and change.name == work.name and change.path[0] == attribute:
            before = latest.get(change.path, first - 1)
            if change.value <= before:
                raise ValueError(f"saw {change.value} at {change.path} after {before}")
            seen, latest[change.path] = seen + 1, change.value
            if change.value == first + count - 1:
                break
    return seen


async def measure_rate(report: Report, scale: Scale) -> None:
    """Measure distinct values that a watcher in the flow's process sees, until the call's result after all of them."""
    appends, fills, sets = Appends(), Fills(), Sets()
    rates: dict[str, list[float]] = {"appends to a list": [], "sets of a table's keys": [], "sets of one attribute": []}
    shares: dict[str, list[float]] = {who: [] for who in list(rates)[1:]}
    async with App(Waiting([appends, fills, sets])) as app, asyncio.TaskGroup() as group:
        for repeat in range(scale.repeats // 3 + 1):
            first, count = repeat * scale.deltas, scale.deltas
            async with aclosing(app.changes()) as changes:
                start = time.perf_counter()
                watcher = group.create_task(watch_appends(changes, appends, first, count))
                await appends.run(first, count)
                await watcher
                appended = time.perf_counter() - start
            if repeat:  # the first round is the warm-up
                rates["appends to a list"].append(scale.deltas / appended)
            for who, work, attribute in zip(shares, (fills, sets), ("table", "value"), strict=True):
                async with aclosing(app.changes()) as changes:
                    start = time.perf_counter()
                    counter = group.create_task(watch_sets(changes, work, attribute, first, count))
                    await work.run(first, count)
                    seen = await counter
                if repeat:
                    rates[who].append(seen / (time.perf_counter() - start))
                    shares[who].append(seen / scale.deltas)
    rows = {who: report.add("changes seen by the flow", who, "/s", samples) for who, samples in rates.items()}
    for who, row in rows.items():
        report.budgets.append(Budget(f"changes of one work: {who}", "/s", 100_000, row.median, at_least=True))
    for who, samples in shares.items():
        report.add("changes that were not overtaken by the next", who, "share", samples)


async def watch_stamps(changes: Changes, work: Work, count: int) -> list[float]:
    """Return the seconds from each assignment in the work to its arrival here."""
    late: list[float] = []
    async for change in changes:
        if isinstance(change, StateChanged) and change.name == work.name and change.path == ("stamp",):
            late.append(clock() - change.value)
            if len(late) == count:
                break
    return late


async def measure_latency(report: Report, scale: Scale) -> None:
    """Measure one change at a time in an idle app."""
    stamps = Stamps()
    async with App(Waiting([stamps])) as app, asyncio.TaskGroup() as group:
        await stamps.run(5, 0.0)
        async with aclosing(app.changes()) as changes:
            watcher = group.create_task(watch_stamps(changes, stamps, scale.latencies))
            await stamps.run(scale.latencies, 0.01)
            late = await watcher
    row = report.add("one change, work to flow", "lightwork", "ms", [seconds * 1e3 for seconds in late])
    report.budgets.append(Budget("one state change, work to flow, at rest", "ms", 1.0, row.median))


async def measure_cost(report: Report, scale: Scale) -> None:
    """Compare one edit deep in a large state with one in a small state; both must arrive."""
    works = {"in a state of 1 kB": Edits(1_000), "in a state of 1 MB": Edits(1_000_000)}
    samples: dict[str, list[float]] = {who: [] for who in works}
    async with App(Waiting(list(works.values()))):
        for repeat in range(scale.repeats + 1):
            for who, work in works.items():
                start = time.perf_counter()
                last = await work.run(repeat * scale.edits, scale.edits)
                took = time.perf_counter() - start
                if list(work.table.values())[-1]["value"] != last:
                    raise ValueError("the last edit did not arrive before the result")
                if repeat:
                    samples[who].append(took / scale.edits * 1e6)
    for who, taken in samples.items():
        report.add("one edit", who, "µs", taken)
    small, large = (statistics.median(taken) for taken in samples.values())
    report.budgets.append(Budget("cost of one delta in a state of 1 MB, against 1 kB", "×", 1.2, large / small))


def measure(report: Report, scale: Scale) -> None:
    """Measure rate, latency and cost, each in a separate app."""
    for part in (measure_rate, measure_latency, measure_cost):
        asyncio.run(part(report, scale))
