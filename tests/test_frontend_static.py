"""`StaticWebFrontend` over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from lightwork.errors import LayoutError, UsageError
from lightwork.frontend import Frontend, StaticWebFrontend
from tests.engine.flow.support import make_site
from tests.test_frontend_paths import NO_FILES, NO_PARTS


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def served(frontend: StaticWebFrontend, root_path: str = "") -> AsyncIterator[tuple[aiohttp.ClientSession, int]]:
    """The running frontend, and a client that sends paths unchanged."""
    port = free_port()
    await frontend.start_server("127.0.0.1", port, root_path)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            yield client, port
    finally:
        await frontend.stop_server()


async def text(client: aiohttp.ClientSession, path: str) -> str:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


async def raw_answer(port: int, target: bytes, method: bytes = b"GET") -> bytes:
    """Return the response to a request line that no well-behaved client sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(method + b" " + target + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_it_serves_the_index_and_the_files(site: Path) -> None:
    """The index is at /, a folder's index at the folder's path, and each file at its path."""
    async with served(StaticWebFrontend(site)) as (client, _):
        assert await text(client, "/") == "the index"
        assert await text(client, "/app.js?version=1") == "the script"
        assert await text(client, "/a%20b.txt") == "with a blank"
        assert await text(client, "/docs/") == "the docs"
        assert await text(client, "/docs/deep/page.html") == "the page"


async def test_a_folder_without_its_slash_is_redirected(site: Path) -> None:
    """A folder's address without a slash redirects relatively to the one with it, so that links in the index work."""
    async with served(StaticWebFrontend(site)) as (client, _):
        async with client.get("/docs?a=1", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (308, "./docs/?a=1")
        assert await text(client, "/docs") == "the docs"


@pytest.mark.parametrize("raw", [*NO_PARTS, *NO_FILES])
async def test_nothing_else_is_served(site: Path, raw: str) -> None:
    """Over HTTP too, a path that names no file of the folder is not found or an invalid request."""
    target = raw.encode("utf-8", "surrogateescape")
    async with served(StaticWebFrontend(site)) as (_, port):
        answer = await raw_answer(port, target)
    assert b"secret" not in answer
    status = answer.split(maxsplit=2)[1]
    # One of them is the absolute form of a request for /index.html.
    assert status == b"200" if raw == "http://host/index.html" else status in (b"400", b"404")


@pytest.mark.parametrize("raw", ["/../secret.txt", "/%2e%2e/secret.txt", "/outer.txt", "/..%5csecret.txt"])
async def test_what_leads_outside_is_a_404(site: Path, raw: str) -> None:
    """A path that leads out of the folder is answered like a path that names nothing."""
    async with served(StaticWebFrontend(site)) as (_, port):
        assert (await raw_answer(port, raw.encode())).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_refused(site: Path, method: str) -> None:
    """Every method but GET and HEAD is answered 405 with the allowed methods."""
    async with served(StaticWebFrontend(site)) as (client, _), client.request(method, "/") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"


async def test_head_is_get_without_the_body(site: Path) -> None:
    """HEAD returns the headers of GET."""
    async with served(StaticWebFrontend(site)) as (client, _):
        async with client.get("/app.js") as got:
            await got.read()
        async with client.head("/app.js") as headed:
            assert await headed.read() == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified"):
        assert headed.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.html", "text/html; charset=utf-8"),
        ("x.css", "text/css; charset=utf-8"),
        ("x.JS", "text/javascript; charset=utf-8"),
        ("x.mjs", "text/javascript; charset=utf-8"),
        ("x.json", "application/json"),
        ("x.svg", "image/svg+xml"),
        ("x.png", "image/png"),
        ("x.wasm", "application/wasm"),
        ("x.woff2", "font/woff2"),
        ("x.tar.gz", "application/octet-stream"),
        ("x", "application/octet-stream"),
    ],
)
async def test_content_types(site: Path, name: str, kind: str) -> None:
    """The suffix determines the type of a file, the same on every machine, and browsers must not guess."""
    (site / name).write_bytes(b"x")
    async with served(StaticWebFrontend(site)) as (client, _), client.get(f"/{name}") as answer:
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("ask", "told"), [("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")])
async def test_what_has_not_changed_is_not_sent_again(site: Path, ask: str, told: str) -> None:
    """A client that has the current file gets 304; after the file has changed it gets the new one."""
    async with served(StaticWebFrontend(site)) as (client, _):
        async with client.get("/app.js") as first:
            assert first.headers["Cache-Control"] == "no-cache"
        known = {ask: first.headers[told]}
        async with client.get("/app.js", headers=known) as again:
            assert again.status == 304
        (site / "app.js").write_text("the new script")
        os.utime(site / "app.js", (2_000_000_000, 2_000_000_000))
        async with client.get("/app.js", headers=known) as changed:
            assert await changed.text() == "the new script"


