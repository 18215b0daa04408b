from __future__ import annotations

import math
from typing import Any

import pytest

from lightwork.changes import ComponentRemoved, StateChanged
from lightwork.cli.board import MAX_SERIES, Board, sparkline
from lightwork.status import Stage, WorkStatus
from tests.cli.support import line, number, status


def test_calls_that_succeed_and_fail_are_counted_apart() -> None:
    """A row counts succeeded and failed calls separately."""
    board = Board()
    for call, stage in enumerate([Stage.SUCCEEDED, Stage.FAILED, Stage.SUCCEEDED]):
        board.apply(status("root.a", Stage.RUNNING, call))
        board.apply(status("root.a", stage, call))
    assert (board.rows["root.a"].done, board.rows["root.a"].failures) == (2, 1)


def test_a_work_runs_while_any_call_runs() -> None:
    """A work with two concurrent calls is shown as running until both have ended."""
    board = Board()
    board.apply(status("root.a", Stage.RUNNING, 1, at=10.0))
    board.apply(status("root.a", Stage.RUNNING, 2, at=12.0))
    board.apply(status("root.a", Stage.SUCCEEDED, 1, at=15.0))
    row = board.rows["root.a"]
    assert (row.stage, row.seconds(20.0), board.is_running) == (Stage.RUNNING, 8.0, True)
    board.apply(status("root.a", Stage.SUCCEEDED, 2, at=16.0))
    assert (row.stage, row.seconds(99.0), board.is_running) == (Stage.SUCCEEDED, 4.0, False)


def test_a_work_that_ends_runs_nothing() -> None:
    """A final status of the work itself ends its running calls."""
    board = Board()
    board.apply(status("root.a", Stage.RUNNING, 1))
    board.apply(status("root.a", Stage.FAILED, None))
    assert not board.is_running
    assert board.rows["root.a"].stage is Stage.FAILED


def test_a_work_that_exists_already_begins_with_what_is_known() -> None:
    """A row can start with a status and a number of succeeded calls."""
    board = Board()
    board.add("root.a", WorkStatus(Stage.RUNNING, 5.0, call=7), 3)
    assert (board.rows["root.a"].done, board.rows["root.a"].seconds(6.0), board.is_running) == (3, 1.0, True)


@pytest.mark.parametrize(
    ("change", "label", "values"),
    [
        (number("root.a", "loss", 0.5), "loss", [0.5]),
        (StateChanged("root.a", ("table", "x", 0), "set", 3), "table.x.0", [3]),
        (StateChanged("root.a", ("losses",), "splice", (4, 0, [0.3, "no", True, 0.2])), "losses", [0.3, 0.2]),
    ],
)
def test_numbers_are_kept(change: StateChanged, label: str, values: list[float]) -> None:
    """A number that is set at any depth, and numbers inserted into a list, extend the series of their path."""
    board = Board()
    assert board.apply(change)
    assert list(board.numbers["root.a"][label]) == values


@pytest.mark.parametrize(
    "change",
    [
        number("root.a", "flag", True),
        number("root.a", "_private", 1),
        number("root.a", "port", 8000),
        number("root.a", "best", None),
        StateChanged("root.a", ("loss",), "delete", None),
        StateChanged("root.a", ("names",), "update", (["x"], [])),
        line("root.a", "text"),
    ],
)
def test_what_is_no_number_changes_nothing(change: Any) -> None:
    """Other changes do not change the board, and `apply` returns False."""
    board = Board()
    assert not board.apply(change)
    assert not board.numbers


def test_the_number_of_series_is_bounded() -> None:
    """A component that sets numbers under many keys uses a bounded amount of memory."""
    board = Board()
    for key in range(MAX_SERIES * 3):
        for _ in range(1000):
            board.apply(StateChanged("root.a", ("table", key), "set", key))
    assert len(board.numbers["root.a"]) == MAX_SERIES
    assert all(len(series) < 1000 for series in board.numbers["root.a"].values())


def test_a_removed_component_takes_what_is_below_it_along() -> None:
    """Removing a component removes its rows, numbers and texts, and those of its children, but no others."""
    board = Board()
    for name in ("root.a", "root.a.b", "root.ab"):
        board.apply(status(name, Stage.RUNNING))
        board.apply(number(name, "loss", 1.0))
        board.apply(number(name, "word", "x"))
    assert board.apply(ComponentRemoved("root.a"))
    assert list(board.rows) == list(board.numbers) == ["root.ab"]
    assert list(board.texts) == ["root.ab.word"]
    assert board.is_running


def test_where_all_fit_they_stay_in_order() -> None:
    """While all rows fit, a row does not move when its stage changes."""
    board = Board()
    for name, stage in (("a", Stage.SUCCEEDED), ("b", Stage.FAILED)):
        board.apply(status(name, stage))
    assert [row.name for row in board.select(2)[0]] == ["a", "b"]


def test_where_they_do_not_fit_the_failed_and_running_come_first() -> None:
    """Of 200 works, failed works are shown first, then running works."""
    board = Board()
    for index in range(200):
        stage = Stage.FAILED if index == 150 else Stage.RUNNING if index == 170 else Stage.SUCCEEDED
        board.apply(status(f"root.{index}", stage))
    shown, hidden = board.select(10)
    assert [row.name for row in shown][:2] == ["root.150", "root.170"]
    assert (len(shown), len(hidden)) == (10, 190)
    assert board.stages(hidden) == {Stage.SUCCEEDED: 190}


def test_labels_are_those_that_most_rows_have() -> None:
    """The columns are the numbers that most of the shown rows have."""
    board = Board()
    for name in ("a", "b"):
        board.apply(status(name, Stage.RUNNING))
        board.apply(number(name, "loss", 1))
    board.apply(number("a", "first", 1))
    assert board.labels(board.rows.values(), 1) == ["loss"]


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([1.0], ""),
        ([1, 1, 1], "▁▁▁"),
        ([0, 1], "▁█"),
        ([9, 9, 0, 7, 3.5, 0], "▁█▅▁"),
        ([math.nan, 0, math.inf, 1], "▁█"),
        ([-1.7e308, 1.7e308], "▁█"),
    ],
)
def test_sparkline(values: list[float], bars: str) -> None:
    """A sparkline scales to the range of its last finite values."""
    assert sparkline(values, 4) == bars
