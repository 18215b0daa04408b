"""The fake runtime passes the conformance suite, its broken variants fail it, and an app handles its failures."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from lightwork import App, Work
from lightwork.errors import CallStopped, CallTimeout, LaunchFailed, WorkerDied
from lightwork.runtime import Cause, Ref, Report, RuntimeFailure, Spec, Standing, Unreachable
from lightwork.status import Reason, Stage
from lightwork.testing import FakeRuntime, Launches, Traits, check_runtime, conformance
from lightwork.testing import fake as fake_module
from lightwork.testing.conformance import Check, checks_for, run_check
from tests.runtimes.support import OWNER, spec
from tests.support_works import Root, Told

pytestmark = pytest.mark.bare

TRAITS = Traits(has_output=False, outlives=False)
ENTRY = "lightwork.testing.conformance:main"
_let_end = asyncio.Event()
_go = threading.Event()
TURNS = 6
"""Turns of the loop that a launch of `Slow` waits, so that a cancellation comes before, during and after it."""


async def serve(ticket: bytes) -> int:
    """The entry of this module's launches: it ignores cancellation."""
    while not _let_end.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await _let_end.wait()
    return 0


class Slow(FakeRuntime):
    """Every launch waits for `TURNS` turns of the loop."""

    async def launch(self, spec: Spec) -> Ref:
        self.launches = Launches.SLOW
        self._let_go_in(TURNS)
        return await super().launch(spec)

    def _let_go_in(self, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._let_go_in, turns - 1)
        else:
            self.launches = Launches.GOOD


