"""An app for the tests of the page. Workers import this module, so it must not import pytest."""

from __future__ import annotations

import asyncio

from lightwork import Flow, Work


class Trainer(Work):
    """Counts epochs and prints each one, until it has done `epochs` of them."""

    def __init__(self) -> None:
        super().__init__(parallel=True)
        self.epoch = 0
        self.pace = 0.01
        self.losses: list[float] = []

    async def run(self, epochs: int = 100_000) -> int:
        while self.epoch < epochs:
            self.epoch += 1
            self.losses.append(1 / self.epoch)
            del self.losses[:-50]
            print(f"epoch {self.epoch}", flush=True)
            await asyncio.sleep(self.pace)
        return self.epoch


class Faulty(Work):
    """Fails, but does not fail the app."""

    def __init__(self) -> None:
        super().__init__(parallel=True, raise_exception=False)

    async def run(self, batch: str) -> None:
        raise ValueError(f"no such batch: {batch}")


class Training(Flow):
    """Calls both works once, and runs until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer = Trainer()
        self.faulty = Faulty()
        self.has_begun = False

    async def run(self) -> None:
        if not self.has_begun:  # a later pass must not start the calls again
            self.has_begun = True
            self.trainer.submit()
            self.faulty.submit("b7")
