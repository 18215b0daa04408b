"""Finding and calling what `Spec.entry` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from lightwork.runtime._failures import Rejected

__all__ = ["outcome_of", "resolve_entry", "resolve_serve"]


def resolve_entry(entry: str) -> Callable[[], Any]:
    """The function that `Spec.entry` names."""
    module, _, function = entry.partition(":")
    found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    return found


def resolve_serve(entry: str) -> Callable[[bytes], Awaitable[int]]:
    """What runs `Spec.entry` as a task: the coroutine function ``serve`` of its module, to be called with the ticket.

    Raises:
        Rejected: There is none.
    """
    module = entry.partition(":")[0]
    try:
        serve: Callable[[bytes], Awaitable[int]] = importlib.import_module(module).serve
    except (ImportError, AttributeError) as error:
        raise Rejected(f"entry {entry!r}: its module needs a coroutine function `serve(ticket)` ({error})") from error
    return serve


async def outcome_of(serve: Callable[[bytes], Awaitable[int]], ticket: bytes) -> tuple[int, str]:
    """The exit code and what there is to say about it, as if `serve` had its process for itself."""
    try:
        code = await serve(ticket)
    except SystemExit as leaving:  # it would end the event loop, and with it everybody else
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        # The launch's report carries it to whoever waits; other launches go on.
        traceback.print_exception(error, file=sys.stderr)
        return 1, "".join(traceback.format_exception_only(error)).strip()
    return code, f"exit code {code}"
