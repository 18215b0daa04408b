"""Access control by token, origin and host name; paths of files; and the memory that slow clients cost."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightwork._common.system import is_loopback
from lightwork.server.guard import Guard
from lightwork.server.web import Problem, Request
from tests.server.support import Client, Root, Worker, serving

pytestmark = pytest.mark.bare

TOKEN = "a-token-that-nobody-guesses"


async def status(client: Client, path: str, **headers: str) -> int:
    async with client.session.get(
        f"{client.base}{path}", headers={name.replace("_", "-"): value for name, value in headers.items()},
        allow_redirects=False,
    ) as answer:  # fmt: skip
        return answer.status


# --- the token ------------------------------------------------------------------------------------


async def test_token() -> None:
    """If the app has a token, every request needs it, in a header or in the query, even the probes and the feed."""
    async with serving(http_token=TOKEN) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Basic x"}):
            assert await status(client, "/api/v1/app", **headers) == 401
        assert await status(client, "/api/v1/app", Authorization=f"Bearer {TOKEN}") == 200
        assert await status(client, "/api/v1/app?token=wrong") == 401
        assert await status(client, f"/api/v1/app?token={TOKEN}") == 200
        for path in ("/metrics", "/readyz", "/healthz", "/api/v1/openapi.json"):
            assert await status(client, path) == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.session.ws_connect(f"{client.base}/api/v1/feed")
        assert caught.value.status == 401
        status_code, body = await client.ask("POST", "/app/stop", {})
        assert (status_code, body["error"]["code"]) == (401, "unauthorized")
        assert not client.app._running().stopped.is_set()


async def test_login_of_a_browser() -> None:
    """Opening the page with the token sets a cookie that scripts cannot read; the address then has no token."""
    async with serving(http_token=TOKEN) as client:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            page = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
            async with browser.get(f"{client.base}/?token={TOKEN}&x=1", headers=page, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, "./?x=1")
                assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["Set-Cookie"].split("; "))
                assert TOKEN not in answer.headers["Location"]
            async with browser.get(f"{client.base}/api/v1/app") as answer:
                assert answer.status == 200
        assert await status(client, "/?token=wrong", Accept="text/html") == 401


async def test_page_needs_no_token() -> None:
    """The page's files need no token, because the page asks for it and they contain no data of the app."""
    async with serving(http_token=TOKEN) as client:
        assert await status(client, "/") == 200
        assert await status(client, "/index.html") == 200
        assert await status(client, "/api/v1/works") == 401


async def test_off_loopback_a_token_is_made() -> None:
    """On an address that is not loopback a token is needed; it is generated if none is configured."""
    async with serving(http_host="0.0.0.0") as client:
        side = client.app._running().http
        assert side is not None
        assert side.token is not None
        assert len(side.token) >= 32
        assert await status(client, "/api/v1/app") == 401
        assert await status(client, "/api/v1/app", Authorization=f"Bearer {side.token}") == 200


