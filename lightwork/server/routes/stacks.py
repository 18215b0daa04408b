"""Routes for stack dumps and usage of works. Each request queries the work's process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from lightwork.link.reports import StackDump
from lightwork.server.lookup import find_work
from lightwork.server.types import StackView, TaskStack, ThreadStack, UsagePage
from lightwork.server.usage import ask_worker
from lightwork.server.web import Problem, Request, Route

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["ROUTES"]

_STACK_WITHIN = 5.0


async def _get_usage(api: Api, request: Request) -> UsagePage:
    """Sample and return the usage of all works."""
    return UsagePage(await api.usages.sample())


async def _get_stack(api: Api, request: Request) -> StackView:
    """Dump the stacks of all threads and tasks of a work's process."""
    work = find_work(api, request.params["name"])
    entry = api.views.entry(work)
    if entry is None or entry.worker is None:
        raise Problem("conflict", f"{work.name} has no process; start it first")
    try:
        dump = msgspec.json.decode(await ask_worker(api.engine, entry, "stack", _STACK_WITHIN), type=StackDump)
    except TimeoutError:
        raise Problem("timeout", f"{work.name} did not reply within {_STACK_WITHIN:g} s") from None
    except msgspec.DecodeError as error:
        raise Problem("internal", f"{work.name} replied with an invalid stack dump: {error}") from None
    return StackView(
        work.name,
        time.time(),
        [ThreadStack(name, frames) for name, frames in dump.threads],
        [TaskStack(name, frames) for name, frames in dump.tasks],
    )


ROUTES = [
    Route("GET", "/usage", _get_usage, answer=UsagePage, tag="works"),
    Route(
        "GET", "/works/{name}/stack", _get_stack,
        answer=StackView, errors=["unknown_work", "conflict", "timeout"], tag="works",
    ),
]  # fmt: skip
