"""Works, flows and clients for the tests of the HTTP API. Workers import this module: it must not import pytest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from lightwork import App, Flow, FlowDelta, Work
from lightwork.errors import ProposalRefused


class Worker(Work):
    """Runs the method that the first argument names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"parallel": True, **options})
        self.n = 0
        self.items: list[Any] = [1, 2, 3]
        self.table: dict[Any, Any] = {"a": {"b": [1]}, 7: "seven"}
        self.tags = {"x"}
        self.go = False

    async def run(self, what: str = "nothing", value: Any = None) -> Any:
        return await getattr(self, f"do_{what}")(value)

    async def do_nothing(self, value: Any) -> None:
        pass

    async def do_echo(self, value: Any) -> Any:
        return value

    async def do_fail(self, value: Any) -> None:
        raise ValueError(f"no: {value}")

    async def do_count(self, value: int) -> int:
        for _ in range(value):
            self.n += 1
            await asyncio.sleep(0)
        return self.n

    async def do_until_go(self, value: Any) -> str:
        while not self.go:  # noqa: ASYNC110 -- an event would have to be set by apply_flow_delta
            await asyncio.sleep(0.001)
        return "gone"

    async def do_print(self, value: int) -> None:
        for number in range(value):
            print(f"line {number}", flush=True)


class Stubborn(Worker):
    """Refuses every proposal of the flow."""

    def apply_flow_delta(self, delta: FlowDelta) -> None:
        raise ProposalRefused("not today")


class Root(Flow):
    """Holds works and waits forever."""

    def __init__(self, **works: Any) -> None:
        super().__init__()
        self.title = "one"
        self.numbers: list[int] = [1, 2]
        for name, work in works.items():
            setattr(self, name, work)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Client:
    """An HTTP client of one app."""

    def __init__(self, app: App[Any], session: aiohttp.ClientSession, base: str) -> None:
        self.app = app
        self.session = session
        self.base = base

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Send a request; return the status and the decoded body. `path` is below the prefix of the API."""
        if body is not None:
            options["data"] = msgspec.json.encode(body)
        async with self.session.request(method, f"{self.base}/api/v1{path}", **options) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def get(self, path: str, **options: Any) -> Any:
        """Send a GET, check that it succeeds, and return the body."""
        status, body = await self.ask("GET", path, **options)
        assert status == 200, body
        return body

    @asynccontextmanager
    async def feed(self, hello: Any = None, **options: Any) -> AsyncIterator[FeedReader]:
        """Open a WebSocket to the feed and send hello."""
        async with self.session.ws_connect(f"{self.base}/api/v1/feed", **options) as socket:
            await socket.send_str(msgspec.json.encode(hello or {"type": "hello"}).decode())
            yield FeedReader(socket)


class FeedReader:
    """Reads the messages of a feed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self) -> Any:
        """Return the next message."""
        return msgspec.json.decode(await self.socket.receive_str())

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.socket.send_str(msgspec.json.encode(message).decode())

    async def items(self) -> AsyncIterator[Any]:
        """Yield all changes from now on, one by one."""
        while True:
            message = await self.next()
            assert message["type"] == "changes", message
            for item in message["items"]:
                yield item

    async def until(self, **wanted: Any) -> list[Any]:
        """Return the changes up to and including the first one that has these values."""
        seen = []
        async for item in self.items():
            seen.append(item)
            if all(item.get(key) == value for key, value in wanted.items()):
                return seen
        raise AssertionError("unreachable")


@asynccontextmanager
async def serving(runtime: str = "inprocess", /, root: Flow | None = None, **settings: Any) -> AsyncIterator[Client]:
    """Run an app with an HTTP server; yield a client of it."""
    settings = {"http": True, "http_port": 0, "runtime": runtime, **settings}
    async with App(root or Root(work=Worker()), **settings) as app, aiohttp.ClientSession() as session:
        assert app.url is not None
        yield Client(app, session, app.url)
