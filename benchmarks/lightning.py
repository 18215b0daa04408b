"""lightning-app, the predecessor, as a separate program, because its apps need a process for themselves.

``python -m benchmarks.lightning CALLS`` runs an app of lightning-app whose flow calls one work that many times, one
call after the other, and prints the seconds of each call as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from lightning_app import LightningApp, LightningFlow, LightningWork
from lightning_app.runners import MultiProcessRuntime

from benchmarks.peers import MARK


class Increment(LightningWork):  # type: ignore[misc]  # no types there
    """The work. lightning-app refuses return values, so the result is state."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = 0

    def run(self, n: int) -> None:
        self.answer = n + 1


class Ask(LightningFlow):  # type: ignore[misc]  # no types there
    """Calls the work until it has enough results, and checks each."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.work = Increment()
        self.calls = calls
        self.n = 0
        self.began = 0.0
        self.seconds: list[float] = []

    def run(self) -> None:
        self.began = self.began or time.time()
        self.work.run(self.n)
        if self.work.has_succeeded and self.work.answer == self.n + 1:
            now = time.time()
            self.seconds = [*self.seconds, now - self.began]
            self.began, self.n = now, self.n + 1
        if self.n == self.calls:
            print(MARK, json.dumps(self.seconds), flush=True)
            self.stop()


def main(calls: int) -> None:
    """Run the app until it ends."""
    app: Any = LightningApp(Ask(calls))
    MultiProcessRuntime(app, start_server=False).dispatch(open_ui=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
