"""A fake app that runs a script of the test, a fake view, and a stream that records flushes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from typing import Any

from lightwork.changes import Change, LogLine, StateChanged, StatusChanged
from lightwork.errors import UsageError
from lightwork.status import Reason, Stage, WorkStatus


class FakeWork:
    def __init__(self, name: str) -> None:
        self.name = name
        self.status = WorkStatus(Stage.NOT_STARTED, 0.0)
        self.num_successes = 0


class FakeComponent:
    """A component with the state attributes it was made with. The value "refused" cannot be set."""

    attributes: dict[str, Any]
    children: dict[str, dict[str, FakeComponent]]

    def __init__(self, *, children: dict[str, dict[str, FakeComponent]] | None = None, **attributes: Any) -> None:
        self.__dict__["attributes"] = {"_internal": 1, **attributes}
        self.__dict__["children"] = children or {}

    @property
    def state(self) -> dict[str, Any]:
        groups = {group: {key: child.state for key, child in below.items()} for group, below in self.children.items()}
        return {"vars": dict(self.attributes), **groups}

    def __setattr__(self, name: str, value: Any) -> None:
        if value == "refused":
            raise UsageError("the state cannot hold it")
        self.attributes[name] = value


class FakeApp:
    """An app that runs `script`, and records the calls of its methods."""

    def __init__(self, script: Callable[[FakeApp], Awaitable[None]] | None = None) -> None:
        self.script = script
        self.stop_message: str | None = None
        self.url: str | None = None
        self.token: str | None = None
        self.works: list[FakeWork] = []
        self.calls: list[str] = []
        self.stopped = asyncio.Event()
        self.killed = asyncio.Event()
        self.watchers: list[Callable[[Change], None]] = []

    async def __aenter__(self) -> FakeApp:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def wait_stopped(self) -> None:
        self.calls.append("run")
        if self.script is not None:
            await self.script(self)

    def stop(self, message: str | None = None) -> None:
        self.calls.append(f"stop {message}")
        self.stop_message = message
        self.stopped.set()

    def kill(self) -> None:
        self.calls.append("kill")
        self.killed.set()

    def watch(self, fn: Callable[[Change], None], /) -> Callable[[], None]:
        self.watchers.append(fn)
        return lambda: self.watchers.remove(fn)

    def emit(self, *changes: Change) -> None:
        for change in changes:
            for watcher in self.watchers:
                watcher(change)


class FakeView:
    """A view that records its input."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def start(self, works: Any) -> None:
        self.shown.append(("start", len(works)))

    def change(self, change: Change) -> None:
        self.shown.append(change)

    def message(self, text: str) -> None:
        self.shown.append(text)

    def serving(self, url: str) -> None:
        self.shown.append(("serving", url))

    def stop(self) -> None:
        self.shown.append("stop")


class FlushCounter(io.StringIO):
    """A stream that records its content at each flush, and that can behave like a pipe without a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []
        self.is_broken = False

    def write(self, text: str, /) -> int:
        if self.is_broken:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


def status(
    name: str, stage: Stage, call: int | None = 1, *, at: float = 0.0, reason: Reason | None = None, message: str = ""
) -> StatusChanged:
    return StatusChanged(name, WorkStatus(stage, at, reason, message or None, call=call))


def number(name: str, attribute: str, value: Any) -> StateChanged:
    return StateChanged(name, (attribute,), "set", value)


def line(name: str, text: str) -> LogLine:
    return LogLine(name, text, 1.5)


def read_terminal(descriptor: int) -> bytes:
    """Read the next bytes. The result is empty when the other end is closed, which a terminal reports as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
