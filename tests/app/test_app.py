"""Apps: what they run, how they are embedded, watched and configured, and what remains after them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from lightwork import App, AppEnded, Config, Flow, Work
from lightwork.changes import Change, StateChanged, StatusChanged
from lightwork.errors import ComponentError, ConfigError, FlowFailed, UsageError
from tests.app.support_flows import Echo, Editor, Script

pytestmark = pytest.mark.bare


class Quiet(Flow):
    inner: Any
    work: Any

    def __init__(self, **children: Any) -> None:
        super().__init__()
        self.value = 0
        for name, child in children.items():
            setattr(self, name, child)

    async def run(self) -> None: ...


async def _stops(flow: Any) -> None:
    flow.stop(f"{await flow.work.run(1)}")


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [None, 3, Quiet, Echo, [Quiet()]], ids=repr)
def test_root_is_no_component(root: Any) -> None:
    """A root that is not a component instance is refused."""
    with pytest.raises(ComponentError, match=r"App needs a Flow or a Work, not .*App\(MyFlow\(\)\)"):
        App(root)


def test_root_with_a_place() -> None:
    """A component is the root of only one app, and not a child in another."""
    flow, outer = Quiet(), Quiet(inner=Quiet())
    App(flow)
    with pytest.raises(ComponentError, match="Quiet 'root' has a place already"):
        App(flow)
    with pytest.raises(ComponentError, match="has a place already"):
        App(outer.inner)


def test_failed_app_leaves_the_root_free() -> None:
    """If an app cannot be made, its root is unchanged."""
    flow, work = Quiet(), Echo()
    for root in (flow, work):
        with pytest.raises(ConfigError, match="nonsense"):
            App(root, nonsense=1)  # type: ignore[call-overload]
    assert App(flow).root is flow
    assert App(work).root.works() == [work]


async def test_work_as_an_app() -> None:
    """A single work is an app: one call without arguments, then the end."""
    work = Echo()
    await App(work, runtime="inprocess").run()
    assert work.seen == [None]
    assert work.has_succeeded or work.has_stopped
    assert work.num_successes == 1


# --- running --------------------------------------------------------------------------------------


async def test_run_again() -> None:
    """An app that has ended can run again, from its current state."""
    app = App(Script(_stops, work=Echo()), runtime="inprocess")
    for times in (1, 2):
        app.root._passes_seen = 0
        await app.run()
        assert app.stop_message == "1"
        assert app.root.work.seen == [1] * times  # type: ignore[attr-defined]
        assert not app.is_running


async def test_runs_already() -> None:
    """A running app can be neither entered nor configured."""
    app = App(Quiet(), runtime="inprocess")
    async with app:
        with pytest.raises(UsageError, match="runs already"):
            await app.run()
        with pytest.raises(UsageError, match="configuration cannot be changed"):
            app.configure(grace=1.0)
        assert app.is_running


async def test_does_not_run() -> None:
    """An operation that needs a running app raises an error that says so."""
    app = App(Quiet())
    for use in (app.stop, app.kill, app.changes, lambda: app.address):
        with pytest.raises(UsageError, match="the app does not run"):
            use()
    with pytest.raises(UsageError, match="the app does not run"):
        await app.wait_for(lambda: True)


async def _two_apps() -> None:
    one, other = (App(Quiet(work=Editor()), runtime="inprocess") for _ in range(2))
    async with one, other:
        assert one.address != other.address
        works: list[Any] = [*one.works, *other.works]
        assert await asyncio.gather(*[work.run("count") for work in works]) == [5000, 5000]
        one.stop("first")
        await one.wait_stopped()
        assert await works[1].run("count") == 5000


async def test_two_apps_in_one_loop() -> None:
    """Two apps in one loop do not see each other; one ends without the other."""
    await _two_apps()


@pytest.fixture(scope="module")
def _uvloop_s_own_pipe() -> None:
    """Make the first loop of the process, which makes a pipe for signals that libuv keeps."""
    pytest.importorskip("uvloop").new_event_loop().close()


@pytest.mark.usefixtures("_uvloop_s_own_pipe")
def test_uvloop() -> None:
    """An app runs on uvloop."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_two_apps())


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_embedded(runtime: str) -> None:
    """Any coroutine of the loop can call works of a running app; leaving the block leaves no task."""
    before = asyncio.all_tasks()
    async with App(Quiet(work=Echo(), other=Echo()), runtime=runtime) as app:
        first, second = app.works
        async with asyncio.TaskGroup() as group:
            one = group.create_task(_call(first, 1))
            two = group.create_task(_call(second, 2))
        assert (one.result(), two.result()) == (1, 2)
    assert asyncio.all_tasks() == before


