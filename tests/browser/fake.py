"""A fake server for the page. It implements the HTTP API (see `docs/http.md`) without an app.

The data are plain dicts. Tests change them with `FakeApp.edit`, `change_work`, `call` and `log`. Each change is sent to
the open pages. ``python -m tests.browser.fake WORKS`` serves a fake app for manual tests.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import WSMsgType, web

from lightwork.server.static import PAGE_FOLDER, PageFiles
from lightwork.server.web import Request

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"\'&amp;\u202e\x00'


class FakeApp:
    """The data of an app, and a server for it.

    Args:
        works: Initial number of works.
        run: Id of the run.
        token: Token that clients must send; None if no token is needed.

    Attributes:
        asked: Method, path and body of each request that would change the app.
        logs: All log lines.
        seq: Number of the last change.
        drop: Number of following lines that the feed leaves out, as if they arrived too fast.
    """

    def __init__(self, works: int = 0, run: str = "run-1", token: str | None = None) -> None:
        self.run = run
        self.token = token
        self.seq = 0
        self.started = time.time() - 120
        self.works: dict[str, dict[str, Any]] = {}
        self.types: dict[str, tuple[str, str]] = {"root": ("flow", "Sweep")}
        self.vars: dict[str, dict[str, Any]] = {"root": {"best": None, "epochs": 60, "names": ["a", "b"]}}
        self.calls: dict[int, dict[str, Any]] = {}
        self.logs: list[dict[str, Any]] = []
        self.layout: dict[str, Any] = {}
        self.schedules: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.refusals: dict[str, str] = {}
        self.drop = 0
        self._ring: list[tuple[int, dict[str, Any]]] = []
        self._clients: dict[web.WebSocketResponse, dict[str, Any]] = {}
        self._pending: list[dict[str, Any]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0
        for number in range(works):
            self.add_work(f"root.trials.{number}", stage=_STAGES[number % len(_STAGES)])

    # --- the data ---------------------------------------------------------------------------------

    def add_work(self, name: str, stage: str = "running", **fields: Any) -> None:
        """Add a work to the tree, without notifying open pages."""
        self.types[name] = ("work", "Train")
        self.vars[name] = {"lr": 0.1, "loss": 1.0, "epoch": 0, "losses": [1.0, 0.5, 0.25], "note": "plain text"}
        self.works[name] = {
            "name": name, "type": "Train", "stage": stage, "reason": "user_exception" if stage == "failed" else None,
            "message": "ValueError: no" if stage == "failed" else None, "since": time.time() - 30, "runtime": "local",
            "pid": 4000 + len(self.works) if stage == "running" else None, "hostname": "here", "url": "",
            "parallel": True, "concurrency": 1, "port": None, "num_timeouts": 0, "worker_attempt": 1, "current": None,
            "calls": {"pending": 0, "running": int(stage == "running"), "succeeded": 3, "failed": 0, "stopped": 0},
            **fields,
        }  # fmt: skip

    def app_view(self) -> dict[str, Any]:
        """Return the view of the app."""
        return {
            "run": self.run, "name": "sweep", "root": "Sweep", "file": "/home/ada/sweep.py", "pid": 4242,
            "host": "here",
            "started_at": self.started, "stage": "running", "version": "0.1.0", "python": "3.13.1",
            "url": f"http://127.0.0.1:{self.port}", "address": "127.0.0.1:40000", "runtime": "local",
            "stop_message": None, "journal": None, "error": None,
        }  # fmt: skip

    def components(self) -> list[dict[str, Any]]:
        """Return all components."""
        return [{"name": name, "kind": kind, "type": type, "children": []} for name, (kind, type) in self.types.items()]

    def state(self) -> dict[str, Any]:
        """Return the nested state of the root."""
        root = self._own_state("root")
        for name in self.types:
            if name == "root":
                continue
            place, path = root, name.split(".")[1:]
            for at, key in enumerate(path):
                is_last = at == len(path) - 1
                kind = self.types[name][0] + "s" if is_last and len(path) == 1 else "structures"
                place = place.get(kind, place)
                place = place.setdefault(key, self._own_state(name) if is_last else {})
        return root

    def _own_state(self, name: str) -> dict[str, Any]:
        return {"vars": copy.deepcopy(self.vars[name]), "calls": {}, "flows": {}, "works": {}, "structures": {}}

    # --- changes ----------------------------------------------------------------------------------

    def edit(self, name: str, path: list[Any], value: Any, kind: str = "set") -> None:
        """Change an attribute. A path of more than one key is sent to pages, but the fake's own data stay the same."""
        if kind == "set" and len(path) == 1:
            self.vars[name][path[0]] = value
        self.tell({"t": "state", "name": name, "path": path, "kind": kind, "value": value})

    def change_work(self, name: str, **fields: Any) -> None:
        """Change fields of a work's view."""
        self.works[name] |= {"since": time.time(), **fields}
        self.tell({"t": "work", **self.works[name]})

    def call(self, id: int, work: str, stage: str, **fields: Any) -> None:
        """Add a call or change it."""
        made = self.calls.setdefault(
            id,
            {
                "id": id, "work": work, "hash": f"run:{id:08x}", "reason": None, "message": None, "attempt": 1,
                "submitted_at": time.time(), "started_at": None, "ended_at": None, "cached": False, "joined": 0,
                "args": {"epochs": 10}, "result": None, "error": None,
            },
        )  # fmt: skip
        made |= {"stage": stage, **fields}
        self.tell({"t": "call", **{key: value for key, value in made.items() if key not in ("args", "result")}})

    def log(self, work: str, *texts: str) -> None:
        """Add log lines of a work."""
        lines: list[dict[str, Any]] = []
        for text in texts:
            line = {"seq": len(self.logs) + 1, "work": work, "time": time.time(), "text": text}
            self.logs.append(line)
            lines.append(line)
        left, self.drop = lines[: self.drop], max(0, self.drop - len(lines))
        items: list[dict[str, Any]] = [{"t": "log", **line} for line in lines[len(left) :]]
        if left:
            items.insert(0, {"t": "log_gap", "after": left[0]["seq"] - 1, "before": left[-1]["seq"] + 1})
        for socket, wanted in self._clients.items():
            is_wanted = wanted["logs"] is True or work in (wanted["logs"] or [])
            told = [item for item in items if is_wanted or item["t"] == "log_gap"]
            if told:
                self._send(socket, {"type": "changes", "seq": self.seq, "items": told})

    def use(self, work: str, cpu: float, memory: int) -> None:
        """Send a sample of usage to pages that follow usage."""
        item = {"t": "usage", "work": work, "time": time.time(), "cpu": cpu, "memory": memory, "processes": 1}
        for socket, wanted in self._clients.items():
            if wanted["usage"]:
                self._send(socket, {"type": "changes", "seq": self.seq, "items": [item]})

    def tell(self, *items: dict[str, Any]) -> None:
        """Send changes to all pages, in one message with other changes of the same loop iteration."""
        if not self._pending and self._clients:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.extend(items)

    def _flush(self) -> None:
        items, self._pending = self._pending, []
        if not items:
            return
        self.seq += len(items)
        message = {"type": "changes", "seq": self.seq, "items": items}
        self._ring.append((self.seq, message))
        for socket in self._clients:
            self._send(socket, message)

    def _send(self, socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
        queue: asyncio.Queue[str] = self._clients[socket]["queue"]
        queue.put_nowait(json.dumps(message))

    # --- the server -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}/"

    async def open(self) -> None:
        """Start to listen, on the same port as before if it has listened before."""
        app = web.Application(middlewares=[self._guard])
        api = "/api/v1"
        app.add_routes(
            [
                web.get(f"{api}/feed", self._feed),
                web.get(f"{api}/app", self._get_app),
                web.post(f"{api}/app/stop", self._take),
                web.get(f"{api}/works/{{name}}", self._get_work),
                web.post(f"{api}/works/{{name}}/{{what:start|stop}}", self._take),
                web.get(f"{api}/works/{{name}}/calls", self._get_calls),
                web.post(f"{api}/works/{{name}}/calls", self._post_call),
                web.get(f"{api}/works/{{name}}/stack", self._get_stack),
                web.get(f"{api}/calls/{{id}}", self._get_call),
                web.post(f"{api}/calls/{{id}}/{{what:cancel|retry}}", self._post_to_call),
                web.get(f"{api}/state/{{name}}", self._get_state),
                web.patch(f"{api}/state/{{name}}", self._patch_state),
                web.get(f"{api}/logs", self._get_logs),
                web.get(f"{api}/timeline", self._get_timeline),
                web.get(f"{api}/runtimes", self._get_runtimes),
                web.post(f"{api}/schedules/trigger", self._take),
                web.get("/ui/{name}/", self._get_interface),
                web.get("/{path:.*}", self._get_page),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def cut(self) -> None:
        """Close all WebSockets, but continue to listen."""
        for socket in list(self._clients):
            await socket.close()

    async def aclose(self) -> None:
        """Stop listening."""
        await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.token is not None:
            if request.query.get("token") == self.token:
                answer = web.Response(status=303, headers={"Location": "./"})
                answer.set_cookie("token", self.token, httponly=True, samesite="Strict")
                return answer
            if request.cookies.get("token") != self.token and request.path.startswith("/api/"):
                return _problem(401, "unauthorized", "a token is needed")
        return await handler(request)

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        asked = Request("GET", request.rel_url.raw_path, headers=dict(request.headers))
        found = _PAGE.answer(asked, asked.path)
        if found is None:
            return _problem(404, "not_found", "there is nothing here")
        return web.Response(body=found.body, status=found.status, headers=dict(found.headers))

    async def _get_interface(self, request: web.Request) -> web.Response:
        return web.Response(text=f"<h1>interface of {request.match_info['name']}</h1>", content_type="text/html")

    async def _feed(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sender: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                said = message.json()
                if said["type"] == "hello":
                    queue: asyncio.Queue[str] = asyncio.Queue()
                    self._flush()
                    self._clients[socket] = {"logs": False, "usage": False, "queue": queue}
                    for answer in self._greeting(said.get("run"), said.get("last")):
                        self._send(socket, answer)
                    sender = asyncio.create_task(_pump(socket, queue))
                elif said["type"] == "follow":
                    self._clients[socket] |= {"logs": said["logs"], "usage": said["usage"]}
                else:
                    self._send(socket, {"type": "pong"})
        finally:
            self._clients.pop(socket, None)
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender])
        return socket

    def _greeting(self, run: str | None, last: int | None) -> Iterable[dict[str, Any]]:
        if run == self.run and last is not None:
            return [{"type": "resumed", "seq": last}, *(one for seq, one in self._ring if seq > last)]
        return [
            {
                "type": "snapshot", "seq": self.seq, "app": self.app_view(), "components": self.components(),
                "works": list(self.works.values()), "state": self.state(),
                "calls": [{k: v for k, v in one.items() if k not in ("args", "result")} for one in self.calls.values()],
                "layout": self.layout, "schedules": self.schedules,
            }
        ]  # fmt: skip

    async def _get_app(self, request: web.Request) -> web.Response:
        failed = [one for one in self.calls.values() if one["stage"] == "failed"]
        return web.json_response({**self.app_view(), "counts": {}, "failures": failed, "load": None})

    async def _take(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path, await request.json()))
        if request.path in self.refusals:
            return _problem(409, "conflict", self.refusals[request.path])
        if request.path.endswith("/stop") and "name" in request.match_info:
            self.change_work(request.match_info["name"], stage="stopped", pid=None)
        return web.json_response({}, status=202)

    async def _get_work(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.works:
            return _problem(404, "unknown_work", f"there is no work {name}")
        work = self.works[name]
        stages = ("started", "pending", work["stage"])
        status = {"reason": None, "message": None, "count": 1, "call": 1, "attempt": 1}
        statuses = [{"stage": one, "timestamp": work["since"] - 10 + at, **status} for at, one in enumerate(stages)]
        parameters = [
            {"name": "epochs", "type": "int", "required": True, "default": None},
            {"name": "lr", "type": "float", "required": False, "default": 0.1},
        ]
        process = {"attempt": 1, "pid": work["pid"], "host": "here", "started_at": work["since"]}
        more = {
            "statuses": statuses,
            "signature": "(epochs: int, lr: float = 0.1) -> float",
            "parameters": parameters,
            "attempts": [{**process, "ended_at": None, "message": None}],
            "state": {},
            "resources": {"cpus": 1},
        }
        return web.json_response({**work, **more})

    async def _get_calls(self, request: web.Request) -> web.Response:
        stage = request.query.get("stage")
        found = [one for one in reversed(self.calls.values()) if one["work"] == request.match_info["name"]]
        found = [one for one in found if not stage or one["stage"] == stage]
        return web.json_response({"items": found[: int(request.query["limit"])], "total": len(found)})

    async def _post_call(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append((request.method, request.path, body))
        id = max(self.calls, default=0) + 1
        self.call(id, request.match_info["name"], "pending", args=body["kwargs"])
        return web.json_response(self.calls[id], status=202)

    async def _get_call(self, request: web.Request) -> web.Response:
        found = self.calls.get(int(request.match_info["id"]))
        return web.json_response(found) if found else _problem(404, "unknown_call", "there is no such call")

    async def _post_to_call(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path, None))
        call = self.calls[int(request.match_info["id"])]
        if request.match_info["what"] == "cancel":
            self.call(call["id"], call["work"], "stopped", reason="cancelled", ended_at=time.time())
            return web.json_response({}, status=202)
        id = max(self.calls) + 1
        self.call(id, call["work"], "pending", args=call["args"])
        return web.json_response(self.calls[id], status=202)

    async def _get_stack(self, request: web.Request) -> web.Response:
        frames = [
            {"file": "/home/ada/sweep.py", "line": 12 + at, "function": name, "text": "self.loss = step(batch)"}
            for at, name in enumerate(("run", "train", "step"))
        ]
        threads = [{"name": "MainThread", "frames": frames}]
        tasks = [{"name": "lightwork agent", "frames": frames[:1]}]
        name = request.match_info["name"]
        return web.json_response({"work": name, "time": time.time(), "threads": threads, "tasks": tasks})

    async def _get_state(self, request: web.Request) -> web.Response:
        name, path = request.match_info["name"], json.loads(request.query["path"])
        return web.json_response({"component": name, "path": path, "value": self.vars[name].get(path[0])})

    async def _patch_state(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.match_info["name"]
        self.asked.append((request.method, request.path, body))
        if name in self.refusals:
            return _problem(409, "refused", self.refusals[name])
        for edit in body["edits"]:
            self.edit(name, edit["path"], edit["value"])
        return web.json_response({"applied": len(body["edits"])})

    async def _get_logs(self, request: web.Request) -> web.Response:
        works, query = request.query.getall("work", []), request.query
        found = [one for one in self.logs if not works or one["work"] in works]
        found = [one for one in found if query.get("search", "").lower() in one["text"].lower()]
        if "before" in query:
            found = [one for one in found if one["seq"] < int(query["before"])]
        if "after" in query:
            found = [one for one in found if one["seq"] > int(query["after"])]
        limit = int(query.get("tail") or query.get("limit") or 100)
        items = found[:limit] if "after" in query else found[-limit:]
        first, last = (items[0]["seq"], items[-1]["seq"]) if items else (0, 0)
        return web.json_response({"items": items, "first": first, "last": last, "more": len(found) > len(items)})

    async def _get_timeline(self, request: web.Request) -> web.Response:
        items = [{**one, "call": one["id"]} for one in self.calls.values()]
        return web.json_response({"items": items, "now": time.time()})

    async def _get_runtimes(self, request: web.Request) -> web.Response:
        item = {"profile": "local", "kind": "local", "works": len(self.works), "note": "processes of this machine"}
        return web.json_response({"items": [item]})


_PAGE = PageFiles(PAGE_FOLDER)

_STAGES = ["running", "succeeded", "running", "pending", "failed", "running", "stopped", "not_started", "started"]


async def _pump(socket: web.WebSocketResponse, queue: asyncio.Queue[str]) -> None:
    while True:
        text = await queue.get()
        try:
            await socket.send_str(text)
        except ConnectionError:
            return


def _problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "detail": None}}, status=status)


