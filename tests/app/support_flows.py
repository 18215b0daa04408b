"""Works and flows of several tests of running apps. Workers import this module, so it must not import pytest."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from lightwork import Flow, FlowDelta, Work


class Script(Flow):
    """A flow whose single pass is `script`, called with the flow; then it waits."""

    def __init__(self, script: Callable[[Any], Awaitable[None]] | None = None, **children: Any) -> None:
        super().__init__()
        self._script = script
        self.passes = 0
        for name, child in children.items():
            setattr(self, name, child)

    async def run(self) -> None:
        self._passes_seen = getattr(self, "_passes_seen", 0) + 1
        if self._script is not None and self._passes_seen == 1:
            await self._script(self)


class Echo(Work):
    """Returns its argument."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[Any] = []

    async def run(self, value: Any = None) -> Any:
        self.seen.append(value)
        return value


class Streams(Work):
    """Changes its value repeatedly until the test, in the same process, lets it end."""

    may_end: ClassVar[asyncio.Event]

    def __init__(self) -> None:
        super().__init__(parallel=True, cache_calls=False)
        self.value = ""

    async def run(self, size: int) -> str:
        number = 0
        while not self.may_end.is_set():
            number += 1
            self.value = f"{number:<{size}}"
            await asyncio.sleep(0)
        return self.value


class Editor(Work):
    """Edits its state on request; has values of every kind."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cache_calls=False, **options)
        self.n = 0
        self.name_of_it: str | None = None
        self.items: list[Any] = []
        self.table: dict[str, Any] = {"a": {"b": 0}}
        self.tags: set[str] = set()
        self.go = False

    async def run(self, what: str) -> Any:
        return await getattr(self, f"do_{what}")()

    async def do_edit(self) -> None:
        """Make edits of each kind, in-place ones too."""
        self.items.append(1)
        self.items += [2, 3]
        del self.items[0]
        self.table["a"]["b"] = 1
        self.table["c"] = [1]
        self.table["c"].insert(0, 0)
        self.tags |= {"x", "y"}
        self.tags.discard("x")
        del self.name_of_it

    async def do_count(self) -> int:
        """Set one attribute very often without awaiting."""
        for n in range(1, 5001):
            self.n = n
        return self.n

    async def do_until_go(self) -> Any:
        """Wait until the flow has set `go`."""
        self.name_of_it = "waiting"
        while not self.go:  # noqa: ASYNC110 -- an event would have to be set by apply_flow_delta
            await asyncio.sleep(0.001)
        return [self.n, list(self.items)]

    async def do_threads(self) -> int:
        """Edit the state from other threads."""

        def edit(name: str) -> None:
            for n in range(100):
                self.items.append(f"{name}{n}")

        await asyncio.gather(*[asyncio.to_thread(edit, name) for name in "ab"])
        return len(self.items)

    async def do_pairs(self) -> None:
        """Keep two halves of one value equal while it is sent."""
        for n in range(2000):
            self.table["a"] = {"left": [n] * 5, "right": [n] * 5}
            if n % 100 == 0:
                await asyncio.sleep(0)

    async def do_large(self) -> str:
        """Assign a value that is too large, and go on."""
        try:
            self.table["large"] = b"x" * 100_000_000
        except AttributeError as error:
            self.n = 1
            return f"{type(error).__name__}: {error}"
        return "it was taken"

    async def do_large_list(self) -> None:
        """Assign a container that is too large; no code catches the error."""
        self.items = ["x" * 1000] * 100_000


class Gate(Work):
    """Never awaits while it runs; it polls a file that the test makes."""

    def __init__(self, path: str) -> None:
        super().__init__(parallel=True)
        self.step = 0
        self._path = path

    async def run(self) -> None:
        from pathlib import Path

        self.step = 1
        while not Path(self._path).exists():  # noqa: ASYNC240 -- it blocks its loop on purpose
            time.sleep(0.001)  # noqa: ASYNC251
        self.step = 2


class PlainBusy(Work):
    """A plain run that is busy until the flow sets `go`."""

    def __init__(self) -> None:
        super().__init__(parallel=True)
        self.go = False
        self.ticks = 0
        self.items: list[Any] = []

    def run(self) -> list[Any]:
        self.ticks = 1
        pause = threading.Event()
        while not self.go:
            pause.wait(0.001)
        return list(self.items)


class Merging(Work):
    """Adds up the increments of both sides."""

    def __init__(self) -> None:
        super().__init__(parallel=True)
        self.n = 0
        self.done = False

    async def run(self, times: int) -> None:
        for _ in range(times):
            self.n += 1
            await asyncio.sleep(0)
        self.done = True

    async def apply_flow_delta(self, delta: FlowDelta) -> None:
        await asyncio.sleep(0)
        self.n += delta.value - delta.expected


class Clashing(Work):
    """Increments, and then makes a file; it keeps the default reaction to the flow's changes."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    async def run(self, done: str) -> None:
        from pathlib import Path

        self.n += 1
        Path(done).touch()  # noqa: ASYNC240


class Strict(Work):
    """Accepts only numbers below 10."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def run(self) -> int:
        return self.n

    def apply_flow_delta(self, delta: FlowDelta) -> None:
        if delta.value >= 10:
            raise ValueError(f"{delta.value} is too much")
        delta.apply(self)


class Failing(Work):
    """Raises."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    async def run(self, text: str = "no") -> None:
        raise ValueError(text)


class Shipped(Work):
    """Reports which of its attributes arrived in the worker."""

    def __init__(self, private: Any) -> None:
        super().__init__()
        self.public = [1, 2]
        self._private = private

    async def run(self) -> Any:
        return [self._private, self.public, self.name]
