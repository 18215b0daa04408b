"""A task whose first step runs at once, instead of in the next iteration of the loop.

A run that awaits nothing has then ended when its frame has been read, and costs no iteration of the loop.

Python 3.12 and newer have eager tasks. Only the task of a run is eager: an eager task factory would also change the
order of the tasks that users start in a run. Python 3.11 has no eager tasks, and must be as fast. There the first step
is taken from the new task before the loop gets it, see `_create_stepped`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ["start_task"]


def start_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str | None = None
) -> asyncio.Task[None]:
    """Create a task and run its first step. The caller owns the task.

    In a callback of the loop the first step runs at once. The task is the current task in it, in a separate context.
    Inside another task the loop runs the step, as for any other task. Such a task can be cancelled before its first
    step; it is then never entered.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(coroutine, name=name)
    # Not made by the loop: it may have a task factory of the user.
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)
    else:
        task, step = _create_stepped(loop, coroutine, name)
        step()
        return task


def _create_stepped(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], name: str | None
) -> tuple[asyncio.Task[None], Callable[[], object]]:
    """Create a task without scheduling it; return the task and the function that runs its first step.

    For Python 3.11 only. A new task passes its first step to `call_soon` of its loop. That method is replaced while the
    task is created. Nothing else calls it meanwhile: this code runs in the loop's thread, and other threads use
    `call_soon_threadsafe`, which does not call the replaced method.
    """
    steps: list[Callable[[], object]] = []
    loop.call_soon = partial(_note, steps)  # type: ignore[method-assign, assignment]
    try:
        task = asyncio.Task(coroutine, loop=loop, name=name)
    finally:
        del loop.call_soon  # uncovers the method of the class
    return task, steps[0]


def _note(steps: list[Callable[[], object]], step: Callable[[], object], *, context: Context) -> None:
    steps.append(partial(context.run, step))