class Forgets(Slow):
    """Broken: records a launch only when the launch call has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written: set[str] = set()

    async def launch(self, spec: Spec) -> Ref:
        ref = await super().launch(spec)
        self.written.add(ref.name)
        return ref

    async def find(self, owner: str) -> Sequence[Ref]:
        return [ref for ref in await super().find(owner) if ref.name in self.written]


class Asked(FakeRuntime):
    """A runtime whose platform does not answer a poll."""

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        self.is_silent = True
        try:
            return await super().poll(refs)
        finally:
            self.is_silent = False


class SaysAbsent(Asked):
    """Broken: reports a launch as absent when the platform does not answer."""

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        return [Report(Standing.ABSENT) for _ in await super().poll(refs)]


class StartsTwice(FakeRuntime):
    """Broken: every launch call starts something new."""

    async def launch(self, spec: Spec) -> Ref:
        return await super().launch(msgspec.structs.replace(spec, name=f"{spec.name}-{len(self.specs)}"))


class LeavesBehind(FakeRuntime):
    """Broken: a release ends the launch but keeps it."""

    async def release(self, ref: Ref) -> None:
        await self.stop(ref, 0)


# --- the conformance suite ------------------------------------------------------------------------


@pytest.mark.parametrize("check", checks_for(TRAITS), ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [FakeRuntime, Slow])
async def test_it_keeps_the_contract(check: Check, kind: type[FakeRuntime]) -> None:
    """By default, or slow, it passes every check that a runtime without processes can pass."""
    await run_check(check, kind)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Forgets, conformance.cancelled_launch_is_found),
        (SaysAbsent, conformance.cancelled_wait_changes_nothing),
        (StartsTwice, conformance.launch_again_starts_nothing),
        (LeavesBehind, conformance.release_ends_and_forgets),
    ],
)
async def test_the_suite_fails_what_breaks_the_contract(kind: type[FakeRuntime], check: Check) -> None:
    """A runtime that forgets, treats silence as death, starts twice or leaves something behind fails that check."""
    with pytest.raises(ExceptionGroup) as failed:
        await check_runtime(kind, TRAITS)
    notes = [note for error in failed.value.exceptions for note in error.__notes__]
    assert f"in check {check.__name__}" in notes
    assert {type(error) for error in failed.value.exceptions} == {AssertionError}


async def test_not_asked_is_not_gone() -> None:
    """A runtime that reports `UNKNOWN` for a silent platform passes the check that `SaysAbsent` fails."""
    await run_check(conformance.cancelled_wait_changes_nothing, Asked)


# --- control by the test --------------------------------------------------------------------------


async def _standing(runtime: FakeRuntime, ref: Ref) -> Standing:
    (report,) = await runtime.poll([ref])
    return report.standing


async def test_slow_launch_is_pending_until_it_is_let_go() -> None:
    """A slow launch is found at once, returns when the test lets it go, and starts nothing if it was stopped before."""
    async with FakeRuntime() as fake:
        fake.launches = Launches.SLOW
        ended = asyncio.ensure_future(fake.launch(spec("wait", "ended", entry=ENTRY)))
        kept = asyncio.ensure_future(fake.launch(spec("exit 3", "kept", entry=ENTRY)))
        await fake.until(lambda: len(fake.specs) == 2)
        refs = await fake.find(OWNER)
        assert [await _standing(fake, ref) for ref in refs] == [Standing.PENDING] * 2
        await fake.stop(refs[0], 60)
        assert await ended == refs[0]
        assert not kept.done()
        fake.launches = Launches.GOOD
        assert (await fake.wait(await kept)).exit_code == 3
        assert (await fake.wait(refs[0])).cause is Cause.STOPPED


async def test_half_is_found_and_gone_on_with() -> None:
    """A launch with `COMES_HALF` is found by `find`, and launching the same spec again starts it."""
    async with FakeRuntime() as fake:
        fake.launches = Launches.COMES_HALF
        with pytest.raises(Unreachable, match="no answer to the launch of a"):
            await fake.launch(spec("exit 3", entry=ENTRY))
        (ref,) = await fake.find(OWNER)
        assert await _standing(fake, ref) is Standing.PENDING
        fake.launches = Launches.GOOD
        assert await fake.launch(spec("exit 3", entry=ENTRY)) == ref
        assert (await fake.wait(ref)).exit_code == 3
        await fake.release(ref)
        assert await fake.find(OWNER) == []


async def test_silence_is_unknown_and_ends_nothing() -> None:
    """While the platform is silent every request raises, waiters too, and running launches live on."""
    async with FakeRuntime() as fake:
        ref = await fake.launch(spec("wait", entry=ENTRY))
        waiting = asyncio.ensure_future(fake.wait(ref))
        await asyncio.sleep(0)
        fake.is_silent = True
        asked: list[Any] = [waiting, fake.wait(ref), fake.stop(ref, 0), fake.find(OWNER), fake.launch(fake.specs[0])]
        for answer in asked:
            with pytest.raises(Unreachable, match="fake: the platform does not answer"):
                await answer
        with pytest.raises(ExceptionGroup) as failed:
            await fake.release(ref)
        assert failed.group_contains(Unreachable)
        assert await _standing(fake, ref) is Standing.UNKNOWN
        fake.is_silent = False
        assert await _standing(fake, ref) is Standing.RUNNING


async def test_preempted_is_the_named_ones() -> None:
    """A preempted launch has that cause, also if stopped at the same time; the others go on until all are preempted."""
    async with FakeRuntime() as fake:
        first, second = [await fake.launch(spec("wait", name, entry=ENTRY)) for name in ("first", "second")]
        await asyncio.gather(fake.preempt("first"), fake.stop(first, 60))
        assert (await fake.wait(first)).cause is Cause.PREEMPTED
        assert await _standing(fake, second) is Standing.RUNNING
        await fake.preempt()
        assert (await fake.wait(second)).cause is Cause.PREEMPTED


async def test_what_ignores_its_end_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping and releasing a task that ignores its cancellation raise; the task may still end later."""
    monkeypatch.setattr(fake_module, "_FORCE_WITHIN", 0.01)
    _let_end.clear()
    async with FakeRuntime() as fake:
        ref = await fake.launch(spec("", entry=f"{__name__}:main"))
        await asyncio.sleep(0)  # its first step: a task that is cancelled before it ends at once
        with pytest.raises(RuntimeFailure, match="a was cancelled but still runs"):
            await fake.stop(ref, 0)
        with pytest.raises(ExceptionGroup, match="a could not be released"):
            await fake.release(ref)
        assert await _standing(fake, ref) is Standing.RUNNING
        _let_end.set()
        assert (await fake.wait(ref)).cause is Cause.STOPPED


