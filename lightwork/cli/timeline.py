"""``lightwork stack`` and ``lightwork timeline``: show the current stack of a work, and the times of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

import click
import msgspec

from lightwork.cli.connect import ConnectedApp, asks_app, full_name
from lightwork.cli.names import complete_work
from lightwork.cli.output import clock, duration, output_option, print_json, print_table, styled
from lightwork.link.reports import FrameInfo
from lightwork.server.types import Timeline, TimelineItem

__all__ = ["bar", "chrome_trace", "stack", "timeline"]

_BAR_WIDTH = 40


@click.command
@click.argument("work", shell_complete=complete_work)
@output_option
@asks_app
async def stack(connected: ConnectedApp, work: str, as_json: bool) -> None:
    """Show the current stack of each thread and task in a work's process, innermost frame last.

    The exit code is 124 if the process does not answer.
    """
    view = await connected.client.stack(full_name(work))
    if as_json:
        print_json(msgspec.to_builtins(view))
        return
    for kind, items in (("thread", view.threads), ("task", view.tasks)):
        for item in items:
            click.echo(styled(f"{kind} {item.name}", bold=True))
            for frame in item.frames:
                _show_frame(frame)
            click.echo()


def _show_frame(frame: FrameInfo) -> None:
    click.echo(f'  File "{frame.file}", line {frame.line}, in {frame.function}')
    if frame.text:
        click.echo(f"    {frame.text.strip()}")


@click.command
@click.option(
    "--since", metavar="SECONDS", type=click.FloatRange(min=0), help="Leave out calls that ended more than SECONDS ago."
)
@click.option(
    "--limit", metavar="N", default=50, show_default=True, type=click.IntRange(1), help="Maximum number of calls."
)
@click.option(
    "--trace",
    metavar="FILE",
    type=click.File("w", encoding="utf-8", lazy=True),
    help="Write a trace for chrome://tracing and ui.perfetto.dev to FILE; - is standard output.",
)
@output_option
@asks_app
async def timeline(
    connected: ConnectedApp, since: float | None, limit: int, trace: TextIO | None, as_json: bool
) -> None:
    """Show when the latest calls waited and ran, on one time axis. A dot is waiting time, a block is running time."""
    found = await connected.client.timeline(limit=limit)
    if since is not None:
        # Relative to the clock of the app's machine. The clock of this machine may differ.
        found = await connected.client.timeline(since=found.now - since, limit=limit)
    if trace is not None:
        json.dump(chrome_trace(found), trace)
        trace.write("\n")
    elif as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _show(found)


def _show(found: Timeline) -> None:
    items = sorted(found.items, key=lambda item: (item.submitted_at, item.call))
    begin = min((item.submitted_at for item in items), default=found.now)
    end = max((item.ended_at or found.now for item in items), default=found.now)
    rows = [
        (
            str(item.call),
            item.work,
            str(item.stage),
            _took(item.submitted_at, item.started_at or item.ended_at or found.now),
            _took(item.started_at, item.ended_at or found.now),
            bar(item, begin, end, found.now),
        )
        for item in items
    ]
    print_table(("call", "work", "stage", "waited", "ran", "from start to end"), rows, right=("call", "waited", "ran"))
    if items:
        click.echo(f"{clock(begin)} to {clock(end)}, {duration(end - begin)}", err=True)


def _took(begin: float | None, end: float) -> str:
    return "" if begin is None else duration(end - begin)


def bar(item: TimelineItem, begin: float, end: float, now: float, width: int = _BAR_WIDTH) -> str:
    """Draw a call on an axis of `width` characters from `begin` to `end`: dots for waiting, blocks for running."""
    scale = width / max(end - begin, 1e-9)
    submitted = min(width - 1, int((item.submitted_at - begin) * scale))
    until = item.ended_at or now
    started = int(((item.started_at or until) - begin) * scale)
    ended = int((until - begin) * scale)
    # A time shorter than one character is drawn as one character: a call that ran has at least one block.
    started = min(max(started, submitted), width - 1)
    ended = min(max(ended, started + 1), width)
    ran = "█" if item.started_at is not None else "·"
    return f"{'_' * submitted}{'·' * (started - submitted)}{ran * (ended - started)}"


def chrome_trace(found: Timeline) -> dict[str, Any]:
    """Convert a timeline to the trace event format: one process, a thread for each work, times in microseconds."""
    works = dict.fromkeys(item.work for item in reversed(found.items))
    threads = {name: number for number, name in enumerate(works, 1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": number, "args": {"name": name}}
        for name, number in threads.items()
    ]
    for item in reversed(found.items):
        events += _spans(item, threads[item.work], found.now)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _spans(item: TimelineItem, thread: int, now: float) -> Sequence[dict[str, Any]]:
    until = item.ended_at or now
    about = {"call": item.call, "stage": str(item.stage), "attempt": item.attempt}
    spans = [("waiting", item.submitted_at, item.started_at or until)]
    if item.started_at is not None:
        spans.append(("running", item.started_at, until))
    # Asynchronous spans: the calls of a work overlap in time, and nested spans cannot show that.
    return [
        {
            "ph": ph,
            "cat": kind,
            "name": f"call {item.call} {kind}",
            "id": f"{item.call}-{kind}",
            "pid": 1,
            "tid": thread,
            "ts": round(when * 1e6),
            "args": about,
        }
        for kind, begin, end in spans
        for ph, when in (("b", begin), ("e", max(begin, end)))
    ]
