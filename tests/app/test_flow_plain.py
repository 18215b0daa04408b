"""A plain `def run` of a flow: a pass ends at a call that has not finished, and is repeated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from lightwork import App, Flow, Stage
from lightwork.link.peer import WINDOW
from tests.app.support_flows import Echo, Editor, Failing, Streams

pytestmark = pytest.mark.bare


class Plain(Flow):
    """Its passes are `script`."""

    def __init__(self, script: Callable[[Any], None], **children: Any) -> None:
        super().__init__()
        self._script = script
        self._passes = 0
        self.value: Any = 0
        for name, child in children.items():
            setattr(self, name, child)

    def run(self) -> None:
        self._passes += 1
        self._script(self)


def plain(script: Callable[[Any], None], runtime: str = "inprocess", **children: Any) -> App[Any]:
    return App(Plain(script, **children), runtime=runtime)


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
def test_lightning_style(runtime: str) -> None:
    """A pass ends at a non-parallel call that has not succeeded, and is repeated until it reaches its end."""
    after_first: list[int] = []

    def script(flow: Any) -> None:
        first = flow.a.run(1)
        after_first.append(first)
        second = flow.b.run(first + 1)
        flow.value = [first, second]
        flow.stop("done")

    app = plain(script, runtime, a=Echo(), b=Echo())
    asyncio.run(app.run())
    assert app.root.value == [1, 2]
    assert set(after_first) == {1}
    assert app.root.a.seen == [1]


async def test_off_the_loop() -> None:
    """A plain run has a separate thread, so a long pass blocks nothing else."""
    entered, go = threading.Event(), threading.Event()

    def script(flow: Any) -> None:
        entered.set()
        go.wait()
        flow.stop()

    async with plain(script) as app:
        await asyncio.to_thread(entered.wait)
        go.set()
        await app.wait_stopped()


async def test_one_consistent_state() -> None:
    """Deltas of works that arrive during a pass wait until the pass has ended."""
    entered, go = threading.Event(), threading.Event()
    seen: list[Any] = []

    def script(flow: Any) -> None:
        if flow.value == 1:
            seen.append(flow.work.n)
            entered.set()
            go.wait()
            seen.append(flow.work.n)
            flow.value = 2

    work = Editor(parallel=True)
    async with plain(script, work=work) as app:
        await work.start()
        app.root.value = 1
        await asyncio.to_thread(entered.wait)
        call = work.submit("count")
        for _ in range(100):
            await asyncio.sleep(0)
        assert work.n == 0
        go.set()
        assert await call == 5000
        assert work.n == 5000
    assert seen[:2] == [0, 0]


def bytes_held_by(app: App[Any]) -> int:
    """Return the bytes that arrived from workers and wait for the end of the pass."""
    return sum(len(act.args[-1]) for act in app._running().engine.core.held or [] if isinstance(act, partial))


async def test_what_is_held_is_bounded() -> None:
    """A work's deltas are held during a pass up to its window; the rest waits in the work, and the last one arrives."""
    entered, go = threading.Event(), threading.Event()

    def script(flow: Any) -> None:
        if flow.value == 1:
            entered.set()
            go.wait()
            flow.value = 2

    size, work, Streams.may_end = 1 << 18, Streams(), asyncio.Event()
    most = WINDOW + 4 * size
    async with plain(script, work=work) as app:
        await work.start()
        app.root.value = 1
        await asyncio.to_thread(entered.wait)
        call = work.submit(size)
        held, turns_at_rest = 0, 0
        while turns_at_rest < 200 and held <= most:
            await asyncio.sleep(0)
            before, held = held, bytes_held_by(app)
            turns_at_rest = turns_at_rest + 1 if held == before and held else 0
        shown = work.value
        go.set()
        Streams.may_end.set()
        last = await call
        assert work.value == last
    assert WINDOW <= held <= most
    assert shown == ""


def test_failed_call_raises_when_it_is_asked_again() -> None:
    """A failed call raises in the pass that makes it again, and fails the app if it is not caught."""
    with pytest.raises(ValueError, match="mine"):
        asyncio.run(plain(lambda flow: flow.work.run("mine"), work=Failing()).run())


def test_failed_call_is_caught() -> None:
    """A flow may catch the failure, and the work does not run again for the next pass."""

    def script(flow: Any) -> None:
        try:
            flow.work.run("mine")
        except ValueError as error:
            flow.value = str(error)
            if flow._passes > 5:
                flow.stop()
            flow.again = flow._passes

    app = plain(script, work=Failing(), again=0)
    asyncio.run(app.run())
    assert [one.stage for one in app.works[0].statuses].count(Stage.FAILED) == 1


@pytest.mark.parametrize("parallel", [False, True])
def test_failed_call_without_exception(parallel: bool) -> None:
    """Pitfall 5: with raise_exception=False the call returns None or the Call, and the status shows the failure."""

    def script(flow: Any) -> None:
        gave = flow.work.run("mine")
        if flow.work.has_failed:
            flow.value = gave.result() if parallel else gave
            flow.stop("went on")

    app = plain(script, work=Failing(raise_exception=False, parallel=parallel))
    asyncio.run(app.run())
    assert app.stop_message == "went on"
    assert app.root.value is None


def test_parallel_call_does_not_end_the_pass() -> None:
    """A parallel call returns the Call, and the pass goes on; a later pass finds the call finished."""

    def script(flow: Any) -> None:
        call = flow.work.run(1)
        flow.asked = True
        if call.done:
            flow.value = call.result()
            flow.stop()

    app = plain(script, work=Echo(parallel=True), asked=False)
    asyncio.run(app.run())
    assert app.root.value == 1


def test_uncached_calls() -> None:
    """Without a cache a call runs once for each completed pass, not for each repetition of a pass."""

    def script(flow: Any) -> None:
        flow.a.run(1)
        flow.b.run(2)
        flow.value += 1
        if flow.value == 3:
            flow.stop()

    app = plain(script, a=Echo(cache_calls=False), b=Echo(cache_calls=False))
    asyncio.run(app.run())
    assert [work.num_successes for work in app.works] == [3, 3]


async def test_rests() -> None:
    """Pitfall 20: a plain flow whose calls have succeeded rests."""

    def script(flow: Any) -> None:
        flow.work.run(1)
        flow.value = 1

    async with plain(script, work=Echo()) as app:
        root: Any = app.root
        await app.wait_for(lambda: root.value == 1)
        before = -1
        while before != root._passes:
            before = root._passes
            for _ in range(5):
                await asyncio.to_thread(lambda: None)
        assert root._passes < 12
        assert root.work.seen == [1]


def test_exception_of_run() -> None:
    """An exception of a plain run arrives in app.run()."""

    def script(flow: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(plain(script).run())


def test_run_that_gives_a_coroutine() -> None:
    """A plain run that returns a coroutine is an error with a remedy."""

    class Odd(Flow):
        def run(self) -> Any:
            return asyncio.sleep(0)

    with pytest.raises(TypeError, match=r"Odd.run gave a coroutine; define it with `async def`"):
        asyncio.run(App(Odd(), runtime="inprocess").run())


def test_children_made_in_a_pass() -> None:
    """A plain pass makes and removes children in its own thread."""

    def script(flow: Any) -> None:
        if flow.job is None:
            flow.job = Echo()
        flow.value = flow.job.run(5)
        flow.job = None
        flow.stop()

    app = plain(script, job=None)
    asyncio.run(app.run())
    assert app.root.value == 5
