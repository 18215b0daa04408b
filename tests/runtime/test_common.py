"""Pauses, addresses and names of signals that the framework and its runtimes share."""

from __future__ import annotations

import pytest

from lightwork.runtime import Backoff, signal_name

pytestmark = pytest.mark.bare


def test_pauses_double_up_to_the_longest() -> None:
    """Each pause is twice as long as the one before, and none is longer than the longest."""
    backoff = Backoff(0.5, 3.0)
    assert [backoff.advance() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_success_begins_with_the_first_pause_again() -> None:
    """After a reset the next pause is the first one."""
    backoff = Backoff(1.0, 8.0, factor=4.0)
    backoff.advance()
    assert backoff.pause == 4.0
    backoff.reset()
    assert backoff.pause == 1.0


@pytest.mark.parametrize(("number", "name"), [(15, "SIGTERM"), (9, "SIGKILL"), (99, "signal 99")])
def test_a_signal_has_a_name(number: int, name: str) -> None:
    """A number that is no signal is shown as a number."""
    assert signal_name(number) == name
