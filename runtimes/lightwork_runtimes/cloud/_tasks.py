"""Background tasks in the runtime's task group, each with a future for its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio.abc

__all__ = ["first_of", "start"]

_T = TypeVar("_T")


def start(tasks: anyio.abc.TaskGroup, make: Callable[[], Awaitable[_T]], name: str) -> asyncio.Future[_T]:
    """Run `make` in the task group. Shield the returned future when waiting: a cancelled future gets no result."""
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            value = await make()
        except Exception as error:
            if not future.done():
                future.set_exception(error)
                future.exception()  # mark it as retrieved: perhaps no task waits for it
        except BaseException:
            future.cancel()
            raise
        else:
            if not future.done():
                future.set_result(value)

    tasks.start_soon(run, name=name)
    return future


async def first_of(what: Awaitable[_T], event: asyncio.Event) -> _T | None:
    """Return the result of `what`, or None if the event is set first; `what` is then cancelled."""
    task = asyncio.ensure_future(what)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() and not (task.cancelled() and event.is_set()) else None
    finally:
        for each in (task, waiting):
            each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
