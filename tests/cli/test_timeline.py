from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lightwork.cli.timeline import bar, chrome_trace
from lightwork.components.cron import ScheduleView
from lightwork.server.types import StackView, Timeline, TimelineItem
from lightwork.status import Stage
from tests.cli.fake_server import FakeServer, Refused
from tests.cli.invoke import invoke


def item(call: int, submitted: float, started: float | None, ended: float | None, work: str = "root.a") -> TimelineItem:
    return TimelineItem(call, work, submitted, started, ended, Stage.RUNNING, 1)


def test_calls_are_bars_on_one_axis(server: FakeServer) -> None:
    """Calls are listed oldest first, with their times and a bar: dots for waiting, blocks for running."""
    server.timeline = Timeline([item(2, 5.0, None, None, "root.b"), item(1, 0.0, 2.0, 6.0)], 10.0)
    rows = [line.split() for line in invoke("timeline").out.splitlines()]
    assert rows[1][:5] == ["1", "root.a", "running", "2.0s", "4.0s"]
    assert rows[2][:4] == ["2", "root.b", "running", "5.0s"]
    assert invoke("timeline", "--since", "5", "-o", "json").json["now"] == 10.0


def test_a_bar() -> None:
    """A time shorter than one character is drawn as one character, and no bar exceeds the axis."""
    assert bar(item(1, 0.0, 2.0, 6.0), 0.0, 10.0, 10.0, 10) == "··████"
    assert bar(item(1, 5.0, None, None), 0.0, 10.0, 10.0, 10) == "_____·····"
    assert bar(item(1, 9.99, 9.991, 9.992), 0.0, 10.0, 10.0, 10) == "_________█"
    assert bar(item(1, 10.0, 10.0, 10.0), 10.0, 10.0, 10.0, 10) == "█"


def test_a_trace_for_the_browser(server: FakeServer, tmp_path: Path) -> None:
    """The trace has a thread for each work, and spans in microseconds for the waiting and the running of a call."""
    server.timeline = Timeline([item(1, 1.0, 2.0, 6.0)], 10.0)
    assert invoke("timeline", "--trace", str(tmp_path / "trace.json")).code == 0
    events = msgspec.json.decode((tmp_path / "trace.json").read_bytes())["traceEvents"]
    assert events[0]["args"] == {"name": "root.a"}
    assert [(event["ph"], event["name"], event["ts"]) for event in events[1:]] == [
        ("b", "call 1 waiting", 1_000_000),
        ("e", "call 1 waiting", 2_000_000),
        ("b", "call 1 running", 2_000_000),
        ("e", "call 1 running", 6_000_000),
    ]
    assert chrome_trace(Timeline([], 0.0))["traceEvents"] == []


def test_a_stack(server: FakeServer) -> None:
    """Threads and tasks are shown with their frames like tracebacks. Without an answer the exit code is 124."""
    server.add_work("root.a")
    frame: dict[str, Any] = {"file": "app.py", "line": 3, "function": "run", "text": "    sleep(1)"}
    view = {"work": "root.a", "time": 1.0, "threads": [{"name": "MainThread", "frames": [frame]}], "tasks": []}
    server.stacks["root.a"] = msgspec.convert(view, StackView)
    done = invoke("stack", "a")
    assert done.out == 'thread MainThread\n  File "app.py", line 3, in run\n    sleep(1)\n\n'
    assert invoke("stack", "a", "-o", "json").json["work"] == "root.a"
    server.refusals["/stack"] = Refused("timeout", "no answer", 504)
    assert invoke("stack", "a").code == 124


def test_schedules(server: FakeServer) -> None:
    """Schedules are listed. A flow and a key select the schedule to fire; one schedule needs no key."""
    server.schedules = [ScheduleView("root", "nightly", "0 0 * * *", None, 2.0, False)]
    assert invoke("schedule", "ls").out.splitlines()[1].split()[:2] == ["root", "nightly"]
    assert invoke("schedule", "ls", "-o", "json").json["items"][0]["pattern"] == "0 0 * * *"
    assert invoke("schedule", "trigger", "root").out == "root nightly fires now\n"
    assert server.orders == ['POST /schedules/trigger {"flow":"root","key":"nightly"}']
    assert invoke("schedule", "trigger", "root", "daily").code == 4
    assert invoke("schedule", "trigger", "other").code == 4
    server.schedules.append(ScheduleView("root", "weekly", "0 0 * * 0", None, 2.0, False))
    done = invoke("schedule", "trigger", "root")
    assert done.code == 2
    assert "nightly, weekly" in done.err
