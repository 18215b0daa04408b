"""How things are timed here: contenders that take turns, medians with their quartiles, budgets."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from typing import Protocol

import msgspec

Batch = Callable[[int], Awaitable[float]]
"""Does a thing that many times and gives the seconds that it took in all."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Series(msgspec.Struct, frozen=True):
    """What one contender took in one subject.

    Attributes:
        subject: What was done.
        who: Who did it.
        unit: Of the samples.
        samples: One number for each repeat.
    """

    subject: str
    who: str
    unit: str
    samples: list[float]

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Where the middle half of the samples begins and ends."""
        if len(self.samples) < 2:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high


class Budget(msgspec.Struct, frozen=True):
    """A promise of the design, and what was measured.

    Attributes:
        what: What is promised.
        unit: Of the two numbers.
        limit: What is promised.
        measured: What it came to.
        at_least: Whether more is better.
    """

    what: str
    unit: str
    limit: float
    measured: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """How much of the budget is used: up to 1 it is met."""
        used, allowed = (self.limit, self.measured) if self.at_least else (self.measured, self.limit)
        return used / allowed if allowed else float("inf")

    @property
    def is_met(self) -> bool:
        """Whether the promise is kept."""
        return self.ratio <= 1


class Report(msgspec.Struct):
    """Everything that a run has measured."""

    machine: dict[str, str]
    series: list[Series] = []
    budgets: list[Budget] = []
    failures: list[str] = []

    def add(self, subject: str, who: str, unit: str, samples: Sequence[float]) -> Series:
        """Take in the samples of one contender."""
        series = Series(subject, who, unit, list(samples))
        self.series.append(series)
        return series


class Scale(msgspec.Struct, frozen=True):
    """How much is measured. `QUICK` shows that everything runs; its numbers are coarse."""

    repeats: int = 15
    calls: int = 400
    deltas: int = 100_000
    edits: int = 2_000
    latencies: int = 200
    starts: int = 30
    works: tuple[int, ...] = (10, 50, 200, 1000)
    idle_works: int = 100
    idle_seconds: float = 20.0


FULL = Scale()
QUICK = Scale(5, 100, 10_000, 500, 50, 8, (10, 50), 20, 5.0)


class Contender(Protocol):
    """Somebody who does the thing that is timed.

    Attributes:
        name: Of the row in the table.
    """

    name: str

    def running(self) -> AbstractAsyncContextManager[Batch]:
        """Set up; leaving the context takes everything down."""
        ...

    @property
    def loop_factory(self) -> LoopFactory | None:
        """Makes the event loop it runs on, None for asyncio's own."""
        ...


async def _host(contender: Contender, asked: asyncio.Queue[int], told: asyncio.Queue[float]) -> None:
    """Keep the contender's context open in one task, as task groups need it, and run the batches asked for."""
    async with contender.running() as batch:
        told.put_nowait(0.0)
        while (count := await asked.get()) > 0:
            told.put_nowait(await batch(count))


async def _first(host: asyncio.Task[None], told: asyncio.Queue[float]) -> float:
    answer = asyncio.ensure_future(told.get())
    await asyncio.wait([host, answer], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        await host  # raises why it ended
    return await answer


@contextmanager
def hosted(contender: Contender) -> Iterator[Callable[[int], float]]:
    """A function that runs one batch on the contender's own event loop; between batches that loop stands still."""
    asked: asyncio.Queue[int] = asyncio.Queue()
    told: asyncio.Queue[float] = asyncio.Queue()
    with asyncio.Runner(loop_factory=contender.loop_factory) as runner:
        host = runner.get_loop().create_task(_host(contender, asked, told))
        runner.run(_first(host, told))

        def batch(count: int) -> float:
            asked.put_nowait(count)
            return runner.run(_first(host, told))

        async def end() -> None:
            asked.put_nowait(0)
            await host

        try:
            yield batch
        finally:
            runner.run(end())


def take_turns(contenders: Sequence[Contender], repeats: int, count: int) -> dict[str, list[float]]:
    """Seconds for each single thing: `repeats` samples of every contender, taken in turns after one warm-up."""
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    with ExitStack() as stack:
        batches = {contender.name: stack.enter_context(hosted(contender)) for contender in contenders}
        for batch in batches.values():
            batch(count)
        for _ in range(repeats):
            for name, batch in batches.items():
                samples[name].append(batch(count) / count)
    return samples


def clock() -> float:
    """Seconds of the clock that all processes of a machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
