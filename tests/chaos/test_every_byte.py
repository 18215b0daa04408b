"""A connection that breaks at any byte, in either direction: nothing is lost, nothing is applied twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from lightwork import App, Flow, Work
from tests.chaos.proxy import FaultProxy, Line, ThroughProxies, Way, proxies


class Notes(Work):
    """Records each step, and its end too."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.steps: list[int] = []
        self.ends = 0
        self.told = 0

    async def run(self, n: int) -> int:
        self.steps.append(2 * n)
        await asyncio.sleep(0)
        self.steps.append(2 * n + 1)
        return n

    def on_exit(self) -> None:
        self.ends += 1


class Holds(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.work = Notes()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def converse(proxy: FaultProxy) -> Notes:
    """Start a work, call it twice with an edit of the flow between the calls, stop it, and check all results."""
    root = Holds()
    work = root.work
    async with App(root, runtimes={"inprocess": ThroughProxies([proxy])}, runtime="inprocess", grace=2.0):
        assert await work.run(0) == 0
        work.told = 7
        await work.wait_confirmed()
        assert await work.run(1) == 1
        await work.stop()
    assert work.steps == [0, 1, 2, 3]
    assert work.told == 7
    assert work.ends == 1
    stages = [one.stage for one in work.statuses if one.call is not None]
    assert stages == ["pending", "running", "succeeded"] * 2
    assert [(one.stage, one.reason) for one in work.statuses if one.call is None] == [
        ("started", None),
        ("stopped", None),
    ]
    return work


async def measure() -> dict[Way, int]:
    """Return the number of bytes that pass in each direction without a fault."""
    lines: list[Line] = []
    async with proxies() as (proxy,):
        proxy.plans.append(lines.append)
        await converse(proxy)
    (line,) = lines
    return {"up": line.up.passed, "down": line.down.passed}


def places(total: int, way: Way, body: int) -> Iterator[int]:
    """Return every byte position, but only some of the long middle of the welcome."""
    for at in range(1, total):
        if way == "up" or at < 100 or at > body or at % 61 == 0:
            yield at


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.timeout(300)
async def test_cut_at_every_byte(way: Way) -> None:
    """The first connection is cut after each number of bytes: the work behaves as without a fault."""
    total = (await measure())[way]
    failures: list[tuple[int, Any]] = []
    for at in places(total, way, total - 200):

        def plan(line: Line, at: int = at) -> None:
            line.pipe(way).fuse = at

        async with proxies() as (proxy,):
            proxy.plans.append(plan)
            try:
                async with asyncio.timeout(8):
                    await converse(proxy)
            except Exception as error:
                failures.append((at, error))
            if proxy.came < 2 and at < total - 20:
                failures.append((at, "there was no second connection"))
    assert failures == [], f"{len(failures)} of the places"
