"""Calls that fail: what the caller gets, what the statuses contain, and that the work goes on."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from lightwork import Work
from lightwork.errors import CallTimeout, RemoteTraceback, WorkerDied, WorkError
from lightwork.status import Reason, Stage
from tests.app.support_calls import (
    RUNTIMES,
    Blocks,
    Counted,
    DiesOnce,
    Flaky,
    PlainFlaky,
    PlainRaises,
    PlainSwallows,
    PlainWaits,
    Raises,
    StrangeError,
    Swallows,
    Waits,
    running,
    stages,
)

both_runtimes = pytest.mark.parametrize("runtime", RUNTIMES)
both_kinds = pytest.mark.parametrize("kind", [Raises, PlainRaises])


@both_runtimes
@both_kinds
async def test_exception_arrives_as_its_own_type(runtime: str, kind: type[Work]) -> None:
    """``except ValueError`` around a call works, with the original arguments (pitfall 4)."""
    work = kind()
    async with running(runtime, work=work):
        with pytest.raises(ValueError, match="no such epoch") as caught:
            await work.run("value")
        assert type(caught.value) is ValueError
        assert caught.value.args == ("no such epoch", 7)
        assert stages(work)[-2:] == ["running", "failed:user_exception"]
        assert work.has_failed
        assert work.status.message == "('no such epoch', 7)"
        assert await work.run("fine") == "fine"


@both_runtimes
async def test_exception_of_the_users_own_class(runtime: str) -> None:
    """An exception class that is imported here arrives with its attributes, and its ``__init__`` is not called."""
    work = Raises()
    async with running(runtime, work=work):
        with pytest.raises(StrangeError, match="strange 3") as caught:
            await work.run("strange")
        assert (caught.value.code, caught.value.hint) == (3, "try again")


@both_runtimes
@both_kinds
async def test_remote_traceback_shows_the_users_lines_only(runtime: str, kind: type[Work]) -> None:
    """The chained traceback names the user's file, line and function, and no frame of the worker (pitfall 23)."""
    work = kind()
    async with running(runtime, work=work):
        with pytest.raises(RuntimeError) as caught:
            await work.run("chained")
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "support_calls.py" in cause.text
    assert "in fail" in cause.text
    assert 'raise RuntimeError("outer") from error' in cause.text
    assert "KeyError: 'LIGHTWORK_MISSING'" in cause.text
    assert "lightwork/worker" not in cause.text
    assert "lightwork/executor" not in cause.text
    assert "in fail" in "".join(traceback.format_exception(caught.value))


@both_runtimes
@pytest.mark.parametrize("parallel", [False, True])
async def test_class_that_is_not_imported_here_arrives_as_work_error(runtime: str, parallel: bool) -> None:
    """An exception whose class is not imported here is a WorkError that names the class and the work."""
    work = Raises(parallel=parallel)
    async with running(runtime, work=work):
        with pytest.raises(WorkError, match="Local: only there") as caught:
            await work.submit("unknown")
        assert caught.value.work == "root.work"
        assert caught.value.type_name.endswith("Local")


@both_runtimes
@both_kinds
async def test_sys_exit_fails_the_call_only(runtime: str, kind: type[Counted]) -> None:
    """``sys.exit`` in a run fails its call; the worker and its state stay."""
    work = kind()
    async with running(runtime, work=work):
        call = work.submit("exit")
        with pytest.raises(WorkError, match="SystemExit: 3"):
            await call
        assert call.status.reason is Reason.USER_EXCEPTION
        assert await work.run("fine") == "fine"
        assert work.runs == 2
        assert stages(work).count("started") == 1


@both_runtimes
@both_kinds
async def test_users_own_timeout_error_is_no_timeout_of_ours(runtime: str, kind: type[Work]) -> None:
    """A TimeoutError that the run raises is the user's exception, not the work's timeout."""
    work = kind()
    async with running(runtime, work=work):
        with pytest.raises(TimeoutError, match="the user's own") as caught:
            await work.run("timeout")
        assert not isinstance(caught.value, CallTimeout)
        assert not work.has_timeout


@both_runtimes
@both_kinds
async def test_raise_exception_false_gives_none(runtime: str, kind: type[Work]) -> None:
    """With ``raise_exception=False`` a failed call returns None, and the status shows the failure (pitfall 5)."""
    work = kind(raise_exception=False)
    async with running(runtime, work=work):
        assert await work.run("value") is None
        assert work.has_failed
        assert work.status.reason is Reason.USER_EXCEPTION
        assert "no such epoch" in (work.status.message or "")
        assert await work.run("fine") == "fine"


@both_runtimes
@pytest.mark.parametrize("kind", [Swallows, PlainSwallows])
async def test_on_exception(runtime: str, kind: type[Counted]) -> None:
    """``on_exception`` may swallow (the failed call returns None), raise another exception, or raise it again."""
    work = kind()
    async with running(runtime, work=work):
        assert await work.run("value") is None
        assert work.has_failed
        assert work.status.message == "value"
        with pytest.raises(LookupError, match="another"):
            await work.run("key")
        with pytest.raises(TypeError, match="type"):
            await work.run("type")
        assert work.log == ["ValueError", "KeyError", "TypeError"]


