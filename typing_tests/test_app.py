"""`App`: its root, its settings, what can be read of it. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Unpack, assert_type

from lightwork import App, AppSettings, Config, Flow, LightningApp, Work, load_config
from lightwork.changes import Change
from lightwork.components.component import Component
from lightwork.config import WorkProfile
from lightwork.testing import FakeRuntime


class Train(Work):
    async def run(self, epochs: int) -> float:
        return 1.0 * epochs


class Sweep(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.best: float | None = None

    async def run(self) -> None: ...


def test_root() -> None:
    assert_type(App(Sweep()), App[Sweep])
    assert_type(App(Sweep()).root, Sweep)
    assert_type(App(Sweep()).root.best, float | None)
    assert_type(App(Train()), App[Flow])
    assert_type(LightningApp(Sweep()), App[Sweep])
    App(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    App(Sweep)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    App()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def test_settings() -> None:
    App(Sweep(), runtime="inprocess", port=0, http=True, log_level="debug", grace=3, http_origins=["https://x.org"])
    App(Train(), journal=Path("journal"), resume=True, works={"root.*": WorkProfile("gpu")}, heartbeat=None)
    App(Sweep(), config=load_config(), runtimes={"fake": FakeRuntime()})
    App(Sweep(), runtim="local")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    App(Train(), htpp=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    App(Sweep(), port="80")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    App(Sweep(), log_level="loud")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_configure(app: App[Sweep]) -> None:
    app.configure(runtime="local", runtimes={"gpu": {"kind": "ssh"}}, journal="journal", resume=None)
    app.configure(runtim="local")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    app.configure(port="80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_config() -> None:
    assert_type(load_config(), Config)
    assert_type(Config(port=80).port, int)
    assert_type(Config().replaced(port=80), Config)
    Config(prot=80)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Config().replaced(prot=80)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def passes_settings_on(**settings: Unpack[AppSettings]) -> App[Sweep]:
    return App(Sweep(), **settings)


def passes_anything_on(settings: dict[str, Any]) -> App[Sweep]:
    return App(Sweep(), **settings)


def test_passed_on() -> None:
    passes_settings_on(runtime="local")
    passes_settings_on(runtim="local")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_running() -> None:
    app = App(Sweep())
    await app.run()
    async with app as entered:
        assert_type(entered, App[Sweep])
    assert_type(app.config, Config)
    assert_type(app.works, list[Work])
    assert_type(app.stop_message, str | None)
    assert_type(app.error, BaseException | None)
    assert_type(app.url, str | None)
    assert_type(app.layout, dict[str, Any])
    assert_type(app.get_component_by_name("root.train"), Component)
    assert_type(app.watch(print), Callable[[], None])
    await app.wait_for(lambda: app.root.best)
    feed: AsyncIterator[Change] = app.changes()
    async for change in feed:
        assert_type(change, Change)
