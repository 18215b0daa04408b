"""The works of the chaos test. Before an edit they number it and record it where no fault reaches."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from lightwork import Work

__all__ = ["AsyncLedger", "Ledger", "PlainLedger", "Trouble"]

_KEPT = 20


class Trouble(Exception):
    """The error of a call that must fail."""


class Ledger(Work):
    """Numbers its edits in each of its lives. Each life has a unique token.

    Args:
        folder: Folder with a file for each life; each line is the number of its latest edit.
        options: Options of `Work`.
    """

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(parallel=True, cache_calls=False, **options)
        self.entries: list[Any] = []  # the latest, as [token, number]
        self.last = 0
        self.clock = 0.0  # as the worker's clock shows it: it may go back
        self.table: dict[str, int] = {}
        self.tags: set[str] = set()
        self.exits: list[Any] = []  # the latest graceful ends, as [token, number of the latest edit before]
        self.told = 0
        self._folder = folder
        self._token = ""
        self._file = -1

    def on_start(self) -> None:
        self._token = os.urandom(4).hex()
        path = Path(self._folder) / f"{self.name}-{self._token}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def on_exit(self) -> None:
        self.exits = [*self.exits[-3:], [self._token, self._count]]

    @property
    def _count(self) -> int:
        # Read from the state, because a plain run may be interrupted between any two lines.
        if not self.entries or self.entries[-1][0] != self._token:
            return 0
        return int(self.entries[-1][1])

    def edit(self) -> None:
        """Make one more edit."""
        number = self._count + 1
        os.write(self._file, b"%d\n" % number)
        self.entries.append([self._token, number])
        if len(self.entries) > 2 * _KEPT:
            del self.entries[:_KEPT]
        self.last = number
        self.clock = time.time()
        self.table[str(number % 7)] = number
        self.tags.symmetric_difference_update({str(number % 5)})

    def pause(self) -> float:
        """Return the seconds between two edits."""
        return random.choice((0.0, 0.002, 0.03))

    def done(self, call: int) -> Any:
        """Return what the call returns: the edits so far, and for the last call the whole state."""
        if call % 13 == 5:
            raise Trouble(call)
        if call >= 0:
            return [self._token, self._count]
        return [self._token, self.whole()]

    def whole(self) -> dict[str, Any]:
        """Return the state on this side, in a form that a call can return."""
        return {**self._state.snapshot(), "tags": sorted(self.tags)}


class AsyncLedger(Ledger):
    """A ledger with an ``async def run``."""

    async def run(self, call: int, steps: int) -> Any:
        for _ in range(steps):
            self.edit()
            await asyncio.sleep(self.pause())
        return self.done(call)


class PlainLedger(Ledger):
    """A ledger with a plain ``run``."""

    def run(self, call: int, steps: int) -> Any:
        for _ in range(steps):
            self.edit()
            threading.Event().wait(self.pause())  # not time.sleep, which libfaketime sometimes makes fail
        return self.done(call)
