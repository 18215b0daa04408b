"""Invalid input in a running app causes an error that says what to correct, and no other damage."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lightwork import App, Work
from lightwork.errors import ArgumentsError, ComponentError, InvalidReturnValue, LaunchFailed, StateError
from tests.app.support_flows import Echo, Script, Shipped

pytestmark = pytest.mark.bare


@pytest.fixture(params=["inprocess", "local"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Typed(Work):
    """Returns the requested value, and edits its state on request."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False)
        self.value: Any = 0

    async def run(self, what: str, times: int = 1) -> Any:
        match what:
            case "object":
                return object()
            case "big":
                return 2**70
            case "state object":
                self.value = object()
            case "state big":
                self.value = 2**70
            case "new":
                self.other = 1
            case "work":
                self.value = [Echo()]
        return times


async def test_private_attribute_that_cannot_be_sent(runtime: str) -> None:
    """A private attribute that cannot be pickled is named, with a remedy; other works run."""
    bad, good = Shipped(threading.Lock()), Echo()
    async with App(Script(bad=bad, good=good), runtime=runtime):
        with pytest.raises(LaunchFailed, match=r"Shipped._private is a lock and cannot be sent to a worker.*on_start"):
            await bad.run()
        assert await good.run(1) == 1


async def test_arguments_that_do_not_fit(runtime: str) -> None:
    """Arguments that do not fit the signature or annotations are refused in the flow, before anything is sent."""
    work: Any = Typed()
    async with App(Script(work=work), runtime=runtime):
        for args, kwargs in (((), {}), ((1,), {}), (("x",), {"tmies": 1}), (("x", "many"), {}), (("x", 1, 2), {})):
            with pytest.raises(ArgumentsError, match=r"Typed.run"):
                await work.run(*args, **kwargs)
        assert [one.stage for one in work.statuses if one.call] == []
        assert await work.run("fine", 3) == 3


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("object", InvalidReturnValue, "Typed.run returned a object that cannot be encoded"),
        ("big", InvalidReturnValue, "Typed.run returned a int that cannot be encoded"),
        ("state object", StateError, "Typed.value: a value of type object cannot be kept in the state"),
        ("state big", StateError, "Typed.value: an integer beyond 64 bits cannot be sent"),
        ("new", StateError, "Typed has no state attribute 'other'"),
        ("work", ComponentError, r"Typed.value\[0\] holds a Echo: a work cannot hold"),
    ],
)
async def test_in_the_worker(runtime: str, what: str, error: type[Exception], message: str) -> None:
    """An invalid operation inside of run fails that call with its own error, and the next call runs."""
    work: Any = Typed()
    async with App(Script(work=work), runtime=runtime):
        with pytest.raises(error, match=message):
            await work.run(what)
        assert (await work.run("fine"), work.value) == (1, 0)


async def test_in_the_flow_while_the_work_runs(runtime: str) -> None:
    """In the flow the same edits are refused where they are made, and are not proposed."""
    work: Any = Typed()
    async with App(Script(work=work), runtime=runtime):
        await work.start()
        for value in (object(), 2**70):
            with pytest.raises(StateError, match=r"Typed.value"):
                work.value = value
        with pytest.raises(ComponentError, match=r"Typed.value holds a Echo"):
            work.value = Echo()
        with pytest.raises(StateError, match=r"no state attribute 'other'"):
            work.other = 1
        await work.wait_confirmed()
        assert work.value == 0


async def test_large_arguments() -> None:
    """Arguments of 100 MB are refused in the flow with their size and the limit."""
    work = Echo()
    async with App(Script(work=work), runtime="inprocess"):
        with pytest.raises(ArgumentsError, match=r"Echo.run are 100,\d+,\d+ bytes; a call takes at most max_frame"):
            await work.run("x" * 100_000_000)
        assert await work.run(1) == 1