async def test_a_prefix_is_part_of_every_address(site: Path) -> None:
    """With a prefix, files are below it, the bare prefix leads to the index, and all other paths are not found."""
    async with served(StaticWebFrontend(site, root_path="/my/site")) as (client, port):
        assert await text(client, "/my/site/") == "the index"
        assert await text(client, "/my/site") == "the index"
        assert await text(client, "/my/site/app.js") == "the script"
        for outside in ("/", "/app.js", "/my/sited/app.js", "/my/site/../site/app.js", "/my/site/../../app.js"):
            assert (await raw_answer(port, outside.encode())).startswith(b"HTTP/1.1 404 ")


async def test_an_encoded_prefix_shifts_no_path(site: Path) -> None:
    """An encoded prefix of the same length is not taken for the prefix."""
    async with served(StaticWebFrontend(site, root_path="/site")) as (_, port):
        assert (await raw_answer(port, b"/%73ite/app.js")).startswith(b"HTTP/1.1 404 ")


async def test_its_routes_can_be_mounted_elsewhere(site: Path) -> None:
    """Another aiohttp application serves the folder under its own prefix, beside its other routes."""
    app = web.Application()
    app.add_routes(StaticWebFrontend(site).routes("/root.ui"))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        assert await text(client, "/root.ui") == "the index"
        assert await text(client, "/root.ui/docs") == "the docs"
    await runner.cleanup()


async def test_the_prefix_of_the_start_wins(site: Path) -> None:
    """A prefix passed to start_server replaces the constructor's."""
    async with served(StaticWebFrontend(site, root_path="/a"), "/b") as (client, _):
        assert await text(client, "/b/") == "the index"


async def test_a_port_in_use_leaves_nothing(site: Path) -> None:
    """A failed bind raises OSError, and the frontend can then be started on another port."""
    frontend = StaticWebFrontend(site)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="address already in use") as raised:
            await frontend.start_server("127.0.0.1", other.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE
    async with served(frontend) as (client, _):
        assert await text(client, "/") == "the index"


async def test_starting_twice_and_stopping_twice(site: Path) -> None:
    """Starting a running frontend is an error; stopping a stopped one does nothing."""
    frontend = StaticWebFrontend(site)
    async with served(frontend):
        with pytest.raises(UsageError, match="is already serving"):
            await frontend.start_server("127.0.0.1", 0)
    await frontend.stop_server()


async def test_an_open_connection_does_not_hold_the_stop_up(site: Path) -> None:
    """Stopping closes connections that clients keep open."""
    frontend = StaticWebFrontend(site)
    port = free_port()
    await frontend.start_server("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /app.js HTTP/1.1\r\nHost: here\r\n\r\n")
    await reader.readuntil(b"the script")
    await frontend.stop_server()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    """A missing folder, a file, and a folder without an index are refused when the frontend is made."""
    with pytest.raises(LayoutError, match="nowhere does not exist"):
        StaticWebFrontend(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(LayoutError, match="file is not a folder"):
        StaticWebFrontend(tmp_path / "file")
    with pytest.raises(LayoutError, match=r"must contain a readable index\.html"):
        StaticWebFrontend(tmp_path)


def test_an_index_that_leads_outside_is_none(tmp_path: Path) -> None:
    """A folder whose index is a link to a file outside of it counts as having no index."""
    (tmp_path / "site").mkdir()
    (tmp_path / "page.html").touch()
    (tmp_path / "site" / "index.html").symlink_to(tmp_path / "page.html")
    with pytest.raises(LayoutError, match=r"must contain a readable index\.html, not a link out of it"):
        StaticWebFrontend(tmp_path / "site")


def test_the_folder_is_relative_to_the_working_directory(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is resolved when the frontend is made, and stays the same when the directory changes."""
    monkeypatch.chdir(site.parent)
    assert StaticWebFrontend("site").serve_dir == site


def test_a_folder_that_was_good_is_not_looked_at_again(site: Path) -> None:
    """If a build removes the index for a moment, the next frontend for that folder is still valid."""
    first = StaticWebFrontend(site)
    (site / "index.html").unlink()
    assert StaticWebFrontend(site) == first


@pytest.mark.parametrize("prefix", ["docs", "/docs/", "/", "//", "/a//b", "/a/../b", "/.", "/a b", "/{path}", "/é", 1])
def test_a_prefix_that_is_none(site: Path, prefix: str) -> None:
    """A prefix that is not made of plain names is refused when the frontend is made."""
    with pytest.raises(LayoutError, match="root_path must be empty or a path"):
        StaticWebFrontend(site, root_path=prefix)


def test_equal_frontends(site: Path) -> None:
    """Two frontends with the same folder and prefix are equal; others are not."""
    assert StaticWebFrontend(site) == StaticWebFrontend(str(site))
    assert hash(StaticWebFrontend(site)) == hash(StaticWebFrontend(str(site)))
    assert StaticWebFrontend(site) != StaticWebFrontend(site, root_path="/a")
    assert StaticWebFrontend(site) != StaticWebFrontend(site / "docs")
    assert StaticWebFrontend(site) != str(site)


def test_a_frontend_needs_both_methods() -> None:
    """A subclass without stop_server cannot be made."""

    class Half(Frontend):
        def start_server(self, host: str, port: int, root_path: str = "") -> None: ...

    with pytest.raises(TypeError, match="stop_server"):
        Half()  # type: ignore[abstract]
