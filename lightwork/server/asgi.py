"""The ASGI face: the routes and the feed inside FastAPI, Starlette or any ASGI 3 server that runs in the app's loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from lightwork.server.api import FEED, Api
from lightwork.server.feed import Subscriber
from lightwork.server.web import BODY_LIMIT, Problem, Request, Response, problem_response

__all__ = ["AsgiFace", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LONGEST_MESSAGE = 64 * 1024


class AsgiFace:
    """An ASGI application that passes requests to an `Api`.

    Args:
        find: Returns the API of the running app, None while the app does not run.
    """

    def __init__(self, find: Callable[[], Api | None]) -> None:
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        kind = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
        elif kind == "http":
            await self._answer(_take(scope), receive, send)
        elif kind == "websocket":
            await self._feed(_take(scope), receive, send)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        api = self._find()
        if api is None:
            await _send(request, problem_response(Problem("not_ready", "the app is not running")), send)
            return
        answer = api.admit(request)
        if answer is None:
            try:
                request.body = await _read(receive)
            except Problem as problem:
                answer = problem_response(problem)
            else:
                answer = await api.answer(request)
        await _send(request, answer, send)

    async def _feed(self, request: Request, receive: Receive, send: Send) -> None:
        api = self._find()
        await receive()  # websocket.connect
        if api is None or request.path != FEED or api.admit(request) is not None:
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})  # not accepted yet: sends 403
            return
        try:
            subscriber = api.feed.subscribe()
        except Problem as problem:
            await send({"type": "websocket.close", "code": 1013, "reason": problem.message[:100]})
            return
        try:
            await send({"type": "websocket.accept"})
            sender = asyncio.create_task(_send_all(subscriber, send), name="lightwork feed")
            receiver = asyncio.create_task(_receive_all(subscriber, receive, send), name="lightwork feed receiver")
            ended = asyncio.create_task(subscriber.sent.wait(), name="lightwork feed end")
            try:
                await asyncio.wait({sender, receiver, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sender, receiver, ended):
                    task.cancel()
                await asyncio.wait({sender, receiver, ended})
            if subscriber.sent.is_set() and (receiver.cancelled() or receiver.exception() is None):
                with contextlib.suppress(Exception):  # the client may have gone; each server raises its own exception
                    await send({"type": "websocket.close", "code": 1001, "reason": "the app has ended"})
        finally:
            api.feed.unsubscribe(subscriber)


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _take(scope: Scope) -> Request:
    prefix = scope.get("root_path", "").rstrip("/")
    raw = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    # A mount passes the whole path on, and root_path is the prefix that belongs to the mount.
    encoded = quote(prefix)
    for known in (encoded, prefix):
        if known and (path == known or path.startswith(f"{known}/")):
            path = path[len(known) :]
            break
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(scope.get("method", "GET"), path or "/", query, headers, prefix=prefix, is_mounted=True)


async def _read(receive: Receive) -> bytes:
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("bad_request", "the client has disconnected")
        piece = message.get("body", b"")
        size += len(piece)
        if size > BODY_LIMIT:
            raise Problem("too_large", f"the request body must not be larger than {BODY_LIMIT:,} bytes")
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _send(request: Request, response: Response, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    if isinstance(response.body, bytes):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if request.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(response.body, bytes):
        await send({"type": "http.response.body", "body": response.body})
    else:
        async for piece in response.body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _send_all(subscriber: Subscriber, send: Send) -> None:
    while True:
        await send({"type": "websocket.send", "text": (await subscriber.next()).decode()})


async def _receive_all(subscriber: Subscriber, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.close", "code": 1003, "reason": "messages must be text"})
            return
        try:
            if len(text) > _LONGEST_MESSAGE:
                raise Problem("too_large", f"a message must not be longer than {_LONGEST_MESSAGE:,} characters")
            subscriber.receive(text)
        except Problem as problem:
            await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:100]})
            return
