"""What the type checker infers of the public face. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

from lightwork import App, Call, Flow, LightningWork, Work, WorkStatus
from lightwork.changes import Change
from lightwork.structures import Dict, List


class Train(Work):
    def __init__(self, lr: float) -> None:
        super().__init__(parallel=True)
        self.lr = lr

    async def run(self, epochs: int, *, name: str = "") -> float:
        return self.lr * epochs


class Plain(Work):
    def run(self, x: int) -> str:
        return str(x)


class Sweep(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.trials = List([Train(0.1)])
        self.table = Dict(a=Plain())

    async def run(self) -> None:
        assert_type(self.trials[0], Train)
        assert_type(self.table["a"], Plain)
        assert_type(await self.trials[0].submit(3, name="x"), float)


def test_constructors() -> None:
    assert_type(Train(0.1), Train)
    assert_type(Sweep(), Sweep)
    Train("x")  # type: ignore[arg-type]
    Train()  # type: ignore[call-arg]
    old: type[Work] = LightningWork
    assert_type(old, type[Work])


async def test_run(train: Train, plain: Plain) -> None:
    assert_type(await train.run(3), float)
    assert_type(plain.run(3), str)
    await train.run("3")  # type: ignore[arg-type]


async def test_submit(train: Train, plain: Plain) -> None:
    assert_type(train.submit(3), Call[float])
    assert_type(await train.submit(3, name="x"), float)
    assert_type(plain.submit(3), Call[str])
    assert_type(plain.submit(x=3).result(), str)
    train.submit("3")  # type: ignore[call-overload]
    plain.submit(3, 4)  # type: ignore[call-arg]


def test_call(call: Call[int]) -> None:
    assert_type(call.result(), int)
    assert_type(call.status, WorkStatus)
    assert_type(call.done, bool)
    assert_type(call.cancel(), bool)
    assert_type(call.hash, str)
    wider: Call[object] = call
    assert_type(wider.result(), object)


def test_structures(trials: List[Train], table: Dict[Plain]) -> None:
    assert_type(trials[0], Train)
    assert_type(trials[1:], list[Train])
    assert_type(trials.pop(), Train)
    assert_type([one.lr for one in trials], list[float])
    assert_type(table["a"], Plain)
    assert_type(list(table), list[str])
    trials.append(3)  # type: ignore[arg-type]


def test_work(train: Train) -> None:
    assert_type(train.status, WorkStatus)
    assert_type(train.statuses, list[WorkStatus])
    assert_type(train.has_failed, bool)
    assert_type(train.state, dict[str, Any])
    assert_type(train.name, str)
    assert_type(train.url, str)
    assert_type(train.port, int | None)


async def test_app() -> None:
    app = App(Sweep())
    App(Train(0.1), runtime="inprocess")
    App(3)  # type: ignore[call-overload]
    assert_type(await app.run(), None)
    async with app as entered:
        assert_type(entered, App[Sweep])
    assert_type(app.works, list[Work])
    assert_type(app.stop_message, str | None)
    feed: AsyncIterator[Change] = app.changes()
    async for change in feed:
        assert_type(change, Change)
