"""Guards around every test: a test that leaves a task, a process, a descriptor or a thread behind fails.

Each guard takes stock before the test and again after its fixtures are gone. Only if the two differ, it collects
garbage and waits, for a bounded time, until the remaining objects have ended.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import multiprocessing.resource_tracker
import os
import socket
import stat
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

GRACE = 5.0
"""Seconds that a process or a thread may take to end after its signal."""

MARK = "LIGHTWORK_TEST_SESSION"
"""Variable that every process of the tests inherits. It also finds processes that left their parent and group."""

REQUIRE_ALL = os.environ.get("LIGHTWORK_REQUIRE_ALL") == "1"
"""Whether a skipped test counts as a failure: yes in CI, where everything needed is installed."""

_FOREVER = ("/dev/urandom", "/dev/random", "/dev/null")
"""Files that the standard library opens once and keeps."""

os.environ[MARK] = uuid.uuid4().hex

# The duration of one example says nothing on a busy machine.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

if importlib.util.find_spec("uvloop") is not None:
    # libuv opens a pipe with the first loop of a process and keeps it. This is not a leak of the first test.
    importlib.import_module("uvloop").new_event_loop().close()


# --- processes ----------------------------------------------------------------------------------


def _is_marked(process: psutil.Process) -> bool:
    try:
        return process.environ().get(MARK) == os.environ[MARK]
    except (psutil.Error, OSError):  # it has ended, or belongs to another user
        return False


def _is_resource_tracker(process: psutil.Process) -> bool:
    """Return whether the process is the helper that multiprocessing starts once and keeps."""
    try:
        return any("multiprocessing.resource_tracker" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _processes() -> set[psutil.Process]:
    """Return our descendants, and the processes with our mark whose parent has gone."""
    found = set(psutil.Process().children(recursive=True))
    found.update(process for process in psutil.process_iter() if _is_marked(process))
    found.discard(psutil.Process())
    return {process for process in found if not _is_resource_tracker(process)}


def _describe_process(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            command = " ".join(process.cmdline()) or process.name()
            return f"process {process.pid} ({process.status()}, parent {process.ppid()}): {command[:200]}"
    except psutil.Error:
        return f"process {process.pid}: just ended"


def _end_leaked_processes(before: set[psutil.Process]) -> list[str]:
    """Kill the new processes and return their descriptions."""
    left = _processes() - before
    if not left:
        return []
    left = set(psutil.wait_procs(left, timeout=GRACE)[1])
    leaks = [_describe_process(process) for process in left]
    for process in left:
        if process.is_running():
            process.kill()
    psutil.wait_procs(left, timeout=GRACE)
    return leaks


# --- descriptors --------------------------------------------------------------------------------


def _descriptors() -> set[tuple[int, str]]:
    """Return every open descriptor with its target; empty if the platform cannot list them."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return set()
    found = set()
    for name in os.listdir(folder):
        try:
            found.add((int(name), os.readlink(folder / name)))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def _describe_descriptor(number: int, target: str) -> str:
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as copy:
                return f"descriptor {number}: {copy!r}"
    except OSError as error:
        return f"descriptor {number}: {target} ({error})"
    return f"descriptor {number}: {target}"


def _leaked_descriptors(before: set[tuple[int, str]]) -> list[str]:
    if _descriptors() <= before:
        return []
    gc.collect()
    tracker = getattr(multiprocessing.resource_tracker._resource_tracker, "_fd", None)
    return [
        _describe_descriptor(number, target)
        for number, target in sorted(_descriptors() - before)
        # Pytest exchanges the standard streams, for example when it is interrupted.
        if number > 2 and number != tracker and target not in _FOREVER
    ]


# --- threads ------------------------------------------------------------------------------------


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _leaked_threads(before: set[threading.Thread]) -> list[str]:
    left = _threads() - before
    for thread in left:
        thread.join(GRACE)
    return [f"thread {thread.name!r}" for thread in left if thread.is_alive()]


# --- the guards ---------------------------------------------------------------------------------


def _report(leaks: list[str], scope: str) -> None:
    if leaks:
        shown = leaks if len(leaks) <= 10 else [*leaks[:10], f"and {len(leaks) - 10} more"]
        pytest.fail("\n  ".join([f"{scope} left behind:", *shown]), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _no_process_left_by_the_session() -> Iterator[None]:
    before = _processes()
    yield
    _report(_end_leaked_processes(before), "the session")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    _report([f"task {task!r}" for task in left], "the test")


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take stock before every fixture of the test, and check after they and the event loop are gone."""
    processes, descriptors, threads = _processes(), _descriptors(), _threads()
    yield
    leaks = _end_leaked_processes(processes) + _leaked_threads(threads) + _leaked_descriptors(descriptors)
    _report(leaks, "the test")


@pytest.fixture(autouse=True)
def _no_task_left_by_a_coroutine(_nothing_left: None, request: pytest.FixtureRequest) -> None:
    """Request the guard of the event loop if the test has one."""
    test = getattr(request.function, "hypothesis", None)
    function = test.inner_test if test is not None else request.function
    if inspect.iscoroutinefunction(inspect.unwrap(function)):
        request.getfixturevalue("_no_task_left")


# --- skips --------------------------------------------------------------------------------------


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}\nLIGHTWORK_REQUIRE_ALL=1: a test that is skipped has failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failure if everything is required."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failure if everything is required."""
    report = yield
    _fail_if_skipped(report)
    return report


# --- event loops --------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    """Run a scenario on one event loop. A report to the loop's exception handler fails the test."""
    module = asyncio if request.param == "asyncio" else pytest.importorskip("uvloop")

    def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
        reports: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: reports.append(context))
            runner.run(scenario())
        assert reports == []

    return run
