"""Timing: contenders that take turns, medians with quartiles, and budgets."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from typing import Protocol

import msgspec

Batch = Callable[[int], Awaitable[float]]
"""Repeats an operation that many times and returns the total seconds."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Series(msgspec.Struct, frozen=True):
    """The samples of one contender in one subject.

    Attributes:
        subject: Name of the subject.
        who: Name of the contender.
        unit: Unit of the samples.
        samples: One number for each repeat.
    """

    subject: str
    who: str
    unit: str
    samples: list[float]

    @property
    def median(self) -> float:
        """Return the median of the samples."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Return the limits of the middle half of the samples."""
        if len(self.samples) < 2:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high


class Budget(msgspec.Struct, frozen=True):
    """A budget of the design, and the measured value.

    Attributes:
        what: Description of the budget.
        unit: Unit of both numbers.
        limit: The promised limit.
        measured: The measured value.
        at_least: Whether the limit is a minimum.
    """

    what: str
    unit: str
    limit: float
    measured: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """The used share of the budget: up to 1 the budget is met."""
        used, allowed = (self.limit, self.measured) if self.at_least else (self.measured, self.limit)
        return used / allowed if allowed else float("inf")

    @property
    def is_met(self) -> bool:
        """Whether the budget is met."""
        return self.ratio <= 1


class Report(msgspec.Struct):
    """All measurements of a run."""

    machine: dict[str, str]
    series: list[Series] = []
    budgets: list[Budget] = []
    failures: list[str] = []

    def add(self, subject: str, who: str, unit: str, samples: Sequence[float]) -> Series:
        """Add the samples of one contender."""
        series = Series(subject, who, unit, list(samples))
        self.series.append(series)
        return series


class Scale(msgspec.Struct, frozen=True):
    """Amount of measurements. `QUICK` only shows that everything runs; its numbers are coarse."""

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
    """A program that performs the timed operation.

    Attributes:
        name: Name of the row in the table.
    """

    name: str

    def running(self) -> AbstractAsyncContextManager[Batch]:
        """Set up the contender; leaving the context takes everything down."""
        ...

    @property
    def loop_factory(self) -> LoopFactory | None:
        """Factory of the contender's event loop, None for asyncio's own."""
        ...


async def _host(contender: Contender, asked: asyncio.Queue[int], told: asyncio.Queue[float]) -> None:
    """Keep the contender's context open in one task, as task groups require, and run the requested batches."""
    async with contender.running() as batch:
        told.put_nowait(0.0)
        while (count := await asked.get()) > 0:
            told.put_nowait(await batch(count))


async def _first(host: asyncio.Task[None], told: asyncio.Queue[float]) -> float:
    answer = asyncio.ensure_future(told.get())
    await asyncio.wait([host, answer], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
        answer.cancel()
        await host  # raises the error that ended it
    return await answer


@contextmanager
def hosted(contender: Contender) -> Iterator[Callable[[int], float]]:
    """Yield a function that runs one batch on the contender's own event loop; between batches the loop is stopped."""
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
    """Return seconds per operation: `repeats` samples of every contender, in turns, after one warm-up."""
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
    """Return the seconds of the clock that all processes of a machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
