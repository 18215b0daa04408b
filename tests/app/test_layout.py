"""`App.layout` with running works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lightwork import App, Flow, Work
from lightwork.errors import LayoutError
from lightwork.frontend import StaticWebFrontend
from tests.engine.flow.support import Recorder, make_site


class Serve(Work):
    """Serves one page."""

    def __init__(self) -> None:
        super().__init__(parallel=True)

    async def run(self) -> None:
        async def page(request: web.Request) -> web.Response:
            return web.Response(text="the service")

        app = web.Application()
        app.router.add_get("/page", page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


class Site(Work):
    """Has a static site, and does nothing."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def configure_layout(self) -> Any:
        return StaticWebFrontend(self._folder)

    async def run(self) -> None: ...


class Root(Flow):
    """Has tabs for a site, a service, and a page of the service."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.site = Site(folder)
        self.serve = Serve()

    def configure_layout(self) -> Any:
        return [
            {"name": "Site", "content": self.site},
            {"name": "Service", "content": self.serve},
            {"name": "Page", "content": self.serve.url + "/page"},
        ]

    async def run(self) -> None:
        await self.serve.run()
        await asyncio.Event().wait()


class Given(Flow):
    """Returns `first` until its first pass, and `later` from then on."""

    def __init__(self, first: Any, later: Any = None) -> None:
        super().__init__()
        self._first, self._later = first, later
        self.is_later = False

    def configure_layout(self) -> Any:
        return self._later if self.is_later else self._first

    async def run(self) -> None:
        self.is_later = True


async def get(url: str) -> str:
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return await answer.text()


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_tabs_of_a_running_app(tmp_path: Path, runtime: str) -> None:
    """A site is served from the start, a service has an address when it answers, and both end with the app."""
    async with App(Root(make_site(tmp_path)), runtime=runtime) as app:
        site = app.layout["root.site"]["target"]
        assert await get(site) == "the index"
        await app.wait_for(lambda: app.layout["root.serve"]["target"])
        url = app.layout["root.serve"]["target"]
        assert app.layout["root"]["tabs"] == [
            {"name": "Site", "content": "root.site", "target": site},
            {"name": "Service", "content": "root.serve", "target": url},
            {"name": "Page", "content": None, "target": f"{url}/page"},
        ]
        assert await get(f"{url}/page") == "the service"
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(site)


async def test_a_wrong_layout_fails_the_start() -> None:
    """An app whose layout is invalid does not start; corrected, it starts."""
    flow = Given(7)
    app = App(flow, runtime="inprocess")
    with pytest.raises(LayoutError, match="configure_layout of Given 'root' gave 7"):
        await app.__aenter__()
    flow._first = flow._later = "http://a"
    async with app:
        assert app.layout["root"]["target"] == "http://a"


async def test_a_wrong_layout_after_a_pass_fails_the_app() -> None:
    """A layout that becomes invalid fails the app after the pass that changed it, even if it is never read."""
    with pytest.raises(LayoutError, match="a Frontend must be given at creation"):
        await App(Given(None, Recorder()), runtime="inprocess").run()


async def test_a_plain_flow_is_asked_between_its_passes() -> None:
    """The layout of a plain flow is read after its pass, never by the loop while its thread runs."""

    class Plain(Given):
        def run(self) -> None:  # type: ignore[override]
            self.is_later = True

    with pytest.raises(LayoutError, match="gave 7"):
        await App(Plain("http://a", 7), runtime="inprocess").run()


async def test_a_frontend_that_does_not_start_ends_what_did() -> None:
    """A frontend that does not start fails the start of the app, and leaves nothing behind."""

    class Broken(Recorder):
        async def start_server(self, host: str, port: int, root_path: str = "") -> None:
            raise RuntimeError("no licence")

    with pytest.raises(LayoutError, match="the frontend of Given 'root' did not start: RuntimeError: no licence"):
        await App(Given(Broken()), runtime="inprocess").run()


async def test_a_child_made_while_running_brings_its_frontend(tmp_path: Path) -> None:
    """A component made while the app runs is served too, even if the layout is never read."""
    site = make_site(tmp_path)

    class Grows(Flow):
        async def run(self) -> None:
            if not hasattr(self, "site"):
                self.site = Site(site)

    async with App(Grows(), runtime="inprocess") as app:
        await app.wait_for(lambda: app.layout.get("root.site", {}).get("target"))
        assert await get(app.layout["root.site"]["target"]) == "the index"


async def test_a_work_as_an_app_shows_its_url() -> None:
    """An app of one work has one tab when the work has a url."""
    async with App(Serve(), runtime="inprocess") as app:
        await app.wait_for(lambda: app.layout["root.work"]["target"])
        assert [tab["content"] for tab in app.layout["root"]["tabs"]] == ["root.work"]
