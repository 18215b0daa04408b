"""The HTTP API mounted in another server: aiohttp under a prefix, and FastAPI over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lightwork import App
from lightwork.server import aiohttp_app, asgi_app
from tests.server.support import Client, Root, Worker

pytestmark = pytest.mark.bare


@asynccontextmanager
async def in_aiohttp(app: App[Any]) -> AsyncIterator[str]:
    """Mount the app in an aiohttp application; yield the address of the mount."""
    host = web.Application()
    host.add_subapp("/deep/jobs", aiohttp_app(app))
    runner = web.AppRunner(host, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/deep/jobs"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def in_fastapi(app: App[Any]) -> AsyncIterator[str]:
    """Mount the app in a FastAPI application that uvicorn serves in this loop; yield the address of the mount."""
    import fastapi
    import uvicorn

    host = fastapi.FastAPI()
    host.mount("/deep/jobs", asgi_app(app))
    config = uvicorn.Config(host, "127.0.0.1", 0, log_config=None, lifespan="on", ws="websockets-sansio")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 -- uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/deep/jobs"
    finally:
        server.should_exit = True
        await serving


HOSTS = pytest.mark.parametrize("host", [in_aiohttp, in_fastapi])


@asynccontextmanager
async def mounted(host: Any) -> AsyncIterator[Client]:
    """Run an app that is mounted in a host; yield a client of the mount."""
    app = App(Root(work=Worker()), runtime="inprocess")
    async with host(app) as base, app, aiohttp.ClientSession() as session:
        yield Client(app, session, base)


@HOSTS
async def test_mounted_routes(host: Any) -> None:
    """The routes, the page and the probes are below the prefix, and the app opens no port."""
    async with mounted(host) as client:
        assert client.app.url is None
        assert (await client.get("/app"))["url"] == ""
        status, call = await client.ask("POST", "/works/root.work/calls?wait=30", {"args": ["echo", 5]})
        assert (status, call["result"]) == (200, 5)
        assert (await client.get("/calls"))["total"] == 1
        assert (await client.ask("GET", "/works/root.none"))[1]["error"]["code"] == "unknown_work"
        async with client.session.get(f"{client.base}/") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"
        async with client.session.get(f"{client.base}/healthz") as answer:
            assert answer.status == 200


@HOSTS
async def test_mounted_feed(host: Any) -> None:
    """The mount has the WebSocket too; a page of another site cannot open it, and an invalid message closes it."""
    async with mounted(host) as client:
        async with client.feed() as feed:
            assert (await feed.next())["type"] == "snapshot"
            client.app.root.title = "two"
            await feed.until(t="state", value="two")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.session.ws_connect(f"{client.base}/api/v1/feed", headers={"Origin": "https://evil.example"})
        assert caught.value.status == 403
        async with client.session.ws_connect(f"{client.base}/api/v1/feed") as socket:
            await socket.send_str("{")
            await socket.receive()
            assert socket.close_code == 1008


@HOSTS
async def test_mounted_without_a_run(host: Any) -> None:
    """While the app does not run, the mount answers 503; each run has its own id."""
    app = App(Root(work=Worker()), runtime="inprocess")
    runs = []
    async with host(app) as base, aiohttp.ClientSession() as session:
        client = Client(app, session, base)
        assert await client.ask("GET", "/app") == (
            503, {"error": {"code": "not_ready", "message": "the app is not running", "detail": None}},
        )  # fmt: skip
        for _ in range(2):
            async with app:
                runs.append((await client.get("/app"))["run"])
        assert (await client.ask("GET", "/app"))[0] == 503
    assert runs[0] != runs[1]


@HOSTS
async def test_mounted_large_body(host: Any) -> None:
    """A mount refuses a body beyond the limit."""

    async def pieces() -> Any:
        for _ in range(80):
            yield b" " * 65536

    async with mounted(host) as client:
        async with client.session.post(f"{client.base}/api/v1/app/stop", data=pieces()) as answer:
            assert answer.status == 413
        assert (await client.get("/app"))["stage"] == "running"
