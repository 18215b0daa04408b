"""Routes about what works do and use at this moment; each question goes to the work's own process."""

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
    """What works use now."""
    return UsagePage(await api.usages.sample())


async def _get_stack(api: Api, request: Request) -> StackView:
    """Where the threads and tasks of a work are."""
    work = find_work(api, request.params["name"])
    entry = api.views.entry(work)
    if entry is None or entry.worker is None:
        raise Problem("conflict", f"{work.name} has no process at the moment")
    try:
        dump = msgspec.json.decode(await ask_worker(api.engine, entry, "stack", _STACK_WITHIN), type=StackDump)
    except TimeoutError:
        raise Problem("timeout", f"{work.name} does not answer") from None
    except msgspec.DecodeError as error:
        raise Problem("internal", f"{work.name} answers what is no stack: {error}") from None
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
