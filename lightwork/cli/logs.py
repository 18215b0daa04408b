"""``lightwork logs``: prints the output of works, live or after the app has ended, merged in order of arrival."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import functools
import glob
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click
import msgspec

from lightwork.cli.connect import AppTarget, ConnectedApp, app_options, ask, find_target, find_works, full_name
from lightwork.cli.names import complete_work
from lightwork.cli.output import (
    NO_APP,
    NOT_FOUND,
    STYLES,
    CommandFailure,
    is_terminal,
    output_option,
    print_json_line,
    styled,
)
from lightwork.cli.plain import clean
from lightwork.config import LOG_DIR, load_config
from lightwork.errors import ConfigError
from lightwork.logfiles import LogReader, LogRecord, latest_run
from lightwork.server.types import LogEntry
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.client import Client

__all__ = ["LogPrinter", "harmless", "logs"]

_TAIL = 200
_PAGE = 1000
# Terminal commands with a text (OSC, DCS, ...), then all other control sequences except colours and tabs.
_COMMANDS = re.compile(r"\x1b[\]PX^_].*?(\x07|\x1b\\|$)")
_OTHERS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b(?!\[[0-9;:]*m)|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green", "bright_blue")


class LogPrinter:
    """Prints log lines, each once, in the order of their numbers.

    Attributes:
        last: Number of the last line that was processed.
    """

    def __init__(self, *, as_json: bool, with_times: bool, with_names: bool) -> None:
        self.last: int = 0
        self._as_json = as_json
        self._with_times = with_times
        self._with_names = with_names

    def show(self, line: LogEntry | LogRecord) -> None:
        """Print a line, unless it was processed before."""
        if line.seq <= self.last:
            return
        self.last = line.seq
        if self._as_json:
            print_json_line(msgspec.to_builtins(line))
            return
        parts = []
        if self._with_times:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
            parts.append(styled(f"{moment}.{int(line.time % 1 * 1000):03}", dim=True))
        if self._with_names:
            parts.append(f"{styled(line.work, fg=_colour(line.work))} |")
        text = clean(line.text)
        click.echo(" ".join([*parts, harmless(text) if is_terminal() else text]))


def harmless(text: str) -> str:
    """Return the text without terminal commands such as titles, links and cursor motions.

    Colours are kept, and reset at the end of the text.
    """
    text = _OTHERS.sub("", _COMMANDS.sub("", text))
    return f"{text}\x1b[0m" if "\x1b" in text else text


def _colour(work: str) -> str:
    """Return the colour of a work. It is the same in every run of the command."""
    return _COLOURS[zlib.crc32(work.encode()) % len(_COLOURS)]


@click.command
@click.argument("works", metavar="[WORK]...", nargs=-1, shell_complete=complete_work)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines until the app ends.")
@click.option(
    "-n",
    "--tail",
    metavar="N",
    default=_TAIL,
    show_default=True,
    type=click.IntRange(0),
    help="Print the last N lines.",
)
@click.option("--all", "is_all", is_flag=True, help="Print all stored lines.")
@click.option("--search", metavar="TEXT", help="Print only lines that contain TEXT, in upper or lower case.")
@click.option("-t", "--times", is_flag=True, help="Print the time before each line.")
@click.option("--no-names", is_flag=True, help="Leave out the name of the work before each line.")
@click.option("--run", "run_id", metavar="RUN", help="Read the stored output of a run; RUN is the start of its id.")
@output_option
@app_options
def logs(
    works: tuple[str, ...],
    follow: bool,
    tail: int,
    is_all: bool,
    search: str | None,
    times: bool,
    no_names: bool,
    run_id: str | None,
    as_json: bool,
    app_name: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Print the output of works, merged in order of arrival.

    WORK is a name or a pattern (default: all works). With -o json each line is one document.

    If no app runs, the output of the latest run of this folder is printed: see log_dir in the configuration.
    """
    printer = LogPrinter(as_json=as_json, with_times=times, with_names=not no_names)
    wanted = _LineFilter(None if is_all else tail, search)
    target: AppTarget | None = None
    if run_id is None:
        try:
            target = find_target(app_name, url, token)
        except CommandFailure as failure:
            if app_name or url or failure.exit_code != NO_APP:
                raise
    if target is None:
        folder = _find_run(run_id)
        click.echo(f"output of run {folder.name}, stored in {folder.parent}", err=True)
        asyncio.run(_print_stored(folder, works, wanted, printer))
        return
    ask(
        target,
        lambda connected: _print_live(connected, works, wanted, printer, follow=follow, with_failures=not as_json),
    )


class _LineFilter(NamedTuple):
    """Selects the last `tail` lines (None: all lines) that contain `search` (None: any text)."""

    tail: int | None
    search: str | None


class _LinePage(Protocol):
    """A page of log lines, from the app or from the disk."""

    @property
    def items(self) -> Sequence[LogEntry | LogRecord]: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def more(self) -> bool: ...


_Read = Callable[..., Awaitable[_LinePage]]
"""Returns a page of lines. The arguments `tail`, `before`, `after`, `search` and `limit` are those of `Client.logs`."""