async def test_swallowed_exception_is_not_tried_again() -> None:
    """An exception that ``on_exception`` swallows takes no retry."""
    work = Swallows(retries=3)
    async with running(work=work):
        assert await work.run("value") is None
        assert work.log == ["ValueError"]


# --- retries --------------------------------------------------------------------------------------


@both_runtimes
@pytest.mark.parametrize("kind", [Flaky, PlainFlaky])
async def test_retries_are_visible_in_the_statuses(runtime: str, kind: type[Flaky]) -> None:
    """Each attempt of a call is in the statuses with its number and, from the second on, the reason for the retry."""
    work = kind(3, retries=2)
    async with running(runtime, work=work):
        call = work.submit()
        assert await call == 3
        found = [(one.stage.value, one.reason, one.attempt) for one in work.statuses if one.call == call.id]
        failed = Reason.USER_EXCEPTION
        assert found == [
            ("pending", None, 1),
            ("running", None, 1),
            ("pending", failed, 2),
            ("running", None, 2),
            ("pending", failed, 3),
            ("running", None, 3),
            ("succeeded", None, 3),
        ]


async def test_last_try_fails_the_call() -> None:
    """When no attempt is left, the exception of the last one arrives."""
    work = Flaky(5, retries=2)
    async with running(work=work):
        with pytest.raises(ValueError, match="try 3"):
            await work.run()


async def test_call_is_tried_again_after_a_crash(tmp_path: Any) -> None:
    """A retry after the death of the process runs in a new process."""
    work = DiesOnce(str(tmp_path / "mark"), retries=1)
    async with running("local", work=work):
        call = work.submit()
        assert await call == "second"
        assert stages(work, call.id) == ["pending", "running", "pending:crashed", "running", "succeeded"]
        assert stages(work).count("started") == 2


async def test_crash_without_retries_fails_the_call(tmp_path: Any) -> None:
    """Without retries the death of the process fails the call."""
    work = DiesOnce(str(tmp_path / "mark"))
    async with running("local", work=work):
        with pytest.raises(WorkerDied, match="exited with code 9"):
            await work.submit()


# --- timeouts -------------------------------------------------------------------------------------


@both_runtimes
async def test_timeout_of_an_async_run(runtime: str) -> None:
    """A run that takes longer than ``timeout`` is cancelled and fails as a timeout; the work goes on."""
    work = Waits(timeout=0.05)
    async with running(runtime, work=work):
        call = work.submit()
        with pytest.raises(CallTimeout, match=r"longer than 0\.05 s") as caught:
            await call
        assert isinstance(caught.value, TimeoutError)
        assert work.log == ["cancelled", "finally"]
        assert stages(work, call.id) == ["pending", "running", "failed:timeout"]
        assert (work.has_timeout, work.num_timeouts, work.status.count) == (True, 1, 1)
        assert await work.run("at once") == "at once"
        assert (work.has_timeout, work.num_timeouts) == (False, 0)
        assert stages(work).count("started") == 1


@pytest.mark.parametrize("how", ["sleeps", "computes"])
async def test_timeout_of_a_plain_run(how: str) -> None:
    """A plain run that sleeps or computes is interrupted at its timeout, and its process stays."""
    work = PlainWaits(timeout=0.05)
    async with running("local", work=work):
        with pytest.raises(CallTimeout):
            await work.submit(how)
        assert work.log[1:] == ["cancelled", "finally"]
        assert await work.submit("at once") == "at once"
        assert work.log[-1] == work.log[0]


@pytest.mark.parametrize("is_first", [True, False])
async def test_timeout_of_an_async_run_that_blocks_its_loop(is_first: bool) -> None:
    """A coroutine that never awaits is noticed, and its timeout ends it with its process."""
    work = Blocks(timeout=0.1)
    async with running("local", settings={"grace": 0.2}, work=work) as app:
        if not is_first:
            await work.run("takes its time")
        call = work.submit("blocks")
        await app.wait_for(lambda: call.status.stage is Stage.RUNNING)
        with pytest.raises(CallTimeout):
            await call
        assert await work.run("at once") == "at once"


async def test_timeouts_in_a_row_are_one_status_with_a_count() -> None:
    """Timeouts since the last success are counted in one status, dated from the first."""
    work = Waits(timeout=0.02)
    async with running(work=work):
        first = None
        for _ in range(3):
            with pytest.raises(CallTimeout):
                await work.run()
            first = first or next(one.timestamp for one in work.statuses if one.call is not None)
        assert work.status.count == 3
        assert work.num_timeouts == 3
        assert work.status.timestamp == first


async def test_timed_out_call_is_tried_again() -> None:
    """A timeout is retried like any failure."""
    work = Waits(timeout=0.02, retries=1, retry_delay=0.001)
    async with running(work=work):
        call = work.submit()
        with pytest.raises(CallTimeout):
            await call
        assert work.runs == 2
        assert stages(work, call.id) == ["pending", "running", "pending:timeout", "running", "failed:timeout"]
