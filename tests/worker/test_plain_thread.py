"""The thread of a plain ``run``: its jobs run in order, and can be interrupted at any point."""

from __future__ import annotations

import copy
import queue
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lightwork import Work
from lightwork.link import messages
from lightwork.state.state import State
from lightwork.state.tracking import plain as plain_value
from lightwork.worker.execute import EndOfCall, PlainThread, end_call

pytestmark = pytest.mark.bare


class Job(Work):
    """Runs until it is released or interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self._entered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._go = threading.Event()
        self._ran: list[str] = []

    def run(self, what: str) -> str:
        self._ran.append(what)
        self._entered.put(what)
        if what == "busy":
            while not self._go.is_set():
                pass
        if what == "raises":
            raise ValueError(what)
        return what


class Stage:
    """A work, its thread, and the frames of its calls."""

    def __init__(self) -> None:
        self.work = Job()
        self.frames: queue.SimpleQueue[EndOfCall] = queue.SimpleQueue()
        self.plain = PlainThread(self.work, self.frames.put)
        self.thread = threading.Thread(target=self.plain.serve)
        self.thread.start()

    def submit(self, call: int, what: str) -> None:
        self.plain.submit(call, self.work._signature.bind((what,), {})[0])

    def next(self) -> EndOfCall:
        return self.frames.get(timeout=10)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.work._go.set()
    stage.plain.close()
    stage.thread.join()


def result(call: int, value: Any) -> messages.Result:
    frame = end_call(Job(), call, value)
    assert isinstance(frame, messages.Result)
    return frame


def test_calls_run_in_order(stage: Stage) -> None:
    """Calls run one after the other, in the order in which they were submitted."""
    for number in range(50):
        stage.submit(number, str(number))
    assert [stage.next() for _ in range(50)] == [result(number, str(number)) for number in range(50)]
    assert stage.work._ran == [str(number) for number in range(50)]


def test_exception_becomes_a_failure(stage: Stage) -> None:
    """An exception of the run becomes a frame, and the thread continues."""
    stage.submit(1, "raises")
    failure = stage.next()
    assert isinstance(failure, messages.Failure)
    assert (failure.call, failure.reason, failure.error.qualname) == (1, "user_exception", "ValueError")
    stage.submit(2, "next")
    assert stage.next() == result(2, "next")


def test_cancel_interrupts_a_busy_run(stage: Stage) -> None:
    """A computing run is interrupted, and the next call runs."""
    stage.submit(1, "busy")
    stage.submit(2, "next")
    stage.work._entered.get(timeout=10)
    assert not stage.plain.is_idle
    stage.plain.cancel(1)
    assert stage.next() == messages.Cancelled(1)
    assert stage.next() == result(2, "next")


def test_cancelled_before_it_began_never_begins(stage: Stage) -> None:
    """A call that is cancelled while it waits is answered in order, and not entered."""
    stage.submit(1, "busy")
    stage.submit(2, "never")
    stage.work._entered.get(timeout=10)
    stage.plain.cancel(2)
    stage.work._go.set()
    assert stage.next() == result(1, "busy")
    assert stage.next() == messages.Cancelled(2)
    assert stage.work._ran == ["busy"]


def test_late_cancellation_does_not_hit_a_later_try(stage: Stage) -> None:
    """A cancellation of an ended call has no effect on the next attempt of the same call."""
    stage.submit(1, "first")
    assert stage.next() == result(1, "first")
    stage.plain.cancel(1)
    stage.submit(1, "second")
    assert stage.next() == result(1, "second")


def test_every_call_is_answered_whenever_it_is_cancelled(stage: Stage) -> None:
    """A cancellation that races with the end of its call loses no answer and affects no other call."""
    for number in range(0, 2000, 2):
        stage.submit(number, "quick")
        stage.plain.cancel(number)
        stage.submit(number + 1, "other")
        first, second = stage.next(), stage.next()
        assert first in (messages.Cancelled(number), result(number, "quick"))
        assert second == result(number + 1, "other")


def test_idle_when_everything_is_done(stage: Stage) -> None:
    """The thread is idle when no job is left, and not before."""
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    stage.submit(1, "busy")
    stage.work._entered.get(timeout=10)
    stage.plain.submit_hook(lambda: None, done.put)
    assert not stage.plain.is_idle
    stage.work._go.set()
    assert done.get(timeout=10) is None
    stage.plain.close()
    stage.thread.join()
    assert stage.plain.is_idle


async def _hook() -> None:
    raise KeyError("hook")


def test_hook_may_be_async(stage: Stage) -> None:
    """An ``async def`` hook runs in a separate loop in the thread; `done` gets its exception."""
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    stage.plain.submit_hook(_hook, done.put)
    assert isinstance(done.get(timeout=10), KeyError)


class Deaf(Work):
    """Ignores the first signal, like a thread that is about to block."""

    def __init__(self) -> None:
        super().__init__()
        self._deaf, self._listens = threading.Event(), threading.Event()

    def run(self) -> None:
        hears = signal.signal(signal.SIGURG, signal.SIG_IGN)
        self._deaf.set()
        self._listens.wait(10)
        signal.signal(signal.SIGURG, hears)
        time.sleep(10)


def test_an_interruption_that_was_lost_comes_again() -> None:
    """A run that the first signal of its cancellation did not interrupt is interrupted by the next one, once."""
    work = Deaf()
    frames: queue.SimpleQueue[EndOfCall] = queue.SimpleQueue()
    plain = PlainThread(work, frames.put)

    def drive() -> None:
        plain.submit(1, work._signature.bind((), {})[0])
        work._deaf.wait(10)
        plain.cancel(1)
        work._listens.set()
        while plain.is_cancelling(1):
            time.sleep(0.001)
        plain.close()

    before = signal.getsignal(signal.SIGURG)
    driver = threading.Thread(target=drive)
    driver.start()
    try:
        plain.serve()
    finally:
        driver.join()
        signal.signal(signal.SIGURG, before)
    assert frames.get(timeout=10) == messages.Cancelled(1)
    assert not plain.is_cancelling(1)


class Edits(Work):
    """Edits its state until it is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []
        self.table: dict[str, Any] = {}
        self._entered: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self, n: int) -> None:
        self._entered.put(n)
        while True:
            self.items.append([n])
            self.table[str(n)] = {"n": n}
            self.items[-1] = {"a": [n]}
            if len(self.items) > 20:
                self.items = self.items[5:]


