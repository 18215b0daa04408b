"""``lightwork logs``: what works have printed, of one or of all in the order it came, as it comes or afterwards."""

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
# Commands with a text, then everything else that is neither a colour nor a tab.
_COMMANDS = re.compile(r"\x1b[\]PX^_].*?(\x07|\x1b\\|$)")
_OTHERS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b(?!\[[0-9;:]*m)|[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green", "bright_blue")


class LogPrinter:
    """Prints lines, each once, in the order of their numbers.

    Attributes:
        last: Number of the last line that was looked at.
    """

    def __init__(self, *, as_json: bool, with_times: bool, with_names: bool) -> None:
        self.last: int = 0
        self._as_json = as_json
        self._with_times = with_times
        self._with_names = with_names

    def show(self, line: LogEntry | LogRecord) -> None:
        """Print a line, unless it was looked at before."""
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
    """The text with its colours, which end with it, and without what else a terminal obeys: titles, links, motions."""
    text = _OTHERS.sub("", _COMMANDS.sub("", text))
    return f"{text}\x1b[0m" if "\x1b" in text else text


def _colour(work: str) -> str:
    """The same for one work in every run of the command."""
    return _COLOURS[zlib.crc32(work.encode()) % len(_COLOURS)]


@click.command
@click.argument("works", metavar="[WORK]...", nargs=-1, shell_complete=complete_work)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on, until the app ends.")
@click.option(
    "-n", "--tail", metavar="N", default=_TAIL, show_default=True, type=click.IntRange(0), help="Begin so far back."
)
@click.option("--all", "is_all", is_flag=True, help="Begin with the first line that is kept.")
@click.option("--search", metavar="TEXT", help="Only lines with this text; capitals do not matter.")
@click.option("-t", "--times", is_flag=True, help="Put the time before each line.")
@click.option("--no-names", is_flag=True, help="Leave out which work printed it.")
@click.option("--run", "run_id", metavar="RUN", help="Read what this run has left, by the beginning of its id.")
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
    """Print what works have printed, merged in the order it came.

    WORK is a name or a pattern; without any it is every work. With -o json each line is a document.

    Where no app runs, it is what the latest run of this folder has left: see log_dir of the configuration.
    """
    printer = LogPrinter(as_json=as_json, with_times=times, with_names=not no_names)
    wanted = _Wanted(None if is_all else tail, search)
    target: AppTarget | None = None
    if run_id is None:
        try:
            target = find_target(app_name, url, token)
        except CommandFailure as failure:
            if app_name or url or failure.exit_code != NO_APP:
                raise
    if target is None:
        folder = _find_run(run_id)
        click.echo(f"the lines of run {folder.name}, which are kept in {folder.parent}", err=True)
        asyncio.run(_read_folder(folder, works, wanted, printer))
        return
    ask(target, lambda connected: _ask(connected, works, wanted, printer, follow=follow, tells_ends=not as_json))


class _Wanted(NamedTuple):
    """Which lines: the last `tail` of them, all where that is None, that contain `search`."""

    tail: int | None
    search: str | None


class _Lines(Protocol):
    """A page of lines, of the app or of the disk."""

    @property
    def items(self) -> Sequence[LogEntry | LogRecord]: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def more(self) -> bool: ...


_Read = Callable[..., Awaitable[_Lines]]
"""Gives a page of lines: `tail`, `before`, `after`, `search` and `limit` are as in `Client.logs`."""


async def _ask(
    connected: ConnectedApp,
    works: Sequence[str],
    wanted: _Wanted,
    printer: LogPrinter,
    *,
    follow: bool,
    tells_ends: bool,
) -> None:
    """Print what the running app has."""
    client = connected.client
    names = await find_works(client, works)
    read = functools.partial(client.logs, names)
    await _begin(read, wanted, printer)
    if follow:
        await _follow(client, names, wanted, printer)
        file = connected.target.file
        if file is not None and file.logs is not None:
            # What came between the last answer and the end, if anything, is on the disk.
            await _catch_up(_reading(Path(file.logs), names), wanted, printer)
    elif names and tells_ends:
        await _tell_ends(client, names)


async def _begin(read: _Read, wanted: _Wanted, printer: LogPrinter) -> None:
    """Print the lines that are there; what came before them counts as looked at."""
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


async def _catch_up(read: _Read, wanted: _Wanted, printer: LogPrinter) -> None:
    """Print everything after the last line that was looked at."""
    while True:
        before = printer.last
        page = await read(after=before, search=wanted.search, limit=_PAGE)
        for line in page.items:
            printer.show(line)
        printer.last = max(printer.last, page.last)
        if not page.more or printer.last == before:
            return


async def _follow(client: Client, names: Sequence[str], wanted: _Wanted, printer: LogPrinter) -> None:
    """Print what comes; whatever the feed leaves out is asked for, so none is lost."""
    read = functools.partial(client.logs, names)
    needle = (wanted.search or "").casefold()
    async with contextlib.aclosing(client.feed(logs=list(names) or True)) as feed:
        async for event in feed:
            if event.kind == "log":
                line = event.as_type(LogEntry)
                if needle in line.text.casefold():
                    printer.show(line)
            elif event.kind in ("snapshot", "resumed", "log_gap"):
                # A line that comes by both ways has one number, and is printed once.
                await _catch_up(read, wanted, printer)


async def _tell_ends(client: Client, names: Sequence[str]) -> None:
    """After the last lines of a work that has failed: that it did, and why."""
    for name in names:
        work = await client.work(name)
        if work.stage is Stage.FAILED:
            why = ": ".join(part for part in (str(work.reason or ""), work.message or "") if part)
            click.echo(f"{name} {styled('failed', **STYLES['failed'])} {why}".rstrip(), err=True)


# --- what runs have left --------------------------------------------------------------------------


def _find_run(run_id: str | None) -> Path:
    """The log folder of a run, by default that of the latest one of this folder.

    Raises:
        Failure: There is none, or more than one begins so.
    """
    try:
        folder = Path(load_config().log_dir or LOG_DIR)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if run_id is None:
        latest = latest_run(folder)
        if latest is None:
            raise CommandFailure(f"no app runs here, and none has left its output in {folder.absolute()}", NO_APP)
        return latest
    runs = sorted(path for path in folder.glob(f"{glob.escape(run_id)}*") if path.is_dir())
    if len(runs) != 1:
        known = ", ".join(path.name for path in runs)
        raise CommandFailure(
            f"{len(runs)} runs in {folder.absolute()} begin with {run_id!r}" + (f": {known}" if known else ""),
            2 if runs else NOT_FOUND,
        )
    return runs[0]


def _reading(folder: Path, names: Sequence[str]) -> _Read:
    reader = LogReader(folder)

    async def read(**query: Any) -> _Lines:
        return await asyncio.to_thread(functools.partial(reader.read, names or None, **query))

    return read


async def _read_folder(folder: Path, works: Sequence[str], wanted: _Wanted, printer: LogPrinter) -> None:
    """Print what a run has left on the disk."""
    names: dict[str, None] = {}
    if works:
        known = await asyncio.to_thread(LogReader(folder).works)
        for work in works:
            matches = fnmatch.filter(known, full_name(work))
            if not matches:
                raise CommandFailure(
                    f"no work {full_name(work)!r} has printed anything in run {folder.name}", NOT_FOUND
                )
            names |= dict.fromkeys(matches)
    await _begin(_reading(folder, list(names)), wanted, printer)
