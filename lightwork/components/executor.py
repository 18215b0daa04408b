"""What enters a work's ``run`` in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["WorkRunExecutor"]


class WorkRunExecutor:
    """Wraps ``run`` in the worker: set a subclass as ``_run_executor_cls`` of a work to do something around each call.

    One is made for each call. ``__call__`` must give what `work_run` gives: for an ``async def run`` that
    is the coroutine, or another one around it.

    Args:
        work: The work, in the worker.
        work_run: Its ``run``, bound.
    """

    def __init__(self, work: Work, work_run: Callable[..., Any]) -> None:
        self.work = work
        self.work_run = work_run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Enter ``run``."""
        return self.work_run(*args, **kwargs)
