"""Stack dumps and usage of works."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from lightwork import Work
from lightwork.changes import LogLine
from tests.server.support import Root, Worker, serving


class Blocks(Work):
    """Blocks its event loop."""

    def __init__(self) -> None:
        super().__init__(parallel=True)

    async def run(self, seconds: float) -> None:
        self.block_here(seconds)

    def block_here(self, seconds: float) -> None:
        print("begun\nhalf", end="", flush=True)
        time.sleep(seconds)


class Plain(Work):
    """A plain run, which blocks the main thread."""

    def __init__(self) -> None:
        super().__init__(parallel=True)

    def run(self, seconds: float) -> None:
        self.wait_here(seconds)

    def wait_here(self, seconds: float) -> None:
        time.sleep(seconds)


async def until_running(work: Work, client: Any) -> None:
    await client.app.wait_for(lambda: work.is_running)


async def test_stack_of_a_task() -> None:
    """The stack of a waiting task has all coroutines that it awaits, and no frames of the framework."""
    async with serving("local") as client:
        work = client.app.works[0]
        work.submit("until_go")
        await until_running(work, client)
        stack = await client.get("/works/root.work/stack")
        functions = [[frame["function"].rpartition(".")[2] for frame in task["frames"]] for task in stack["tasks"]]
        assert any(frames[:2] == ["run", "do_until_go"] for frames in functions)
        assert all("/lightwork/worker/" not in frame["file"] for task in stack["tasks"] for frame in task["frames"])


async def test_stack_of_a_plain_run() -> None:
    """The stack of a plain run is that of its thread."""
    async with serving("local", root=Root(work=Plain())) as client:
        work = client.app.works[0]
        work.submit(30.0)
        await until_running(work, client)
        frames: list[str] = []
        while "wait_here" not in frames:
            stack = await client.get("/works/root.work/stack")
            frames = [frame["function"].rpartition(".")[2] for one in stack["threads"] for frame in one["frames"]]


async def test_stack_of_a_blocked_loop(tmp_path: Any) -> None:
    """Another thread dumps the stack of a blocked loop; the dump does not appear in the work's log lines."""
    async with serving("local", root=Root(work=Blocks()), log_dir=str(tmp_path)) as client:
        work = client.app.works[0]
        changes = client.app.changes()
        work.submit(20.0)
        async for change in changes:
            if isinstance(change, LogLine):
                break
        await changes.aclose()
        frames: list[str] = []
        while "block_here" not in frames:
            status, stack = await client.ask("GET", "/works/root.work/stack")
            threads = stack["threads"] if status == 200 else []
            frames = [frame["function"].rpartition(".")[2] for one in threads for frame in one["frames"]]
        await work.stop()
        assert [line["text"] for line in (await client.get("/logs"))["items"]] == ["begun", "half"]


async def test_stack_without_a_process() -> None:
    """The stack of a work without a process is a conflict."""
    async with serving(root=Root(work=Worker(start_with_flow=False))) as client:
        status, body = await client.ask("GET", "/works/root.work/stack")
        assert (status, body["error"]["code"]) == (409, "conflict")


async def test_usage() -> None:
    """Usage has each work with a process, and the app then reports the total."""
    async with serving("local") as client:
        await client.app.works[0].submit("echo", 1)
        (found,) = (await client.get("/usage"))["items"]
        assert found["work"] == "root.work"
        assert found["memory"] > 1_000_000
        assert found["processes"] >= 1
        assert (await client.get("/app"))["load"]["memory"] == found["memory"]


async def test_usage_is_followed() -> None:
    """A client that follows usage gets samples; sampling stops when the last such client has gone."""
    async with serving("local") as client:
        await client.app.works[0].submit("echo", 1)
        async with client.feed() as feed:
            await feed.next()
            await feed.say(type="follow", usage=True)
            await feed.until(t="usage", work="root.work")
        api = client.app._api()
        assert api is not None
        while api.feed.num_clients:  # noqa: ASYNC110 -- the feed has no event for a client that leaves
            await asyncio.sleep(0.01)
        assert api.usages._task is None


@pytest.mark.bare
async def test_nobody_asks() -> None:
    """Usage is not sampled without a request."""
    async with serving() as client:
        api = client.app._api()
        assert api is not None
        assert api.usages._task is None
