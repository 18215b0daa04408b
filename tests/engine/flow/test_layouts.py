"""Layouts while an app runs: which components are asked when, and frontends that are started and stopped."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lightwork.components.flow import Flow
from lightwork.engine.flow import layouts as layouts_module
from lightwork.errors import LayoutError
from lightwork.frontend import Frontend, StaticWebFrontend
from lightwork.structures import List
from tests.engine.flow.support import Board, Plain, Recorder, Shown, ShownBoard, bed, make_site, set_url


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return await answer.text()


class Sites(Flow):
    """A flow with a site, and a list of works with one site each."""

    def __init__(self, *gives: Any) -> None:
        super().__init__()
        self.works_shown = List([Shown(give) for give in gives])

    async def run(self) -> None: ...


def raised_in(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only error in the exception group that a test's task group raised."""
    (error,) = group.exceptions
    return error


# --- asking -------------------------------------------------------------------------------------


async def test_the_default_layout_follows_the_urls_of_the_works() -> None:
    """A flow with the default layout has a tab for each child that has a layout at the moment."""
    async with bed(Board()) as app:
        assert app.layouts.snapshot()["root"] == {"kind": "none", "target": None}
        set_url(app.root.trials[1], "http://127.0.0.1:1")  # type: ignore[attr-defined]
        seen = app.layouts.snapshot()
        assert seen["root"]["tabs"] == [
            {"name": "trials.1", "content": "root.trials.1", "target": "http://127.0.0.1:1"}
        ]
        assert seen["root.trials.1"] == {"kind": "url", "target": "http://127.0.0.1:1"}
        set_url(app.root.trials[1], "")  # type: ignore[attr-defined]
        assert app.layouts.snapshot()["root"]["kind"] == "none"


async def test_a_url_is_asked_for_again_when_the_state_has_changed() -> None:
    """A URL that depends on the state is current whenever the layout is read."""
    root = ShownBoard(lambda board: board.page)
    async with bed(root) as app:
        assert app.target("root") is None
        root.page = "http://a"
        assert app.target("root") == "http://a"
        root.page = "http://b"
        assert app.target("root") == "http://b"


async def test_a_component_is_asked_when_something_has_changed_and_not_before() -> None:
    """A component that overrides configure_layout is asked at the start, and once more after any number of changes."""
    asked = []
    root = ShownBoard(lambda board: asked.append(board.page))
    async with bed(root) as app:
        assert asked == [""]
        app.layouts.refresh()
        app.layouts.snapshot()
        assert asked == [""]
        root.page, root.page = "http://a", "http://b"
        app.layouts.refresh()
        app.layouts.snapshot()
        app.layouts.refresh()
        assert asked == ["", "http://b"]


