from __future__ import annotations

import asyncio
import io
import logging

import pytest
from rich.console import Console

from lightwork.cli.board import Board
from lightwork.cli.live import MAX_LINES, LiveView, render
from lightwork.status import Reason, Stage
from tests.cli.support import FakeWork, line, number, status


class Screen:
    """A console of a terminal that writes to memory."""

    def __init__(self, width: int = 100, height: int = 24) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=width, height=height, color_system=None)

    @property
    def text(self) -> str:
        return self.file.getvalue()


def rendered(board: Board, *, now: float = 0.0, width: int = 120, height: int = 24) -> str:
    screen = Screen(width, height)
    screen.console.print(render(board, now, width, height))
    return screen.text


def timers(view: LiveView) -> int:
    return int(view._timer is not None)


async def drawn(view: LiveView, times: int) -> None:
    """Wait until the view has drawn `times` times."""
    while view.drawings < times:
        assert view._timer is not None, "too few drawings, and no drawing is scheduled"
        woken = asyncio.Event()
        asyncio.get_running_loop().call_at(view._timer.when(), woken.set)
        await woken.wait()


def test_a_row_shows_stage_calls_seconds_and_numbers() -> None:
    """The row of a work shows its stage, calls, elapsed seconds, and its numbers with sparklines."""
    board = Board()
    board.apply(status("root.train", Stage.RUNNING, 1, at=100.0))
    for loss in (4.0, 2.0, 0.125):
        board.apply(number("root.train", "loss", loss))
    head, row, *_ = rendered(board, now=103.5).splitlines()
    assert head.split() == ["work", "stage", "calls", "elapsed", "loss"]
    assert row.split() == ["root.train", "running", "0", "3.5s", "0.125", "█▄▁"]


def test_a_failed_row_says_why() -> None:
    """The row of a failed work shows the reason and the first line of the message."""
    board = Board()
    board.apply(status("root.a", Stage.FAILED, 1, reason=Reason.CRASHED, message="exit code 3\nmore"))
    assert "0 (1 failed)" in rendered(board)
    assert "crashed: exit code 3" in rendered(board)
    assert "more" not in rendered(board)


def test_the_last_line_counts_stages_and_shows_the_flow() -> None:
    """The line below the table shows the number of works in each stage, and the state of the flows."""
    board = Board()
    board.apply(status("root.a", Stage.SUCCEEDED))
    board.apply(status("root.b", Stage.RUNNING))
    board.apply(number("root", "best", 0.93))
    board.apply(number("root", "message", "half done\nand more"))
    assert rendered(board).splitlines()[-1] == "1 succeeded, 1 running · root.best=0.93 · root.message=half done"


def test_200_works_fit_any_terminal() -> None:
    """With more works than lines, the most urgent works are shown and the others are counted."""
    board = Board()
    for index in range(200):
        board.apply(status(f"root.{index}", Stage.FAILED if index == 199 else Stage.SUCCEEDED))
    lines = rendered(board, width=60, height=12).splitlines()
    assert len(lines) <= 11
    assert lines[1].split()[0] == "root.199"
    assert "and 196 more: 196 succeeded" in lines[-2]


@pytest.mark.parametrize(("seconds", "shown"), [(59.94, "59.9s"), (61, "1:01"), (3725, "1:02:05")])
def test_seconds_become_minutes_and_hours(seconds: float, shown: str) -> None:
    """Long times are shown as minutes and hours."""
    board = Board()
    board.apply(status("root.a", Stage.RUNNING, at=0.0))
    assert shown in rendered(board, now=seconds)


async def test_works_that_exist_are_shown_from_the_start() -> None:
    """The first table shows the works that exist at the start."""
    screen = Screen()
    view = LiveView(screen.console)
    view.start([FakeWork("root.early")])
    view.stop()
    assert "root.early" in screen.text


async def test_nothing_is_due_while_nothing_happens() -> None:
    """Without a running work and without a change, the view has no timer."""
    view = LiveView(Screen().console)
    view.start([])
    assert timers(view) == 0
    view.change(status("root.a", Stage.RUNNING))
    view.change(status("root.a", Stage.SUCCEEDED))
    await drawn(view, 2)
    assert timers(view) == 0
    view.change(number("root.a", "port", 8000))
    assert timers(view) == 0
    view.stop()


async def test_many_changes_are_one_drawing() -> None:
    """Simultaneous changes are drawn together."""
    screen = Screen()
    view = LiveView(screen.console)
    view.start([])
    for index in range(1000):
        view.change(number("root", "step", index))
        view.change(line("root.a", f"line {index}"))
    await drawn(view, 2)
    assert "root.step=999" in screen.text
    view.stop()
    assert view.drawings == 3
    assert f"{1000 - MAX_LINES} lines left out" in screen.text
    assert "root.a | line 999" in screen.text


async def test_the_seconds_of_a_running_work_go_on() -> None:
    """While a work runs, the view is drawn again without a change."""
    now = [100.0]
    screen = Screen()
    view = LiveView(screen.console, clock=lambda: now[0])
    view.start([])
    view.change(status("root.a", Stage.RUNNING, at=100.0))
    await drawn(view, 2)
    now[0] = 107.0
    await drawn(view, 3)
    view.stop()
    assert "7.0s" in screen.text


async def test_what_works_print_cannot_steer_the_terminal() -> None:
    """Colours in a work's line are kept, and other control sequences do not reach the terminal."""
    screen = Screen()
    view = LiveView(screen.console)
    view.start([])
    view.change(line("root.a", "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07[bold]x[/bold]"))
    view.stop()
    assert "root.a | red [bold]x[/bold]" in screen.text
    assert "\x1b[2J" not in screen.text
    assert "title" not in screen.text


async def test_the_last_state_stays_on_the_terminal() -> None:
    """Stopping draws the pending changes and leaves no timer. A second stop does nothing."""
    screen = Screen()
    view = LiveView(screen.console)
    view.start([])
    view.change(status("root.late", Stage.RUNNING))
    view.message("stopped: done")
    view.stop()
    view.stop()
    assert "root.late" in screen.text
    assert "stopped: done" in screen.text
    assert timers(view) == 0


async def test_a_terminal_that_went_away_does_not_end_the_app(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the terminal cannot be written any more, the view logs one warning and writes nothing more."""

    class Gone(io.StringIO):
        is_gone = False

        def write(self, text: str, /) -> int:
            if self.is_gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

    file = Gone()
    monkeypatch.setattr("sys.__stdout__", io.StringIO())
    view = LiveView(Console(file=file, force_terminal=True, width=80, height=24))
    view.start([])
    file.is_gone = True
    with caplog.at_level(logging.WARNING, "lightwork"):
        view.change(status("root.a", Stage.RUNNING))
        await drawn(view, 2)
    assert len(caplog.records) == 1
    assert timers(view) == 0
    view.change(status("root.a", Stage.SUCCEEDED))
    view.stop()
    file.is_gone = False


async def test_the_dashboard_stays_in_sight() -> None:
    """The URL of the dashboard is below the table in each later drawing."""
    screen = Screen()
    view = LiveView(screen.console)
    view.start([])
    view.serving("http://127.0.0.1:7501")
    view.stop()
    drawings = screen.text.split("no works yet")
    assert "dashboard: http://127.0.0.1:7501" not in drawings[0]
    assert "dashboard: http://127.0.0.1:7501" in drawings[-1]
