"""An app with 50 works that calls and edits without pause: its memory and descriptors must not grow.

``python -m tests.chaos.soak --minutes 10`` prints a sample every few seconds and finally the slopes. It exits with 1 if
a slope is not flat.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import Sequence

import msgspec

from lightwork import App, Flow, Work

__all__ = ["Sample", "main", "slope", "soak"]

MOST_GROWTH = 1024.0
"""Bytes of memory a second, at most: 3.5 MB in an hour, as samples of a flat line can show."""

_WARM_UP = 0.3
"""Share of the time in which caches and free lists fill; it does not count."""


class Sample(msgspec.Struct, frozen=True):
    """The scheduler's process at one moment: seconds since the start, bytes, descriptors, calls and edits so far."""

    at: float
    memory: int
    descriptors: int
    calls: int
    edits: int


class Busy(Work):
    """Edits its state and returns; the size of the state stays the same."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False)
        self.items: list[int] = []
        self.table: dict[str, list[int]] = {}
        self.count = 0

    async def run(self, n: int) -> int:
        for step in range(20):
            self.items.append(n)
            if len(self.items) > 50:
                del self.items[:25]
            self.table[str(step % 5)] = [n, step]
            self.count += 1
            if step % 5 == 0:
                await asyncio.sleep(0)
        return n


class Soak(Flow):
    """Calls every work, one call after the other, until the time has passed."""

    def __init__(self, works: int, seconds: float) -> None:
        super().__init__()
        self.crew = [Busy() for _ in range(works)]
        self._seconds = seconds
        self._calls = 0

    async def run(self) -> None:
        end = time.monotonic() + self._seconds
        async with asyncio.TaskGroup() as group:
            for work in self.crew:
                group.create_task(self._drive(work, end))
        self.stop("the time is up")

    async def _drive(self, work: Busy, end: float) -> None:
        turn = 0
        while time.monotonic() < end:
            before = work.count
            if await work.run(turn) != turn or work.count != before + 20:
                raise ValueError(f"{work.name}: call {turn} lost something: {before} to {work.count}")
            turn += 1
            self._calls += 1


def _sample(flow: Soak, begun: float) -> Sample:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    edits = sum(work.count for work in flow.crew) * 3
    return Sample(time.monotonic() - begun, memory, len(os.listdir("/proc/self/fd")), flow._calls, edits)


async def soak(works: int, seconds: float, every: float) -> list[Sample]:
    """Run the app and return the samples, the first after all works have returned once."""
    flow = Soak(works, seconds)
    samples: list[Sample] = []
    async with App(flow, runtime="local") as app:
        begun = time.monotonic()
        await app.wait_for(lambda: all(work.count for work in flow.crew))
        stopped = asyncio.create_task(app.wait_stopped())
        while not stopped.done():
            samples.append(_sample(flow, begun))
            print(samples[-1], flush=True)
            await asyncio.wait({stopped}, timeout=every)
    return samples


def slope(samples: Sequence[Sample], what: str) -> float:
    """Return the growth per second, by a line through the samples after the warm-up."""
    counted = [one for one in samples if one.at >= samples[-1].at * _WARM_UP]
    return statistics.linear_regression([one.at for one in counted], [getattr(one, what) for one in counted]).slope


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--works", type=int, default=50)
    chosen = parser.parse_args()
    samples = asyncio.run(soak(chosen.works, chosen.minutes * 60, max(0.5, chosen.minutes)))
    last = samples[-1]
    memory, descriptors = slope(samples, "memory"), slope(samples, "descriptors")
    print(f"{last.calls} calls and {last.edits} edits in {last.at:.0f} s, {last.calls / last.at:.0f} calls a second")
    print(f"memory {last.memory / 1e6:.1f} MB, slope {memory:+.0f} bytes a second, at most {MOST_GROWTH:.0f}")
    print(f"descriptors {last.descriptors}, slope {descriptors * 60:+.3f} a minute")
    return 0 if memory <= MOST_GROWTH and abs(descriptors * 60) < 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
