"""Import and call the function that `Spec.entry` names."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from lightwork.runtime._failures import Rejected

__all__ = ["outcome_of", "resolve_entry", "resolve_serve"]


def resolve_entry(entry: str) -> Callable[[], Any]:
    """Import and return the function that `Spec.entry` names."""
    module, _, function = entry.partition(":")
    found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    return found


def resolve_serve(entry: str) -> Callable[[bytes], Awaitable[int]]:
    """Return the coroutine function ``serve`` of the module in `Spec.entry`. It runs a worker as a task.

    Call it with the ticket; it returns the exit code.

    Raises:
        Rejected: The module cannot be imported or has no ``serve``.
    """
    module = entry.partition(":")[0]
    try:
        serve: Callable[[bytes], Awaitable[int]] = importlib.import_module(module).serve
    except (ImportError, AttributeError) as error:
        raise Rejected(f"entry {entry!r}: its module must define `async def serve(ticket)` ({error})") from error
    return serve


async def outcome_of(serve: Callable[[bytes], Awaitable[int]], ticket: bytes) -> tuple[int, str]:
    """Run `serve` and return its exit code and an explanation, as if `serve` ran in a separate process."""
    try:
        code = await serve(ticket)
    except SystemExit as leaving:  # it would end the event loop, and every other task with it
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        # The launch's report carries the error to the caller of `wait`; other launches go on.
        traceback.print_exception(error, file=sys.stderr)
        return 1, "".join(traceback.format_exception_only(error)).strip()
    return code, f"exit code {code}"
