"""The runtime `inprocess`: works as tasks of the scheduler's own event loop, for tests and debuggers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import ClassVar, Self

import anyio
import anyio.abc
import msgspec

from lightwork.runtime import (
    ABSENT,
    Cause,
    Finding,
    Health,
    Ref,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
    TaskRuntime,
    outcome_of,
    resolve_serve,
)

__all__ = ["InProcessOptions", "InProcessRuntime"]

_FORCE_WITHIN = 5.0
"""Seconds that a cancelled task has to end before `stop` raises."""

_STUCK = (
    "cancelled but still running; code that ignores cancellation, such as a thread, cannot be ended within the "
    "scheduler's process"
)


class InProcessOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile of kind ``inprocess`` has no keys."""


class _Launch:
    """One launch: its task while it runs, and its report afterwards."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.scope = anyio.CancelScope()
        self.over = anyio.Event()
        self.stop_asked = False
        self.report = Report(Standing.RUNNING, detail="a task of the scheduler's process")


class InProcessRuntime(TaskRuntime[_Launch]):
    """A runtime that runs works as tasks of the process and the event loop that entered it.

    It calls the coroutine function ``serve`` of the entry's module with the ticket. The return value is the exit code.
    Output goes to the streams of the process, so `logs` is empty. `Spec.env`, `Spec.cwd`, `Spec.build` and
    `Spec.compute` are not used: the process has its own. A work cannot outlive its process: leaving the context
    cancels the works and waits for them.
    """

    Options: ClassVar[type[msgspec.Struct]] = InProcessOptions

    def __init__(self, name: str = "inprocess", options: InProcessOptions | None = None) -> None:
        super().__init__(name)
        self.options = options or InProcessOptions()
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(kind, error, trace)
            for launch in self._launches.values():
                if not launch.over.is_set():  # cancelled before its first step: its `finally` never ran
                    launch.report = _CANCELLED
                    launch.over.set()

    @classmethod
    async def diagnose(cls, name: str, options: InProcessOptions | None) -> Sequence[Finding]:
        """Return one finding that is OK: nothing can be missing. See `lightwork.runtime.Diagnosable`."""
        return [Finding("process", Health.OK, "works run as tasks of the scheduler's process")]

    async def launch(self, spec: Spec) -> Ref:
        """Start the task; see `lightwork.runtime.Runtime.launch`."""
        if self._tasks is None:
            raise RuntimeError("the runtime is not entered; use `async with runtime:`")
        if self._known(spec) is None:
            serve = resolve_serve(spec.entry)
            launch = self._launches[spec.name] = _Launch(spec)
            self._tasks.start_soon(self._run, launch, serve, name=f"lightwork {spec.name}")
        return self._ref(spec.name)

    async def _run(self, launch: _Launch, serve: Callable[[bytes], Awaitable[int]]) -> None:
        outcome = _CANCELLED
        try:
            with launch.scope, anyio.move_on_after(launch.spec.max_lifetime) as lifetime:
                code, detail = await outcome_of(serve, launch.spec.ticket)
                outcome = Report(Standing.EXITED, code, Cause.STOPPED if launch.stop_asked else Cause.EXIT, detail)
            if lifetime.cancelled_caught:
                outcome = Report(Standing.EXITED, cause=Cause.LIFETIME, detail="max_lifetime was reached")
        finally:
            launch.report = outcome
            launch.over.set()

    async def wait(self, ref: Ref) -> Report:
        """Return the report when the task has ended."""
        launch = self._launches.get(ref.name)
        if launch is None:
            return ABSENT
        await launch.over.wait()
        return launch.report

    async def stop(self, ref: Ref, grace: float) -> None:
        """Cancel the task if it has not ended by itself after `grace` seconds. A task cannot receive SIGTERM.

        Raises:
            RuntimeFailure: The task still runs after it was cancelled. It may end later; nothing else can end it.
        """
        launch = self._launches.get(ref.name)
        if launch is None or launch.over.is_set():
            return
        launch.stop_asked = True
        with anyio.move_on_after(grace):
            await launch.over.wait()
            return
        launch.scope.cancel()
        with anyio.move_on_after(_FORCE_WITHIN):
            await launch.over.wait()
            return
        launch.report = Report(Standing.RUNNING, detail=_STUCK)
        raise RuntimeFailure(f"{ref.name}: {_STUCK}")


_CANCELLED = Report(Standing.EXITED, cause=Cause.STOPPED, detail="cancelled")
