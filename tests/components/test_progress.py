"""Iterations resume, and their progress is part of a flow's state: without an app."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from lightwork import Flow
from lightwork.components.progress import Progress
from lightwork.errors import ScheduleError, StateError, UsageError


class Cut(BaseException):
    """Cuts a pass short, as an unfinished call does."""


class Steps(Flow):
    """Iterates over some items. Each pass is cut short at the first item that is not in `ready`."""

    def __init__(self, run_once: bool = True) -> None:
        super().__init__()
        self._once = run_once
        self._ready: set[Any] = set()
        self._seen: list[Any] = []

    def reach(self, item: Any) -> None:
        self._seen.append(item)
        if item not in self._ready:
            raise Cut

    def run(self) -> None:
        for item in self.iterate("abc", run_once=self._once):
            self.reach(item)

    def pass_with(self, *ready: Any) -> list[Any]:
        """Return the items that one pass reaches if these are ready."""
        self._ready.update(ready)
        self._seen = []
        try:
            contextvars.copy_context().run(self.run)
        except Cut:
            return [*self._seen, "cut"]
        return self._seen


class Nested(Steps):
    def run(self) -> None:
        for outer in self.iterate((1, 2)):
            for inner in self.iterate("ab"):
                self.reach(f"{outer}{inner}")


def test_resumes_at_its_item() -> None:
    """The pass after one that was cut short resumes at its item; finished items are not repeated."""
    flow = Steps()
    assert flow.pass_with() == ["a", "cut"]
    assert flow.pass_with("a") == ["a", "b", "cut"]
    assert flow.pass_with() == ["b", "cut"]
    assert flow.pass_with("b", "c") == ["b", "c"]


def test_run_once() -> None:
    """A finished iteration yields nothing more."""
    flow = Steps()
    assert flow.pass_with("a", "b", "c") == ["a", "b", "c"]
    assert flow.pass_with() == []


def test_run_again() -> None:
    """With run_once=False the pass after the last item starts over."""
    flow = Steps(run_once=False)
    assert flow.pass_with("a", "b") == ["a", "b", "c", "cut"]
    assert flow.pass_with("c") == ["c"]
    assert flow.pass_with() == ["a", "b", "c"]


def test_inner_starts_anew_for_each_outer_item() -> None:
    """An inner iteration runs through its items for each outer item, and both resume."""
    flow = Nested()
    assert flow.pass_with("1a") == ["1a", "1b", "cut"]
    assert flow.pass_with("1b") == ["1b", "2a", "cut"]
    assert flow.pass_with("2a", "2b") == ["2a", "2b"]
    assert flow.pass_with() == []


def test_done_inner_iterations_are_dropped() -> None:
    """The saved progress does not grow with the number of finished items."""
    flow = Nested()
    flow.pass_with("1a", "1b", "2a", "2b")
    assert len(flow.state_dict()["calls"]["iterations"]) == 1


def test_two_lines_are_two_iterations() -> None:
    """Two lines of code have separate iterations, and so have two keys on one line."""

    class Two(Flow):
        def run(self) -> list[str]:
            first = "".join(self.iterate("ab"))
            second = "".join(self.iterate("ab"))
            return [first, second, *("".join(self.iterate("cd", user_key=key)) for key in ("x", "y", "x"))]

    assert Two().run() == ["ab", "ab", "cd", "cd", ""]


def test_break_stands_at_its_item() -> None:
    """After break the next pass resumes at the same item."""

    class Leaves(Flow):
        def run(self) -> int:
            for item in self.iterate(range(5)):
                if item == 2:
                    break
            return item

    flow = Leaves()
    flow.run()
    (iteration,) = flow.state_dict()["calls"]["iterations"].values()
    assert iteration == {"position": 2, "is_finished": False}


def test_restored_iteration_resumes() -> None:
    """A flow that is restored from a state dict resumes at the same item, also after a trip through JSON."""
    flow = Steps()
    flow.pass_with("a")
    saved = msgspec.json.decode(msgspec.json.encode(flow.state_dict()))
    restored = Steps()
    restored.load_state_dict(saved)
    assert restored.pass_with("b", "c") == ["b", "c"]
    assert restored.state["calls"] == restored.state_dict()["calls"]


def test_broken_progress_changes_nothing() -> None:
    """A state with invalid calls is an error that names the place, and nothing is changed."""
    flow = Steps()
    flow.pass_with("a")
    saved = flow.state_dict()
    before = flow.state_dict()
    saved["calls"] = {"iterations": {"x": {"position": "three"}}}
    with pytest.raises(StateError, match=r"the calls in the state of a flow do not fit.*position"):
        flow.load_state_dict(saved)
    assert flow.state_dict() == before


def test_what_cannot_be_iterated() -> None:
    """A value that cannot be iterated over is an error at the line that calls iterate."""
    with pytest.raises(UsageError, match="something to iterate over, not 5, a int"):
        Steps().iterate(5)  # type: ignore[arg-type]


def test_iterate_takes_a_generator() -> None:
    """Items may come from a generator; finished items are skipped."""

    def items() -> Iterator[int]:
        yield from (1, 2, 3)

    progress = Progress()
    first = progress.iterate(items(), "k", is_once=True)
    assert [next(first), next(first)] == [1, 2]
    first.close()  # type: ignore[attr-defined]
    assert list(progress.iterate(items(), "k", is_once=True)) == [2, 3]


class Hourly(Flow):
    def run(self) -> bool:
        return self.schedule("hourly")


def test_schedule_without_an_app() -> None:
    """A flow that no app drives can run in a test, and its schedules are false."""
    flow = Hourly()
    assert flow.run() is False
    assert flow.state_dict()["calls"] == {}


def test_schedule_checks_its_pattern_without_an_app() -> None:
    """An invalid pattern is an error also without an app, where no schedule fires."""
    with pytest.raises(ScheduleError, match="minute must be 0 to 59, got '99'"):
        Hourly().schedule("99 * * * *")
