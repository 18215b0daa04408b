"""A task whose first step its maker takes, instead of the next turn of the loop.

A run that awaits nothing is then over when its frame has been read, and costs no turn of the loop at all. asyncio has
eager tasks from Python 3.12 on, for a whole loop or outside of every group: what users start in a run must not change
its order, and 3.11 is to be as fast.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ["create_stepped"]


def create_stepped(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str | None = None
) -> tuple[asyncio.Task[None], Callable[[], object]]:
    """Make a task, and give it with what takes its first step, to be called once. The caller keeps the task.

    In a callback of the loop that step may be taken at once, as the loop itself would in its next turn: the task is the
    present one in it, in its own context. Inside of another task, where asyncio allows no second one, the loop takes
    the step, and what is given does nothing.

    Cancelling the task before its first step keeps it from being entered, as always.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(coroutine, name=name), _nothing
    steps: list[Callable[[], object]] = []
    # A new task schedules its first step by its loop's `call_soon`, and nothing else calls that meanwhile: other
    # threads have `call_soon_threadsafe`, which does not come through here.
    loop.call_soon = partial(_note, steps)  # type: ignore[method-assign, assignment]
    try:
        # Not by the loop: it may have a factory, whose tasks are eager themselves.
        task = asyncio.Task(coroutine, loop=loop, name=name)
    finally:
        del loop.call_soon  # the class's own again
    return task, steps[0]


def _note(steps: list[Callable[[], object]], step: Callable[[], object], *, context: Context) -> None:
    steps.append(partial(context.run, step))


def _nothing() -> None:
    """The loop does it."""