async def _call(work: Work, value: int) -> Any:
    return await work.run(value)


async def test_body_raises() -> None:
    """An exception of the body ends the app gracefully and propagates unchanged."""
    app = App(Quiet(work=Echo()), runtime="inprocess")
    with pytest.raises(LookupError, match="body"):
        async with app:
            raise LookupError("body")
    assert not app.is_running


async def test_timeout_around_an_app() -> None:
    """asyncio.timeout around an app works as around any coroutine."""
    app = App(Quiet(), runtime="inprocess")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await app.run()
    assert not app.is_running


# --- watching -------------------------------------------------------------------------------------


async def test_wait_for() -> None:
    """wait_for returns when its predicate becomes true, and at once if it is true already."""
    async with App(Quiet(work=Editor()), runtime="inprocess") as app:
        work: Any = app.get_component_by_name("root.work")
        await app.wait_for(lambda: True)
        work.submit("count")
        await app.wait_for(lambda: work.n == 5000)


async def test_wait_for_what_never_comes() -> None:
    """wait_for raises AppEnded if the app ends first."""
    app = App(Quiet(), runtime="inprocess")
    async with app:
        waiting = asyncio.create_task(app.wait_for(lambda: False))
        await asyncio.sleep(0)
        app.stop()
    with pytest.raises(AppEnded, match="ended before"):
        await waiting


async def test_failure_while_waiting() -> None:
    """The block raises the failure of the app, not the AppEnded of a waiting task."""
    app = App(Quiet(), runtime="inprocess")

    async def embed() -> None:
        async with app, asyncio.TaskGroup() as group:
            group.create_task(app.wait_for(lambda: False))
            await asyncio.sleep(0)
            app.root.fail("no data")

    with pytest.raises(FlowFailed, match="no data"):
        await embed()


async def test_failure_has_its_own_context_alone() -> None:
    """Pitfall 23: the cancellation that ends the block is not shown as context of the failure; a real context is."""

    class Fails(Flow):
        async def run(self) -> None:
            try:
                raise LookupError("first")
            except LookupError:
                raise ValueError("then")  # noqa: B904 -- the context is what is tested

    async def fail(root: Flow, message: str | None) -> None:
        async with App(root, runtime="inprocess") as app:
            if message is not None:
                app.root.fail(message)
            await app.wait_stopped()

    with pytest.raises(ValueError, match="then") as caught:
        await fail(Fails(), None)
    assert isinstance(caught.value.__context__, LookupError)
    with pytest.raises(FlowFailed) as failed:
        await fail(Quiet(), "no data")
    assert failed.value.__context__ is None


async def test_failure_in_a_body_that_goes_on() -> None:
    """A body that fails the app without awaiting afterwards ends gracefully and raises that failure."""
    app = App(Quiet(work=Echo()), runtime="inprocess")
    with pytest.raises(FlowFailed, match="no data"):
        async with app:
            app.root.fail("no data")
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_changes() -> None:
    """changes() yields every change from then on, and ends with the app."""
    async with App(Quiet(work=Editor()), runtime="inprocess") as app:
        feed = app.changes()
        work: Any = app.works[0]
        await work.run("edit")
    seen = [one async for one in feed]
    assert [one.status.stage for one in seen if isinstance(one, StatusChanged) and one.status.call][:2] == [
        "pending",
        "running",
    ]
    assert any(isinstance(one, StateChanged) and one.path == ("items",) for one in seen)


