"""Output and exit codes of the commands: tables, JSON, colours.

Results go to standard output, everything else to standard error. On a terminal a table is coloured and cut to the
width of the terminal. Elsewhere a table is plain text with a line for each row, and nothing is cut. JSON output is one
document, or one document a line for a command that streams.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

__all__ = [
    "FAILED",
    "NOT_CONFIRMED",
    "NOT_FOUND",
    "NO_APP",
    "STYLES",
    "TIMED_OUT",
    "CommandFailure",
    "age",
    "clock",
    "duration",
    "is_terminal",
    "one_line",
    "output_option",
    "print_json",
    "print_json_line",
    "print_pairs",
    "print_table",
    "rich_style",
    "styled",
]

FAILED = 1
"""Exit code: the app, the call or the request has failed, or the request was refused."""

NO_APP = 3
"""Exit code: no app was found, the app does not answer, or it needs another token."""

NOT_FOUND = 4
"""Exit code: the app has no such work, call, component, path, schedule or command."""

NOT_CONFIRMED = 5
"""Exit code: there is something to remove, and the removal was not confirmed (--dry-run, or the answer no)."""

TIMED_OUT = 124
"""Exit code: the time limit has passed. The ``timeout`` of coreutils has the same code."""

STYLES: dict[str, dict[str, Any]] = {
    "not_started": {"dim": True},
    "started": {"fg": "cyan"},
    "pending": {"fg": "yellow"},
    "running": {"fg": "blue"},
    "succeeded": {"fg": "green"},
    "failed": {"fg": "red", "bold": True},
    "stopped": {"fg": "magenta"},
    "ok": {"fg": "green"},
    "warning": {"fg": "yellow"},
    "problem": {"fg": "red", "bold": True},
}
"""The terminal style of each stage, and of each health that the doctor reports."""

_MIN_WIDTH = 8
"""Minimum width of a table's column, in characters, on a narrow terminal."""

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])


class CommandFailure(click.ClickException):
    """Ends the command: the message is printed on standard error, and `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it for the class and reads it of the instance


def output_option(command: _CommandT) -> _CommandT:
    """Add the option ``-o json`` to a command. The command gets the argument ``as_json``."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["text", "json"]),
        default="text",
        callback=lambda ctx, param, value: value == "json",
        help="Output format (default: text).",
    )(command)


def is_terminal() -> bool:
    """Whether standard output is a terminal that shows colours."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def styled(text: str, **style: Any) -> str:
    """Return the text with a terminal style, or unchanged if standard output is not a terminal with colours."""
    return click.style(text, **style) if style and is_terminal() else text


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one JSON document of a stream on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print a line for the headers and a line for each row. On a terminal the words of `STYLES` are coloured.

    Args:
        headers: The headers of the columns.
        rows: The texts of the cells. Line breaks become spaces.
        right: Headers of the columns that are aligned to the right.
    """
    in_terminal = is_terminal()
    heads = [header if in_terminal else header.upper() for header in headers]
    table = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(heads, *table, strict=True)]
    if in_terminal:
        _narrow(widths, shutil.get_terminal_size().columns)
    for number, line in enumerate([heads, *table]):
        cells = []
        for cell, width, header in zip(line, widths, headers, strict=True):
            fitted = _fitted(cell, width, is_right=header in right) if in_terminal or header != headers[-1] else cell
            style = {"dim": True} if number == 0 else STYLES.get(cell, {})
            cells.append(styled(fitted, **style))
        click.echo("  ".join(cells).rstrip())


def _narrow(widths: list[int], most: int) -> None:
    """Shrink the columns to a total of `most` characters: the widest column first, the first column last.

    The first column names the row.
    """
    excess = sum(widths) + 2 * (len(widths) - 1) - most
    while excess > 0:
        rest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        widest = rest if widths[rest] > _MIN_WIDTH else 0
        if widths[widest] <= _MIN_WIDTH:
            return
        widths[widest] -= 1
        excess -= 1


def _fitted(text: str, width: int, *, is_right: bool) -> str:
    """Pad the text with spaces to the width, or cut it to the width."""
    size = _width(text)
    if size <= width:
        space = " " * (width - size)
        return space + text if is_right else text + space
    while text and _width(text) >= width:
        text = text[:-1]
    return f"{text}…{' ' * (width - 1 - _width(text))}"


def _width(text: str) -> int:
    """Return the width of a text on a terminal. A wide East Asian character counts as two."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def rich_style(word: str) -> str:
    """Return the style of a word of `STYLES` in the syntax of rich; empty for every other word."""
    style = STYLES.get(word, {})
    return " ".join(
        [key for key in ("bold", "dim") if style.get(key)] + [style[key] for key in ("fg",) if key in style]
    )


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print a line for each name and value. A pair whose value is None or empty is left out."""
    known = [(name, str(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        first, *more = value.splitlines() or [""]
        click.echo(f"{styled(name.ljust(width), dim=True)}  {styled(first, **STYLES.get(first, {}))}")
        for line in more:
            click.echo(f"{' ' * width}  {line}")


def one_line(text: str) -> str:
    """Return the text on one line: whitespace and control characters become single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def clock(when: float | None) -> str:
    """Format a time as date and time of day in the time zone of this machine; empty for None."""
    return "" if when is None else datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M:%S")


def age(since: float | None) -> str:
    """Format the time that has passed since `since`; empty for None."""
    return "" if since is None else duration(time.time() - since)


def duration(seconds: float | None) -> str:
    """Format a number of seconds: ``0.3s``, ``12s``, ``3m20s``, ``5h02m``, ``3d4h``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
