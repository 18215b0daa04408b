"""A fake runtime for tests: works run as tasks of the test's own loop, and the runtime fails on demand.

    fake = FakeRuntime()
    async with App(root, runtimes={"fake": fake}, runtime="fake"):
        fake.launches = Launches.SLOW
        call = root.work.submit()
        await fake.until(lambda: fake.specs)
        ...
        fake.launches = Launches.GOOD
        assert await call == "done"

Unless the test requests a failure, it keeps the contract of `lightwork.runtime.Runtime` and passes the checks of
`lightwork.testing.conformance` with ``Traits(has_output=False, outlives=False)``. It waits for the test and never for
a clock.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import ClassVar, Self

import msgspec

from lightwork.runtime import (
    ABSENT,
    Cause,
    NoCapacity,
    Ref,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
    TaskRuntime,
    Unreachable,
    outcome_of,
    resolve_serve,
)

__all__ = ["FakeOptions", "FakeRuntime", "Launches"]

_FORCE_WITHIN = 5.0
"""Seconds that a cancelled task has to end before `FakeRuntime.stop` raises."""

_Serve = Callable[[bytes], Awaitable[int]]


class FakeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile of the fake runtime has no keys: the test controls it by attributes."""


class Launches(enum.StrEnum):
    """What `FakeRuntime.launch` does.

    Attributes:
        GOOD: Accept the launch and run the work.
        SLOW: Make the launch at once, as `Standing.PENDING`. Return and run the work when the test sets
            `FakeRuntime.launches` to another value.
        NEVER_COMES: Accept the launch, but no worker ever dials.
        COMES_HALF: Make the launch as `Standing.PENDING`, so that `find` returns it, then raise `Unreachable`.
            Launching the same spec again continues it.
        NO_CAPACITY: Raise `NoCapacity` and make nothing.
    """

    GOOD = "good"
    SLOW = "slow"
    NEVER_COMES = "never_comes"
    COMES_HALF = "comes_half"
    NO_CAPACITY = "no_capacity"


class _Launch:
    """One launch, with its task once it runs."""

    def __init__(self, spec: Spec, serve: _Serve) -> None:
        self.spec = spec
        self.serve = serve
        self.task: asyncio.Task[Report] | None = None
        self.report = Report(Standing.PENDING, detail="made, not started yet")
        self.end_cause = Cause.EXIT
        """The cause that the report has if the launch ends from now on."""

    @property
    def is_over(self) -> bool:
        return self.report.standing.is_over

    def put_down_to(self, cause: Cause) -> None:
        """Set the cause of the end. `PREEMPTED` stays, even if a stop follows."""
        if self.end_cause is not Cause.PREEMPTED:
            self.end_cause = cause


