"""A task whose first step runs when it is created."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from lightwork.worker.eager_task import start_task

pytestmark = pytest.mark.bare

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


@pytest.fixture(params=["asyncio", "uvloop"])
def in_callback(request: pytest.FixtureRequest) -> Callable[[Callable[[asyncio.AbstractEventLoop], Any]], Any]:
    """Call a function in a callback of each kind of loop, and await the task that it returns."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip("uvloop is not installed")
    module = importlib.import_module(request.param)

    def run(fn: Callable[[asyncio.AbstractEventLoop], Any]) -> Any:
        async def scenario() -> Any:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Any] = loop.create_future()
            loop.call_soon(lambda: done.set_result(fn(loop)))
            outcome = await done
            return await outcome if isinstance(outcome, asyncio.Task) else outcome

        with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
            return runner.run(scenario())

    return run


def test_a_coroutine_that_awaits_nothing_is_over_after_the_step(in_callback: Callable[..., Any]) -> None:
    """It runs at once, as the current task and in a separate context."""
    story: list[Any] = []

    async def work() -> None:
        story.append(asyncio.current_task())
        seen.set("the task")

    def scenario(loop: asyncio.AbstractEventLoop) -> None:
        task = start_task(loop, work())
        assert story == [task]
        assert task.done()
        assert seen.get() == "nothing"
        assert asyncio.current_task(loop) is None

    in_callback(scenario)


def test_a_coroutine_that_awaits_goes_on_in_the_loop(in_callback: Callable[..., Any]) -> None:
    """Timeouts, which need a current task, work from the first step on."""
    story: list[str] = []

    async def work() -> None:
        async with asyncio.timeout(30):
            story.append("begun")
            await asyncio.sleep(0)
            story.append("done")

    def scenario(loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        task = start_task(loop, work())
        assert story == ["begun"]
        return task

    in_callback(scenario)
    assert story == ["begun", "done"]


def test_what_the_first_step_schedules_goes_to_the_loop(in_callback: Callable[..., Any]) -> None:
    """The loop's `call_soon` is restored after the creation of a task, even if the creation fails."""
    story: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(story.append, "called")
        await asyncio.sleep(0)

    def scenario(loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        with pytest.raises(TypeError):
            start_task(loop, None)  # type: ignore[arg-type]
        task = start_task(loop, work())
        assert not story
        return task

    in_callback(scenario)
    assert story == ["called"]


async def test_a_task_cancelled_before_the_step_is_never_entered() -> None:
    """A task that is cancelled before its first step ends without entering the coroutine, like any other task."""
    story: list[str] = []

    async def work() -> None:
        story.append("entered")

    task = start_task(asyncio.get_running_loop(), work())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not story


async def test_inside_of_another_task_the_loop_takes_the_step() -> None:
    """Inside another task the step does not run at once: the loop runs it."""
    story: list[str] = []

    async def work() -> None:
        story.append("entered")

    task = start_task(asyncio.get_running_loop(), work())
    assert not story
    await task
    assert story == ["entered"]


def test_a_factory_of_the_loop_does_not_make_the_task(in_callback: Callable[..., Any]) -> None:
    """The loop's task factory is not used: it belongs to the user."""
    story: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        story.append("made")
        return asyncio.Task(coroutine, loop=loop, **options)

    async def work() -> None:
        story.append("entered")

    def scenario(loop: asyncio.AbstractEventLoop) -> None:
        loop.set_task_factory(factory)
        try:
            start_task(loop, work())
        finally:
            loop.set_task_factory(None)

    in_callback(scenario)
    assert story == ["entered"]