# --- origin and host ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "http://localhost:1", "file://", "x"]
)
async def test_other_origins(origin: str) -> None:
    """A page of another origin, or of another port on this machine, is refused and cannot open the WebSocket."""
    async with serving() as client:
        assert await status(client, "/api/v1/app", Origin=origin) == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.session.ws_connect(f"{client.base}/api/v1/feed", headers={"Origin": origin})
        body = msgspec.json.encode({})
        url = f"{client.base}/api/v1/app/stop"
        async with client.session.post(url, data=body, headers={"Origin": origin}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (403, "forbidden_origin")
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert not client.app._running().stopped.is_set()


async def test_own_and_configured_origins() -> None:
    """The page's own origin and the configured origins have access."""
    async with serving(http_origins=["https://good.example"]) as client:
        assert await status(client, "/api/v1/app", Origin=client.base) == 200
        assert await status(client, "/api/v1/app", Origin="https://good.example") == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7501", "127.0.0.1.evil.example", "", "a b", "[::"])
async def test_names_that_are_made_to_lead_here(host: str) -> None:
    """A request with a foreign host name that resolves to this machine is refused."""
    async with serving() as client:
        assert await status(client, "/api/v1/app", Host=host) in (400, 403)
        for known in ("localhost:7501", "127.0.0.1", "[::1]:80", "x.localhost"):
            assert await status(client, "/api/v1/app", Host=known) == 200


def test_cross_site_without_origin() -> None:
    """A request that the browser marks as cross-site is refused, unless it opens a page."""
    guard = Guard(None)
    headers = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    with pytest.raises(Problem, match="pages of another site are refused"):
        guard.check(Request("GET", "/api/v1/app", "", headers))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("::", False),
        ("evil.localhost.example", False),
        ("127.0.0.1%evil.example", False),
        ("::1%lo", True),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only addresses and names that no other machine can reach are loopback."""
    assert is_loopback(host) is expected


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/../../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/..%2f..%2fetc%2fpasswd",
        b"//etc/passwd",
        b"/js/../../api.py",
        b"/index.html/../../web.py",
        b"/docs/../../../web.py",
        b"/%00",
        b"/\xff",
        b"/" + b"a/" * 3000,
    ],
)
async def test_paths_of_files(path: bytes) -> None:
    """A path cannot leave the page's folder; CVE-2024-5980 was such a hole, in code that joined paths to a folder."""
    async with serving() as client:
        port = int(client.base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.split(b" ")[1] in (b"400", b"404", b"414")
        assert b"root:" not in answer
        assert b"import" not in answer


# --- fuzz -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TARGETS = st.sampled_from(
    [
        ("PATCH", "/state/root"),
        ("PATCH", "/state/root.work"),
        ("POST", "/works/root.work/calls"),
        ("POST", "/schedules/trigger"),
        ("POST", "/commands/x"),
        ("POST", "/calls/1/retry"),
    ]
)
EDITS = st.fixed_dictionaries(
    {
        "edits": st.lists(
            st.fixed_dictionaries(
                {"path": st.lists(st.sampled_from(["title", "numbers", "n", 0, 1, None, "x"]), max_size=3)},
                optional={"value": JSON, "delete": st.booleans()},
            ),
            max_size=3,
        )
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=st.lists(st.tuples(TARGETS, JSON | EDITS | st.binary(max_size=50)), min_size=1, max_size=8))
async def test_bodies_of_any_kind(requests: list[Any]) -> None:
    """For any body the answer is JSON, an error has a code other than `internal`, and the app keeps running."""
    async with serving(root=Root(work=Worker(start_with_flow=False))) as client:
        for (method, path), body in requests:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            async with client.session.request(method, f"{client.base}/api/v1{path}", data=data) as answer:
                found = msgspec.json.decode(await answer.read())
                assert answer.status < 500, found
                assert answer.status < 400 or found["error"]["code"]
        assert (await client.get("/app"))["stage"] == "running"


# --- slow clients ---------------------------------------------------------------------------------

HANDSHAKE = (
    b"GET /api/v1/feed HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = b"\x81\x90\x00\x00\x00\x00" + b'{"type":"hello"}'


async def slow_client(port: int) -> socket.socket:
    """Open a WebSocket that sends hello and never reads."""
    loop = asyncio.get_running_loop()
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await loop.sock_connect(one, ("127.0.0.1", port))
    await loop.sock_sendall(one, HANDSHAKE + HELLO)
    return one


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow enough descriptors for both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
async def test_a_thousand_slow_clients() -> None:
    """Clients that never read cost a bounded amount of memory; a client that reads gets every change meanwhile."""
    root = Root(work=Worker())
    async with serving(root=root) as client, client.feed() as feed:
        await feed.next()
        port = int(client.base.rpartition(":")[2])
        crowd = [await slow_client(port) for _ in range(1000)]
        api = client.app._api()
        assert api is not None
        while api.feed.num_clients < len(crowd) + 1:  # noqa: ASYNC110 -- the feed has no event for a new client
            await asyncio.sleep(0.01)
        for number in range(60):
            root.title = f"{number} " + "x" * 50_000
            await feed.until(t="state", value=root.title)
        held = {id(data): len(data) for one in api.feed._subscribers for data in one._queue}
        assert sum(held.values()) < 20_000_000
        assert all(one._bytes <= 4 * 1024 * 1024 for one in api.feed._subscribers)
        for one in crowd:
            one.close()


async def test_client_that_lags_gets_a_snapshot() -> None:
    """A client whose queue was too long gets a new snapshot, marked as lagged, and every change after it."""
    root = Root(work=Worker())
    async with serving(root=root) as client, client.feed() as feed:
        await feed.next()
        api = client.app._api()
        assert api is not None
        (slow,) = api.feed._subscribers
        slow.start_over(lagged=True)
        root.title = "while it lagged"
        message = await feed.next()
        assert message["type"] == "snapshot"
        assert message["lagged"] is True
        if message["state"]["vars"]["title"] != root.title:
            await feed.until(t="state", value=root.title)
        root.title = "afterwards"
        seen = await feed.until(t="state", value=root.title)
        assert [item["value"] for item in seen if item.get("path") == ["title"]] in (
            ["afterwards"],
            ["while it lagged", "afterwards"],
        )