async def test_feed_is_closed() -> None:
    """A closed stream takes no more changes."""
    async with App(Quiet(), runtime="inprocess") as app:
        feed = app.changes()
        await feed.aclose()
        app.root.value = 1
    assert [one async for one in feed] == []


async def test_watch() -> None:
    """A watcher is called with every change of each run until it is removed; it may be set before the start."""
    seen: list[Change] = []
    app = App(Quiet(), runtime="inprocess")
    root: Any = app.root
    unwatch = app.watch(seen.append)
    async with app:
        root.value = 1
    async with app:
        root.value = 2
        unwatch()
        root.value = 3
    assert [one.value for one in seen if isinstance(one, StateChanged)] == [1, 2]


async def test_watcher_that_raises() -> None:
    """An exception of a watcher is reported to the loop, and the other watchers still see the change."""
    reported: list[dict[str, Any]] = []
    seen: list[Change] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    app = App(Quiet(), runtime="inprocess")
    app.watch(lambda change: 1 / 0)  # type: ignore[arg-type]
    app.watch(seen.append)
    async with app:
        pass
    loop.set_exception_handler(None)
    assert seen
    assert {type(one["exception"]) for one in reported} == {ZeroDivisionError}


def test_get_component_by_name() -> None:
    """A component is found by its name; for a wrong name the error lists similar ones."""
    app = App(Quiet(train=Echo(), inner=Quiet(train=Echo())))
    assert app.get_component_by_name("root.inner.train") is app.works[1]
    with pytest.raises(KeyError, match=r"no component 'root.trian'; there is root.train"):
        app.get_component_by_name("root.trian")


# --- configuration --------------------------------------------------------------------------------


def test_unknown_key() -> None:
    """An unknown key is refused by name."""
    with pytest.raises(ConfigError, match="prot"):
        App(Quiet(), prot=1)  # type: ignore[call-overload]


async def _refused(app: App[Any]) -> str:
    """Enter the app, check that it is refused before anything is started, and return the error text."""
    before, changes = asyncio.all_tasks(), list[Change]()
    app.watch(changes.append)
    with pytest.raises(ConfigError) as caught:
        await app.run()
    assert asyncio.all_tasks() == before
    assert changes == []
    assert not app.is_running
    return str(caught.value)


async def test_unknown_runtime() -> None:
    """An unknown runtime is refused before the start, with the installed ones; corrected, the app runs."""
    app = App(Script(_stops, work=Echo()), runtime="loacl")
    said = await _refused(app)
    assert "no runtime 'loacl'" in said
    assert "inprocess, local" in said
    app.configure(runtime="inprocess")
    await app.run()


async def test_unknown_runtime_of_a_work() -> None:
    """An unknown runtime of a work, or of a pattern in the configuration, is refused too."""
    assert "no runtime 'gpu'" in await _refused(App(Quiet(work=Echo(runtime="gpu")), runtime="inprocess"))
    config = Config(runtime="inprocess", works={"root.w*": {"runtime": "gpu"}})  # type: ignore[dict-item]
    assert "no runtime 'gpu'" in await _refused(App(Quiet(work=Echo()), config=config))


async def test_busy_port() -> None:
    """A busy port is refused, and the error says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = await _refused(App(Quiet(work=Echo()), runtime="inprocess", port=port))
    assert f"port {port}" in said
    assert "port = 0" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_host_of_another_machine(host: str) -> None:
    """A host of another machine is refused, and the error says what to do."""
    pytest.importorskip("cryptography")  # without cryptography, the missing package is reported first
    said = await _refused(App(Quiet(), runtime="inprocess", host=host))
    assert f"cannot listen on host {host!r}" in said
    assert "127.0.0.1" in said


async def test_start_is_cancelled() -> None:
    """An app that is cancelled at once leaves nothing behind, and can run again."""
    app = App(Script(_stops, work=Echo()), runtime="inprocess")
    task = asyncio.create_task(_coroutine(app.run()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    app.root._passes_seen = 0
    await app.run()


async def _coroutine(one: Coroutine[Any, Any, None]) -> None:
    await one
