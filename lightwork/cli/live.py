"""The view for a terminal: a table of the works that stays at the bottom, with the output of the works above it.

The table is drawn after a change, at most ten times a second, and in at most a twentieth of the event loop's time.
While a work runs, it is also drawn once a second, because it shows the elapsed seconds. Otherwise it is not drawn.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from lightwork._logging import get_logger
from lightwork.changes import Change, LogLine
from lightwork.cli.board import Board, BoardRow, sparkline
from lightwork.cli.output import rich_style
from lightwork.cli.plain import clean, discard

__all__ = ["MAX_LINES", "LiveView", "render"]

_INTERVAL = 0.1
"""Minimum seconds between two drawings."""

_TICK = 1.0
"""Seconds between two drawings while works run and no change arrives."""

_COST = 20
"""After a drawing that took t seconds, the next drawing comes at least this many times t later."""

MAX_LINES = 500
"""Maximum log lines per drawing. Nobody can read more, and a slow terminal would block the event loop."""

_MAX_ROWS = 40

# Terminal commands with a text, such as titles and links: rich would print the text.
_COMMANDS = re.compile(r"\x1b[\]PX^_].*?(\x07|\x1b\\|$)")

_log = get_logger(__name__)


class LiveView:
    """Shows an app on a terminal.

    Between `start` and `stop`, other output to ``sys.stdout`` and ``sys.stderr`` appears above the table. Call both
    methods in a running event loop.

    Attributes:
        board: The shown data.
        drawings: Number of drawings so far.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.board: Board = Board()
        self.drawings: int = 0
        self._url = ""
        self._console = Console() if console is None else console
        self._clock = clock
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),  # standard error in a file must not appear on the terminal
            vertical_overflow="crop",
        )
        self._lines: deque[LogLine | str] = deque(maxlen=MAX_LINES)
        self._left_out = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_tick = False
        self._not_before = 0.0
        self._is_closed = False

    def start(self, works: Sequence[Any]) -> None:
        """Take over the terminal. `works` are the present works."""
        for work in works:
            self.board.add(work.name, work.status, work.num_successes)
        self._live.start()
        self._draw()

    def change(self, change: Change) -> None:
        """Process a change. It is shown with the next drawing."""
        if isinstance(change, LogLine):
            self._append(change)
        elif self.board.apply(change):
            self._draw_soon()

    def message(self, text: str) -> None:
        """Show a line about the app as a whole above the table."""
        self._append(text)

    def serving(self, url: str) -> None:
        """Show the URL of the app's HTTP server below the table."""
        self._url = url
        self._draw_soon()

    def stop(self) -> None:
        """Draw the final table, which stays on the terminal, and release the terminal. Calling it twice is safe."""
        self._cancel_timer()
        if self._live.is_started:
            self._draw()
            self._cancel_timer()
            self._guarded(self._live.stop)

    def _append(self, line: LogLine | str) -> None:
        if len(self._lines) == MAX_LINES:
            self._left_out += 1
        self._lines.append(line)
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self._is_closed or (self._timer is not None and not self._is_tick):
            return
        self._cancel_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(self._not_before, loop.time()), self._draw)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._is_tick = None, False

    def _draw(self) -> None:
        self._timer, self._is_tick = None, False
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._guarded(self._draw_now)
        self.drawings += 1
        ended = loop.time()
        self._not_before = ended + max(_INTERVAL, _COST * (ended - began))
        if self.board.is_running and not self._is_closed:
            self._timer, self._is_tick = loop.call_at(max(ended + _TICK, self._not_before), self._draw), True

    def _draw_now(self) -> None:
        """Print the pending lines, and draw the table once."""
        size = self._console.size
        table = render(self.board, self._clock(), size.width, size.height, self._url)
        lines = self._take_lines()
        with self._console:  # one write, so nothing flickers
            # Live draws its content again with every printed line. Laid out before, the table is laid out only once.
            self._live.update(_laid_out(self._console, table), refresh=True)
            if lines:
                self._console.print(Group(*lines), soft_wrap=True)

    def _take_lines(self) -> list[Text]:
        lines = [_line(line) for line in self._lines]
        self._lines.clear()
        if self._left_out:
            lines.insert(0, Text(f"... {self._left_out} lines left out: too many to print", "dim"))
            self._left_out = 0
        return lines

    def _guarded(self, fn: Callable[[], Any]) -> None:
        """Call `fn` unless the terminal has gone. A lost terminal does not end the app."""
        if self._is_closed:
            return
        try:
            fn()
        except OSError as error:
            self._is_closed = True
            discard(sys.__stdout__ or sys.stdout)
            _log.warning("the terminal cannot be written any more; the app continues", error=str(error))


