"""The statuses that are kept of a work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.components.status_history import StatusHistory
from lightwork.status import Stage, WorkStatus

pytestmark = pytest.mark.bare

STAGES = (Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED)


@given(
    added=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(STAGES), st.booleans()), max_size=60),
    kept=st.integers(1, 4),
)
def test_the_latest_calls_are_kept_in_their_order(added: Sequence[tuple[str, Stage, bool]], kept: int) -> None:
    """The calls with the latest statuses are kept, in the order of these statuses, however often they are read."""
    record = StatusHistory(kept)
    expected: dict[str, WorkStatus] = {}
    for number, (call_hash, stage, is_looked_at) in enumerate(added):
        status = WorkStatus(stage, float(number))
        record.add(status, call_hash)
        expected.pop(call_hash, None)
        expected[call_hash] = status
        if is_looked_at:
            assert list(record.calls.items()) == list(expected.items())[-kept:]
    assert list(record.calls.items()) == list(expected.items())[-kept:]
    assert record.num_successes == sum(stage is Stage.SUCCEEDED for _, stage, _ in added)
    assert len(record.statuses) == min(kept, len(added))


def test_a_record_that_nobody_looks_at_is_bounded() -> None:
    """A history that is never read holds at most twice the kept number of calls plus one."""
    record = StatusHistory(10)
    most = 0
    for number in range(1000):
        record.add(WorkStatus(Stage.PENDING, 0.0), str(number))
        most = max(most, len(record._calls))
    assert 10 < most <= 21
