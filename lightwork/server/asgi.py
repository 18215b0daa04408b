"""The ASGI face: the routes and the feed inside of FastAPI, Starlette, or whatever serves ASGI 3 in the app's loop."""

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
    """An ASGI application that answers with an `Api`.

    Args:
        find: Gives the api of the app that runs, None while none does.
    """

    def __init__(self, find: Callable[[], Api | None]) -> None:
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or serve one WebSocket."""
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
            await _send(request, problem_response(Problem("not_ready", "the app does not run")), send)
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
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})  # before it is accepted: 403
            return
        try:
            client = api.join()
        except Problem as problem:
            await send({"type": "websocket.close", "code": 1013, "reason": problem.message[:100]})
            return
        try:
            await send({"type": "websocket.accept"})
            sender = asyncio.create_task(_send_all(client, send), name="lightwork feed")
            receiver = asyncio.create_task(_receive_all(client, receive, send), name="lightwork feed receiver")
            over = asyncio.create_task(client.sent.wait(), name="lightwork feed end")
            try:
                await asyncio.wait({sender, receiver, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sender, receiver, over):
                    task.cancel()
                await asyncio.wait({sender, receiver, over})
            if client.sent.is_set() and (receiver.cancelled() or receiver.exception() is None):
                with contextlib.suppress(Exception):  # it may be gone by now, and each server says so in its own way
                    await send({"type": "websocket.close", "code": 1001, "reason": "the app has ended"})
        finally:
            api.feed.leave(client)


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _take(scope: Scope) -> Request:
    prefix = scope.get("root_path", "").rstrip("/")
    raw = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    # A mount leaves the whole path in place, and says in root_path how much of it is the mount's.
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
            raise Problem("bad_request", "the client has gone")
        piece = message.get("body", b"")
        size += len(piece)
        if size > BODY_LIMIT:
            raise Problem("too_large", f"the body is larger than {BODY_LIMIT:,} bytes")
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


async def _send_all(client: Subscriber, send: Send) -> None:
    while True:
        await send({"type": "websocket.send", "text": (await client.next()).decode()})


async def _receive_all(client: Subscriber, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.close", "code": 1003, "reason": "text only"})
            return
        try:
            if len(text) > _LONGEST_MESSAGE:
                raise Problem("too_large", "the message is too long")
            client.receive(text)
        except Problem as problem:
            await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:100]})
            return
