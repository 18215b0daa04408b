from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from lightwork.cli.arguments import parse_arguments, parse_options
from lightwork.server.types import CallDetail, CommandView, Parameter
from tests.cli.fake_server import FakeServer, Refused
from tests.cli.invoke import invoke

PARAMETERS = [
    Parameter("epochs", "int", True),
    Parameter("rate", "float", False, 0.1),
    Parameter("name", "str", False, ""),
    Parameter("fast", "bool", False, False),
    Parameter("layers", "list[int]", False, None),
]


@pytest.fixture
def train(server: FakeServer) -> FakeServer:
    server.add_work("root.train", parameters=msgspec.to_builtins(PARAMETERS))
    return server


def ended(stage: str, **fields: object) -> Callable[[CallDetail], CallDetail]:
    return lambda call: msgspec.convert({**msgspec.to_builtins(call), "stage": stage, **fields}, CallDetail)


def test_call_prints_the_result(train: FakeServer) -> None:
    """Arguments are sent with the types of their parameters. Only the result is printed."""
    train.on_call = ended("succeeded", result=0.25)
    done = invoke("call", "train", "10", "name=5", "fast=yes", "layers=[64, 32]")
    assert done.code == 0
    assert done.out == "0.25\n"
    assert done.err == ""
    body = msgspec.json.decode(train.orders[0].split(" ", 2)[2])
    assert body == {"args": [10], "kwargs": {"name": "5", "fast": True, "layers": [64, 32]}}
    assert invoke("call", "train", "1", "-o", "json").json["result"] == 0.25


def test_a_call_that_fails_gives_1_and_the_workers_traceback(train: FakeServer) -> None:
    """The worker's traceback is printed on standard error, and nothing on standard output."""
    error = {"type": "ValueError", "message": "bad", "traceback": "Traceback ...\nValueError: bad\n"}
    train.on_call = ended("failed", reason="user_exception", message="ValueError: bad", error=error)
    done = invoke("call", "train", "1")
    assert done.code == 1
    assert done.out == ""
    assert done.err == "Traceback ...\nValueError: bad\ncall 1 failed (user_exception: ValueError: bad)\n"
    assert invoke("call", "train", "1", "-o", "json").json["error"]["type"] == "ValueError"


def test_a_call_can_be_left_alone(train: FakeServer) -> None:
    """--detach prints the number of the call. After the --timeout the exit code is 124, and the call continues."""
    assert invoke("call", "train", "1", "--detach").out == "1\n"
    train.ends = False
    done = invoke("call", "train", "1", "--timeout", "0.5")
    assert done.code == 124
    assert "call 2 has not ended within 0.5 s; it continues: `lightwork cancel 2` ends it" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x"], "epochs must be an int, got 'x'"),
        (["epochs=1", "2"], "the positional argument '2' follows a named argument"),
    ],
)
def test_arguments_that_do_not_fit_give_2(train: FakeServer, arguments: list[str], says: str) -> None:
    """A call with an invalid argument is a usage error, and is not sent."""
    done = invoke("call", "train", *arguments)
    assert done.code == 2
    assert says in done.err
    assert train.orders == []


def test_a_minus_is_a_value() -> None:
    """Negative numbers, texts that contain "=", and unknown parameters are accepted."""
    assert parse_arguments(["-3", "rate=-0.5"], PARAMETERS) == ([-3], {"rate": -0.5})
    assert parse_arguments(['"a=b"'], []) == (["a=b"], {})
    assert parse_arguments(["other=null"], []) == ([], {"other": None})


def test_retry_takes_a_call_or_the_latest_failure_of_a_work(train: FakeServer) -> None:
    """A number selects a call, a work its latest failed call. Without a failed call the exit code is 4."""
    train.on_call = ended("succeeded", result="fine")
    assert invoke("retry", "train").code == 4
    train.add_call(1, "root.train", "failed")
    train.add_call(2, "root.train", "failed")
    train.add_call(3, "root.train", "succeeded")
    assert invoke("retry", "train").out == "fine\n"
    assert invoke("retry", "1").out == "fine\n"
    assert train.orders == ["POST /calls/2/retry", "POST /calls/1/retry"]