async def test_who_has_no_layout_of_its_own_costs_a_pass_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pass only the components that override configure_layout are asked."""
    async with bed(Sites(lambda: "http://a")) as app:
        app.root.more = List([Plain() for _ in range(20)])  # type: ignore[attr-defined]
        app.layouts.refresh()
        asked: list[Any] = []
        monkeypatch.setattr(layouts_module, "resolve_layout", asked.append)
        app.hub.changed()
        app.layouts.refresh()
    assert [work.name or work for work in asked] == [app.root.works_shown[0].name]  # type: ignore[attr-defined]


async def test_while_a_plain_pass_runs_nobody_is_asked() -> None:
    """A pass in a thread owns the state, so until it ends the layout stays as it was."""
    root = ShownBoard(lambda board: board.page)
    async with bed(root) as app:
        app.is_held = True
        root.page = "http://a"
        app.layouts.refresh()
        assert app.target("root") is None
        app.is_held = False
        assert app.target("root") == "http://a"


async def test_components_come_and_go() -> None:
    """A component that is added is asked, and one that was removed is no longer in the layout."""
    async with bed(Sites()) as app:
        app.root.later = Shown(lambda: "http://later")  # type: ignore[attr-defined]
        assert app.target("root.later") == "http://later"
        del app.root.later  # type: ignore[attr-defined]
        assert list(app.layouts.snapshot()) == ["root"]


async def test_a_wrong_layout_at_the_start_fails_it() -> None:
    """An error of configure_layout, or an invalid result, fails the start of the app and names the component."""
    with pytest.raises(ExceptionGroup) as raised:
        async with bed(Sites(lambda: 1)):
            raise AssertionError("must not start")
    error = raised_in(raised.value)
    assert isinstance(error, LayoutError)
    assert "configure_layout of Shown 'root.works_shown.0' gave 1" in str(error)


async def test_a_wrong_layout_later_fails_the_app() -> None:
    """A layout that is invalid after a pass fails the app, and reading the layout raises too."""
    root = ShownBoard(lambda board: board.page)
    async with bed(root) as app:
        root.page = "nowhere"
        app.layouts.refresh()
        (failure,) = app.failures
        assert isinstance(failure, LayoutError)
        with pytest.raises(LayoutError, match="'nowhere'"):
            app.layouts.snapshot()


async def test_a_layout_that_changes_the_state_is_refused() -> None:
    """A configure_layout that edits the state is an error: it would make the flow run forever (pitfall 19)."""

    def count(board: ShownBoard) -> str:
        board.page += "x"
        return "http://a"

    with pytest.raises(ExceptionGroup) as raised:
        async with bed(ShownBoard(count)):
            raise AssertionError("must not start")
    assert "changes the state" in str(raised_in(raised.value))


# --- frontends ----------------------------------------------------------------------------------


async def test_a_site_is_served_while_the_app_runs(tmp_path: Path) -> None:
    """A folder is served from the start of the app to its end, although each call makes a new frontend for it."""
    site = make_site(tmp_path)
    async with bed(Sites(lambda: StaticWebFrontend(site))) as app:
        url = app.target("root.works_shown.0")
        assert await get(url) == "the index"
        app.hub.changed()
        app.layouts.refresh()
        assert app.failures == []
        assert app.target("root.works_shown.0") == url
        assert await get(url + "app.js") == "the script"
        assert app.layouts.snapshot()["root"]["tabs"][0]["target"] == url
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(url)
    assert app.target("root.works_shown.0") is None


async def test_a_prefix_is_in_the_address(tmp_path: Path) -> None:
    """A frontend with a root_path is started with it, and its URL ends with it."""
    site = make_site(tmp_path)
    async with bed(Sites(lambda: StaticWebFrontend(site, root_path="/ui"))) as app:
        url = app.target("root.works_shown.0")
        assert url.endswith("/ui/")
        assert await get(url) == "the index"


async def test_each_frontend_has_a_port_of_its_own() -> None:
    """All frontends are started, each on loopback and on a different port, and all stop at the end (pitfall 18)."""
    frontends = [Recorder() for _ in range(8)]
    async with bed(Sites(*(lambda frontend=frontend: frontend for frontend in frontends))):
        started = [call for frontend in frontends for call in frontend.calls]
        assert {call[:2] for call in started} == {("start", "127.0.0.1")}
        assert len({call[2] for call in started}) == 8
    assert [frontend.told for frontend in frontends] == [["start", "stop"]] * 8


async def test_a_plain_frontend_runs_in_a_thread() -> None:
    """Plain methods are called in a thread, so that they do not block the loop."""
    threads = []

    class Threaded(Frontend):
        def start_server(self, host: str, port: int, root_path: str = "") -> None:
            threads.append(threading.current_thread())

        def stop_server(self) -> None:
            threads.append(threading.current_thread())

    frontend = Threaded()
    async with bed(Sites(lambda: frontend)):
        assert len(threads) == 1
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_a_plain_method_may_give_an_awaitable() -> None:
    """If a plain method returns a coroutine, the loop awaits it."""
    done = []

    class Indirect(Recorder):
        def start_server(self, host: str, port: int, root_path: str = "") -> Any:
            async def start() -> None:
                done.append(asyncio.get_running_loop())

            return start()

    frontend = Indirect()
    async with bed(Sites(lambda: frontend)):
        assert done == [asyncio.get_running_loop()]


async def test_an_older_signature_is_enough() -> None:
    """A frontend without a prefix is started with host and port alone, as upstream does."""

    class Older(Recorder):
        async def start_server(self, host: str, port: int) -> None:  # type: ignore[override]
            self.calls.append(("start", host, port))

    frontend = Older()
    async with bed(Sites(lambda: frontend)):
        assert frontend.told == ["start"]


async def test_a_port_that_was_taken_meanwhile_is_not_the_end() -> None:
    """A frontend whose port another program has taken meanwhile is started on another port."""

    class Unlucky(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            await super().start_server(host, port, root_path)
            if len(self.calls) < 3:
                raise OSError(errno.EADDRINUSE, "address already in use")

    frontend = Unlucky()
    async with bed(Sites(lambda: frontend)) as app:
        assert frontend.told == ["start"] * 3
        assert len({call[2] for call in frontend.calls}) == 3
        assert app.target("root.works_shown.0") == f"http://127.0.0.1:{frontend.calls[-1][2]}/"


async def test_a_frontend_that_does_not_start_fails_the_start() -> None:
    """An error of start_server fails the start of the app and names the component; other frontends are stopped."""

    class Broken(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            raise RuntimeError("no licence")

    good, broken = Recorder(), Broken()
    with pytest.raises(ExceptionGroup) as raised:
        async with bed(Sites(lambda: good, lambda: broken)):
            raise AssertionError("must not start")
    error = raised_in(raised.value)
    assert isinstance(error, LayoutError)
    assert str(error) == "the frontend of Shown 'root.works_shown.1' did not start: RuntimeError: no licence"
    assert isinstance(error.__cause__, RuntimeError)
    assert good.told == ["start", "stop"]
    assert broken.told == []


async def test_a_start_that_hangs_has_a_deadline() -> None:
    """A start_server that does not return in time is cancelled and fails the start of the app."""
    cancelled = asyncio.Event()

    class Hanging(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    frontend = Hanging()
    with pytest.raises(ExceptionGroup) as raised:
        async with bed(Sites(lambda: frontend), start_within=0.01):
            raise AssertionError("must not start")
    assert "did not start: TimeoutError: start_server took longer than 0.01 s" in str(raised_in(raised.value))
    assert cancelled.is_set()


async def test_a_start_is_cut_off_when_the_app_ends() -> None:
    """An app that ends while a frontend starts cancels the start and does not wait for it."""
    starting = asyncio.Event()

    class Slow(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            starting.set()
            await asyncio.Event().wait()

    frontend = Slow()
    async with bed(Sites(lambda: frontend), opened=False) as app:
        opening = asyncio.create_task(app.open())
        await starting.wait()
        await app.layouts.aclose()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_a_start_that_is_over_when_it_is_cut_off_is_undone() -> None:
    """A frontend that comes up at the moment the app ends is stopped."""

    class Stubborn(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            starting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await super().start_server(host, port, root_path)

    starting = asyncio.Event()
    frontend = Stubborn()
    async with bed(Sites(lambda: frontend), opened=False) as app:
        opening = asyncio.create_task(app.open())
        await starting.wait()
        await app.layouts.aclose()
        await asyncio.wait({opening})
    assert frontend.told == ["start", "stop"]


@pytest.mark.parametrize("ignores", [False, True])
async def test_a_stop_that_hangs_has_a_deadline(
    ignores: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop_server that does not return is cancelled and logged; if it ignores the cancellation it is left behind."""
    monkeypatch.setattr(layouts_module, "_CANCEL_GRACE", 0.01)
    release = asyncio.Event()
    hung: list[asyncio.Task[Any]] = []

    class Hanging(Recorder):
        async def stop_server(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            hung.append(task)
            try:
                await release.wait()
            except asyncio.CancelledError:
                if not ignores:
                    raise
                await release.wait()

    frontend, other = Hanging(), Recorder()
    with caplog.at_level(logging.ERROR):
        async with bed(Sites(lambda: frontend, lambda: other), stop_within=0.01):
            assert frontend.told == ["start"]
    assert hung[0].done() is not ignores
    assert ("left behind" in caplog.text) is ignores
    assert "a frontend did not stop" in caplog.text
    assert "root.works_shown.0" in caplog.text
    assert other.told == ["start", "stop"]
    release.set()
    await asyncio.wait(hung)


async def test_a_stop_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error of stop_server does not fail an app that is done; it is logged with its traceback."""

    class Broken(Recorder):
        async def stop_server(self) -> None:
            raise RuntimeError("no way to stop")

    frontend = Broken()
    with caplog.at_level(logging.ERROR):
        async with bed(Sites(lambda: frontend)):
            assert frontend.told == ["start"]
    assert "RuntimeError: no way to stop" in caplog.text


async def test_a_frontend_must_be_given_at_creation() -> None:
    """A component that returns its first frontend only later fails the app; the error says when to return it."""
    root = ShownBoard(lambda board: Recorder() if board.page else None)
    async with bed(root) as app:
        root.page = "now"
        app.layouts.refresh()
        assert "a Frontend must be given at creation" in str(app.failures[0])


async def test_another_frontend_later_is_an_error(tmp_path: Path) -> None:
    """A component that later returns a frontend of another class, or an unequal one, fails the app."""
    site = make_site(tmp_path)
    root = ShownBoard(lambda board: StaticWebFrontend(site / board.page))
    async with bed(root) as app:
        root.page = "docs"
        app.layouts.refresh()
        assert "Always return the same Frontend" in str(app.failures[0])
        assert await get(app.layouts._hosted[root].url or "") == "the index"


async def test_a_new_object_of_one_class_is_the_same_frontend() -> None:
    """configure_layout may make a new frontend at each call; the first one is served."""
    made: list[Recorder] = []

    def give(board: ShownBoard) -> Recorder:
        made.append(Recorder())
        return made[-1]

    root = ShownBoard(give)
    async with bed(root) as app:
        root.page = "x"
        app.layouts.refresh()
        assert app.failures == []
    assert [frontend.told for frontend in made] == [["start", "stop"], []]


async def test_a_url_may_take_the_place_of_a_frontend_for_a_while() -> None:
    """A component may later show a URL or nothing; its frontend keeps running, and is shown again when returned."""
    frontend = Recorder()
    root = ShownBoard(lambda board: board.page or frontend)
    async with bed(root) as app:
        url = app.target("root")
        root.page = "http://a"
        assert app.target("root") == "http://a"
        root.page = ""
        assert app.target("root") == url
    assert frontend.told == ["start", "stop"]


async def test_one_frontend_cannot_serve_two_components() -> None:
    """If two components return the same frontend, the start fails and the error names both."""
    frontend = Recorder()
    with pytest.raises(ExceptionGroup) as raised:
        async with bed(Sites(lambda: frontend, lambda: frontend)):
            raise AssertionError("must not start")
    assert "'root.works_shown.1' and of Shown 'root.works_shown.0' return the same" in str(raised_in(raised.value))


async def test_a_component_made_later_brings_its_frontend_along() -> None:
    """The frontend of an added component is started at once, and stopped when the component is removed."""
    stopped = asyncio.Event()

    class Told(Recorder):
        async def stop_server(self) -> None:
            await super().stop_server()
            stopped.set()

    frontend = Told()
    async with bed(Sites()) as app:
        app.root.later = Shown(lambda: frontend)  # type: ignore[attr-defined]
        before = app.hub.version
        app.layouts.refresh()
        await app.hub.wait_change(before)
        assert app.target("root.later") == f"http://127.0.0.1:{frontend.calls[0][2]}/"
        del app.root.later  # type: ignore[attr-defined]
        app.layouts.refresh()
        await stopped.wait()
        assert app.failures == []


async def test_a_frontend_that_does_not_start_later_fails_the_app() -> None:
    """If the frontend of an added component does not start, the app fails."""

    class Broken(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            raise RuntimeError("no licence")

    frontend = Broken()
    failed = asyncio.Event()
    async with bed(Sites()) as app:
        app.failures = failures = []
        app.layouts._fail = lambda error: (failures.append(error), failed.set())[0]  # type: ignore[func-returns-value]
        app.root.later = Shown(lambda: frontend)  # type: ignore[attr-defined]
        app.layouts.refresh()
        await failed.wait()
        assert "no licence" in str(failures[0])
