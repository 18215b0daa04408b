"""The work of the tests with a network that goes away."""

from __future__ import annotations

import asyncio
import os

from lightwork import Work


class Counter(Work):
    """Counts for as long as it is let, and keeps every number that it has seen."""

    def __init__(self) -> None:
        super().__init__(parallel=True, raise_exception=True)
        self.numbers: list[int] = []

    async def run(self, upto: int) -> tuple[int, int]:
        for number in range(upto):
            self.numbers.append(number)
            await asyncio.sleep(0.01)
        return os.getpid(), len(self.numbers)
