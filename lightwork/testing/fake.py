"""A runtime for tests: works run as tasks of the test's own loop, and it misbehaves when the test says so.

    fake = FakeRuntime()
    async with App(root, runtimes={"fake": fake}, runtime="fake"):
        fake.launches = Launches.SLOW
        call = root.work.submit()
        await fake.until(lambda: fake.specs)
        ...
        fake.launches = Launches.GOOD
        assert await call == "done"

Where it is not told to break it, it keeps the contract of `lightwork.runtime.Runtime`, and passes the checks of
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
"""Seconds that a cancelled task has to end before `FakeRuntime.stop` says that it does not."""

_Serve = Callable[[bytes], Awaitable[int]]


class FakeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fake has no keys: its test tells it what to do."""


class Launches(enum.StrEnum):
    """What becomes of the launches that are asked of a `FakeRuntime`.

    Attributes:
        GOOD: They are accepted, and the works run.
        SLOW: What they ask for is made at once, and is `Standing.PENDING`; they return, and the works run, when the
            test sets `FakeRuntime.launches` to something else.
        NEVER_COMES: They are accepted, and nothing ever dials.
        COMES_HALF: What they ask for is made, is pending, and is found; then they raise `Unreachable`. The same spec
            launched again goes on with it.
        NO_CAPACITY: They raise `NoCapacity`, and nothing is made.
    """

    GOOD = "good"
    SLOW = "slow"
    NEVER_COMES = "never_comes"
    COMES_HALF = "comes_half"
    NO_CAPACITY = "no_capacity"


class _Launch:
    """One thing that was made, and the task in it once that runs."""

    def __init__(self, spec: Spec, serve: _Serve) -> None:
        self.spec = spec
        self.serve = serve
        self.task: asyncio.Task[Report] | None = None
        self.report = Report(Standing.PENDING, detail="made, and not started")
        self.end_cause = Cause.EXIT
        """What an end from now on is put down to."""

    @property
    def is_over(self) -> bool:
        return self.report.standing.is_over

    def put_down_to(self, cause: Cause) -> None:
        """Say why it ends: what was taken back was not stopped, whoever asks for that as well."""
        if self.end_cause is not Cause.PREEMPTED:
            self.end_cause = cause


class FakeRuntime(TaskRuntime[_Launch]):
    """Runs works as tasks of the loop that entered it, and does what its test tells it.

    It calls the coroutine function ``serve`` of the entry's module with the ticket; what that returns is the exit
    code. There is no output. `Spec.env`, `Spec.cwd`, `Spec.build` and `Spec.compute` are not used. Leaving the context
    ends what runs, and waits for it.

    Attributes:
        specs: Every spec that was asked for, in order, repetitions and those that were refused too.
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
            await tasks.__aexit__(None, None, None)  # an error of the block is no group's: it goes on as it is

    # --- what the test says -----------------------------------------------------------------------

    @property
    def launches(self) -> Launches:
        """What becomes of launches. Anything but `Launches.SLOW` lets those that are slow go on, as good ones."""
        return self._order

    @launches.setter
    def launches(self, order: Launches) -> None:
        self._order = order
        self._tell()

    @property
    def is_silent(self) -> bool:
        """Whether the platform cannot be asked, while the works live.

        Polls say `Standing.UNKNOWN`. All else that is asked of it raises `Unreachable` and does nothing, a release in
        its group; so does what waits for an answer at that moment.
        """
        return self._is_silent

    @is_silent.setter
    def is_silent(self, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._tell()

    async def preempt(self, *names: str) -> None:
        """Take back what runs, with `Cause.PREEMPTED`; returns when it is over. A silent platform does so too.

        The worker says nothing more, as on a platform, and its task is cancelled: its calls fail as
        ``spot_retrieval``. Unlike a process that is killed, its code sees the cancellation, and a plain ``run`` goes on
        in its thread, which nobody listens to any more.

        Args:
            names: `Spec.name` of each; without any, everything that is not over.
        """
        taken = [launch for name, launch in self._launches.items() if not names or name in names]
        for launch in taken:
            self._cut(launch, Cause.PREEMPTED)
        await self.until(lambda: all(launch.is_over for launch in taken))

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when `condition` is true; it is asked again after each change that this runtime sees."""
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- the contract -----------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Start the task, or do what `launches` says; see `lightwork.runtime.Runtime.launch`."""
        if self._tasks is None:
            raise RuntimeError("use the runtime in its context: `async with runtime:`")
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
            raise NoCapacity(f"{self.name}: there is no room for another work")
        launch = self._launches[spec.name] = _Launch(spec, serve)
        self._tell()
        return launch

    async def _bring_up(self, launch: _Launch) -> None:
        """Start the task of what was made, unless it is ended or released before its time comes."""
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
        if task.cancelled() or task.exception() is not None:  # such an error ends the group, which raises it
            launch.report = _ended(launch.end_cause)
        else:
            launch.report = task.result()
        self._tell()

    def _cut(self, launch: _Launch, cause: Cause) -> None:
        """End it at once. What has no task is over when this returns."""
        if launch.is_over:
            return
        launch.put_down_to(cause)
        if launch.task is not None:
            launch.task.cancel()
        else:
            launch.report = _ended(cause)
            self._tell()

    def _report(self, ref: Ref) -> Report:
        """What became of it; nobody knows where the platform is silent."""
        return _UNKNOWN if self._is_silent else super()._report(ref)

    async def wait(self, ref: Ref) -> Report:
        """Return once it is over.

        Raises:
            Unreachable: The platform is silent, or became so.
        """
        launch = self._launches.get(ref.name)
        await self.until(lambda: self._is_silent or launch is None or launch.is_over)
        self._ask()
        return ABSENT if launch is None else launch.report

    async def stop(self, ref: Ref, grace: float) -> None:
        """Cancel the task if it has not ended by itself after `grace` seconds. There is no SIGTERM to ask with.

        Raises:
            Unreachable: The platform is silent, or became so.
            RuntimeFailure: It goes on after it was cancelled, as a thread does. It may end yet.
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
            raise RuntimeFailure(f"{ref.name}: cancelled, and still running")

    async def _is_over_within(self, ref: Ref, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wait(ref)
        except TimeoutError:
            return False
        return True

    async def release(self, ref: Ref) -> None:
        """Forget the launch; ends it first if it runs."""
        await super().release(ref)
        self._tell()

    def _ask(self) -> None:
        """Raise `Unreachable` where the platform is silent."""
        if self._is_silent:
            raise Unreachable(f"{self.name}: the platform does not answer")


_UNKNOWN = Report(Standing.UNKNOWN, detail="the platform does not answer")


def _ended(cause: Cause) -> Report:
    return Report(Standing.EXITED, cause=cause, detail="cancelled")


async def _never(ticket: bytes) -> int:
    """The worker of a launch from which nothing comes."""
    await asyncio.Event().wait()
    return 0


async def _run(launch: _Launch, serve: _Serve) -> Report:
    try:
        async with asyncio.timeout(launch.spec.max_lifetime):
            code, detail = await outcome_of(serve, launch.spec.ticket)
    except TimeoutError:
        return Report(Standing.EXITED, cause=Cause.LIFETIME, detail="its max_lifetime was up")
    return Report(Standing.EXITED, code, launch.end_cause, detail)
