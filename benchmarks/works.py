"""The works and the flow that are measured, and the functions that the references run instead."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from lightwork import Flow, Work

FILLED = [f"key{n}" for n in range(100)]
"""The keys of the table of `Fills`."""


def increment(n: int) -> int:
    """Return what every contender computes in a call."""
    return n + 1


class Increment(Work):
    """Does almost nothing, so that the overhead is measured."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)

    async def run(self, n: int) -> int:
        return n + 1


class Holds(Work):
    """Is in a call until it is ended."""

    def __init__(self) -> None:
        super().__init__(start_with_flow=False)
        self.is_held = False
        self.pid = 0

    async def run(self) -> None:
        self.pid = os.getpid()
        self.is_held = True
        await asyncio.Event().wait()


class Modules(Work):
    """Returns the modules that its process has imported."""

    def __init__(self) -> None:
        super().__init__(start_with_flow=False)

    async def run(self) -> list[str]:
        return list(sys.modules)


class Appends(Work):
    """Makes changes as fast as it can; no change makes another unnecessary."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.values: list[int] = []

    async def run(self, start: int, count: int) -> int:
        self.values.clear()
        for n in range(start, start + count):
            self.values.append(n)
        return len(self.values)


class Fills(Work):
    """Sets the keys of a table in turn; each round leaves before the next, so no change makes another unnecessary."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.table = dict.fromkeys(FILLED, -1)

    async def run(self, start: int, count: int) -> None:
        for n in range(start, start + count):
            self.table[FILLED[n % len(FILLED)]] = n
            if not (n + 1) % len(FILLED):
                await asyncio.sleep(0)


class Sets(Work):
    """Sets one attribute to new values, and lets each leave before the next."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.value = -1

    async def run(self, start: int, count: int) -> None:
        for n in range(start, start + count):
            self.value = n
            await asyncio.sleep(0)


class Stamps(Work):
    """Records the time once in a while."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.stamp = 0.0

    async def run(self, count: int, pause: float) -> None:
        for _ in range(count):
            await asyncio.sleep(pause)
            self.stamp = time.clock_gettime(time.CLOCK_MONOTONIC)


class Edits(Work):
    """Edits a dictionary of about `size` bytes, one key at a time, and lets each edit leave before the next."""

    def __init__(self, size: int) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.table = {f"key{n:05}": {"value": n, "text": "x" * 20} for n in range(max(1, size // 50))}

    async def run(self, start: int, count: int) -> int:
        last = f"key{len(self.table) - 1:05}"
        for n in range(start, start + count):
            self.table[last]["value"] = n
            await asyncio.sleep(0)
        return start + count - 1


class Waiting(Flow):
    """Holds works; the embedding program does everything else."""

    def __init__(self, works: Sequence[Work]) -> None:
        super().__init__()
        self.children = list(works)

    async def run(self) -> None:
        await asyncio.Event().wait()
