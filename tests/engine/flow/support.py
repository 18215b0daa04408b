"""Components with a layout that a test sets, frontends that record, and a substitute for a running app."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from lightwork.components.component import Component, Node
from lightwork.components.driver import Driver
from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.flow.layouts import Layouts
from lightwork.frontend import Frontend
from lightwork.state.ops import Op
from lightwork.structures import List


class Plain(Work):
    """A work with the default layout."""

    async def run(self) -> None: ...


class Shown(Plain):
    """A work whose configure_layout returns the result of `give`."""

    def __init__(self, give: Callable[[], Any] = lambda: None) -> None:
        super().__init__()
        self._give = give
        self.asked_for: str = ""

    def configure_layout(self) -> Any:
        return self._give()


class Board(Flow):
    """A flow with two works and a list of works, with the default layout."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Plain()
        self.two = Shown()
        self.trials = List([Plain(), Plain()])
        self.page = ""

    async def run(self) -> None: ...


class ShownBoard(Board):
    def __init__(self, give: Callable[[ShownBoard], Any] = lambda board: None) -> None:
        super().__init__()
        self._give = give

    def configure_layout(self) -> Any:
        return self._give(self)


def set_url(work: Work, url: str) -> None:
    """Set the URL, as the engine does when the work's service answers."""
    work._state.set("_url", url)


class Recorder(Frontend):
    """A frontend without a server, which records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def start_server(self, host: str, port: int, root_path: str = "") -> None:
        self.calls.append(("start", host, port, root_path))

    async def stop_server(self) -> None:
        self.calls.append(("stop",))

    @property
    def told(self) -> list[str]:
        return [call[0] for call in self.calls]


class Bed:
    """A tree with its `Layouts`, driven as an app drives it, without running works.

    Attributes:
        failures: The errors that would have failed the app.
        is_held: Whether `Layouts` sees a plain pass running.
    """

    def __init__(self, root: Flow, group: asyncio.TaskGroup, **options: Any) -> None:
        self.root = root
        self.hub = ChangeHub(asyncio.get_running_loop())
        self.failures: list[BaseException] = []
        self.is_held = False
        self.layouts = Layouts(root, self.hub, fail=self.failures.append, is_held=lambda: self.is_held, **options)
        self._group = group
        if not root._key:
            object.__setattr__(root, "_key", "root")
        root._bind(cast("Driver", self))

    async def open(self) -> None:
        await self.layouts.open(self._group)

    def added(self, node: Node) -> None:
        self.layouts.reshaped()
        self.hub.changed()

    removed = added

    def edited(self, component: Component, op: Op) -> None:
        self.hub.edited(component.name, (op,))

    def target(self, name: str) -> Any:
        return self.layouts.snapshot()[name]["target"]


@contextlib.asynccontextmanager
async def bed(root: Flow, *, opened: bool = True, **options: Any) -> AsyncIterator[Bed]:
    async with asyncio.TaskGroup() as group:
        made = Bed(root, group, **options)
        try:
            if opened:
                await made.open()
            yield made
        finally:
            await made.layouts.aclose()
            root._bind(None)


def make_site(folder: Path) -> Path:
    """Make a folder to serve, ``site``, and beside it a file and a folder that must not be served; return ``site``."""
    folder = folder.resolve()
    site = folder / "site"
    (site / "docs" / "deep").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "index.html").write_text("the index")
    (site / "app.js").write_text("the script")
    (site / "a b.txt").write_text("with a blank")
    (site / "%2e%2e").write_text("a strange name")
    (site / "docs" / "index.html").write_text("the docs")
    (site / "docs" / "deep" / "page.html").write_text("the page")
    (folder / "secret.txt").write_text("the secret")
    (folder / "site-secrets").mkdir()
    (folder / "site-secrets" / "index.html").write_text("the secret")
    (site / "inner.html").symlink_to(site / "docs" / "index.html")
    (site / "outer.txt").symlink_to(folder / "secret.txt")
    (site / "relative.txt").symlink_to("../secret.txt")
    (site / "outer").symlink_to(folder / "site-secrets")
    (site / "up").symlink_to("..")
    (site / "loop").symlink_to("loop")
    (site / "dangling").symlink_to("nothing")
    os.mkfifo(site / "pipe")
    assert stat.S_ISFIFO((site / "pipe").stat().st_mode)
    return site