class FakeRuntime(TaskRuntime[_Launch]):
    """A runtime that runs works as tasks of the loop that entered it, and fails when the test requests it.

    It calls the coroutine function ``serve`` of the entry's module with the ticket. The return value is the exit code.
    There is no output. `Spec.env`, `Spec.cwd`, `Spec.build` and `Spec.compute` are not used. Leaving the context
    cancels the works and waits for them.

    Attributes:
        specs: Every spec passed to `launch`, in order, with repetitions and refused specs.
    """

    Options: ClassVar[type[msgspec.Struct]] = FakeOptions

    def __init__(self, name: str = "fake", options: FakeOptions | None = None) -> None:
        super().__init__(name)
        self.options: FakeOptions = options or FakeOptions()
        self.specs: list[Spec] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._order = Launches.GOOD
        self._is_silent = False

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            for launch in self._launches.values():
                self._cut(launch, Cause.STOPPED)
            await tasks.__aexit__(None, None, None)  # an error of the block is not wrapped in an exception group

    # --- control by the test ----------------------------------------------------------------------

    @property
    def launches(self) -> Launches:
        """What `launch` does. Setting any value but `Launches.SLOW` lets slow launches continue, as good ones."""
        return self._order

    @launches.setter
    def launches(self, order: Launches) -> None:
        self._order = order
        self._tell()

    @property
    def is_silent(self) -> bool:
        """Whether the platform does not answer. The works live on.

        `poll` reports `Standing.UNKNOWN`. Every other method that asks the platform raises `Unreachable` and does
        nothing; `release` raises it in its exception group. A method that waits when this becomes True raises too.
        """
        return self._is_silent

    @is_silent.setter
    def is_silent(self, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._tell()

    async def preempt(self, *names: str) -> None:
        """Preempt launches: end them with `Cause.PREEMPTED`. Return when they have ended. Works also while silent.

        As on a real platform, the worker sends nothing more. Its task is cancelled, and its calls fail as
        ``spot_retrieval``. Unlike in a killed process, the code of the work sees the cancellation, and a plain ``run``
        goes on in its thread; its result is discarded.

        Args:
            names: `Spec.name` of each launch; without any, every launch that has not ended.
        """
        taken = [launch for name, launch in self._launches.items() if not names or name in names]
        for launch in taken:
            self._cut(launch, Cause.PREEMPTED)
        await self.until(lambda: all(launch.is_over for launch in taken))

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when `condition` is true. It is evaluated again after each change of this runtime."""
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- the contract -----------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Start the task, or fail as `launches` says; see `lightwork.runtime.Runtime.launch`."""
        if self._tasks is None:
            raise RuntimeError("the runtime is not entered; use `async with runtime:`")
        self.specs.append(spec)
        self._tell()
        self._ask()
        launch = self._known(spec) or self._make(spec)
        if launch.task is None and not launch.is_over:
            await self._bring_up(launch)
        return self._ref(spec.name)

    def _make(self, spec: Spec) -> _Launch:
        serve = resolve_serve(spec.entry)
        if self._order is Launches.NO_CAPACITY:
            raise NoCapacity(f"{self.name}: no room for another work")
        launch = self._launches[spec.name] = _Launch(spec, serve)
        self._tell()
        return launch

    async def _bring_up(self, launch: _Launch) -> None:
        """Start the task of a launch, unless the launch is stopped or released before its time comes."""
        if self._order is Launches.COMES_HALF:
            raise Unreachable(f"{self.name}: no answer to the launch of {launch.spec.name}")
        serve = _never if self._order is Launches.NEVER_COMES else launch.serve
        await self.until(lambda: self._order is not Launches.SLOW or launch.is_over)
        if launch.task is not None or launch.is_over:
            return
        assert self._tasks is not None
        launch.report = Report(Standing.RUNNING, detail="a task of the test's loop")
        launch.task = self._tasks.create_task(_run(launch, serve), name=f"lightwork {launch.spec.name}")
        launch.task.add_done_callback(lambda task: self._on_done(launch, task))
        self._tell()

    def _on_done(self, launch: _Launch, task: asyncio.Task[Report]) -> None:
        if task.cancelled() or task.exception() is not None:  # the error ends the task group, which raises it
            launch.report = _ended(launch.end_cause)
        else:
            launch.report = task.result()
        self._tell()

    def _cut(self, launch: _Launch, cause: Cause) -> None:
        """End a launch at once. A launch without a task has ended when this returns."""
        if launch.is_over:
            return
        launch.put_down_to(cause)
        if launch.task is not None:
            launch.task.cancel()
        else:
            launch.report = _ended(cause)
            self._tell()

    def _report(self, ref: Ref) -> Report:
        """Return the report for one ref; `Standing.UNKNOWN` while the platform is silent."""
        return _UNKNOWN if self._is_silent else super()._report(ref)

    async def wait(self, ref: Ref) -> Report:
        """Return the report when the launch has ended.

        Raises:
            Unreachable: The platform is silent, or became silent.
        """
        launch = self._launches.get(ref.name)
        await self.until(lambda: self._is_silent or launch is None or launch.is_over)
        self._ask()
        return ABSENT if launch is None else launch.report

    async def stop(self, ref: Ref, grace: float) -> None:
        """Cancel the task if it has not ended by itself after `grace` seconds. A task cannot receive SIGTERM.

        Raises:
            Unreachable: The platform is silent, or became silent.
            RuntimeFailure: The task still runs after it was cancelled, for example in a thread. It may end later.
        """
        self._ask()
        launch = self._launches.get(ref.name)
        if launch is None or launch.is_over:
            return
        launch.put_down_to(Cause.STOPPED)
        if launch.task is not None and await self._is_over_within(ref, grace):
            return
        self._cut(launch, Cause.STOPPED)
        if not await self._is_over_within(ref, _FORCE_WITHIN):
            raise RuntimeFailure(f"{ref.name} was cancelled but still runs")

    async def _is_over_within(self, ref: Ref, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait(ref)
        except TimeoutError:
            return False
        return True

    async def release(self, ref: Ref) -> None:
        """Forget the launch; end it first if it runs."""
        await super().release(ref)
        self._tell()

    def _ask(self) -> None:
        """Raise `Unreachable` while the platform is silent."""
        if self._is_silent:
            raise Unreachable(f"{self.name}: the platform does not answer")


_UNKNOWN = Report(Standing.UNKNOWN, detail="the platform does not answer")


def _ended(cause: Cause) -> Report:
    return Report(Standing.EXITED, cause=cause, detail="cancelled")


async def _never(ticket: bytes) -> int:
    """Run forever: the worker of a launch that never dials."""
    await asyncio.Event().wait()
    return 0


async def _run(launch: _Launch, serve: _Serve) -> Report:
    try:
        async with asyncio.timeout(launch.spec.max_lifetime):
            code, detail = await outcome_of(serve, launch.spec.ticket)
    except TimeoutError:
        return Report(Standing.EXITED, cause=Cause.LIFETIME, detail="max_lifetime was reached")
    return Report(Standing.EXITED, code, launch.end_cause, detail)
