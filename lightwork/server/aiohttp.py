"""The aiohttp face: the app's own listener, and an application that another aiohttp server mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable

from aiohttp import WSMsgType, web

from lightwork._common.system import is_loopback
from lightwork.errors import ConfigError
from lightwork.server.api import FEED, Api
from lightwork.server.feed import Subscriber
from lightwork.server.web import BODY_LIMIT, Problem, Request, Response, problem_response

__all__ = ["Face", "HttpListener", "make_application"]

_PORTS_TRIED = 20
"""Ports that are tried, from the configured port on, until one is free."""

_LONGEST_MESSAGE = 64 * 1024
_LONGEST_LINE = 64 * 1024
_SHUTDOWN = 1.0
_BACKLOG = 1024
_DISCARD_WITHIN = 1.0
_MOST_DISCARDED = 64 * 1024 * 1024
_SEND_WITHIN = 60.0
"""Seconds after which the connection is aborted if a client of the feed does not take a message."""


class Face:
    """Passes aiohttp's requests to an `Api`.

    Args:
        find: Returns the API of the running app, None while the app does not run.
        is_mounted: Whether it is mounted in another application.
        host: Address that it listens on, if it is not mounted.
    """

    def __init__(self, find: Callable[[], Api | None], *, is_mounted: bool, host: str = "") -> None:
        self._find = find
        self._is_mounted = is_mounted
        self._is_loopback = is_loopback(host)
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        api = self._find()
        if api is None:
            return _plain(problem_response(Problem("not_ready", "the app is not running")))
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
            # Use the path as it arrived: the router matches a decoded path, and `match_info` holds that one.
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
            return _plain(
                problem_response(Problem("bad_request", "this path is for WebSockets; send an upgrade request"))
            )
        try:
            subscriber = api.feed.subscribe()
        except Problem as problem:
            return _plain(problem_response(problem))
        try:
            await socket.prepare(request)
            self._sockets.add(socket)
            sender = asyncio.create_task(_send_all(socket, subscriber), name="lightwork feed")
            try:
                await _receive_all(socket, subscriber)
            finally:
                sender.cancel()
                await asyncio.wait({sender})
        finally:
            self._sockets.discard(socket)
            api.feed.unsubscribe(subscriber)
        return socket

    async def close(self) -> None:
        """Close all WebSockets with code 1001."""
        await asyncio.gather(*(_close(socket) for socket in list(self._sockets)))


async def _close(socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_SHUTDOWN):
            await socket.close(code=1001, message=b"the app has ended")


async def _receive_all(socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            await socket.close(code=1003, message=b"messages must be text")
            return
        try:
            subscriber.receive(message.data)
        except Problem as problem:
            await socket.close(code=1008, message=problem.message.encode()[:120])
            return


async def _send_all(socket: web.WebSocketResponse, subscriber: Subscriber) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            data = await subscriber.next()
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
    """Read the rest of a refused body, up to a limit: a client does not see the response while it is still sending."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_WITHIN):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > _MOST_DISCARDED:
                    return


def _too_large() -> Problem:
    return Problem("too_large", f"the request body must not be larger than {BODY_LIMIT:,} bytes")


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
    """Return an aiohttp application for the app whose API `find` returns; see `lightwork.server.aiohttp_app`."""
    face = Face(find, is_mounted=is_mounted, host=host)
    application = web.Application(client_max_size=BODY_LIMIT)
    application.router.add_route("*", "/{path:(?s:.*)}", face.handle)  # ?s: a path may contain encoded newlines

    async def close(_: web.Application) -> None:
        await face.close()

    application.on_shutdown.append(close)
    return application


class HttpListener:
    """The app's own HTTP server.

    Args:
        api: Answers the requests.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, *, is_fixed: bool) -> str:
        """Start to listen, and return the URL.

        Args:
            host: Address to bind.
            port: Port to bind, 0 for any free port. If it is in use, the next ports are tried, unless `is_fixed`.
            is_fixed: Whether to try this port only.

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
                            f"the HTTP server cannot listen on {host}:{number}: {error.strerror or error}; "
                            "set http_host or http_port, or http = false"
                        ) from error
        except BaseException:
            await self.aclose()
            raise
        found = runner.addresses[0]
        shown = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
        return f"http://[{shown}]:{found[1]}" if ":" in shown else f"http://{shown}:{found[1]}"

    async def aclose(self) -> None:
        """Stop listening and close all connections. Calling it again does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