async def test_error_of_the_block_comes_out_as_it_is() -> None:
    """Leaving the context by an error ends running and pending launches, and raises that error unwrapped."""
    fake = FakeRuntime()
    launching: list[asyncio.Future[Ref]] = []

    async def fail() -> None:
        async with fake:
            launching.append(asyncio.ensure_future(fake.launch(spec("wait", "running", entry=ENTRY))))
            await launching[0]
            fake.launches = Launches.SLOW
            launching.append(asyncio.ensure_future(fake.launch(spec("wait", "pending", entry=ENTRY))))
            await fake.until(lambda: len(fake.specs) == 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [(await fake.wait(await launch)).cause for launch in launching] == [Cause.STOPPED] * 2
    with pytest.raises(RuntimeError, match="not entered; use `async with runtime:`"):
        await fake.launch(spec("wait", entry=ENTRY))


# --- an app on it ---------------------------------------------------------------------------------


class Waits(Told):
    """A work that runs until the flow sets `go`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.go = False

    async def run(self) -> str:
        await self.until("go")
        return "done"


class Plain(Work):
    """A work that runs in a separate thread until the test sets `_go`."""

    def run(self) -> str:
        _go.wait()
        return "done"


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """The event that lets every `Plain` run end. It is set at the end of the test: threads cannot be killed."""
    _go.clear()
    yield _go
    _go.set()


def app_on(fake: FakeRuntime, work: Work, **settings: Any) -> App[Root]:
    return App(Root(work), runtimes={"fake": fake}, runtime="fake", **settings)


async def _left(fake: FakeRuntime) -> Sequence[Ref]:
    """Return the launches that the app left on its runtime."""
    return await fake.find(fake.specs[0].owner)


async def test_slow_leaves_the_call_pending() -> None:
    """A call is pending during a slow launch, and runs when the launch returns."""
    fake, work = FakeRuntime(), Waits()
    fake.launches = Launches.SLOW
    async with app_on(fake, work):
        call = work.submit()
        await fake.until(lambda: fake.specs)
        assert call.status.stage is Stage.PENDING
        fake.launches = Launches.GOOD
        work.go = True
        assert await call == "done"
    assert await _left(fake) == []


async def test_stop_ends_a_slow_launch() -> None:
    """Stopping a work during its launch releases the launch, although the launch call never returns."""
    fake, work = FakeRuntime(), Waits()
    fake.launches = Launches.SLOW
    async with app_on(fake, work):
        call = work.submit()
        await fake.until(lambda: fake.specs)
        await work.stop()
        with pytest.raises(CallStopped):
            await call
        assert await _left(fake) == []


async def test_never_comes_is_a_timeout() -> None:
    """A worker that does not dial within launch_timeout fails the call, and the launch is released."""
    fake, work = FakeRuntime(), Waits()
    fake.launches = Launches.NEVER_COMES
    async with app_on(fake, work, launch_timeout=0.1):
        call = work.submit()
        with pytest.raises(CallTimeout, match=r"not ready within 0\.1 s"):
            await call
        assert call.status.reason is Reason.TIMEOUT
    assert await _left(fake) == []


async def test_half_is_given_back() -> None:
    """A launch with an unknown outcome fails the call, and what it made is released."""
    fake, work = FakeRuntime(), Waits()
    fake.launches = Launches.COMES_HALF
    async with app_on(fake, work):
        call = work.submit()
        with pytest.raises(LaunchFailed, match="fake: no answer to the launch"):
            await call
        assert call.status.reason is Reason.LAUNCH_FAILED
        assert await _left(fake) == []


async def test_no_capacity_says_what_the_runtime_said() -> None:
    """A platform without capacity fails the call with the platform's message."""
    fake, work = FakeRuntime(), Waits()
    fake.launches = Launches.NO_CAPACITY
    async with app_on(fake, work):
        with pytest.raises(LaunchFailed, match="fake: no room for another work"):
            await work.submit()
        assert await _left(fake) == []


async def test_unknown_leaves_the_work_alone() -> None:
    """A silent platform does not end a work whose link lives."""
    fake, work = FakeRuntime(), Waits()
    async with app_on(fake, work) as app:
        call = work.submit()
        await app.wait_for(lambda: call.status.stage is Stage.RUNNING)
        fake.is_silent = True
        work.go = True
        assert await call == "done"
        fake.is_silent = False
    assert len(fake.specs) == 1
    assert await _left(fake) == []


@pytest.mark.parametrize("kind", [Waits, Plain])
async def test_preempted_fails_the_call(kind: type[Waits | Plain], go: threading.Event) -> None:
    """Without retries a preemption fails the call with the reason `SPOT_RETRIEVAL`, for async and plain runs."""
    fake, work = FakeRuntime(), kind()
    async with app_on(fake, work) as app:
        call = work.submit()
        await app.wait_for(lambda: call.status.stage is Stage.RUNNING)
        await fake.preempt()
        with pytest.raises(WorkerDied, match="the machine was taken back"):
            await call
        assert call.status.reason is Reason.SPOT_RETRIEVAL


@pytest.mark.parametrize("kind", [Waits, Plain])
async def test_preempted_runs_again_elsewhere(kind: type[Waits | Plain], go: threading.Event) -> None:
    """With a retry a preempted call runs again, on a launch with another name."""
    fake, work = FakeRuntime(), kind(retries=1, retry_delay=0.01)
    async with app_on(fake, work) as app:
        call = work.submit()
        await app.wait_for(lambda: call.status.stage is Stage.RUNNING)
        await fake.preempt()
        go.set()
        if isinstance(work, Waits):
            work.go = True
        assert await call == "done"
        assert Reason.SPOT_RETRIEVAL in [status.reason for status in work.statuses]
    first, second = fake.specs
    assert first.name != second.name
    assert await _left(fake) == []
