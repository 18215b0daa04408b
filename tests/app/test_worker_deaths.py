"""Workers that die or never start: noticed at once, explained, and nothing of them left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from lightwork import Work
from lightwork.errors import LaunchFailed, PlatformError, UsageError, WorkerDied
from lightwork.runtime import NoCapacity, Ref, Report, Spec, Unreachable
from lightwork.status import Reason
from lightwork_runtimes.local import LocalOptions, LocalRuntime
from tests.app.support_calls import (
    RUNTIMES,
    Add,
    Counted,
    Dies,
    HoldsLock,
    HoldsOnlyHere,
    Hooks,
    PlainDies,
    Starts,
    StartsAndDies,
    lines,
    running,
    stages,
)

ROOT = Path(__file__).parents[2]

both_kinds = pytest.mark.parametrize("kind", [Dies, PlainDies])


# --- in a run -------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize(
    ("how", "text"), [("exit", "exited with code 7"), ("kill", "ended by SIGKILL"), ("segv", "ended by SIGSEGV")]
)
async def test_death_during_a_call(kind: type[Counted], how: str, text: str) -> None:
    """A process that dies fails its call at once, with the exit code or signal; the work is usable (pitfall 3)."""
    work = kind()
    async with running("local", work=work):
        alive = await work.run("lives")
        call = work.submit(how)
        with pytest.raises(WorkerDied, match=text) as caught:
            await call
        assert caught.value.work == "root.work"
        assert stages(work)[-3:] == ["running", "failed:crashed", "failed:crashed"]
        assert text in (call.status.message or "")
        assert not work.has_started
        assert await work.run("lives again") != alive


@both_kinds
async def test_death_with_raise_exception_false(kind: type[Counted]) -> None:
    """With ``raise_exception=False`` the death of the process makes the call return None (pitfalls 3 and 5)."""
    work = kind(raise_exception=False)
    async with running("local", work=work):
        assert await work.run("kill") is None
        assert work.status.reason is Reason.CRASHED


async def test_queued_calls_run_in_the_next_process() -> None:
    """Calls queued behind the one whose process died run in a new process."""
    work = Dies()
    async with running("local", work=work):
        dies, lives = work.submit("kill"), work.submit("lives")
        with pytest.raises(WorkerDied):
            await dies
        assert isinstance(await lives, int)
        assert stages(work, lives.id) == ["pending", "running", "succeeded"]


@both_kinds
async def test_death_between_calls(kind: type[Counted]) -> None:
    """A process killed between two calls is noticed, and the next call starts another."""
    work = kind(cache_calls=False)
    async with running("local", work=work) as app:
        first = await work.run("lives")
        os.kill(first, signal.SIGKILL)
        await app.wait_for(lambda: work.has_failed)
        assert stages(work)[-1] == "failed:crashed"
        assert "SIGKILL" in (work.status.message or "")
        assert await work.run("lives") != first


# --- before it is up ------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_work_that_cannot_be_unpacked(runtime: str) -> None:
    """A module missing where the work runs fails its calls, chained to the import error (pitfall 25)."""
    work = HoldsOnlyHere(start_with_flow=False)
    async with running(runtime, work=work):
        with pytest.raises(LaunchFailed, match="no_such_module") as caught:
            await work.run(1)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        assert stages(work) == ["pending", "failed:launch_failed", "failed:launch_failed"]


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_work_that_cannot_be_packed(runtime: str) -> None:
    """A private attribute that cannot be sent is named, with its type and a remedy."""
    work = HoldsLock(start_with_flow=False)
    async with running(runtime, work=work):
        with pytest.raises(LaunchFailed, match=r"HoldsLock\._lock is a lock .*on_start") as caught:
            await work.run(1)
        assert isinstance(caught.value.__cause__, UsageError)


class Broken(LocalRuntime):
    """Fails at the step that a test selects."""

    def __init__(self, home: Path, *failing: str) -> None:
        super().__init__("broken", LocalOptions(home=str(home)))
        self.failing = set(failing)
        self.asked: set[str] = set()

    def _check(self, what: str) -> None:
        self.asked.add(what)
        if what in self.failing:
            raise Unreachable(f"the platform does not answer: {what}")

    async def launch(self, spec: Spec) -> Ref:
        if "launch" in self.failing:
            raise NoCapacity("no GPU is left in the zone")
        return await super().launch(spec)

    async def wait(self, ref: Ref) -> Report:
        self._check("wait")
        return await super().wait(ref)

    async def stop(self, ref: Ref, grace: float) -> None:
        self._check("stop")
        await super().stop(ref, grace)

    async def release(self, ref: Ref) -> None:
        self._check("release")
        await super().release(ref)

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        self._check("logs")
        async for piece in super().logs(ref, start, follow=follow):
            yield piece


async def test_runtime_that_has_no_capacity(tmp_path: Path) -> None:
    """The call's exception is a PlatformError whose cause is the exception that the runtime raised for the launch."""
    runtime, work = Broken(tmp_path, "launch"), Add(start_with_flow=False)
    async with running("broken", runtimes={"broken": runtime}, work=work):
        with pytest.raises(PlatformError, match="no GPU is left") as caught:
            await work.run(1)
        assert isinstance(caught.value, LaunchFailed)
        assert isinstance(caught.value.__cause__, NoCapacity)
        assert stages(work) == ["pending", "failed:launch_failed", "failed:launch_failed"]
        with pytest.raises(LaunchFailed, match="no GPU") as caught_start:
            await work.start()
        assert isinstance(caught_start.value.__cause__, NoCapacity)
        runtime.failing.clear()
        assert await work.run(1) == 2


