"""``lightwork inspect``: shows everything about the app, a flow, a work or a call."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from lightwork.cli.connect import ConnectedApp, asks_app, full_name
from lightwork.cli.names import complete_component
from lightwork.cli.output import (
    NOT_FOUND,
    CommandFailure,
    clock,
    duration,
    output_option,
    print_json,
    print_pairs,
    print_table,
)
from lightwork.errors import RequestFailed
from lightwork.server.types import AppDetail, CallDetail, ComponentState, WorkDetail

__all__ = ["inspect", "show_call", "value_text"]

_CALLS = 10
_STATUSES = 10
_LONGEST_VALUE = 300
"""Maximum number of characters of a shown value of the state."""


@click.command
@click.argument("what", metavar="[COMPONENT|CALL]", required=False, shell_complete=complete_component)
@click.option(
    "--calls",
    metavar="N",
    default=_CALLS,
    type=click.IntRange(0, 1000),
    help="Maximum number of calls shown for a work.",
)
@output_option
@asks_app
async def inspect(connected: ConnectedApp, what: str | None, calls: int, as_json: bool) -> None:
    """Show everything about a component, about a call by its number, or about the app."""
    client = connected.client
    if what is None:
        app = await client.app()
        print_json(msgspec.to_builtins(app)) if as_json else _show_app(app)
        return
    if what.isdigit():
        call = await client.call(int(what))
        print_json(msgspec.to_builtins(call)) if as_json else show_call(call)
        return
    name = full_name(what)
    try:
        work = await client.work(name)
    except RequestFailed as error:
        if error.code not in ("unknown_work", "not_found"):
            raise
        known = {component.name for component in (await client.components()).items}
        if name not in known:
            raise CommandFailure(str(error), NOT_FOUND) from error
        flow = await client.state(name)
        print_json(msgspec.to_builtins(flow)) if as_json else _show_flow(flow)
        return
    latest = (await client.calls(work=name, limit=calls)).items if calls else []
    if as_json:
        print_json({**msgspec.to_builtins(work), "latest_calls": msgspec.to_builtins(latest)})
    else:
        _show_work(work, latest)


def _show_app(app: AppDetail) -> None:
    print_pairs(
        [
            ("app", app.name),
            ("run", app.run),
            ("stage", app.stage),
            ("root", app.root),
            ("file", app.file),
            ("process", f"{app.pid} on {app.host}"),
            ("started", clock(app.started_at)),
            ("url", app.url),
            ("workers connect to", app.address),
            ("runtime", app.runtime),
            ("journal", app.journal),
            ("message", app.stop_message),
            ("error", None if app.error is None else f"{app.error.type}: {app.error.message}"),
            ("versions", f"lightwork {app.version}, Python {app.python}"),
            ("works", ", ".join(f"{count} {stage}" for stage, count in app.counts.items() if count) or "none"),
            ("not made again", ", ".join(app.unclaimed) or None),
        ]
    )
    if app.failures:
        click.echo("\nlatest failures")
        _call_table(app.failures, with_work=True)


def _show_flow(flow: ComponentState) -> None:
    state = flow.state if isinstance(flow.state, dict) else {}
    print_pairs([("flow", flow.component)] + [(kind, ", ".join(state.get(kind) or ())) for kind in ("flows", "works")])
    _show_state(state)


def _show_work(work: WorkDetail, latest: list[CallDetail]) -> None:
    counts = work.calls
    process = None if work.pid is None else f"{work.pid} on {work.hostname or 'this machine'}"
    print_pairs(
        [
            ("work", work.name),
            ("class", f"{work.type}.run{work.signature}" if work.signature else work.type),
            ("stage", str(work.stage)),
            ("reason", work.reason),
            ("message", work.message),
            ("since", clock(work.since) if work.since else None),
            ("runtime", work.runtime),
            ("process", process),
            ("processes started", work.worker_attempt or None),
            ("url", work.url),
            ("calls", ", ".join(f"{n} {stage}" for stage, n in msgspec.structs.asdict(counts).items() if n)),
            ("concurrency", work.concurrency if work.concurrency > 1 else None),
            ("timeouts", work.num_timeouts or None),
            ("resources", value_text(work.resources) if work.resources else None),
        ]
    )
    _show_state(work.state if isinstance(work.state, dict) else {})
    if work.statuses:
        click.echo("\nstatuses")
        rows = [
            (clock(one.timestamp), str(one.stage), str(one.reason or ""), str(one.call or ""), one.message or "")
            for one in work.statuses[-_STATUSES:]
        ]
        print_table(("time", "stage", "reason", "call", "message"), rows, right=("call",))
    if len(work.attempts) > 1 or any(attempt.message for attempt in work.attempts):
        click.echo("\nprocesses")
        attempts = [
            (
                str(one.attempt),
                str(one.pid or ""),
                one.host or "",
                clock(one.started_at),
                clock(one.ended_at),
                one.message or "",
            )
            for one in work.attempts
        ]
        print_table(("attempt", "pid", "host", "started", "ended", "message"), attempts, right=("attempt", "pid"))
    if latest:
        click.echo("\ncalls")
        _call_table(latest, with_work=False)


def _show_state(state: dict[str, Any]) -> None:
    variables = state.get("vars") or {}
    shown = [(name, _shortened(value_text(value))) for name, value in variables.items() if not name.startswith("_")]
    if shown:
        click.echo("\nstate")
        print_pairs(shown)


def _shortened(text: str) -> str:
    """Shorten a long value, such as a list of losses. `lightwork state get` prints the whole value."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"


def _call_table(calls: list[CallDetail], *, with_work: bool) -> None:
    columns = ("call", *(("work",) if with_work else ()), "stage", "submitted", "took", "why")
    rows = [
        (
            str(call.id),
            *((call.work,) if with_work else ()),
            str(call.stage),
            clock(call.submitted_at),
            _took(call),
            _why(call),
        )
        for call in calls
    ]
    print_table(columns, rows, right=("call", "took"))


def show_call(call: CallDetail) -> None:
    """Print a call with its arguments, and its result or its error."""
    print_pairs(
        [
            ("call", call.id),
            ("work", call.work),
            ("stage", str(call.stage)),
            ("reason", call.reason),
            ("message", call.message if call.error is None else None),
            ("attempt", call.attempt if call.attempt > 1 else None),
            ("submitted", clock(call.submitted_at)),
            ("started", clock(call.started_at)),
            ("ended", clock(call.ended_at)),
            ("took", _took(call)),
            ("from the cache", "yes" if call.cached else None),
            ("joined", f"{call.joined} times" if call.joined else None),
            ("arguments", None if call.args is None else value_text(call.args)),
            ("result", value_text(call.result) if call.stage == "succeeded" else None),
        ]
    )
    if call.error is not None:
        click.echo()
        click.echo(call.error.traceback.rstrip() or f"{call.error.type}: {call.error.message}")


def _took(call: CallDetail) -> str:
    if call.started_at is None or call.ended_at is None:
        return ""
    return duration(call.ended_at - call.started_at)


def _why(call: CallDetail) -> str:
    if call.error is not None:
        return f"{call.error.type}: {call.error.message}"
    return ": ".join(part for part in (str(call.reason or ""), call.message or "") if part)


def value_text(value: Any) -> str:
    """Format a value of the app for people: a string unchanged, a cut value as its beginning, other values as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and "$cut" in value:
        return f"{value.get('preview', '')}... ({value['$cut']} bytes)"
    return json.dumps(value, ensure_ascii=False)
