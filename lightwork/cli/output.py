"""What the commands share in what they print and how they end: exit codes, tables, JSON, colours.

Results go to standard output, everything else to standard error. On a terminal a table is coloured and cut to
its width; elsewhere it is plain text with a line for each row and nothing left out. JSON is one document, or a
document for each line where a command streams.
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
"""Exit code: what was asked about has failed, or was refused."""

NO_APP = 3
"""Exit code: no app was found, or it does not answer."""

NOT_FOUND = 4
"""Exit code: the app has no such work, call, component, path, schedule or command."""

TIMED_OUT = 124
"""Exit code: what was waited for did not come in time; as of ``timeout`` of coreutils."""

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
"""How a stage, and what the doctor finds, looks on a terminal."""

_NARROWEST = 8
"""Columns that a column of a table keeps, however narrow the terminal."""

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])


class CommandFailure(click.ClickException):
    """Ends the command: the message goes to standard error, `code` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click declares it for the class and reads it of the instance


def output_option(command: _CommandT) -> _CommandT:
    """Give a command ``-o json``; it gets ``as_json``."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["text", "json"]),
        default="text",
        callback=lambda ctx, param, value: value == "json",
        help="text for people (the default), or json.",
    )(command)


def is_terminal() -> bool:
    """Whether standard output is a terminal that shows colours."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def styled(text: str, **style: Any) -> str:
    """The text in a colour, if standard output is a terminal."""
    return click.style(text, **style) if style and is_terminal() else text


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One document of a stream, on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """A line for the headers, and one for each row. The words of `STYLES` are coloured on a terminal.

    Args:
        headers: The columns.
        rows: Their texts; line breaks in them become spaces.
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
    """Make a table fit: the widest column gives first, the first one, which says what the row is about, at last."""
    excess = sum(widths) + 2 * (len(widths) - 1) - most
    while excess > 0:
        rest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        widest = rest if widths[rest] > _NARROWEST else 0
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1
        excess -= 1


def _fitted(text: str, width: int, *, is_right: bool) -> str:
    """The text with spaces up to the width, or cut to it."""
    size = _width(text)
    if size <= width:
        space = " " * (width - size)
        return space + text if is_right else text + space
    while text and _width(text) >= width:
        text = text[:-1]
    return f"{text}…{' ' * (width - 1 - _width(text))}"


def _width(text: str) -> int:
    """Columns of a terminal that a text takes; those of East Asia take two a character."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def rich_style(word: str) -> str:
    """The style of a word of `STYLES`, in rich's words; empty for any other."""
    style = STYLES.get(word, {})
    return " ".join(
        [key for key in ("bold", "dim") if style.get(key)] + [style[key] for key in ("fg",) if key in style]
    )


def print_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """A line for each name and value; those whose value is None or empty are left out."""
    known = [(name, str(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        first, *more = value.splitlines() or [""]
        click.echo(f"{styled(name.ljust(width), dim=True)}  {styled(first, **STYLES.get(first, {}))}")
        for line in more:
            click.echo(f"{' ' * width}  {line}")


def one_line(text: str) -> str:
    """The text without line breaks and other control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def clock(when: float | None) -> str:
    """A time of day with the date, in this machine's zone; empty for None."""
    return "" if when is None else datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M:%S")


def age(since: float | None) -> str:
    """How long ago that was."""
    return "" if since is None else duration(time.time() - since)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``0.3s``, ``12s``, ``3m20s``, ``5h02m``, ``3d4h``; empty for None."""
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
