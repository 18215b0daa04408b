from __future__ import annotations

from typing import Any

import pytest

from lightwork.server.types import LogEntry
from tests.cli.fake_server import FakeServer
from tests.cli.invoke import invoke


def told(seq: int, work: str = "root.a", text: str | None = None) -> dict[str, Any]:
    return {"t": "log", "seq": seq, "work": work, "time": 1.5, "text": text or f"line {seq}"}


@pytest.fixture
def app(server: FakeServer) -> FakeServer:
    server.add_work("root.a")
    server.add_work("root.b", "failed", reason="crashed", message="killed by SIGKILL")
    server.lines = [LogEntry(seq, "root.b" if seq % 2 else "root.a", 1.5, f"line {seq}") for seq in range(1, 9)]
    return server


def test_lines_of_all_works_in_the_order_they_came(app: FakeServer) -> None:
    """Each line has the name of its work; --tail begins so far back; --search chooses; names can be left out."""
    assert invoke("logs", "-n", "3").out == "root.a | line 6\nroot.b | line 7\nroot.a | line 8\n"
    assert invoke("logs", "a", "--no-names").out.split("\n") == ["line 2", "line 4", "line 6", "line 8", ""]
    assert invoke("logs", "--search", "LINE 3").out == "root.b | line 3\n"
    assert len(invoke("logs", "--all").out.splitlines()) == 8
    assert "1970-01-01" in invoke("logs", "-n", "1", "-t").out
    assert invoke("logs", "-n", "1", "-o", "json").lines == [
        {"seq": 8, "work": "root.a", "time": 1.5, "text": "line 8"}
    ]


def test_a_work_that_crashed_says_so_after_its_last_lines(app: FakeServer) -> None:
    """The last lines of a work that has failed are followed by why, on standard error."""
    done = invoke("logs", "b", "-n", "1")
    assert done.out == "root.b | line 7\n"
    assert done.err == "root.b failed crashed: killed by SIGKILL\n"


def test_every_page_is_asked_for(app: FakeServer) -> None:
    """More lines than a page has are all printed, in order and once."""
    app.page_size = 3
    for args in (["--all"], ["-n", "8"], ["-n", "0", "-f"]):
        done = invoke("logs", "--no-names", *args)
        expected = [] if "0" in args else [f"line {seq}" for seq in range(1, 9)]
        assert done.out.splitlines() == expected


def test_following_loses_and_repeats_nothing(app: FakeServer) -> None:
    """Lines that came between the answer and the feed, and those that a gap of the feed left out, are asked for."""

    def batches(number: int) -> list[list[dict[str, Any]]]:
        app.lines += [LogEntry(seq, "root.a", 1.5, f"line {seq}") for seq in range(9, 15)]
        return [[told(8), told(9)], [{"t": "log_gap", "after": 9, "before": 13}, told(13), told(14)]]

    app.on_feed = batches
    done = invoke("logs", "-f", "-n", "2", "--no-names")
    assert done.out.splitlines() == [f"line {seq}" for seq in range(7, 15)]


def test_following_survives_a_break(app: FakeServer) -> None:
    """What was printed while the connection was broken is asked for when it is back."""

    def batches(number: int) -> list[list[dict[str, Any]]]:
        app.lines.append(LogEntry(8 + number, "root.a", 1.5, f"line {8 + number}"))
        if number == 1:
            raise ConnectionResetError
        return []

    app.on_feed = batches
    assert invoke("logs", "-f", "-n", "1", "--no-names").out.splitlines() == ["line 8", "line 9", "line 10"]


def test_following_searches_too(app: FakeServer) -> None:
    """Lines that come are chosen as those that were there are."""
    app.on_feed = lambda _: [[told(9, text="an Error"), told(10, text="nothing")]]
    assert invoke("logs", "-f", "-n", "0", "--search", "error").out == "root.a | an Error\n"