async def _print_live(
    connected: ConnectedApp,
    works: Sequence[str],
    wanted: _LineFilter,
    printer: LogPrinter,
    *,
    follow: bool,
    with_failures: bool,
) -> None:
    """Print the lines of the running app. With `with_failures`, print the failures of the works after them."""
    client = connected.client
    names = await find_works(client, works)
    read = functools.partial(client.logs, names)
    await _print_tail(read, wanted, printer)
    if follow:
        await _follow(client, names, wanted, printer)
        file = connected.target.file
        if file is not None and file.logs is not None:
            # Lines that were written after the last answer of the app are on the disk.
            await _catch_up(_disk_reader(Path(file.logs), names), wanted, printer)
    elif names and with_failures:
        await _print_failures(client, names)


async def _print_tail(read: _Read, wanted: _LineFilter, printer: LogPrinter) -> None:
    """Print the selected lines that exist now. The lines before them count as processed."""
    tail = wanted.tail
    if tail is None:
        await _catch_up(read, wanted, printer)
        return
    page = await read(tail=min(max(tail, 1), _PAGE), search=wanted.search)
    last, lines = page.last, list(page.items)
    while len(lines) < tail and page.more and page.first > 0:
        page = await read(tail=min(tail - len(lines), _PAGE), before=page.first, search=wanted.search)
        lines = [*page.items, *lines]
    for line in lines[-tail:] if tail else ():
        printer.show(line)
    printer.last = max(printer.last, last)


async def _catch_up(read: _Read, wanted: _LineFilter, printer: LogPrinter) -> None:
    """Print all lines after the last processed line."""
    while True:
        before = printer.last
        page = await read(after=before, search=wanted.search, limit=_PAGE)
        for line in page.items:
            printer.show(line)
        printer.last = max(printer.last, page.last)
        if not page.more or printer.last == before:
            return


async def _follow(client: Client, names: Sequence[str], wanted: _LineFilter, printer: LogPrinter) -> None:
    """Print the lines of the feed. Lines that the feed leaves out are requested, so no line is lost."""
    read = functools.partial(client.logs, names)
    needle = (wanted.search or "").casefold()
    async with contextlib.aclosing(client.feed(logs=list(names) or True)) as feed:
        async for event in feed:
            if event.kind == "log":
                line = event.as_type(LogEntry)
                if needle in line.text.casefold():
                    printer.show(line)
            elif event.kind in ("snapshot", "resumed", "log_gap"):
                # A line that comes from both sources has the same number in both, so it is printed once.
                await _catch_up(read, wanted, printer)


async def _print_failures(client: Client, names: Sequence[str]) -> None:
    """Print the reason of each work that has failed."""
    for name in names:
        work = await client.work(name)
        if work.stage is Stage.FAILED:
            why = ": ".join(part for part in (str(work.reason or ""), work.message or "") if part)
            click.echo(f"{name} {styled('failed', **STYLES['failed'])} {why}".rstrip(), err=True)


# --- output on the disk ---------------------------------------------------------------------------


def _find_run(run_id: str | None) -> Path:
    """Return the log folder of a run, or of the latest run of this folder if `run_id` is None.

    Raises:
        CommandFailure: No run is found, or more than one run id begins with `run_id`.
    """
    try:
        folder = Path(load_config().log_dir or LOG_DIR)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if run_id is None:
        latest = latest_run(folder)
        if latest is None:
            raise CommandFailure(
                f"no app runs on this machine, and {folder.absolute()} contains no output of a run", NO_APP
            )
        return latest
    runs = sorted(path for path in folder.glob(f"{glob.escape(run_id)}*") if path.is_dir())
    if len(runs) != 1:
        known = ", ".join(path.name for path in runs)
        if not runs:
            raise CommandFailure(f"no run in {folder.absolute()} has an id that begins with {run_id!r}", NOT_FOUND)
        raise CommandFailure(
            f"the ids of {len(runs)} runs in {folder.absolute()} begin with {run_id!r}, give more characters: {known}",
            2,
        )
    return runs[0]


def _disk_reader(folder: Path, names: Sequence[str]) -> _Read:
    """Return a function that reads pages of the lines of these works in a log folder."""
    reader = LogReader(folder)

    async def read(**query: Any) -> _LinePage:
        return await asyncio.to_thread(functools.partial(reader.read, names or None, **query))

    return read


async def _print_stored(folder: Path, works: Sequence[str], wanted: _LineFilter, printer: LogPrinter) -> None:
    """Print the lines that a run has stored in its log folder."""
    names: dict[str, None] = {}
    if works:
        known = await asyncio.to_thread(LogReader(folder).works)
        for work in works:
            matches = fnmatch.filter(known, full_name(work))
            if not matches:
                raise CommandFailure(f"run {folder.name} has no output of a work {full_name(work)!r}", NOT_FOUND)
            names |= dict.fromkeys(matches)
    await _print_tail(_disk_reader(folder, list(names)), wanted, printer)
