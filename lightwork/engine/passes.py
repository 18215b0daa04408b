"""When the flow runs: once at the start, and again whenever something has changed since the last pass began."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from lightwork.calls import PassEnded
from lightwork.engine.scheduler import Scheduler, in_pass
from lightwork.engine.tree import Tree
from lightwork.flow import Flow

__all__ = ["FlowEnded", "Passes"]


class FlowEnded(BaseException):
    """Ends the present pass, because the flow has called ``stop`` or ``fail``."""


class Passes:
    """Runs the passes of a root flow.

    Args:
        root: The flow.
        scheduler: Holds back frames while a plain pass runs.
        tree: Says whether anything has changed.
    """

    def __init__(self, root: Flow, scheduler: Scheduler, tree: Tree) -> None:
        self._root = root
        self._scheduler = scheduler
        self._tree = tree
        self._is_coroutine = inspect.iscoroutinefunction(type(root).run)

    async def serve(self) -> None:
        """Run passes until one ends the app.

        Raises:
            BaseException: What a pass raised.
        """
        in_pass.set(True)
        while True:
            begun = self._tree.version
            self._scheduler.passes += 1
            try:
                await self._one()
            except FlowEnded:
                return
            except BaseExceptionGroup as group:
                # A task group of the flow's in which one task has ended the app.
                ended, rest = group.split(FlowEnded)
                if rest is not None or ended is None:
                    raise
                return
            self._scheduler.check_failed()
            await self._tree.wait_change(begun)
            if self._tree.closed:
                return

    async def _one(self) -> None:
        if self._is_coroutine:
            await self._root.run()
            return
        from anyio import to_thread

        self._scheduler.hold_frames()
        try:
            await to_thread.run_sync(self._plain, abandon_on_cancel=True)
        finally:
            self._scheduler.release_frames()

    def _plain(self) -> None:
        self._scheduler.enter_pass_thread()
        try:
            outcome: Any = self._root.run()
            if asyncio.iscoroutine(outcome):
                outcome.close()
                raise TypeError(f"{type(self._root).__name__}.run gave a coroutine; define it with `async def`")
        except PassEnded:
            return
        finally:
            self._scheduler.leave_pass_thread()