def render(board: Board, now: float, width: int, height: int, url: str = "") -> Group:
    """Render the table and the lines below it for a terminal of this size. A `url` adds a line for the dashboard."""
    shown, hidden = board.select(max(3, min(_MAX_ROWS, height - 8)))
    parts: list[Any] = []
    if shown:
        parts.append(_table(board, shown, now, width))
    if hidden:
        parts.append(Text(f"  and {len(hidden)} more: {_counts(board, hidden)}", "dim", no_wrap=True))
    parts.append(Text(_summary(board), no_wrap=True, overflow="ellipsis"))
    if url:
        parts.append(Text(f"dashboard: {url}", "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _table(board: Board, rows: list[BoardRow], now: float, width: int) -> Table:
    labels = board.labels(rows, max(0, min(4, (width - 50) // 22)))
    has_notes = any(_note(row) for row in rows)
    table = Table(box=None, pad_edge=False, header_style="dim", expand=has_notes)
    table.add_column("work", no_wrap=True, overflow="ellipsis", max_width=max(16, width // 3))
    table.add_column("stage", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("elapsed", justify="right", no_wrap=True)
    for label in labels:
        table.add_column(label[-20:], no_wrap=True)
    if has_notes:
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        cells = [_number(board, row.name, label) for label in labels]
        notes = [Text(_note(row), "dim")] if has_notes else []
        stage = Text(str(row.stage), rich_style(row.stage))
        table.add_row(Text(row.name), stage, _calls(row), _duration(row.seconds(now)), *cells, *notes)
    return table


def _summary(board: Board) -> str:
    """Return the number of works in each stage, then the numbers and texts in the state of flows."""
    parts = [_counts(board, list(board.rows.values())) or "no works yet"]
    for name, series in sorted(board.numbers.items()):
        if name not in board.rows:
            parts += [f"{name}.{label}={values[-1]:.5g}" for label, values in series.items()]
    for name, text in sorted(board.texts.items()):
        if name.rpartition(".")[0] not in board.rows:
            parts.append(f"{name}={clean(text.partition(chr(10))[0])}")
    return " · ".join(parts)


def _counts(board: Board, rows: list[BoardRow]) -> str:
    return ", ".join(f"{count} {stage}" for stage, count in board.stages(rows).most_common())


def _number(board: Board, name: str, label: str) -> Text:
    series = board.numbers.get(name, {}).get(label)
    if not series:
        return Text("")
    return Text.assemble(f"{series[-1]:<10.5g}", (sparkline(series, 8), "cyan"))


def _calls(row: BoardRow) -> str:
    return f"{row.done} ({row.failures} failed)" if row.failures else str(row.done)


def _note(row: BoardRow) -> str:
    """Return the reason and the message of a work's status on one line."""
    status = row.status
    parts = [str(status.reason or ""), *(status.message or "").splitlines()[:1]]
    return ": ".join(part for part in parts if part and part != str(row.stage))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _line(line: LogLine | str) -> Text:
    if isinstance(line, str):
        return Text(line, "bold")
    text = Text.from_ansi(_COMMANDS.sub("", clean(line.text)))
    return Text.assemble((line.name, "cyan"), " | ", text)


def _laid_out(console: Console, renderable: Group) -> Segments:
    lines = console.render_lines(renderable, pad=False)
    segments: list[Segment] = []
    for number, line in enumerate(lines):
        if number:
            segments.append(Segment.line())
        segments += line
    return Segments(segments)