def fill(app: FakeApp) -> None:
    """Add examples of all kinds of data."""
    now = time.time()
    names = list(app.works)
    id = 0
    for number, name in enumerate(names[:60]):
        at = app.started + number * 0.7
        for _ in range(1 + number % 5):
            id += 1
            took = 3 + (id * 7 % 13)
            stage = "failed" if id % 11 == 5 else "succeeded"
            error = ERROR if stage == "failed" else None
            app.call(id, name, stage, submitted_at=at, started_at=at + 0.4 + number % 3, ended_at=at + took,
                     reason="user_exception" if error else None, message="ValueError: loss is nan" if error else None,
                     error=error, result=0.123 * id)  # fmt: skip
            at += took + 1
        if app.works[name]["stage"] == "running":
            id += 1
            app.call(id, name, "running", submitted_at=min(at, now - 2), started_at=min(at, now - 2) + 0.5)
    for name in names[:3]:
        app.log(name, *(f"epoch {epoch:3d}  loss {1 / (epoch + 1):.4f}  \x1b[32mok\x1b[0m" for epoch in range(40)))
    nightly = {"flow": "root", "key": "0 4 * * * sweep.py:31", "pattern": "0 4 * * *", "last": now - 4000}
    hourly = {"flow": "root", "key": "hourly nightly", "pattern": "hourly", "last": None}
    app.schedules = [{**nightly, "next": now + 4000, "is_true": False}, {**hourly, "next": now + 61, "is_true": True}]


TRACEBACK = """Traceback (most recent call last):
  File "/home/ada/sweep.py", line 31, in run
    self.loss = self.step(batch)
  File "/home/ada/sweep.py", line 44, in step
    raise ValueError("loss is nan")
ValueError: loss is nan
"""

ERROR = {"type": "ValueError", "message": "loss is nan", "traceback": TRACEBACK}


async def serve(works: int, port: int) -> None:
    """Serve a fake app whose numbers change, until it is interrupted."""
    app = FakeApp(works)
    app.port = port
    fill(app)
    await app.open()
    print(app.url, flush=True)
    step = 0
    while True:
        step += 1
        await asyncio.sleep(0.5)
        for number, name in enumerate(list(app.works)[:20]):
            app.edit(name, ["epoch"], step)
            app.edit(name, ["loss"], 1 / (1 + step / 20) + number / 50)
            app.use(name, 30 + number * 3 + step % 7, 80_000_000 + number * 1_000_000 + step * 10_000)
            if number < 3:
                app.log(name, f"step {step} loss {1 / (1 + step / 20):.4f}")


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
