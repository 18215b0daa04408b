"""The executor, which wraps ``run`` in the worker."""

from __future__ import annotations

import asyncio
import pstats
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lightwork import App, Work
from lightwork.components.executor import WorkRunExecutor
from lightwork.components.profiling import ProfileExecutor
from lightwork.errors import ComponentError
from tests.support_works import Root

RUNTIMES = ["inprocess", "local"]


class Doubling(WorkRunExecutor):
    """Doubles the result of a plain run, and records its use."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.work.wrapped += 1  # type: ignore[attr-defined]  # the works below have it
        return 2 * super().__call__(*args, **kwargs)


class DoublingLater(WorkRunExecutor):
    """Doubles the result of an async run."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._later(super().__call__(*args, **kwargs))

    async def _later(self, outcome: Awaitable[int]) -> int:
        return 2 * await outcome


class Plain(Work):
    """Returns its argument."""

    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = Doubling

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = 0

    def run(self, x: int) -> int:
        return x


class Later(Work):
    """Returns its argument, async."""

    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = DoublingLater

    async def run(self, x: int) -> int:
        await asyncio.sleep(0)
        return x


class Profiled(Work):
    """Has something to profile; fails on request."""

    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = ProfileExecutor

    def __init__(self) -> None:
        super().__init__(cache_calls=False)

    async def run(self, fail: bool) -> int:
        await asyncio.sleep(0)
        return find_me(fail)


def find_me(fail: bool) -> int:
    """Spend enough time to be visible in a profile."""
    if fail:
        raise ValueError("asked to")
    return 1


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_executor_wraps_each_call(runtime: str) -> None:
    """The executor class of a work wraps run, plain or async, and its return value is the result of the call."""
    plain, later = Plain(), Later()
    async with App(Root(plain, later), runtime=runtime):
        assert await plain.submit(4) == 8
        assert await later.run(5) == 10
        assert plain.wrapped == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_profiler_writes_a_file_for_each_call(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profiler writes one file for each call, named by the work, with the user's functions; failed calls too."""
    monkeypatch.chdir(tmp_path)
    work = Profiled()
    async with App(Root(work), runtime=runtime):
        await work.run(False)
        with pytest.raises(ValueError, match="asked to"):
            await work.run(True)
    files = sorted((tmp_path / "profiles").iterdir())
    assert [file.name for file in files] == ["root.works_.0-1.prof", "root.works_.0-2.prof"]
    for file in files:
        names = {name for _, _, name in pstats.Stats(str(file)).stats}  # type: ignore[attr-defined]  # not in the stubs
        assert "find_me" in names


def test_executor_that_is_none() -> None:
    """A work whose executor is not a WorkRunExecutor class is refused by name when it is made."""

    class Wrong(Work):
        _run_executor_cls = int  # type: ignore[assignment]  # what the test is about

        def run(self) -> None: ...

    with pytest.raises(ComponentError, match=r"Wrong\._run_executor_cls.*int.*WorkRunExecutor"):
        Wrong()
