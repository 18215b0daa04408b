"""A launch that is cancelled or killed at any await leaves only what `find` returns and `release` frees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lightwork.testing.conformance import Case
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from lightwork_runtimes.local import LocalOptions, LocalRuntime
from tests.runtimes.awaits import cancel_launch_at_every_await, cancelled_at, killed_at, release_all
from tests.runtimes.docker_base import base_image, require_engine
from tests.runtimes.sshd import needs_sshd, sshd

Make = Callable[[], Any]

KILLED_AT = (1, 3, 9, 1000)
"""Numbers of awaits. The last number is larger than the number of awaits, so the launch completes."""

pytestmark = pytest.mark.timeout(400)


@contextlib.asynccontextmanager
async def place(kind: str, folder: Path) -> AsyncIterator[Make]:
    """Set up a place to launch in, and yield a function that makes runtimes for it."""
    match kind:
        case "ssh":
            async with sshd(folder) as server:
                yield lambda: server.runtime(code=[])
                assert server.launches() == []
        case "docker":
            require_engine()
            options = DockerOptions(image=base_image(), pull="never", network="host")
            yield lambda: DockerRuntime("docker", options)
        case _:
            yield lambda: LocalRuntime("local", LocalOptions(home=str(folder)))


kinds = pytest.mark.parametrize("kind", ["local", "docker", pytest.param("ssh", marks=needs_sshd)])


@kinds
async def test_launch_cancelled_at_every_await(kind: str, tmp_path: Path) -> None:
    """A launch that is cancelled at any await leaves nothing, or a launch that `find` returns and `release` frees."""
    async with place(kind, tmp_path) as make, make() as runtime:
        case = Case(make, runtime)
        await runtime.release(await runtime.launch(case.spec("exit 0")))  # this prepares images and helpers
        assert await cancel_launch_at_every_await(runtime, case) > 1


@kinds
async def test_scheduler_killed_in_a_launch(kind: str, tmp_path: Path) -> None:
    """If the scheduler is killed at an await or after the launch, the next scheduler can find and release the rest."""
    async with place(kind, tmp_path) as make:
        runtime = make()
        async with runtime:
            case = Case(make, runtime)
            await runtime.release(await runtime.launch(case.spec("exit 0")))
        left = []
        for number in KILLED_AT:
            await killed_at(runtime, case.spec("wait"), number)
            async with make() as second:
                left += await release_all(second, case.owner)
        assert left, "no launch was found, not even the completed one"


async def test_every_await_is_one() -> None:
    """`cancelled_at` cancels at the requested await, and returns False if there are not so many."""
    reached: list[int] = []

    async def three() -> None:
        for number in range(3):
            reached.append(number)
            await asyncio.sleep(0)

    found = [await cancelled_at(three(), number) for number in (1, 2, 3, 4)]
    assert found == [True, True, True, False]
    assert reached == [0, 0, 1, 0, 1, 2, 0, 1, 2]
