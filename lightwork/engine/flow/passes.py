"""Runs the flow: once at the start, and again whenever something has changed since the last pass began."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lightwork.components.driver import PassEnded
from lightwork.components.flow import Flow
from lightwork.engine.changes import ChangeHub

__all__ = ["FlowEnded", "PassHost", "Passes", "in_pass"]

in_pass: contextvars.ContextVar[object] = contextvars.ContextVar("lightwork_in_pass", default=None)
"""In the code of a pass, and in tasks that it started: the engine of that flow. None outside of a pass."""


class PassHost(Protocol):
    """Receives notifications of passes; the engine implements it."""

    def begin_pass(self) -> None:
        """Handle the beginning of a pass of the flow."""
        ...

    def leave_pass(self, *, is_complete: bool) -> None:
        """Handle that the flow's code has left a pass by ending the app. Called before the pass has ended."""
        ...

    def end_pass(self, *, is_complete: bool) -> None:
        """Handle the end of a pass. `is_complete` says whether it ran to its end or was interrupted."""
        ...

    def end_app(self, *, is_success: bool) -> None:
        """Handle that a pass has ended the app."""
        ...

    def hold_frames(self) -> None:
        """Hold incoming frames back, because a plain pass begins."""
        ...

    def release_frames(self) -> None:
        """Handle the frames that were held back, because the plain pass has ended."""
        ...

    def enter_pass_thread(self) -> None:
        """Prepare a plain pass. Called in its thread, before it."""
        ...

    def leave_pass_thread(self) -> None:
        """Clean up after a plain pass. Called in its thread, after it."""
        ...


class FlowEnded(BaseException):
    """Ends the current pass, because the flow has called ``stop`` (a success) or ``fail``."""

    def __init__(self, *, is_success: bool) -> None:
        super().__init__()
        self.is_success = is_success


class Passes:
    """Runs the passes of a root flow.

    Args:
        root: The root flow.
        engine: Notified of the passes.
        hub: Counts the changes.
        after: Called after each pass.
    """

    def __init__(self, root: Flow, engine: PassHost, hub: ChangeHub, after: Callable[[], None] = lambda: None) -> None:
        self._root = root
        self._engine = engine
        self._hub = hub
        self._after = after
        self._is_coroutine = inspect.iscoroutinefunction(type(root).run)

    async def serve(self) -> None:
        """Run passes until one ends the app.

        Raises:
            BaseException: The exception that a pass raised.
        """
        in_pass.set(self._engine)
        while True:
            begun = self._hub.version
            self._engine.begin_pass()
            try:
                is_complete = await self._one()
            except FlowEnded as ended:
                self._engine.end_app(is_success=ended.is_success)
                return
            except BaseExceptionGroup as group:
                # A task group in the flow's code, in which one task has ended the app.
                inside, rest = group.split(FlowEnded)
                if rest is not None or inside is None:
                    raise
                self._engine.end_app(is_success=_first(inside).is_success)
                return
            self._engine.end_pass(is_complete=is_complete)
            self._after()
            # A pass that changes its own state and awaits nothing must let other tasks run between passes.
            await asyncio.sleep(0)
            await self._hub.wait_change(begun)
            if self._hub.closed:
                return

    async def _one(self) -> bool:
        """Run one pass; return whether it is complete."""
        if self._is_coroutine:
            with self._ending():
                await self._root.run()
            return True
        from anyio import to_thread

        self._engine.hold_frames()
        try:
            return await to_thread.run_sync(self._plain, abandon_on_cancel=True)
        finally:
            self._engine.release_frames()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Report a pass that ends the app. A success counts as complete: its fired schedules are handled."""
        try:
            yield
        except FlowEnded as ended:
            # Reported here, because a plain pass is abandoned as soon as its flow has requested the end.
            self._engine.leave_pass(is_complete=ended.is_success)
            raise

    def _plain(self) -> bool:
        self._engine.enter_pass_thread()
        try:
            with self._ending():
                outcome: Any = self._root.run()
            if asyncio.iscoroutine(outcome):
                outcome.close()
                raise TypeError(f"{type(self._root).__name__}.run gave a coroutine; define it with `async def`")
            return True
        except PassEnded:
            return False
        finally:
            self._engine.leave_pass_thread()


def _first(group: BaseExceptionGroup[FlowEnded]) -> FlowEnded:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
