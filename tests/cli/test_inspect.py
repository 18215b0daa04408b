from __future__ import annotations

import msgspec

from tests.cli.fake_server import FakeServer
from tests.cli.invoke import invoke

ERROR = {"type": "ValueError", "message": "bad", "traceback": "Traceback ...\nValueError: bad\n"}


def test_a_work(server: FakeServer) -> None:
    """A work is shown with its process, its state, its statuses and its latest calls."""
    server.add_work(
        "root.train",
        "failed",
        reason="user_exception",
        message="ValueError: bad",
        pid=12,
        hostname="far",
        signature="(epochs: int = 10) -> float",
        state={"vars": {"lr": 0.5, "_private": 1}},
        statuses=[{"stage": "running", "timestamp": 1.0, "call": 3}],
        attempts=[{"attempt": 1, "pid": 11, "message": "killed by SIGKILL"}, {"attempt": 2, "pid": 12}],
    )
    server.add_call(3, "root.train", "failed", error=ERROR)
    done = invoke("inspect", "train")
    assert done.code == 0
    lines = {tuple(line.split()) for line in done.out.splitlines()}
    assert ("class", "Train.run(epochs:", "int", "=", "10)", "->", "float") in lines
    assert ("process", "12", "on", "far") in lines
    assert ("lr", "0.5") in lines
    assert "_private" not in done.out
    assert "killed by SIGKILL" in done.out
    assert "ValueError: bad" in done.out
    found = invoke("inspect", "root.train", "-o", "json").json
    assert found["name"] == "root.train"
    assert [call["id"] for call in found["latest_calls"]] == [3]


def test_a_call(server: FakeServer) -> None:
    """A number selects a call. It is shown with its arguments and its result or the worker's traceback."""
    server.add_call(3, "root.train", "failed", error=ERROR, args={"epochs": 10})
    server.add_call(4, "root.train", "succeeded", result=[1, 2], cached=True)
    done = invoke("inspect", "3")
    assert '{"epochs": 10}' in done.out
    assert "Traceback ...\nValueError: bad" in done.out
    assert "[1, 2]" in invoke("inspect", "4").out
    assert invoke("inspect", "4", "-o", "json").json["result"] == [1, 2]


def test_a_flow_and_the_app(server: FakeServer) -> None:
    """A flow is shown with its children and its state. Without a name the app itself is shown."""
    server.add_work("root.train")
    server.states["root"] = {"best": None, "losses": [0.5] * 1000}
    done = invoke("inspect", "root")
    assert ["works", "train"] in [line.split() for line in done.out.splitlines()]
    assert ["best", "null"] in [line.split() for line in done.out.splitlines()]
    assert max(map(len, done.out.splitlines())) < 400
    assert "... (5,000 characters)" in done.out
    server.app = msgspec.structs.replace(server.app, counts={"running": 1, "failed": 0}, unclaimed=["root.extra"])
    done = invoke("inspect")
    assert ["not", "made", "again", "root.extra"] in [line.split() for line in done.out.splitlines()]
    assert ["works", "1", "running"] in [line.split() for line in done.out.splitlines()]
    assert invoke("inspect", "-o", "json").json["run"] == "r-1234"


def test_what_is_not_there_gives_4(server: FakeServer) -> None:
    """An unknown name and an unknown call exit with code 4 and the message of the app."""
    done = invoke("inspect", "trian")
    assert done.code == 4
    assert "there is no work 'root.trian'" in done.err
    assert invoke("inspect", "99").code == 4
