"""An app whose works do what the tests of the page watch. Workers import this module: no pytest here."""

from __future__ import annotations

import asyncio

from lightwork import Flow, Work


class Trainer(Work):
    """Counts epochs up, printing each, until its state says that it may end."""

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
    """Fails, and the app does not fail with it."""

    def __init__(self) -> None:
        super().__init__(parallel=True, raise_exception=False)

    async def run(self, batch: str) -> None:
        raise ValueError(f"no such batch: {batch}")


class Training(Flow):
    """Calls both once, and waits to be told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer = Trainer()
        self.faulty = Faulty()
        self.has_begun = False

    async def run(self) -> None:
        if not self.has_begun:  # what is stopped, or has failed, is not begun again
            self.has_begun = True
            self.trainer.submit()
            self.faulty.submit("b7")
