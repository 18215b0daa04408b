"""Routes and commands that the app defines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from lightwork import App, Flow
from lightwork.api import Command, Delete, Get, HttpMethod, Post, Put
from lightwork.errors import UsageError
from tests.server.support import Root, Worker, serving

pytestmark = pytest.mark.bare


@dataclass
class Point:
    x: int
    y: int = 0


class Own(Root):
    """Defines routes and commands of each kind."""

    def __init__(self, **works: Any) -> None:
        super().__init__(**works)
        self.log: list[Any] = []
        self.table: dict[str, Any] = {"a": [1]}

    def add(self, n: int, name: str = "x") -> dict[str, Any]:
        """Add a number."""
        self.log.append(n)
        return {"n": n, "name": name}

    async def point(self, point: Point) -> int:
        self.log.append([point.x, point.y])
        return point.x + point.y

    def half(self, n: int) -> None:
        self.title = "half"
        self.log.append(n)
        self.table["a"].append(2)
        raise ValueError("no")

    async def half_async(self, n: int) -> None:
        self.half(n)

    async def touch_work(self) -> None:
        self.work.n = 5  # type: ignore[attr-defined]
        raise ValueError("no")

    async def call(self, value: int) -> Any:
        return await self.work.submit("echo", value)  # type: ignore[attr-defined]

    def configure_api(self) -> list[Any]:
        return [
            Get("/api/add/{n}", self.add),
            Post("/api/add", self.add),
            Post("/api/point", self.point),
            Put("/api/half", self.half),
            Put("/api/half_async", self.half_async),
            Delete("/api/work", self.touch_work),
            Post("/api/call", self.call),
        ]

    def configure_commands(self) -> list[Any]:
        return [{"add": self.add}, Command("call", self.call, help="Calls."), Command("half", self.half)]


async def ask(client: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else msgspec.json.encode(body)
    async with client.session.request(method, f"{client.base}{path}", data=data) as answer:
        return answer.status, await answer.json()


async def test_routes() -> None:
    """Plain and async handlers get values from path, query and body, converted to their annotations."""
    async with serving(root=Own(work=Worker())) as client:
        assert await ask(client, "GET", "/api/add/3?name=y") == (200, {"n": 3, "name": "y"})
        assert await ask(client, "POST", "/api/add", {"n": 4}) == (200, {"n": 4, "name": "x"})
        assert await ask(client, "POST", "/api/point", {"x": 1, "y": 2}) == (200, 3)
        assert await ask(client, "POST", "/api/call", {"value": 7}) == (200, 7)
        assert client.app.root.state["vars"]["log"] == [3, 4, [1, 2]]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/add/x", None, 400),
        ("POST", "/api/add", {"n": "4"}, 400),
        ("POST", "/api/add", {"m": 4}, 400),
        ("POST", "/api/add", [], 400),
        ("POST", "/api/point", {"x": "a"}, 400),
        ("GET", "/api/point", None, 405),
        ("GET", "/api/none", None, 404),
    ],
)
async def test_requests_that_do_not_fit(method: str, path: str, body: Any, status: int) -> None:
    """A request that does not match a handler's signature is refused, and the handler is not called."""
    async with serving(root=Own(work=Worker())) as client:
        assert (await ask(client, method, path, body))[0] == status
        assert client.app.root.state["vars"]["log"] == []


@pytest.mark.parametrize("path", ["/api/half", "/api/half_async"])
async def test_exception_leaves_no_half_of_a_change(path: str) -> None:
    """If a handler raises, its changes are rolled back, in containers too; the feed sends the rollback."""
    async with serving(root=Own(work=Worker())) as client, client.feed() as feed:
        before = client.app.root.state["vars"]
        await feed.next()
        status, body = await ask(client, "PUT", path, {"n": 1})
        assert (status, body["error"]["code"], body["error"]["message"]) == (500, "internal", "ValueError: no")
        assert client.app.root.state["vars"] == before
        assert client.app.root._state.guard is None
        await feed.until(t="state", path=["title"], value="one")


async def test_exception_takes_back_changes_of_works() -> None:
    """If a handler raises, its changes of a running work are rolled back by a second proposal."""
    async with serving(root=Own(work=Worker())) as client:
        work = client.app.works[0]
        await work.submit("echo", 1)
        assert (await ask(client, "DELETE", "/api/work"))[0] == 500
        await work.wait_confirmed()
        assert work.state["vars"]["n"] == 0
        assert await work.submit("count", 1) == 1


async def test_commands() -> None:
    """Commands are listed with help and parameters, and can be run."""
    async with serving(root=Own(work=Worker())) as client:
        found = {one["name"]: one for one in (await client.get("/commands"))["items"]}
        assert found["add"]["help"] == "Add a number."
        assert found["add"]["parameters"][0] == {"name": "n", "type": "int", "required": True, "default": None}
        assert await client.ask("POST", "/commands/add", {"kwargs": {"n": 1}}) == (
            200,
            {"result": {"n": 1, "name": "x"}},
        )
        assert await client.ask("POST", "/commands/call", {"kwargs": {"value": 2}}) == (200, {"result": 2})
        for name, kwargs, code in (
            ("none", {}, "unknown_command"),
            ("add", {}, "bad_request"),
            ("add", {"n": "x"}, "bad_request"),
            ("half", {"n": 1}, "internal"),
        ):
            _, body = await client.ask("POST", f"/commands/{name}", {"kwargs": kwargs})
            assert body["error"]["code"] == code
        assert client.app.root.title == "one"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: [Get("/api/v1/app", print)], "are reserved"),
        (lambda: [Get("/", print)], "are reserved"),
        (lambda: [Get("/api/x", print), Get("/api/x/", print)], "already exists"),
        (lambda: [("/api/x", print)], "must return a list of Get"),
        (lambda: [HttpMethod("/api/x", print)], "must return a list of Get"),
        (lambda: {"/api/x": print}, "must return a list, got"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
    ],
)
async def test_wrong_configure_api(given: Callable[[], Any], message: str) -> None:
    """An invalid, duplicate or reserved route is an error at the start of the app."""

    class Wrong(Flow):
        async def run(self) -> None: ...

        def configure_api(self) -> Any:
            return given()

    with pytest.raises(UsageError, match=message):
        async with App(Wrong(), http=True, http_port=0, runtime="inprocess"):
            raise AssertionError("it started")


def test_wrong_routes_and_commands() -> None:
    """A route must begin with a slash, a command must be a word, and both need a function."""
    for make in (
        lambda: Get("x", print),
        lambda: Get("/x", 3),  # type: ignore[arg-type]
        lambda: Command("a b", print),
        lambda: Command("-a", print),
        lambda: Command("a", None),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError):
            make()
