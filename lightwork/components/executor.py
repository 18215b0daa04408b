"""The executor, which calls a work's ``run`` in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["WorkRunExecutor"]


class WorkRunExecutor:
    """Wraps ``run`` in the worker. Set a subclass as ``_run_executor_cls`` of a work to run code around each call.

    Each call has its own instance. ``__call__`` must return what `work_run` returns: for an ``async def run`` a
    coroutine, the same or one that wraps it.

    Args:
        work: The work, in the worker.
        work_run: The bound ``run`` of the work.
    """

    def __init__(self, work: Work, work_run: Callable[..., Any]) -> None:
        self.work = work
        self.work_run = work_run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``run``."""
        return self.work_run(*args, **kwargs)
