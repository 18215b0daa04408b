"""When the flow runs: once at the start, and again whenever something has changed since the last pass began."""

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
"""The engine whose flow's pass the code belongs to, or was started by; None outside of a pass."""


class PassHost(Protocol):
    """What is notified of passes; the engine."""

    def begin_pass(self) -> None:
        """A pass of the flow begins."""
        ...

    def leave_pass(self, *, is_complete: bool) -> None:
        """The flow's code has left a pass by ending the app. Called before the pass has ended."""
        ...

    def end_pass(self, *, is_complete: bool) -> None:
        """A pass has ended, by itself or cut short."""
        ...

    def end_app(self, *, is_success: bool) -> None:
        """A pass has ended the app."""
        ...

    def hold_frames(self) -> None:
        """A plain pass begins: what comes from outside waits."""
        ...

    def release_frames(self) -> None:
        """A plain pass has ended: what has waited happens now."""
        ...

    def enter_pass_thread(self) -> None:
        """Called in the thread of a plain pass, before it."""
        ...

    def leave_pass_thread(self) -> None:
        """Called in the thread of a plain pass, after it."""
        ...


class FlowEnded(BaseException):
    """Ends the present pass, because the flow has called ``stop`` (a success) or ``fail``."""

    def __init__(self, *, is_success: bool) -> None:
        super().__init__()
        self.is_success = is_success


class Passes:
    """Runs the passes of a root flow.

    Args:
        root: The flow.
        engine: Notified of the passes.
        hub: Says whether anything has changed.
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
            BaseException: What a pass raised.
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
                # A task group of the flow's in which one task has ended the app.
                inside, rest = group.split(FlowEnded)
                if rest is not None or inside is None:
                    raise
                self._engine.end_app(is_success=_first(inside).is_success)
                return
            self._engine.end_pass(is_complete=is_complete)
            self._after()
            # A pass that changes its own state and awaits nothing must leave the loop to others in between.
            await asyncio.sleep(0)
            await self._hub.wait_change(begun)
            if self._hub.closed:
                return

    async def _one(self) -> bool:
        """Run one pass; gives whether it came to its end."""
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
        """A pass that ends the app as a success has come to its end: what it was told of schedules is dealt with."""
        try:
            yield
        except FlowEnded as ended:
            # Here, since a plain pass is abandoned as soon as its flow has asked for the end.
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
