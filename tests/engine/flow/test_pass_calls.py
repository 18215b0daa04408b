"""The calls that plain passes remember, with fake calls."""

from __future__ import annotations

from typing import Any

import pytest

from lightwork.engine.flow.pass_calls import PassCalls
from lightwork.status import Stage, WorkStatus


class FakeCall:
    def __init__(self, hash: str, id: int) -> None:
        self.hash = hash
        self.id = id
        self.status = WorkStatus(Stage.RUNNING, 0.0)

    @property
    def done(self) -> bool:
        return self.status.stage.is_final

    def end(self, stage: Stage) -> None:
        self.status = WorkStatus(stage, 0.0)


class Story:
    """A flow that makes calls of one work. `asks` has the hashes of the calls that a pass makes, in order."""

    def __init__(self, *, is_cached: bool = False) -> None:
        self.calls = PassCalls()
        self.is_cached = is_cached
        self.made: list[FakeCall] = []

    def run(self, *asks: str, is_complete: bool, schedule_fired: bool = False) -> bool:
        for hash in asks:
            if self.calls.recall(1, hash, schedule_fired=schedule_fired) is None:
                call: Any = FakeCall(hash, len(self.made))
                self.made.append(call)
                self.calls.remember(1, call, is_cached=self.is_cached, schedule_fired=schedule_fired)
        return self.calls.end_pass(is_complete=is_complete)


@pytest.fixture
def story() -> Story:
    return Story()


def test_repetition_makes_no_call_anew(story: Story) -> None:
    """The repetition of an interrupted pass is answered with the calls of that pass."""
    story.run("a", is_complete=False)
    story.made[0].end(Stage.SUCCEEDED)
    assert story.run("a", "b", is_complete=False) is False
    assert [call.hash for call in story.made] == ["a", "b"]


def test_equal_calls_of_one_pass_are_two(story: Story) -> None:
    """Two lines that make equal calls make two calls, and the repetition answers each line with its own call."""
    story.run("a", is_complete=False)
    story.made[0].end(Stage.SUCCEEDED)
    story.run("a", "a", is_complete=False)
    story.run("a", "a", is_complete=False)
    assert len(story.made) == 2


def test_success_is_made_anew_by_the_next_run(story: Story) -> None:
    """After a complete pass the next pass repeats a call that had succeeded."""
    story.run("a", is_complete=False)
    story.made[0].end(Stage.SUCCEEDED)
    assert story.run("a", is_complete=True) is True
    story.run("a", is_complete=False)
    assert len(story.made) == 2


def test_no_pass_follows_for_what_is_cached() -> None:
    """After the success of a work that caches its results no further pass is needed."""
    story = Story(is_cached=True)
    story.run("a", is_complete=False)
    story.made[0].end(Stage.SUCCEEDED)
    assert story.run("a", is_complete=True) is False


@pytest.mark.parametrize("stage", [Stage.RUNNING, Stage.FAILED])
def test_not_made_anew_while_it_is_asked_for(story: Story, stage: Stage) -> None:
    """A call that is in flight or has failed is remembered, not repeated, while each complete pass asks for it."""
    story.run("a", is_complete=True)
    story.made[0].end(stage)
    for _ in range(3):
        assert story.run("a", is_complete=True) is False
    assert len(story.made) == 1


def test_failure_is_forgotten_by_a_run_that_does_not_ask(story: Story) -> None:
    """A complete pass that does not ask for a failed call forgets it: the next pass that asks repeats the call."""
    story.run("a", is_complete=False)
    story.made[0].end(Stage.FAILED)
    story.run(is_complete=False)
    story.run("a", is_complete=True)
    assert len(story.made) == 1
    story.run(is_complete=True)
    story.run("a", is_complete=True)
    assert len(story.made) == 2


def test_forgotten_work(story: Story) -> None:
    """The calls of a work are made again after the work was started or stopped."""
    story.run("a", is_complete=True)
    story.made[0].end(Stage.FAILED)
    story.calls.forget(1)
    story.run("a", is_complete=True)
    assert len(story.made) == 2


def test_failure_of_an_earlier_firing_is_made_anew(story: Story) -> None:
    """A failed call of one firing is made again for the next firing, even without a pass between them."""
    story.run("a", is_complete=True, schedule_fired=True)
    story.made[0].end(Stage.FAILED)
    story.run("a", "a", is_complete=True, schedule_fired=True)
    assert len(story.made) == 3


def test_failure_beside_a_firing_is_not(story: Story) -> None:
    """A failed call that passes without a firing make too is not made again for a firing."""
    story.run("a", is_complete=True, schedule_fired=True)
    story.made[0].end(Stage.FAILED)
    story.run("a", is_complete=True)
    story.run("a", is_complete=True, schedule_fired=True)
    assert len(story.made) == 1


def test_call_in_flight_is_joined_by_the_next_firing(story: Story) -> None:
    """A call that is still in flight at the next firing answers that firing too."""
    story.run("a", is_complete=True, schedule_fired=True)
    story.run("a", is_complete=True, schedule_fired=True)
    assert len(story.made) == 1
