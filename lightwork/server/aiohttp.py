"""aiohttp's face: the app's own listener, and what a host application mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable

from aiohttp import WSMsgType, web

from lightwork.errors import ConfigError
from lightwork.server.api import FEED, Api
from lightwork.server.feed import Subscriber
from lightwork.server.guard import is_loopback
from lightwork.server.web import BODY_LIMIT, Problem, Request, Response, problem_response

__all__ = ["Face", "HttpListener", "make_application"]

_PORTS_TRIED = 20
_LONGEST_MESSAGE = 64 * 1024
_LONGEST_LINE = 64 * 1024
_SHUTDOWN = 1.0
_BACKLOG = 1024
_DISCARD_WITHIN = 1.0
_MOST_DISCARDED = 64 * 1024 * 1024
_SEND_WITHIN = 60.0
"""Seconds that a client of the feed may take nothing for; then its connection is cut."""


class Face:
    """Answers aiohttp's requests with an `Api`.

    Args:
        find: Gives the api of the app that runs, None while none does.
        is_mounted: Whether another server's application holds this one.
        host: Where it listens, where it is not mounted.
    """

    def __init__(self, find: Callable[[], Api | None], *, is_mounted: bool, host: str = "") -> None:
        self._find = find
        self._is_mounted = is_mounted
        self._is_loopback = is_loopback(host)
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        api = self._find()
        if api is None:
            return _plain(problem_response(Problem("not_ready", "the app does not run")))
        asked = self._take(request)
        refused = api.admit(asked)
        if refused is not None:
            return _plain(refused)
        if asked.path == FEED:
            return await self._feed(api, request)
        try:
            asked.body = await _read(request)
        except Problem as problem:
            await _discard(request)
            answer = _plain(problem_response(problem))
            answer.force_close()
            return answer
        return await _send(request, await api.answer(asked))

    def _take(self, request: web.Request) -> Request:
        prefix = ""
        if self._is_mounted:
            # The path as it arrived: the router has matched, and `match_info` holds, a decoded one.
            resource = request.match_info.route.resource
            prefix = resource.canonical.removesuffix("/{path}").rstrip("/") if resource is not None else ""
        raw = request.rel_url.raw_path
        if prefix and raw.startswith(prefix):
            raw = raw[len(prefix) :]
        return Request(
            request.method,
            raw if raw.startswith("/") else f"/{raw}",
            request.rel_url.raw_query_string,
            request.headers,
            is_loopback=self._is_loopback,
            prefix=prefix,
            is_mounted=self._is_mounted,
        )

    async def _feed(self, api: Api, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=_LONGEST_MESSAGE, heartbeat=30.0, autoclose=True)
        if not socket.can_prepare(request):
            return _plain(problem_response(Problem("bad_request", "this address is for WebSockets")))
        try:
            client = api.join()
        except Problem as problem:
            return _plain(problem_response(problem))
        try:
            await socket.prepare(request)
            self._sockets.add(socket)
            sender = asyncio.create_task(_send_all(socket, client), name="lightwork feed")
            try:
                await _receive_all(socket, client)
            finally:
                sender.cancel()
                await asyncio.wait({sender})
        finally:
            self._sockets.discard(socket)
            api.feed.leave(client)
        return socket

    async def close(self) -> None:
        """Say goodbye to the WebSockets."""
        await asyncio.gather(*(_goodbye(socket) for socket in list(self._sockets)))


async def _goodbye(socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_SHUTDOWN):
            await socket.close(code=1001, message=b"the app has ended")


async def _receive_all(socket: web.WebSocketResponse, client: Subscriber) -> None:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            await socket.close(code=1003, message=b"text only")
            return
        try:
            client.receive(message.data)
        except Problem as problem:
            await socket.close(code=1008, message=problem.message.encode()[:120])
            return


async def _send_all(socket: web.WebSocketResponse, client: Subscriber) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            data = await client.next()
            try:
                async with asyncio.timeout(_SEND_WITHIN):
                    await socket.send_frame(data, WSMsgType.TEXT)
            except TimeoutError:
                transport = socket._req.transport if socket._req is not None else None
                if transport is not None:
                    transport.abort()
                return


async def _read(request: web.Request) -> bytes:
    length = request.content_length
    if length is not None and length > BODY_LIMIT:
        raise _too_large()
    pieces, size = [], 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > BODY_LIMIT:
            raise _too_large()
        pieces.append(piece)
    return b"".join(pieces)


async def _discard(request: web.Request) -> None:
    """Take the rest of a body that is refused, within bounds: a client that still sends would not see the answer."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_WITHIN):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > _MOST_DISCARDED:
                    return


def _too_large() -> Problem:
    return Problem("too_large", f"the body is larger than {BODY_LIMIT:,} bytes")


def _plain(response: Response) -> web.Response:
    assert isinstance(response.body, bytes)
    return web.Response(body=response.body, status=response.status, headers=response.headers)


async def _send(request: web.Request, response: Response) -> web.StreamResponse:
    if isinstance(response.body, bytes):
        return _plain(response)
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    await stream.prepare(request)
    if request.method != "HEAD":
        await _pour(stream, response.body)
    await stream.write_eof()
    return stream


async def _pour(stream: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        await stream.write(piece)


def make_application(find: Callable[[], Api | None], *, is_mounted: bool = True, host: str = "") -> web.Application:
    """An aiohttp application that answers for the app that `find` gives; see `lightwork.server.aiohttp_app`."""
    face = Face(find, is_mounted=is_mounted, host=host)
    application = web.Application(client_max_size=BODY_LIMIT)
    application.router.add_route("*", "/{path:(?s:.*)}", face.handle)  # line ends too, encoded

    async def close(_: web.Application) -> None:
        await face.close()

    application.on_shutdown.append(close)
    return application


class HttpListener:
    """The app's own HTTP server.

    Args:
        api: What answers.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, *, is_fixed: bool) -> str:
        """Listen; gives the URL.

        Args:
            host: Address to bind.
            port: Port of it, 0 for a free one. Where it is taken the next ones are tried, unless `is_fixed`.
            is_fixed: Whether the port was asked for.

        Raises:
            ConfigError: The address cannot be bound.
        """
        application = make_application(lambda: self._api, is_mounted=False, host=host)
        runner = self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=_SHUTDOWN, lingering_time=0.0, max_line_size=_LONGEST_LINE
        )
        await runner.setup()
        try:
            for attempt in range(_PORTS_TRIED):
                number = port + attempt if port else 0
                try:
                    await web.TCPSite(runner, host, number, backlog=_BACKLOG).start()
                    break
                except OSError as error:
                    is_last = is_fixed or not port or attempt + 1 == _PORTS_TRIED or number >= 65535
                    if error.errno != errno.EADDRINUSE or is_last:
                        raise ConfigError(
                            f"the HTTP side cannot listen on {host}:{number}: {error.strerror or error}; "
                            "set http_host or http_port, or http = false"
                        ) from error
        except BaseException:
            await self.aclose()
            raise
        found = runner.addresses[0]
        shown = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
        return f"http://[{shown}]:{found[1]}" if ":" in shown else f"http://{shown}:{found[1]}"

    async def aclose(self) -> None:
        """Answer no more. May be repeated."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
