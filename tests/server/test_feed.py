"""The feed: the snapshot, the changes, resuming, and slow clients."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from lightwork import App
from tests.server.support import FeedReader, Root, Worker, serving

pytestmark = pytest.mark.bare


class Failing(Root):
    """Fails when the test sets an event."""

    def __init__(self) -> None:
        super().__init__()
        self._told = asyncio.Event()

    async def run(self) -> None:
        await self._told.wait()
        raise ValueError("no data")


async def test_snapshot_then_changes() -> None:
    """A client gets a snapshot first, and then each change."""
    async with serving() as client, client.feed() as feed:
        snapshot = await feed.next()
        assert snapshot["type"] == "snapshot"
        assert snapshot["state"]["vars"]["title"] == "one"
        assert [work["name"] for work in snapshot["works"]] == ["root.work"]
        client.app.root.title = "two"
        seen = await feed.until(t="state")
        assert seen[-1] == {"t": "state", "name": "root", "path": ["title"], "kind": "set", "value": "two"}
        await client.app.works[0].submit("count", 3)
        seen = await feed.until(t="call", stage="succeeded")
        assert "status" in {item["t"] for item in seen}


async def test_numbers_grow_and_resume() -> None:
    """A client that reconnects gets the changes that it missed, and none twice."""
    async with serving() as client:
        async with client.feed() as feed:
            snapshot = await feed.next()
            client.app.root.title = "two"
            last = (await feed.next())["seq"]
        client.app.root.title = "three"
        hello = {"type": "hello", "run": snapshot["app"]["run"], "last": last}
        async with client.feed(hello) as feed:
            assert await feed.next() == {"type": "resumed", "seq": last}
            missed = await feed.until(t="state", path=["title"])
            assert missed[-1]["value"] == "three"


@pytest.mark.parametrize("hello", [{"run": "another", "last": 0}, {"last": 0}, {"run": None, "last": 10**9}])
async def test_who_cannot_resume_gets_a_snapshot(hello: dict[str, Any]) -> None:
    """A client of another run, or with an unknown number, gets a new snapshot."""
    async with serving() as client, client.feed({"type": "hello", **hello}) as feed:
        assert (await feed.next())["type"] == "snapshot"


async def test_overwritten_values_are_left_out() -> None:
    """Several sets of one attribute within one batch become one change."""
    async with serving() as client, client.feed() as feed:
        await feed.next()
        for number in range(1000):
            client.app.root.title = str(number)
        seen = await feed.until(t="state", value="999")
        assert len(seen) < 10


async def test_order_of_edits_is_kept() -> None:
    """A set is not moved before an earlier edit of the same attribute."""
    root = Root(work=Worker())
    async with serving(root=root) as client, client.feed() as feed:
        await feed.next()
        root.numbers = [1]
        root.numbers[0] = 5
        root.numbers = [2]
        root.numbers[0] = 6
        root.title = "end"
        seen = [item["value"] for item in await feed.until(t="state", value="end")]
        assert seen == [[1], 5, [2], 6, "end"]


async def test_components_that_come_and_go() -> None:
    """The feed announces a new work with its type and state, and a work that is removed."""
    root: Any = Root(trials=[Worker()])
    async with serving(root=root) as client, client.feed() as feed:
        await feed.next()
        root.trials.append(Worker())
        added = (await feed.until(t="added"))[-1]
        assert (added["name"], added["kind"], added["type"]) == ("root.trials.1", "work", "Worker")
        assert added["state"]["vars"]["n"] == 0
        del root.trials[1]
        await feed.until(t="removed", name="root.trials.1")


async def test_an_app_that_fails_says_why() -> None:
    """Clients get the error that fails the app, with its traceback, before the connection is closed."""
    root = Failing()
    app = App(root, http=True, http_port=0)
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with app:
            up.set_result(app.url or "")
            await app.wait_stopped()

    running = asyncio.create_task(run())
    async with aiohttp.ClientSession() as session:
        feed = FeedReader(await session.ws_connect(f"{await up}/api/v1/feed"))
        await feed.say(type="hello")
        assert (await feed.next())["app"]["error"] is None
        root._told.set()
        with pytest.raises(ValueError, match="no data"):
            await running
        error = (await feed.until(t="app"))[-1]["error"]
        assert (error["type"], error["message"]) == ("ValueError", "no data")
        assert "raise ValueError" in error["traceback"]
    assert isinstance(app.error, ValueError)


async def test_end_of_the_app() -> None:
    """Clients get the change that the app is stopping; the connection is then closed with code 1001."""
    app = App(Root(work=Worker()), http=True, http_port=0, runtime="inprocess")
    async with aiohttp.ClientSession() as session:
        async with app:
            url = app.url or ""
            socket = await session.ws_connect(f"{url}/api/v1/feed")
            feed = FeedReader(socket)
            await feed.say(type="hello")
            await feed.next()
            app.stop("enough")
        told = (await feed.until(t="app"))[-1]
        assert (told["stage"], told["stop_message"]) == ("stopping", "enough")
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            continue  # changes from the end of the work
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", '"hello"', '{"type":"nothing"}', '{"type":"follow"}', '{"type":"hello","last":"x"}', "[" * 5000],
)
async def test_garbage(message: str) -> None:
    """An invalid message closes the connection with code 1008 and has no other effect."""
    async with serving() as client, client.session.ws_connect(f"{client.base}/api/v1/feed") as socket:
        await socket.send_str(message)
        await socket.receive()
        assert socket.close_code == 1008
        assert (await client.get("/app"))["stage"] == "running"


async def test_binary_and_long_messages() -> None:
    """Binary messages and messages longer than 64 kB close the connection."""
    async with serving() as client:
        for data, code in ((b"\x80\x04.", 1003), (None, 1009)):
            async with client.session.ws_connect(f"{client.base}/api/v1/feed") as socket:
                if data is None:
                    await socket.send_str(" " * 100_000)
                else:
                    await socket.send_bytes(data)
                await socket.receive()
                assert socket.close_code == code


async def test_ping() -> None:
    """The server answers a ping with a pong."""
    async with serving() as client, client.feed() as feed:
        await feed.next()
        await feed.say(type="ping")
        assert await feed.next() == {"type": "pong"}


async def test_lines_that_a_slow_client_cannot_take() -> None:
    """If lines are left out for a slow client, it gets a gap right before the next lines."""
    async with serving() as client:
        api = client.app._api()
        assert api is not None
        slow = api.feed.subscribe()
        large = b"x" * 600_000
        for first in (1, 11, 21, 31):
            slow.put_lines(large, first, first + 9)
        assert [len(await slow.next()) for _ in range(2)] == [600_000, 600_000]
        slow.put_lines(b"new", 41, 41)
        (gap,) = msgspec.json.decode(await slow.next())["items"]
        assert gap == {"t": "log_gap", "after": 20, "before": 41}
        assert await slow.next() == b"new"
        api.feed.unsubscribe(slow)
