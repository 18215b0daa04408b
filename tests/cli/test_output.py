from __future__ import annotations

import re

import pytest

from lightwork.cli import output
from lightwork.cli.output import duration, one_line, print_pairs, print_table


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_plain_table_leaves_nothing_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row is one line, the columns are aligned, and nothing is cut."""
    print_table(("name", "n", "why"), [("a", "1", "x" * 300), ("longer", "20", "two\nlines")], right=("n",))
    assert lines(capsys) == ["NAME     N  WHY", "a        1  " + "x" * 300, "longer  20  two lines"]
    print_table(("name",), [])
    assert lines(capsys) == ["NAME"]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_terminals_table_fits(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal no line exceeds its width. The widest column is cut first, the first column last."""
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [("root.train", "failed", "because " * 20), ("日本語" * 10, "running", "")]
    print_table(("name", "stage", "why"), rows)
    shown = lines(capsys)
    for line in shown:
        assert output._width(re.sub(r"\x1b\[\d+m", "", line)) <= max(columns, 28)
    assert "failed" in shown[1]
    if columns == 80:
        assert "root.train" in shown[1]


def test_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    """Pairs with an empty value are left out. Further lines of a value are printed below its first line."""
    print_pairs([("a", 1), ("none", None), ("empty", ""), ("text", "one\ntwo"), ("zero", 0)])
    assert lines(capsys) == ["a     1", "text  one", "      two", "zero  0"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (-1, "0.0s"), (0.25, "0.2s"), (12.9, "12s"), (200, "3m20s"), (18120, "5h02m"), (273600, "3d4h")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    """A duration is formatted in the two largest units."""
    assert duration(seconds) == shown


def test_one_line() -> None:
    """Line breaks and control characters become spaces, so they cannot break a table."""
    assert one_line("a\n\tb\x1b[31m c") == "a b [31m c"
