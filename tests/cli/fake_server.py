"""A fake of an app's HTTP server, with the data of the test.

It runs in a thread, because a command that asks it runs its own event loop.
"""

from __future__ import annotations

import asyncio
import fnmatch
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from lightwork.server.types import (
    AppDetail,
    CallDetail,
    CommandView,
    ComponentView,
    ErrorBody,
    Failed,
    LogEntry,
    LogsPage,
    ScheduleView,
    StackView,
    Timeline,
    WorkDetail,
    WorkView,
)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A refused request. The server answers with its code, message and status."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class FakeServer:
    """A server that answers from its attributes, and records the requests that change something.

    Attributes:
        orders: Each request that changes something, as text.
        on_call: Called with each submitted call. Returns the call as the server reports it afterwards.
    """

    def __init__(self) -> None:
        self.token: str | None = None
        versions = ("0.1.0", "3.11.7", "", "", "local")
        self.app = AppDetail("r-1234", "Sweep", "Sweep", "/me/app.py", 77, "here", 1.0, "running", *versions)
        self.works: dict[str, WorkDetail] = {}
        self.states: dict[str, dict[str, Any]] = {"root": {}}
        self.calls: dict[int, CallDetail] = {}
        self.lines: list[LogEntry] = []
        self.schedules: list[ScheduleView] = []
        self.commands: list[CommandView] = []
        self.results: dict[str, Any] = {}
        self.stacks: dict[str, StackView] = {}
        self.timeline = Timeline([], 100.0)
        self.refusals: dict[str, Refused] = {}
        self.orders: list[str] = []
        self.page_size = 1000
        self.on_call: Callable[[CallDetail], CallDetail] = lambda call: call
        self.on_feed: Callable[[int], list[list[dict[str, Any]]]] = lambda number: []
        """Returns the batches that a feed sends after its snapshot, given the number of the connection, from 1."""
        self.ends = True
        """Whether the app ends after the last batch."""
        self.has_followed = threading.Event()
        """Set when a feed has received its `follow` message."""
        self.url = ""
        self._feeds = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._loop: asyncio.AbstractEventLoop
        self._has_ended: asyncio.Event

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._has_ended.set)
        self._thread.join(30)

    def add_work(self, name: str, stage: str = "running", **fields: Any) -> None:
        self.works[name] = msgspec.convert({"name": name, "type": "Train", "stage": stage, **fields}, WorkDetail)
        self.states.setdefault(name, {})

    def add_call(self, number: int, work: str, stage: str, **fields: Any) -> CallDetail:
        call = msgspec.convert({"id": number, "work": work, "hash": "h", "stage": stage, **fields}, CallDetail)
        self.calls[number] = call
        return call

    # --- serving --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop, self._has_ended = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(middlewares=[self._guard])
        for method, path, handler in (
            ("GET", "/app", self._get_app),
            ("POST", "/app/stop", self._order),
            ("GET", "/components", self._get_components),
            ("GET", "/state", self._get_state),
            ("GET", "/state/{name}", self._get_value),
            ("PATCH", "/state/{name}", self._patch),
            ("GET", "/works", self._get_works),
            ("GET", "/works/{name}", self._get_work),
            ("GET", "/works/{name}/stack", self._get_stack),
            ("POST", "/works/{name}/calls", self._submit),
            ("POST", "/works/{name}/{order}", self._order_work),
            ("GET", "/calls", self._get_calls),
            ("GET", "/calls/{id}", self._get_call),
            ("POST", "/calls/{id}/cancel", self._order),
            ("POST", "/calls/{id}/retry", self._retry),
            ("GET", "/logs", self._get_logs),
            ("GET", "/timeline", self._get_timeline),
            ("GET", "/schedules", self._get_schedules),
            ("POST", "/schedules/trigger", self._order),
            ("GET", "/commands", self._get_commands),
            ("POST", "/commands/{name}", self._run_command),
            ("GET", "/feed", self._feed),
        ):
            application.router.add_route(method, f"/api/v1{path}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._has_ended.wait()
        await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refused("unauthorized", "a token is needed", 401)
            for path, refusal in self.refusals.items():
                if request.path.endswith(path):
                    raise refusal
            return await handler(request)
        except Refused as error:
            return _json(ErrorBody(Failed(error.code, str(error))), error.status)

    async def _order(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.orders.append(f"{request.method} {request.path.removeprefix('/api/v1')} {text}".strip())
        return _json({"accepted": True}, 202)

    async def _order_work(self, request: web.Request) -> web.Response:
        work = self._work(request)
        await self._order(request)
        if "wait" in request.query:
            return _json(_view(work))
        return _json({"accepted": True}, 202)

    def _work(self, request: web.Request) -> WorkDetail:
        name = request.match_info["name"]
        if name not in self.works:
            raise Refused("unknown_work", f"there is no work {name!r}", 404)
        return self.works[name]

    async def _get_app(self, request: web.Request) -> web.Response:
        return _json(self.app)

    async def _get_components(self, request: web.Request) -> web.Response:
        items = [ComponentView(name, "work" if name in self.works else "flow", "X", []) for name in self.states]
        return _json({"items": items, "total": len(items)})

    async def _get_state(self, request: web.Request) -> web.Response:
        name = request.query["component"]
        children: dict[str, Any] = {
            other.rpartition(".")[2]: {} for other in self.works if other.rpartition(".")[0] == name
        }
        return _json({"component": name, "state": {"vars": self.states[name], "flows": {}, "works": children}})

    async def _get_value(self, request: web.Request) -> web.Response:
        name, path = request.match_info["name"], msgspec.json.decode(request.query["path"])
        value: Any = self.states[name]
        for key in path:
            value = value[key]
        return _json({"component": name, "path": path, "value": value})

    async def _patch(self, request: web.Request) -> web.Response:
        await self._order(request)
        return _json({"applied": len((await request.json())["edits"])})

    async def _get_works(self, request: web.Request) -> web.Response:
        query = request.query
        found = [
            _view(work)
            for work in self.works.values()
            if fnmatch.fnmatchcase(work.name, query.get("match", "*")) and work.stage == query.get("stage", work.stage)
        ]
        offset, limit = int(query["offset"]) if "offset" in query else 0, int(query.get("limit", "100"))
        return _json({"items": found[offset : offset + min(limit, self.page_size)], "total": len(found)})

    async def _get_work(self, request: web.Request) -> web.Response:
        return _json(self._work(request))

    async def _get_stack(self, request: web.Request) -> web.Response:
        return _json(self.stacks[self._work(request).name])

    async def _submit(self, request: web.Request) -> web.Response:
        work = self._work(request)
        await self._order(request)
        number = max(self.calls, default=0) + 1
        made = self.add_call(number, work.name, "pending")
        self.calls[number] = self.on_call(made)
        return _json(made, 202)

    async def _retry(self, request: web.Request) -> web.Response:
        await self._order(request)
        number = max(self.calls, default=0) + 1
        made = self.add_call(number, self.calls[int(request.match_info["id"])].work, "pending")
        self.calls[number] = self.on_call(made)
        return _json(made, 202)

    async def _get_calls(self, request: web.Request) -> web.Response:
        query = request.query
        found = [
            call
            for call in sorted(self.calls.values(), key=lambda call: -call.id)
            if call.work == query.get("work", call.work) and call.stage == query.get("stage", call.stage)
        ]
        return _json({"items": found[: int(query["limit"])], "total": len(found)})

    async def _get_call(self, request: web.Request) -> web.Response:
        number = int(request.match_info["id"])
        if number not in self.calls:
            raise Refused("unknown_call", f"there is no call {number}", 404)
        return _json(self.calls[number])

    async def _get_logs(self, request: web.Request) -> web.Response:
        query, works = request.query, request.query.getall("work", [])
        after, before = int(query.get("after", "0")), int(query.get("before", str(1 << 60)))
        seen = [line for line in self.lines if after < line.seq < before]
        found = [
            line
            for line in seen
            if (not works or line.work in works) and query.get("search", "").lower() in line.text.lower()
        ]
        most = min(int(query.get("tail", query.get("limit", "100"))), self.page_size)
        items = found[-most:] if "tail" in query else found[:most]
        more = len(items) < len(found)
        if more:
            first, last = items[0].seq, items[-1].seq if "tail" not in query else seen[-1].seq
        else:
            first, last = (seen[0].seq, seen[-1].seq) if seen else (0, 0)
        return _json(LogsPage(items, first, last, more))

    async def _get_timeline(self, request: web.Request) -> web.Response:
        return _json(self.timeline)

    async def _get_schedules(self, request: web.Request) -> web.Response:
        return _json({"items": self.schedules})

    async def _get_commands(self, request: web.Request) -> web.Response:
        return _json({"items": self.commands})

    async def _run_command(self, request: web.Request) -> web.Response:
        await self._order(request)
        return _json({"result": self.results[request.match_info["name"]]})

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert (await socket.receive_json())["type"] == "hello"
        assert (await socket.receive_json())["type"] == "follow"
        self._feeds += 1
        self.has_followed.set()
        works = [_view(work) for work in self.works.values()]
        snapshot = {"type": "snapshot", "seq": 0, "app": self.app, "works": works}
        await socket.send_str(msgspec.json.encode(snapshot).decode())
        try:
            for number, items in enumerate(self.on_feed(self._feeds), 1):
                frame = {"type": "changes", "seq": number, "items": items}
                await socket.send_str(msgspec.json.encode(frame).decode())
        except ConnectionResetError:
            assert request.transport is not None
            request.transport.abort()
            return socket
        if self.ends:
            await socket.close(code=1001)
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
            pass
        return socket


def _view(work: WorkDetail) -> dict[str, Any]:
    return {name: getattr(work, name) for name in WorkView.__struct_fields__}


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
