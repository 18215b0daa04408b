"""``lightwork logs``: what works have printed, of one or of all in the order it came, as it comes or afterwards."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from lightwork.cli.connect import Asking, asks_app, find_works
from lightwork.cli.names import complete_work
from lightwork.cli.output import STYLES, output_option, print_json_line, styled
from lightwork.cli.plain import clean
from lightwork.server.types import LogEntry
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.client import Client

__all__ = ["LogPrinter", "logs"]

_TAIL = 200
_PAGE = 1000
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green", "bright_blue")


class LogPrinter:
    """Prints lines, each once, in the order of their numbers.

    Attributes:
        last: Number of the last line that was looked at.
    """

    def __init__(self, *, as_json: bool, with_times: bool, with_names: bool) -> None:
        self.last = 0
        self._as_json = as_json
        self._with_times = with_times
        self._with_names = with_names

    def show(self, line: LogEntry) -> None:
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
        click.echo(" ".join([*parts, clean(line.text)]))


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
@output_option
@asks_app
async def logs(
    asking: Asking,
    works: tuple[str, ...],
    follow: bool,
    tail: int,
    is_all: bool,
    search: str | None,
    times: bool,
    no_names: bool,
    as_json: bool,
) -> None:
    """Print what works have printed, merged in the order it came.

    WORK is a name or a pattern; without any it is every work. With -o json each line is a document.
    """
    client = asking.client
    names = await find_works(client, works)
    printer = LogPrinter(as_json=as_json, with_times=times, with_names=not no_names)
    if is_all:
        await _catch_up(client, names, search, printer)
    else:
        await _begin(client, names, search, tail, printer)
    if follow:
        await _follow(client, names, search, printer)
    elif names and not as_json:
        await _tell_ends(client, names)


async def _begin(client: Client, names: Sequence[str], search: str | None, tail: int, printer: LogPrinter) -> None:
    """Print the last `tail` lines; what came before them counts as looked at."""
    page = await client.logs(names, tail=min(max(tail, 1), _PAGE), search=search)
    last, lines = page.last, page.items
    while len(lines) < tail and page.more and page.items:
        wanted = min(tail - len(lines), _PAGE)
        page = await client.logs(names, tail=wanted, before=page.first, search=search)
        lines = page.items + lines
    for line in lines[-tail:] if tail else ():
        printer.show(line)
    printer.last = max(printer.last, last)


async def _catch_up(client: Client, names: Sequence[str], search: str | None, printer: LogPrinter) -> None:
    """Print everything after the last line that was looked at."""
    while True:
        page = await client.logs(names, after=printer.last, search=search, limit=_PAGE)
        for line in page.items:
            printer.show(line)
        printer.last = max(printer.last, page.last)
        if not page.more:
            return


async def _follow(client: Client, names: Sequence[str], search: str | None, printer: LogPrinter) -> None:
    """Print what comes; whatever the feed leaves out is asked for, so none is lost."""
    wanted = search.lower() if search else ""
    async with contextlib.aclosing(client.feed(logs=list(names) or True)) as feed:
        async for event in feed:
            if event.kind == "log":
                line = event.as_type(LogEntry)
                if wanted in line.text.lower():
                    printer.show(line)
            elif event.kind in ("snapshot", "resumed", "log_gap"):
                # A line that comes by both ways has one number, and is printed once.
                await _catch_up(client, names, search, printer)


async def _tell_ends(client: Client, names: Sequence[str]) -> None:
    """After the last lines of a work that has failed: that it did, and why."""
    for name in names:
        work = await client.work(name)
        if work.stage is Stage.FAILED:
            why = ": ".join(part for part in (str(work.reason or ""), work.message or "") if part)
            click.echo(f"{name} {styled('failed', **STYLES['failed'])} {why}".rstrip(), err=True)
