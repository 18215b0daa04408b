"""Components: constructors, attributes, what users override, structures. Checked, never run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, assert_type

import lightwork
import lightwork.server
from lightwork import (
    BuildConfig,
    CloudCompute,
    Flow,
    FlowDelta,
    LightningFlow,
    LightningWork,
    Mount,
    ProfileExecutor,
    Work,
    WorkRunExecutor,
    WorkStatus,
)
from lightwork.api import Command, Delete, Get, HttpMethod, Post, Put
from lightwork.frontend import Frontend, StaticWebFrontend
from lightwork.structures import Dict, List


class Train(Work):
    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = ProfileExecutor

    def __init__(self, lr: float, *, name: str = "") -> None:
        super().__init__(parallel=True, cloud_compute=CloudCompute("gpu", disk_size=10), timeout=3, retries=2)
        self.lr = lr
        self.loss: float | None = None

    async def run(self, epochs: int) -> float:
        self.loss = self.lr * epochs
        return self.loss

    async def on_start(self) -> None: ...

    def on_exception(self, exception: BaseException) -> None: ...

    async def on_exit(self) -> None: ...

    def apply_flow_delta(self, delta: FlowDelta) -> None:
        delta.decide(self)

    def configure_layout(self) -> str:
        return self.url


class Plain(Work):
    def run(self, x: int) -> str:
        return str(x)


class Sweep(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.trials = List([Train(0.1)])
        self.table = Dict(a=Plain())
        self.plain = [Train(0.1), Train(0.2)]

    async def run(self) -> None:
        assert_type(self.trials[0], Train)
        assert_type(self.table["a"], Plain)
        assert_type(self.plain, list[Train])
        assert_type(await self.trials[0].submit(3), float)
        assert_type(self.schedule("hourly", start_time=datetime.now(), user_key="x"), bool)
        for item in self.iterate(["a", "b"], run_once=False):
            assert_type(item, str)
        self.stop("done")

    def configure_layout(self) -> list[dict[str, Any]]:
        return [{"name": "trials", "content": self.trials[0]}]

    def configure_api(self) -> list[HttpMethod]:
        return [Get("/best", self.best), Post("/best", self.best, timeout=3)]

    def configure_commands(self) -> list[Command | dict[str, Callable[..., Any]]]:
        return [Command("best", self.best, help="The best one."), {"best": self.best}]

    def best(self) -> float | None:
        return self.trials[0].loss


class Small(Flow):
    def run(self) -> None: ...

    def configure_api(self) -> list[Get]:
        return []

    def configure_commands(self) -> list[dict[str, Callable[..., Any]]]:
        return [{"small": print}]


def test_constructors() -> None:
    assert_type(Train(0.1), Train)
    assert_type(Train(lr=0.1, name="x"), Train)
    assert_type(Plain(), Plain)
    assert_type(Sweep(), Sweep)
    Train("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Train()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Train(0.1, nmae="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Plain(True, False, port=80, start_with_flow=False, runtime="local", retry_delay=0.5, concurrency=1)
    Plain(paralel=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Plain(port="80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Sweep(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    work: type[Work] = LightningWork
    flow: type[Flow] = LightningFlow
    assert_type(work, type[Work])
    assert_type(flow, type[Flow])


def test_misspelt_names() -> None:
    print(lightwork.Wrok)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    print(lightwork.server.asgi_ap)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def test_plain_data() -> None:
    CloudCompute(mounts=[Mount("s3://foo/bar", mount_path="/data")], interruptible=True)
    CloudCompute(disc_size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Mount("s3://foo/bar", path="/data")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    BuildConfig(requirements=["numpy"])
    BuildConfig(requirement=["numpy"])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_work(train: Train) -> None:
    assert_type(train.lr, float)
    assert_type(train.status, WorkStatus)
    assert_type(train.statuses, list[WorkStatus])
    assert_type(train.has_failed, bool)
    assert_type(train.num_successes, int)
    assert_type(train.state, dict[str, Any])
    assert_type(train.state_dict(), dict[str, Any])
    assert_type(train.name, str)
    assert_type(train.url, str)
    assert_type(train.port, int | None)
    assert_type(train.cloud_compute, CloudCompute)
    train.cloud_compute = CloudCompute("gpu")
    train.lr = "x"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    train.rl = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def test_operations(train: Train) -> None:
    assert_type(train.start().done, bool)
    await train.start()
    await train.stop()
    await train.delete()
    await train.wait_confirmed()


def test_flow(sweep: Sweep) -> None:
    assert_type(sweep.works(), list[Work])
    assert_type(sweep.works(recurse=False), list[Work])
    assert_type(sweep.named_works(), list[tuple[str, Work]])
    assert_type(sweep.flows, dict[str, Flow])
    assert_type(sweep.ready, bool)
    assert_type(sweep.configure_api(), list[HttpMethod])
    sweep.works(recurs=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sweep.schedule("hourly", user_kye="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_what_flows_may_override(flow: Flow) -> None:
    assert_type(flow.configure_api(), Sequence[HttpMethod])
    assert_type(flow.configure_commands(), Sequence[Command | Mapping[str, Callable[..., Any]]])


def test_list(trials: List[Train]) -> None:
    assert_type(List([Train(0.1)]), List[Train])
    assert_type(trials[0], Train)
    assert_type(trials[1:], list[Train])
    assert_type(trials.pop(), Train)
    assert_type([one.lr for one in trials], list[float])
    assert_type(trials.works, list[Work])
    assert_type(trials.flows, dict[str, Flow])
    trials[0] = Train(0.1)
    trials[:] = [Train(0.1), Train(0.2)]
    trials[0] = Plain()  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    trials.append(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    List([3])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_dict(table: Dict[Plain]) -> None:
    assert_type(Dict({"a": Plain()}, b=Plain()), Dict[Plain])
    assert_type(table["a"], Plain)
    assert_type(list(table), list[str])
    assert_type(table.get("a"), Plain | None)
    assert_type(table.works, list[Work])
    table["a"] = Plain()
    table["a"] = Train(0.1)  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]


def test_nested_structures() -> None:
    nested = List([List([Train(0.1)])])
    assert_type(nested[0][0], Train)


def test_routes() -> None:
    assert_type(Get("/x", print).timeout, float)
    assert_type(Get("/x", print).method_name, str)
    Get("/x", print, timeut=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Post("/x", print, method_nmae="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Put("/x", print, timeout="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Delete("/x", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Command("x", print, hlep="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    frontend: Frontend = StaticWebFrontend(".", root_path="/docs")
    assert_type(frontend.root_path, str | None)
    StaticWebFrontend(".", rot_path="/docs")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
