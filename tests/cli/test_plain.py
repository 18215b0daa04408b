from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from lightwork.changes import ComponentAdded
from lightwork.cli.plain import JsonView, PlainView, clean, describe
from lightwork.status import Reason, Stage, WorkStatus
from tests.cli.support import FlushCounter, line, number, status


def test_each_status_and_log_line_is_one_line_flushed_at_once() -> None:
    """A line is written and flushed for each status and each log line, and for no other change."""
    stream = FlushCounter()
    view = PlainView(stream)
    view.change(status("root.trials.0", Stage.RUNNING, 2))
    view.change(number("root.trials.0", "loss", 0.5))
    view.change(ComponentAdded("root.x"))
    view.change(line("root.trials.0", "epoch 1"))
    view.message("stopped: done")
    assert stream.flushed == [
        "root.trials.0 running call 2\n",
        "root.trials.0 running call 2\nroot.trials.0 | epoch 1\n",
        "root.trials.0 running call 2\nroot.trials.0 | epoch 1\nstopped: done\n",
    ]


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (WorkStatus(Stage.PENDING, 0.0, Reason.PENDING), "pending"),
        (
            WorkStatus(Stage.FAILED, 0.0, Reason.CRASHED, "exit code 3\n\nlast line\n", call=4, attempt=2),
            "failed (crashed) call 4 attempt 2: exit code 3 / last line",
        ),
        (WorkStatus(Stage.STOPPED, 0.0, Reason.TIMEOUT, count=3), "stopped (timeout) 3 times"),
    ],
)
def test_a_status_is_described_on_one_line(one: WorkStatus, text: str) -> None:
    """Reason, call, attempt, count and a message of several lines are on one line."""
    assert describe(one) == text


def test_a_progress_bar_is_shown_as_it_ended() -> None:
    """Of text with carriage returns only the last part is kept."""
    assert clean("10%\r50%\r100%\r\n") == "100%"


def test_json_lines_carry_the_parts_of_a_change() -> None:
    """In JSON every line is an object that names its event."""
    stream = FlushCounter()
    view = JsonView(stream, clock=lambda: 9.0)
    view.change(status("root.a", Stage.FAILED, 3, at=2.0, reason=Reason.OOM, message="killed"))
    view.change(line("root.a", "text"))
    view.message("stopped")
    assert [json.loads(text) for text in stream.getvalue().splitlines()] == [
        {
            "time": 2.0,
            "event": "status",
            "work": "root.a",
            "stage": "failed",
            "reason": "oom",
            "message": "killed",
            "call": 3,
            "attempt": 1,
        },
        {"time": 1.5, "event": "log", "work": "root.a", "text": "text"},
        {"time": 9.0, "event": "message", "text": "stopped"},
    ]


def test_a_reader_that_went_away_silences_the_view(caplog: pytest.LogCaptureFixture) -> None:
    """When the output's reader has gone, the view logs one warning and writes nothing more."""
    stream = FlushCounter()
    view = PlainView(stream)
    stream.is_broken = True
    with caplog.at_level(logging.WARNING, "lightwork"):
        view.change(line("root.a", "lost"))
        stream.is_broken = False
        view.change(line("root.a", "lost too"))
    assert stream.getvalue() == ""
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_interpreter_ends_quietly_after_its_reader_went_away() -> None:
    """A process whose view lost its reader exits with its own exit code and without an error of the last flush."""
    code = """
import sys
from lightwork.changes import LogLine
from lightwork.cli.plain import PlainView
view = PlainView()
sys.stdin.read()
view.change(LogLine("root.a", "text", 0.0))
sys.exit(7)
"""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate()
    assert process.returncode == 7
    assert b"the app continues" in errors
    assert b"Exception" not in errors


def test_where_the_dashboard_is() -> None:
    """The URL of the dashboard is a separate line, and a separate event in JSON."""
    stream = FlushCounter()
    PlainView(stream).serving("http://127.0.0.1:7501")
    JsonView(stream, clock=lambda: 1.5).serving("http://127.0.0.1:7501")
    plain, made = stream.getvalue().splitlines()
    assert plain == "dashboard: http://127.0.0.1:7501"
    assert json.loads(made) == {"time": 1.5, "event": "serving", "url": "http://127.0.0.1:7501"}
