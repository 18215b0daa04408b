"""Routes that act: edits of state, starts, stops, calls, cancels, retries."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

from lightwork import Flow
from lightwork.engine.engine import Engine
from lightwork.errors import FlowFailed, ProposalRefused
from tests.server.support import Root, Stubborn, serving

pytestmark = pytest.mark.bare


async def test_edit_a_flow() -> None:
    """Attributes, items and keys are set, appended and deleted, in order."""
    async with serving() as client:
        edits = [
            {"path": ["title"], "value": "two"},
            {"path": ["numbers", 0], "value": 9},
            {"path": ["numbers", 2], "value": 3},
            {"path": ["numbers", 1], "delete": True},
        ]
        assert await client.ask("PATCH", "/state/root", {"edits": edits}) == (200, {"applied": 4})
        root = client.app.root
        assert (root.title, list(root.numbers)) == ("two", [9, 3])


async def test_edits_build_on_each_other() -> None:
    """An edit can change a value that an earlier edit of the same request has set."""
    async with serving() as client:
        edits = [{"path": ["numbers"], "value": []}, {"path": ["numbers", 0], "value": 1}]
        await client.ask("PATCH", "/state/root", {"edits": edits})
        assert list(client.app.root.numbers) == [1]


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_edit_a_running_work(runtime: str) -> None:
    """A running work has accepted the edit when the answer arrives, and sees it."""
    async with serving(runtime) as client:
        call = client.app.works[0].submit("until_go")
        await client.app.wait_for(lambda: client.app.works[0].is_running)
        body = {"edits": [{"path": ["go"], "value": True}, {"path": ["tags"], "value": {"$set": ["a", 1]}}]}
        assert (await client.ask("PATCH", "/state/root.work", body))[0] == 200
        assert await call == "gone"
        assert client.app.works[0].state["vars"]["tags"] == {"a", 1}


async def test_edit_that_a_work_refuses() -> None:
    """The client gets a refusal as 409; the state is unchanged, and the app keeps running."""
    async with serving(root=Root(work=Stubborn())) as client:
        await client.app.works[0].submit("echo", 1)
        status, body = await client.ask("PATCH", "/state/root.work", {"edits": [{"path": ["n"], "value": 5}]})
        assert (status, body["error"]["code"]) == (409, "refused")
        assert "not today" in body["error"]["message"]
        assert client.app.works[0].state["vars"]["n"] == 0
        assert (await client.get("/app"))["stage"] == "running"


async def test_refusals_of_the_flow_stay_the_flows() -> None:
    """A refused change by the flow fails the app, even while a client waits for its own edit."""

    async def use() -> None:
        async with serving(root=Root(work=Stubborn())) as client:
            await client.app.works[0].submit("echo", 1)
            client.app.works[0].n = 1  # type: ignore[attr-defined]
            await client.ask("PATCH", "/state/root.work", {"edits": [{"path": ["n"], "value": 5}]})
            await client.app.wait_stopped()

    with pytest.raises(ProposalRefused, match="refused a change of its state"):
        await use()


@pytest.mark.parametrize(
    ("edits", "code"),
    [
        ([{"path": ["none"], "value": 1}], "unknown_path"),
        ([{"path": ["_progress"], "value": 1}], "unknown_path"),
        ([{"path": ["__class__"], "value": 1}], "unknown_path"),
        ([{"path": ["run"], "value": 1}], "unknown_path"),
        ([{"path": ["title", "x"], "value": 1}], "unknown_path"),
        ([{"path": ["numbers", 7], "value": 1}], "unknown_path"),
        ([{"path": ["numbers", -1], "value": 1}], "unknown_path"),
        ([{"path": ["numbers", 2], "delete": True}], "unknown_path"),
        ([{"path": [["a"]], "value": 1}], "bad_request"),
        ([{"path": [], "value": 1}], "bad_request"),
        ([{"path": ["title"]}], "bad_request"),
        ([{"path": ["title"], "value": 1, "delete": True}], "bad_request"),
        ([{"path": ["title"], "value": {"$float": "x"}}], "bad_request"),
        ([{"path": ["title"], "value": {"$cut": 9, "preview": ""}}], "bad_request"),
        ([{"path": ["title"], "value": 2**70}], "bad_request"),
        ([], "bad_request"),
        ("x", "bad_request"),
    ],
)
async def test_edits_that_cannot_be_made(edits: Any, code: str) -> None:
    """If one edit is invalid, no edit of the request is made."""
    async with serving() as client:
        if isinstance(edits, list) and edits:
            edits = [{"path": ["numbers", 0], "value": 77}, *edits]
        status, body = await client.ask("PATCH", "/state/root", {"edits": edits})
        assert (body["error"]["code"], status) == (code, 404 if code == "unknown_path" else 400)
        assert list(client.app.root.numbers) == [1, 2]
        assert client.app.root.title == "one"


async def test_start_and_stop() -> None:
    """A work is started and stopped; with ``wait`` the answer waits for the end of the operation."""
    async with serving() as client:
        assert await client.ask("POST", "/works/root.work/start") == (202, {"accepted": True})
        status, work = await client.ask("POST", "/works/root.work/start?wait=1")
        assert (status, work["stage"]) == (200, "started")
        status, work = await client.ask("POST", "/works/root.work/stop?wait=1")
        assert (status, work["stage"], work["pid"]) == (200, "stopped", None)


async def test_stop_of_a_work_that_the_flow_has_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unclaimed work is listed with the app, and a stop abandons it."""
    left = ["root.extra"]

    def give_up(engine: Engine, name: str) -> bool:
        was_there = name in left
        left[:] = [one for one in left if one != name]
        return was_there

    monkeypatch.setattr(Engine, "unclaimed", left)
    monkeypatch.setattr(Engine, "give_up", give_up)
    async with serving() as client:
        assert (await client.get("/app"))["unclaimed"] == ["root.extra"]
        assert await client.ask("POST", "/works/root.extra/stop?wait=1") == (202, {"accepted": True})
        assert (await client.get("/app"))["unclaimed"] == []
        assert (await client.ask("POST", "/works/root.extra/stop"))[0] == 404
        assert (await client.ask("POST", "/works/root.work/stop"))[0] == 202


