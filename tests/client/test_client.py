"""The client against an app in this event loop. The works of the app are tasks of the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from lightwork import App
from lightwork.client import Client
from lightwork.errors import AppEnded, AppUnreachable, RequestFailed
from lightwork.server.types import WorkView
from lightwork.status import Stage
from tests.cli.fake_server import FakeServer
from tests.server.support import Root, Stubborn, Worker

TOKEN = "a-token-of-sixteen"


@pytest.fixture
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App[Root]]:
    folder = str(tmp_path_factory.mktemp("logs"))
    root = Root(work=Worker(), other=Stubborn())
    async with App(root, runtime="inprocess", http=True, http_port=0, http_token=TOKEN, log_dir=folder) as app:
        yield app


@pytest.fixture
async def client(app: App[Root]) -> AsyncIterator[Client]:
    assert app.url is not None
    async with Client(app.url, TOKEN) as client:
        yield client


async def test_what_there_is(client: Client) -> None:
    """Answers about the app, its components, works and state have their types. A page has the requested length."""
    assert (await client.app()).root == "Root"
    assert [one.name for one in (await client.components()).items] == ["root", "root.work", "root.other"]
    page = await client.works(match="root.*", limit=1)
    assert ([work.name for work in page.items], page.total) == (["root.work"], 2)
    assert (await client.work("root.work")).parameters[0].name == "what"
    assert (await client.state("root")).state["vars"]["title"] == "one"
    assert (await client.state("root.work", ["table", "a", "b", 0])).value == 1
    assert (await client.logs()).items == []
    assert (await client.schedules()).items == []
    assert (await client.timeline()).items == []
    assert (await client.runtimes()).items[0].profile == "inprocess"


async def test_calls(client: Client) -> None:
    """A call is submitted, waited for, cancelled and repeated. Waiting for an ended call returns at once."""
    call = await client.submit("root.work", ["echo"], {"value": [1, "x"]})
    done = await client.wait_call(call.id)
    assert (done.stage, done.result) == (Stage.SUCCEEDED, [1, "x"])
    assert (await client.wait_call(call.id)).id == call.id
    assert (await client.retry_call(call.id)).cached
    failed = await client.wait_call((await client.submit("root.work", ["fail", 1])).id)
    assert failed.error is not None
    assert "ValueError: no: 1" in failed.error.traceback
    waiting = await client.submit("root.work", ["until_go"])
    await client.cancel_call(waiting.id)
    assert (await client.wait_call(waiting.id)).stage is Stage.STOPPED
    assert [one.id for one in (await client.calls(work="root.work", stage="failed")).items] == [failed.id]


async def test_state_is_edited(app: App[Root], client: Client) -> None:
    """Edits of a flow's state are made. Edits of a work's state go through the work, which may refuse them."""
    assert await client.edit_state("root", [(["title"], "two"), (["numbers", 0], 5)]) == 2
    assert (app.root.title, list(app.root.numbers)) == ("two", [5, 2])
    await client.start_work("root.other", wait=True)
    with pytest.raises(RequestFailed, match="not today") as caught:
        await client.edit_state("root.other", [(["n"], 1)])
    assert (caught.value.code, caught.value.status) == ("refused", 409)
    await client.stop_work("root.other", wait=True)
    assert (await client.work("root.other")).stage is Stage.STOPPED


async def test_what_is_refused(app: App[Root], client: Client) -> None:
    """A refusal, for example of a wrong token, has the message, the code and the status of the app."""
    with pytest.raises(RequestFailed, match="wokr") as caught:
        await client.work("root.wokr")
    assert caught.value.code == "unknown_work"
    with pytest.raises(RequestFailed) as caught:
        await client.submit("root.work", kwargs={"nonsense": 1})
    assert caught.value.code == "bad_request"
    assert app.url is not None
    async with Client(app.url, "another") as stranger:
        with pytest.raises(RequestFailed) as caught:
            await stranger.app()
        assert caught.value.code == "unauthorized"
        with pytest.raises(RequestFailed) as caught:
            await anext(stranger.feed())
        assert caught.value.code == "unauthorized"


async def test_the_feed_tells_what_happens_until_the_app_ends() -> None:
    """The feed sends a snapshot, then the changes, and ends with the app."""
    app = App(Root(work=Worker()), runtime="inprocess", http=True, http_port=0, log_dir="")
    await app.__aenter__()
    assert app.url is not None
    async with Client(app.url) as client, contextlib.aclosing(client.feed()) as feed:
        first = await anext(feed)
        assert (first.kind, first.data["app"]["run"]) == ("snapshot", (await client.app()).run)
        app.root.title = "three"
        async for event in feed:
            if event.kind == "state" and event.data["path"] == ["title"]:
                assert event.data["value"] == "three"
                break
        await client.submit("root.work", ["nothing"])
        async for event in feed:
            if event.kind == "work" and event.as_type(WorkView).stage is Stage.SUCCEEDED:
                break
        await client.stop_app("enough")
        ends = asyncio.create_task(app.__aexit__(None, None, None))
        last = [event async for event in feed]
        await ends
    assert any(event.kind == "app" and event.data["stop_message"] == "enough" for event in last)


async def test_a_call_that_is_not_over_when_the_app_ends() -> None:
    """Waiting for a call raises `AppEnded` when the app ends before the call."""
    with FakeServer() as server:
        server.add_call(1, "root.work", "running")
        async with Client(server.url) as client:
            with pytest.raises(AppEnded, match="ended before call 1 had ended"):
                await client.wait_call(1)


async def test_nobody_there() -> None:
    """No server, another server and a silent server raise `AppUnreachable`, unlike an app that refuses."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(AppUnreachable, match="no app answers at http"):
            await client.app()
        with pytest.raises(AppUnreachable):
            await anext(client.feed())

    has_ended = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/runtimes"):
            raise web.HTTPFound("/api/v1/app")
        if request.path.endswith("/works"):
            await has_ended.wait()
        return web.json_response({"what": "else"}, status=200 if request.path.endswith("/app") else 500)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}/", timeout=0.2) as client:
        for ask in (client.app, client.components, client.runtimes):
            with pytest.raises(AppUnreachable, match="no lightwork app"):
                await ask()
        with pytest.raises(AppUnreachable, match="did not answer within"):
            await client.works()
    has_ended.set()
    await runner.cleanup()


async def test_it_is_used_in_its_context() -> None:
    """A client outside its context raises an error that says how to use it."""
    with pytest.raises(RuntimeError, match="async with client"):
        await Client("http://127.0.0.1:1").app()