@pytest.mark.parametrize("in_main", [True, False])
def test_an_interruption_never_comes_between_an_edit_and_its_telling(in_main: bool) -> None:
    """Whenever a run is cancelled, the other end receives every edit that was made, and no other edit."""
    work, far = Edits(), State("Far", {})
    far.load({"items": [], "table": {}})
    work._state.sink = lambda op: far.apply([copy.deepcopy(op)])
    frames: queue.SimpleQueue[EndOfCall] = queue.SimpleQueue()
    plain = PlainThread(work, frames.put)
    differing: list[int] = []

    def drive() -> None:
        for number in range(60):
            plain.submit(number, work._signature.bind((number,), {})[0])
            work._entered.get(timeout=10)
            plain.cancel(number)
            while plain.is_cancelling(number):
                time.sleep(0.001)
            assert frames.get(timeout=10) == messages.Cancelled(number)
            near = {name: plain_value(work._state.values[name]) for name in ("items", "table")}
            if near != far.snapshot():
                differing.append(number)
                far.load(near)
        plain.close()

    before = signal.getsignal(signal.SIGURG)
    driver = threading.Thread(target=drive if in_main else plain.serve)
    driver.start()
    try:
        plain.serve() if in_main else drive()
    finally:
        plain.close()
        driver.join()
        signal.signal(signal.SIGURG, before)
    assert differing == []