def test_cancel_takes_calls_and_works(train: FakeServer) -> None:
    """Queued calls of a work are cancelled before running calls, and ended calls are left alone."""
    train.add_call(1, "root.train", "succeeded")
    train.add_call(2, "root.train", "running")
    train.add_call(3, "root.train", "pending")
    done = invoke("cancel", "train")
    assert done.out.splitlines() == ["call 3 cancelling", "call 2 cancelling"]
    assert train.orders == ["POST /calls/3/cancel", "POST /calls/2/cancel"]
    assert invoke("cancel", "nothing").code == 4


def test_works_are_started_and_stopped(train: FakeServer) -> None:
    """Works are selected by name or pattern, with and without --wait. The names are printed."""
    train.add_work("root.other")
    assert invoke("stop", "*").out.splitlines() == ["root.train stopping", "root.other stopping"]
    assert invoke("start", "train", "--wait", "-o", "json").json == {"items": [{"what": "root.train", "is": "started"}]}
    assert sorted(train.orders[:2]) == ["POST /works/root.other/stop", "POST /works/root.train/stop"]
    assert invoke("stop", "nothing").code == 4


def test_the_app_is_stopped_only_when_that_is_said(train: FakeServer) -> None:
    """Only --all without works stops the app, and --wait waits for its end."""
    assert invoke("stop").code == 2
    assert invoke("stop", "train", "--all").code == 2
    assert invoke("stop", "train", "-m", "x").code == 2
    assert train.orders == []
    assert invoke("stop", "--all", "-m", "enough", "--wait").out == "app ended\n"
    assert train.orders == ['POST /app/stop {"message":"enough"}']


def test_every_order_is_given_though_one_is_refused(train: FakeServer) -> None:
    """A refusal of one work does not prevent the requests to the others. The exit code is 1."""
    train.add_work("root.other")
    train.refusals["/root.train/stop"] = Refused("conflict", "not now", 409)
    done = invoke("stop", "*")
    assert done.code == 1
    assert train.orders == ["POST /works/root.other/stop"]
    assert "not now" in done.err


def test_options_of_the_apps_own_commands() -> None:
    """Options with a value have two forms. Flags can be negated, and values without a name are positional."""
    options = ["--epochs", "3", "--rate=0.5", "--fast", "--layers", "[1]"]
    assert parse_options(options, PARAMETERS) == {"epochs": 3, "rate": 0.5, "fast": True, "layers": [1]}
    assert parse_options(["3", "--no-fast"], PARAMETERS) == {"epochs": 3, "fast": False}
    assert parse_options(["--epochs", "-3"], PARAMETERS) == {"epochs": -3}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "missing required options: --epochs"),
        (["--epoch", "3"], "did you mean --epochs?"),
        (["--epochs"], "--epochs needs a value"),
        (["--epochs", "x"], "epochs must be an int, got 'x'"),
        (["1", "2", "x", "true", "[]", "more"], "too many arguments: 'more' belongs to no parameter"),
    ],
)
def test_options_that_do_not_fit(options: list[str], says: str) -> None:
    """Invalid options are usage errors that name the option."""
    with pytest.raises(Exception, match=says.replace("?", "[?]")) as caught:
        parse_options(options, PARAMETERS)
    assert getattr(caught.value, "exit_code", None) == 2


def test_the_apps_own_commands(server: FakeServer) -> None:
    """The app's commands are listed, show their own help, take options, and print their results."""
    parameters = [Parameter("by", "int", True)]
    server.commands = [CommandView("add", "Add so many.\n\nMore.", parameters)]
    server.results = {"add": {"total": 3}}
    assert invoke("app").out.splitlines()[1].split() == ["add", "Add", "so", "many."]
    shown = invoke("app", "add", "--help").out
    assert shown.startswith("Usage: lightwork app add --by VALUE\n")
    assert "More." in shown
    assert invoke("app", "add", "--by", "2").out == '{"total": 3}\n'
    assert server.orders == ['POST /commands/add {"kwargs":{"by":2}}']
    assert invoke("app", "-o", "json", "add", "--by", "2").json == {"result": {"total": 3}}
    done = invoke("app", "ad")
    assert done.code == 4
    assert "did you mean add?" in done.err
    assert invoke("app", "add").code == 2