async def test_launch_that_failed_is_tried_again(tmp_path: Path) -> None:
    """A launch that fails takes a retry of the calls that waited for it."""
    runtime, work = Broken(tmp_path, "launch"), Add(start_with_flow=False, retries=1, retry_delay=0.001)
    async with running("broken", runtimes={"broken": runtime}, work=work) as app:
        call = work.submit(1)
        await app.wait_for(lambda: call.status.attempt == 2)
        runtime.failing.clear()
        assert await call == 2


async def test_runtime_that_cannot_be_reached_does_not_end_a_worker_that_lives(tmp_path: Path) -> None:
    """While the link of a worker is up, a failing query to its runtime changes nothing."""
    runtime, work = Broken(tmp_path, "wait", "logs"), Add(cache_calls=False)
    async with running("broken", runtimes={"broken": runtime}, work=work) as app:
        assert await work.run(1) == 2
        await app.wait_for(lambda: {"wait", "logs"} <= set(runtime.asked))
        assert await work.run(1) == 2
        assert work.has_started
        runtime.failing.clear()


async def test_worker_that_is_gone_with_its_platform_is_lost(tmp_path: Path) -> None:
    """Without a link for the window, and without a report of the runtime, a worker and its calls are lost."""
    runtime, work = Broken(tmp_path, "wait", "stop", "release"), Hooks()
    settings = {"reconnect_window": 0.1}
    async with running("broken", runtimes={"broken": runtime}, settings=settings, work=work) as app:
        call = work.submit("waits")
        await app.wait_for(lambda: "run" in work.log)
        os.kill(work.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"no connection for 0\.1 s"):
            await call
        assert stages(work)[-2:] == ["failed:lost", "failed:lost"]
        runtime.failing.clear()
        assert await work.run("fine") == "fine"


# --- what a work has started ----------------------------------------------------------------------


def gone(*pids: int) -> bool:
    """Return whether all processes have ended; a zombie that was not reaped counts as ended."""
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


async def test_children_die_when_the_work_is_stopped() -> None:
    """Processes that a run left behind die with the stopped work, in its session or another (pitfall 6)."""
    work = Starts()
    async with running("local", work=work):
        pids = await work.submit("lives")
        assert len(pids) == 3
        assert not gone(*pids)
        await work.stop()
        assert gone(*pids)


@pytest.mark.parametrize("how", ["exit", "kill"])
async def test_children_die_when_the_work_dies(how: str) -> None:
    """Processes that a work has started die when it is killed, or ends its process (pitfall 6)."""
    work = StartsAndDies()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        with pytest.raises(WorkerDied):
            await work.submit(how)
        pids = [int(word) for word in printed[0].split()]
        assert len(pids) == 2
        assert gone(*pids)


async def test_children_die_with_the_app() -> None:
    """Processes that a run has started have ended when the app has (pitfall 6)."""
    work = StartsAndDies()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        work.submit("waits")
        await app.wait_for(lambda: work.started)
    assert gone(*[int(word) for word in printed[0].split()])


def test_no_worker_outlives_a_killed_scheduler(tmp_path: Path) -> None:
    """After the reconnect window no worker of a killed scheduler is left, whatever it does."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtimes'}",
        "LIGHTWORK_RUNTIMES__LOCAL__HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "-m", "tests.app.support_orphans"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in engine.stdout.readline().split()]
        assert len(workers) == 7
        everybody = [*workers, *psutil.Process(engine.pid).children(recursive=True)]
        engine.kill()
    left = psutil.wait_procs(everybody, timeout=20)[1]
    assert left == []


# --- output of the dead ---------------------------------------------------------------------------


async def test_last_words_arrive_before_the_end() -> None:
    """Text that a process wrote right before it died has arrived as lines when its call fails."""
    work: Work = Dies()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        with pytest.raises(WorkerDied):
            await work.run("exit")
        assert printed == ["last words"]
