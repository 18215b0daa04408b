from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from lightwork.cli.logs import harmless
from lightwork.logfiles import LogWriter, begin_run
from lightwork.server.discovery import AppFile, announce
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
    """Each line has the name of its work unless --no-names is given. --tail and --search select lines."""
    assert invoke("logs", "-n", "3").out == "root.a | line 6\nroot.b | line 7\nroot.a | line 8\n"
    assert invoke("logs", "a", "--no-names").out.split("\n") == ["line 2", "line 4", "line 6", "line 8", ""]
    assert invoke("logs", "--search", "LINE 3").out == "root.b | line 3\n"
    assert len(invoke("logs", "--all").out.splitlines()) == 8
    assert "1970-01-01" in invoke("logs", "-n", "1", "-t").out
    assert invoke("logs", "-n", "1", "-o", "json").lines == [
        {"seq": 8, "work": "root.a", "time": 1.5, "text": "line 8"}
    ]


def test_a_work_that_crashed_says_so_after_its_last_lines(app: FakeServer) -> None:
    """After the last lines of a failed work, the reason is printed on standard error."""
    done = invoke("logs", "b", "-n", "1")
    assert done.out == "root.b | line 7\n"
    assert done.err == "root.b failed crashed: killed by SIGKILL\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext", "plain\ttext"),
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07rest", "rest"),
        ("a\x1b[2Jb\x1b[10;10Hc", "abc"),
        ("bell\x07 back\x08 \x1bM\x9b2J", "bell back M2J"),
    ],
)
def test_what_a_work_prints_does_not_command_the_terminal(text: str, shown: str) -> None:
    """Colours are kept and reset at the end of the line. Other terminal commands are removed."""
    assert harmless(text) == shown


def test_a_pipe_gets_no_colours(app: FakeServer) -> None:
    """If the output is not a terminal, a line has no colours of the command."""
    app.lines = [LogEntry(1, "root.a", 1.5, "\x1b[31mred\x1b[0m")]
    assert invoke("logs", "--no-names").out == "red\n"
    assert invoke("logs", "-o", "json").lines[0]["text"] == "\x1b[31mred\x1b[0m"


def test_every_page_is_asked_for(app: FakeServer) -> None:
    """All lines of several pages are printed, in order and once."""
    app.page_size = 3
    for args in (["--all"], ["-n", "8"], ["-n", "0", "-f"]):
        done = invoke("logs", "--no-names", *args)
        expected = [] if "0" in args else [f"line {seq}" for seq in range(1, 9)]
        assert done.out.splitlines() == expected


def test_following_loses_and_repeats_nothing(app: FakeServer) -> None:
    """Lines between the first answer and the feed, and lines in a gap of the feed, are requested."""

    def batches(number: int) -> list[list[dict[str, Any]]]:
        app.lines += [LogEntry(seq, "root.a", 1.5, f"line {seq}") for seq in range(9, 15)]
        return [[told(8), told(9)], [{"t": "log_gap", "after": 9, "before": 13}, told(13), told(14)]]

    app.on_feed = batches
    done = invoke("logs", "-f", "-n", "2", "--no-names")
    assert done.out.splitlines() == [f"line {seq}" for seq in range(7, 15)]


def test_following_survives_a_break(app: FakeServer) -> None:
    """Lines that were printed while the connection was broken are requested after the reconnect."""

    def batches(number: int) -> list[list[dict[str, Any]]]:
        app.lines.append(LogEntry(8 + number, "root.a", 1.5, f"line {8 + number}"))
        if number == 1:
            raise ConnectionResetError
        return []

    app.on_feed = batches
    assert invoke("logs", "-f", "-n", "1", "--no-names").out.splitlines() == ["line 8", "line 9", "line 10"]


def test_following_searches_too(app: FakeServer) -> None:
    """--search also selects among the new lines."""
    app.on_feed = lambda _: [[told(9, text="an Error"), told(10, text="nothing")]]
    assert invoke("logs", "-f", "-n", "0", "--search", "error").out == "root.a | an Error\n"


# --- output on the disk -----------------------------------------------------------------------------


async def _write(folder: Path, run: str, count: int) -> Path:
    place = begin_run(folder, run)
    writer = LogWriter(place, 1 << 24)
    for number in range(1, count + 1):
        writer.write("root.b" if number % 2 else "root.a", f"line {number}\n".encode(), 1, 1.5)
    await writer.aclose()
    return place


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stored output of two runs. No app runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / ".lightwork" / "logs"
    asyncio.run(_write(folder, "20260101-000000-aaaaaa", 2))
    return asyncio.run(_write(folder, "20260102-000000-bbbbbb", 2500))


def test_the_output_survives_the_app(left: Path) -> None:
    """If no app runs, the output of the latest run is read with the same options, and the run is named."""
    done = invoke("logs", "-n", "2")
    assert done.code == 0
    assert done.out == "root.b | line 2499\nroot.a | line 2500\n"
    assert "run 20260102-000000-bbbbbb" in done.err
    assert len(invoke("logs", "--all", "-o", "json").lines) == 2500
    assert len(invoke("logs", "-n", "1100").out.splitlines()) == 1100
    assert len(invoke("logs", "[a]", "--all").out.splitlines()) == 1250
    assert invoke("logs", "--search", "LINE 2500", "-f").out == "root.a | line 2500\n"
    assert invoke("logs", "--run", "20260101", "--no-names").out == "line 1\nline 2\n"


def test_what_no_run_has_left(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 4 for an unknown run or work, 2 for an ambiguous run, and 3 without any run."""
    assert invoke("logs", "--run", "2025").code == 4
    assert invoke("logs", "--run", "2026").code == 2
    done = invoke("logs", "c")
    assert done.code == 4
    assert "run 20260102-000000-bbbbbb has no output of a work 'root.c'" in done.err
    monkeypatch.setenv("LIGHTWORK_LOG_DIR", str(tmp_path / "elsewhere"))
    done = invoke("logs")
    assert done.code == 3
    assert str(tmp_path / "elsewhere") in done.err
    assert invoke("logs", "--app", "Sweep").code == 3


def test_following_ends_with_what_is_on_the_disk(app: FakeServer, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that an app wrote after its last answer are read from its log folder."""
    monkeypatch.delenv("LIGHTWORK_URL")
    app.lines = [LogEntry(seq, "root.a", 1.5, f"line {seq}") for seq in range(1, 2499)]
    end = announce(
        AppFile(run="r1", name="Sweep", pid=os.getpid(), url=app.url, started_at=1.0, logs=str(left)),
    )
    done = invoke("logs", "-f", "-n", "1", "--no-names")
    end()
    assert done.out.splitlines() == ["line 2498", "line 2499", "line 2500"]