async def test_call() -> None:
    """A call takes positional and keyword arguments, and the answer waits for its result."""
    async with serving() as client:
        body = {"args": ["echo"], "kwargs": {"value": {"$dict": [[1, "x"]]}}}
        status, call = await client.ask("POST", "/works/root.work/calls?wait=30", body)
        assert (status, call["stage"], call["result"]) == (200, "succeeded", {"$dict": [[1, "x"]]})


async def test_call_that_takes_longer() -> None:
    """A call that has not ended within ``wait`` is answered with 202; a second cancel of it is a conflict."""
    async with serving() as client:
        status, call = await client.ask("POST", "/works/root.work/calls?wait=0.01", {"args": ["until_go"]})
        assert status == 202
        assert await client.ask("POST", f"/calls/{call['id']}/cancel") == (202, {"accepted": True})
        await client.app.wait_for(lambda: client.app.works[0].has_stopped)
        status, body = await client.ask("POST", f"/calls/{call['id']}/cancel")
        assert (status, body["error"]["code"]) == (409, "conflict")


async def test_failed_call_does_not_fail_the_app() -> None:
    """The client gets the error of its call, and the app keeps running; a retry is a new call with equal arguments."""
    async with serving() as client:
        status, call = await client.ask("POST", "/works/root.work/calls?wait=30", {"args": ["fail", 7]})
        assert (status, call["stage"], call["error"]["message"]) == (200, "failed", "no: 7")
        status, again = await client.ask("POST", f"/calls/{call['id']}/retry?wait=30")
        assert (again["args"], again["stage"]) == (call["args"], "failed")
        assert again["id"] != call["id"]
        assert (await client.get("/app"))["stage"] == "running"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"args": [1, 2, 3]}, "bad_request"),
        ({"args": [1]}, "bad_request"),
        ({"kwargs": {"nothing": 1}}, "bad_request"),
        ({"args": "x"}, "bad_request"),
        ({"arguments": []}, "bad_request"),
        ([], "bad_request"),
    ],
)
async def test_wrong_arguments(body: Any, code: str) -> None:
    """Arguments that do not match the signature are refused, and no call is queued."""
    async with serving() as client:
        status, answer = await client.ask("POST", "/works/root.work/calls", body)
        assert (status, answer["error"]["code"]) == (400, code)
        assert (await client.get("/calls"))["total"] == 0


async def test_stop_the_app() -> None:
    """The app stops gracefully, with the message of the request."""
    async with serving() as client:
        assert (await client.ask("POST", "/app/stop", {"message": "enough"}))[0] == 202
        await client.app.wait_stopped()
        assert client.app.stop_message == "enough"


class Ticking(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.has_asked = False

    async def run(self) -> None:
        if self.schedule("0 0 1 1 *", user_key="new year"):
            self.fail("happy new year")
        self.has_asked = True


async def test_schedules() -> None:
    """Schedules are listed, and a triggered schedule fires."""

    async def use() -> None:
        async with serving(root=Ticking()) as client:
            await client.app.wait_for(lambda: client.app.root.has_asked)
            (schedule,) = (await client.get("/schedules"))["items"]
            status, _ = await client.ask("POST", "/schedules/trigger", {"flow": "root", "key": "none"})
            assert status == 404
            body = {"flow": "root", "key": schedule["key"]}
            assert (await client.ask("POST", "/schedules/trigger", body))[0] == 202
            await client.app.wait_stopped()

    with pytest.raises(FlowFailed, match="happy new year"):
        await use()


@pytest.mark.parametrize("body", [b"{", b"\x80\x04\x95", b"nan", b"[" * 100_000, b'"\xff"', b"\x00"])
async def test_broken_json(body: bytes) -> None:
    """A body that is not JSON, such as a pickle, is refused and has no effect."""
    async with serving() as client:
        for method, path in (("PATCH", "/state/root"), ("POST", "/works/root.work/calls"), ("POST", "/app/stop")):
            url = f"{client.base}/api/v1{path}"
            async with client.session.request(method, url, data=body) as answer:
                assert answer.status == 400
                assert (await answer.json())["error"]["code"] in ("bad_json", "bad_request")
        assert (await client.get("/app"))["stage"] == "running"


async def test_large_body() -> None:
    """A body beyond the limit is refused, with and without a ``Content-Length``."""

    async def pieces() -> Any:
        for _ in range(80):
            yield b" " * 65536

    async with serving() as client:
        for data in (BytesIO(b" " * 5_000_000), pieces()):
            async with client.session.post(f"{client.base}/api/v1/app/stop", data=data) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")
        assert not client.app._running().stopped.is_set()
