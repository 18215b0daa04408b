from __future__ import annotations

from typing import Any

import pytest

from lightwork.cli.state import change_text
from tests.cli.fake_server import FakeServer, Refused
from tests.cli.invoke import invoke


@pytest.fixture
def app(server: FakeServer) -> FakeServer:
    server.add_work("root.train")
    server.add_work("root.trials.0")
    server.states["root.train"] = {
        "lr": 0.5,
        "name": "first",
        "losses": [4.0, 2.0],
        "table": {"a": {"b": 1}, "7": "seven"},
        "big": {"$cut": 100000, "preview": "["},
        "_hidden": 1,
    }
    server.states["root"] = {"best": None}
    return server


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("root.train.lr", "0.5\n"),
        ("train.name", "first\n"),
        ("train.losses.1", "2.0\n"),
        ("train.table.a.b", "1\n"),
        ("train.table.7", "seven\n"),
        ("train.losses", "[\n  4.0,\n  2.0\n]\n"),
        ("root.best", "null\n"),
        ("root", '{\n  "best": null\n}\n'),
    ],
)
def test_get_finds_what_a_name_means(app: FakeServer, name: str, shown: str) -> None:
    """A name is the longest matching component, then keys and indices. Text is printed unchanged, the rest as JSON."""
    assert invoke("state", "get", name).out == shown


def test_get_gives_a_document(app: FakeServer) -> None:
    """With -o json the output is one document with the component, the path and the value."""
    expected = {"component": "root.train", "path": ["losses", 1], "value": 2.0}
    assert invoke("state", "get", "train.losses.1", "-o", "json").json == expected


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("train.losess", "did you mean losses?"),
        ("trian", "did you mean train"),
        ("train.losses.2", "a list of 2 items: the index must be from 0 to 1, got '2'"),
        ("train.lr.x", "root.train.lr is 0.5, which has no items"),
        ("train._hidden", "root.train has no '_hidden'"),
    ],
)
def test_what_is_not_there_gives_4(app: FakeServer, name: str, says: str) -> None:
    """An unknown name exits with code 4, and the message says what exists."""
    done = invoke("state", "get", name)
    assert done.code == 4
    assert says in done.err


def test_set_takes_the_type_that_is_there(app: FakeServer) -> None:
    """Values take the present type, edits of a component are one request, and a key or a last item may be new."""
    done = invoke("state", "set", "train.lr=1", "train.name=5", "train.losses.2=8", "train.table.c=[1]", "root.best=x")
    assert done.code == 0, done.err
    assert app.orders == [
        'PATCH /state/root.train {"edits":[{"path":["lr"],"value":1.0},{"path":["name"],"value":"5"},'
        '{"path":["losses",2],"value":8},{"path":["table","c"],"value":[1]}]}',
        'PATCH /state/root {"edits":[{"path":["best"],"value":"x"}]}',
    ]
    found = invoke("state", "set", "train.lr=1", "-o", "json").json
    assert found == {"items": [{"component": "root.train", "path": ["lr"], "value": 1.0}]}


@pytest.mark.parametrize(
    ("setting", "code", "says"),
    [
        ("train.lr=fast", 2, "must be a float like 0.5, got 'fast'"),
        ("train.lr", 2, "NAME=VALUE"),
        ("train=1", 2, "is a component"),
        ("train.lrr=1", 4, "did you mean lr?"),
        ("train.losses.9=1", 4, "the index must be from 0 to 2, got '9'"),
    ],
)
def test_nothing_is_set_where_one_is_wrong(app: FakeServer, setting: str, code: int, says: str) -> None:
    """An invalid setting prevents all settings of the command."""
    done = invoke("state", "set", "root.best=1", setting)
    assert done.code == code
    assert says in done.err
    assert app.orders == []


def test_a_refusal_gives_1(app: FakeServer) -> None:
    """The message of a work that refuses is shown."""
    app.refusals["/state/root.train"] = Refused("refused", "lr is mine", 409)
    done = invoke("state", "set", "train.lr=1")
    assert done.code == 1
    assert done.err == "Error: lr is mine\n"


def change(name: str, path: list[Any], kind: str, value: Any) -> dict[str, Any]:
    return {"t": "state", "name": name, "path": path, "kind": kind, "value": value}


def test_watch_prints_each_change_in_there(app: FakeServer) -> None:
    """Each change in a component or at a path is printed on one line, until the app ends."""
    app.on_feed = lambda _: [
        [change("root.train", ["lr"], "set", 1), change("root.train", ["losses"], "splice", [1, 1, [8.0]])],
        [change("root.trials.0", ["x"], "set", "y"), change("root", ["best"], "delete", None)],
    ]
    done = invoke("state", "watch")
    assert done.out.splitlines() == [
        "root.train.lr = 1",
        "root.train.losses[1:2] = [8.0]",
        'root.trials.0.x = "y"',
        "del root.best",
    ]
    assert len(invoke("state", "watch", "root").out.splitlines()) == 4
    assert len(invoke("state", "watch", "train").out.splitlines()) == 2
    assert invoke("state", "watch", "train.losses.1").out == "root.train.losses[1:2] = [8.0]\n"
    (line,) = invoke("state", "watch", "train.lr", "-o", "json").lines
    assert line == {"name": "root.train", "path": ["lr"], "kind": "set", "value": 1}


def test_watch_goes_on_after_a_break(app: FakeServer) -> None:
    """A broken connection is made again, and missing changes are reported."""

    def batches(number: int) -> list[list[dict[str, Any]]]:
        if number == 1:
            raise ConnectionResetError
        return [[change("root", ["best"], "set", number)]]

    app.on_feed = batches
    done = invoke("state", "watch")
    assert done.out == "root.best = 2\n"
    assert "some changes are missing" in done.err


def test_a_set_that_changed_on_one_line() -> None:
    """The items added to a set and removed from it are on one line."""
    made = change("root", ["tags"], "update", [{"$set": ["a"]}, {"$set": []}])
    assert change_text(made) == 'root.tags + ["a"] - []'
