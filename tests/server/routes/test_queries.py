"""Routes that read the app, its component tree, its works and their calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yarl

from lightwork import App
from lightwork.server.types import AppDetail, CallsPage, ComponentsPage, WorkDetail, WorksPage
from tests.server.support import Root, Worker, serving

pytestmark = pytest.mark.bare


async def test_app() -> None:
    """The view of the app has its facts and the number of works by stage."""
    async with serving() as client:
        app = msgspec.convert(await client.get("/app"), AppDetail)
        assert (app.root, app.stage, app.runtime, app.counts) == ("Root", "running", "inprocess", {"not_started": 1})
        assert app.url == client.app.url
        assert app.file == str(Path(__file__).parents[1] / "support.py")


async def test_embedded_app_opens_no_port() -> None:
    """An embedded app does not listen for HTTP by default."""
    async with App(Root(work=Worker()), runtime="inprocess") as app:
        assert app.url is None


async def test_taken_port() -> None:
    """If the default port is in use, the next free port is used."""
    async with serving(http_port=7501) as first, serving(http_port=7501) as second:
        assert first.app.url != second.app.url
        assert (await second.get("/app"))["url"] == second.app.url


async def test_components() -> None:
    """All components are listed, parents first, with the names of their children."""
    async with serving(root=Root(inner=Root(work=Worker()), trials=[Worker(), Worker()])) as client:
        found = msgspec.convert(await client.get("/components"), ComponentsPage)
        assert [one.name for one in found.items] == [
            "root", "root.inner", "root.inner.work", "root.trials.0", "root.trials.1",
        ]  # fmt: skip
        assert found.items[0].children == ["root.inner", "root.trials.0", "root.trials.1"]
        assert found.total == 5


async def test_works_are_filtered_sorted_and_paged() -> None:
    """Works are filtered by stage and pattern, sorted, and returned in pages with the total."""
    async with serving(root=Root(trials=[Worker() for _ in range(5)], other=Worker())) as client:
        await client.app.works[2].submit("echo", 1)
        chosen = msgspec.convert(await client.get("/works?stage=succeeded"), WorksPage)
        assert [work.name for work in chosen.items] == ["root.trials.2"]
        chosen = msgspec.convert(await client.get("/works?match=root.t*&sort=-name&limit=2&offset=1"), WorksPage)
        assert ([work.name for work in chosen.items], chosen.total) == (["root.trials.3", "root.trials.2"], 5)


async def test_work() -> None:
    """The details of a work have its signature, statuses, attempts, state and counts of calls."""
    async with serving() as client:
        await client.app.works[0].submit("echo", 1)
        work = msgspec.convert(await client.get("/works/root.work"), WorkDetail)
        assert work.calls.succeeded == 1
        assert [parameter.name for parameter in work.parameters] == ["what", "value"]
        assert work.signature.startswith("(what: str = 'nothing', value")
        assert [status.stage.value for status in work.statuses] == ["pending", "started", "running", "succeeded"]
        assert work.attempts[0].pid == work.pid
        assert work.state["vars"]["table"] == {"$dict": [["a", {"b": [1]}], [7, "seven"]]}
        assert work.state["vars"]["tags"] == {"$set": ["x"]}


async def test_calls() -> None:
    """A call has its arguments by name, its result, and its error with the remote traceback."""
    async with serving() as client:
        work = client.app.works[0]
        await work.submit("echo", {"a": b"1"})
        failed = work.submit("fail", 1)
        with pytest.raises(ValueError, match="no: 1"):
            await failed
        await work.submit("echo", {"a": b"1"})
        page = msgspec.convert(await client.get("/works/root.work/calls"), CallsPage)
        third, second, first = page.items
        assert first.args == {"what": "echo", "value": {"a": {"$bytes": 1, "preview": "MQ=="}}}
        assert second.error is not None
        assert (second.error.type, second.error.message) == ("ValueError", "no: 1")
        assert "do_fail" in second.error.traceback
        assert (third.cached, third.stage.value, third.result) == (True, "succeeded", first.result)
        assert [one["id"] for one in (await client.get("/app"))["failures"]] == [second.id]
        assert (await client.get(f"/calls/{first.id}"))["hash"] == first.hash
        assert (await client.get("/calls?stage=failed"))["total"] == 1
        assert len((await client.get("/timeline"))["items"]) == 3


async def test_joined_calls_are_counted() -> None:
    """A call that equals one in flight joins it and is counted as joined."""
    async with serving() as client:
        work = client.app.works[0]
        calls = [work.submit("until_go") for _ in range(3)]
        assert (await client.get("/calls"))["items"][0]["joined"] == 2
        work.go = True  # type: ignore[attr-defined]
        await calls[0]
        assert (await client.get("/works/root.work"))["calls"]["succeeded"] == 1


async def test_large_values_are_cut() -> None:
    """A result beyond 8 kB is replaced by its size and its beginning."""
    async with serving() as client:
        await client.app.works[0].submit("echo", "x" * 100_000)
        result = (await client.get("/calls/1"))["result"]
        assert result["$cut"] > 100_000
        assert result["preview"].startswith("xxx")


@pytest.mark.parametrize(
    ("path", "value"),
    [("title", "one"), ("numbers.1", 2), ('["numbers",0]', 1), ("numbers", [1, 2])],
)
async def test_state_at(path: str, value: Any) -> None:
    """A path reads a part of the state."""
    async with serving() as client:
        assert (await client.get("/state/root", params={"path": path}))["value"] == value


async def test_state_of_the_tree() -> None:
    """The state of the root contains the states below it, down to the requested depth."""
    async with serving() as client:
        whole = (await client.get("/state"))["state"]
        assert whole["works"]["work"]["vars"]["n"] == 0
        assert (await client.get("/state?depth=0"))["state"]["vars"]["title"] == "one"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "not_found"),
        ("/works/root.none", 404, "unknown_work"),
        ("/works/root", 404, "unknown_work"),
        ("/works/%ff", 404, "not_found"),
        ("/works/..%2f..%2fetc%2fpasswd", 404, "unknown_work"),
        ("/state?component=root.none", 404, "unknown_component"),
        ("/state/root?path=none.x", 404, "unknown_path"),
        ("/state/root?path=[1", 400, "bad_request"),
        ("/state/root?path=__class__", 404, "unknown_path"),
        ("/calls/1", 404, "unknown_call"),
        ("/calls/-1", 404, "unknown_call"),
        ("/calls/99999999999999999999999999", 404, "unknown_call"),
        ("/works?limit=0", 400, "bad_request"),
        ("/works?limit=many", 400, "bad_request"),
        ("/works?offset=-1", 400, "bad_request"),
        ("/works?stage=happy", 400, "bad_request"),
        ("/timeline?since=x", 400, "bad_request"),
    ],
)
async def test_bad_requests(path: str, status: int, code: str) -> None:
    """A request that cannot be answered gets a JSON error with a code."""
    async with serving() as client:
        async with client.session.get(yarl.URL(f"{client.base}/api/v1{path}", encoded=True)) as answer:
            body = msgspec.json.decode(await answer.read())
        assert (answer.status, body["error"]["code"]) == (status, code)


async def test_wrong_method() -> None:
    """A method that a path does not support is refused, and ``Allow`` names the supported ones."""
    async with serving() as client, client.session.delete(f"{client.base}/api/v1/works") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
