from __future__ import annotations

from typing import Any

import pytest

from tests.cli.fake_server import FakeServer
from tests.cli.invoke import invoke


def work(name: str, stage: str, **fields: Any) -> dict[str, Any]:
    return {"t": "work", "name": name, "type": "Train", "stage": stage, **fields}


@pytest.fixture
def two_works(server: FakeServer) -> FakeServer:
    server.add_work("root.a", "running", calls={"running": 1})
    server.add_work("root.b", "pending", calls={"pending": 1})
    server.add_call(1, "root.a", "succeeded")
    server.add_call(2, "root.b", "succeeded")
    return server


def test_works_are_waited_for_until_nothing_is_left_to_do(two_works: FakeServer) -> None:
    """A work with queued calls is not done in any stage. The exit code is 0 if the latest call of each succeeded."""
    two_works.on_feed = lambda _: [
        [work("root.a", "succeeded", calls={"pending": 1})],
        [work("root.a", "running", calls={"running": 1}), work("root.b", "succeeded")],
        [work("root.a", "stopped")],
    ]
    done = invoke("wait", "a", "root.b")
    assert done.code == 0
    assert done.out.splitlines() == ["root.b succeeded", "root.a succeeded"]


def test_a_call_that_failed_gives_1(two_works: FakeServer) -> None:
    """The latest call decides the exit code, even if the process ended gracefully afterwards."""
    two_works.add_call(3, "root.a", "failed", error={"type": "ValueError", "message": "bad"})
    two_works.on_feed = lambda _: [[work("root.a", "stopped")]]
    done = invoke("wait", "a", "-o", "json")
    assert done.code == 1
    assert done.json == {
        "ok": False,
        "timed_out": False,
        "items": [{"what": "root.a", "stage": "failed", "ok": False, "message": "bad"}],
    }


def test_a_stage_can_be_waited_for(two_works: FakeServer) -> None:
    """With --for the command waits until the work reaches that stage."""
    two_works.on_feed = lambda _: [[work("root.b", "running", calls={"running": 1})]]
    assert invoke("wait", "b", "--for", "running").out == "root.b running\n"


def test_time_that_is_up_gives_124(two_works: FakeServer) -> None:
    """After the time limit the exit code is 124, and the message names the works that are not done."""
    two_works.ends = False
    two_works.on_feed = lambda _: [[work("root.b", "succeeded")]]
    done = invoke("wait", "*", "--timeout", "1")
    assert done.code == 124
    assert done.out == "root.b succeeded\n"
    assert done.err == "Error: 1 s have passed, still waiting for: root.a\n"


def test_calls_are_waited_for(server: FakeServer) -> None:
    """A number selects a call. It is requested when the feed begins, and at each event of the feed about it."""
    server.add_call(7, "root.a", "running")
    server.add_call(8, "root.a", "succeeded")

    def batches(_: int) -> list[list[dict[str, Any]]]:
        server.add_call(7, "root.a", "succeeded")
        return [[{"t": "call", "id": 7, "work": "root.a", "stage": "succeeded"}]]

    server.on_feed = batches
    assert sorted(invoke("wait", "7", "8").out.splitlines()) == ["call 7 succeeded", "call 8 succeeded"]
    assert invoke("wait", "9").code == 4


def test_the_end_of_the_app(two_works: FakeServer) -> None:
    """Without a name the command waits for the end of the app. A work that is not done then exits with code 1."""
    two_works.on_feed = lambda _: [[{"t": "app", "stop_message": "enough", "stage": "stopping"}]]
    assert invoke("wait").out == "app ended: enough\n"
    error = {"type": "ValueError", "message": "no data", "traceback": ""}
    two_works.on_feed = lambda _: [[{"t": "app", "stop_message": None, "stage": "stopping", "error": error}]]
    done = invoke("wait")
    assert (done.code, done.out) == (1, "app failed: ValueError: no data\n")
    done = invoke("wait", "a")
    assert done.code == 1
    assert "the app ended too early, still waiting for: root.a" in done.err


def test_what_is_not_there_gives_4(two_works: FakeServer) -> None:
    """An unknown work and a pattern that matches no work are errors."""
    assert invoke("wait", "c").code == 4
    assert "no work matches 'root.c.*'" in invoke("wait", "c.*").err
