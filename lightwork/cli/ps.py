"""``lightwork ps`` and ``lightwork apps``: list the works of an app, and the running apps."""

from __future__ import annotations

import click
import msgspec

from lightwork.cli.connect import ConnectedApp, asks_app, full_name
from lightwork.cli.names import complete_work
from lightwork.cli.output import NO_APP, CommandFailure, age, clock, output_option, print_json, print_table
from lightwork.errors import PlatformError
from lightwork.server.discovery import running_apps
from lightwork.server.types import WorksPage, WorkView
from lightwork.status import Stage

__all__ = ["apps", "ps"]

_PAGE = 1000
_COLUMNS = ("work", "stage", "calls", "failed", "since", "runtime", "pid", "why")


@click.command
@click.argument("pattern", required=False, shell_complete=complete_work)
@click.option("--stage", type=click.Choice([str(stage) for stage in Stage]), help="Only works in this stage.")
@click.option("--runtime", metavar="PROFILE", help="Only works with this runtime profile.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="List at most N works, and print how many are left.")
@click.option(
    "--sort", type=click.Choice(["name", "stage", "since"]), help="Sort order (default: the order of the tree)."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the names, one a line.")
@output_option
@asks_app
async def ps(
    connected: ConnectedApp,
    pattern: str | None,
    stage: str | None,
    runtime: str | None,
    limit: int | None,
    sort: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """List the works of a running app.

    PATTERN selects works by name, for example 'root.trials.*' or 'train'.
    """
    match = full_name(pattern) if pattern else None
    works: list[WorkView] = []
    total = 0
    while limit is None or len(works) < limit:
        most = _PAGE if limit is None else min(_PAGE, limit - len(works))
        page = await connected.client.works(
            match=match, stage=stage, runtime=runtime, sort=sort, limit=most, offset=len(works)
        )
        works += page.items
        total = page.total
        if not page.items or len(works) >= total:
            break
    if as_json:
        print_json(msgspec.to_builtins(WorksPage(works, total)))
    elif quiet:
        click.echo("".join(f"{work.name}\n" for work in works), nl=False)
    else:
        print_table(_COLUMNS, map(_row, works), right=("calls", "failed", "since", "pid"))
    if len(works) < total and not as_json:
        click.echo(f"and {total - len(works)} more", err=True)


def _row(work: WorkView) -> tuple[str, ...]:
    counts = work.calls
    why = ": ".join(part for part in (str(work.reason or ""), *(work.message or "").splitlines()[:1]) if part)
    return (
        work.name,
        str(work.stage),
        str(counts.succeeded + counts.failed + counts.stopped + counts.running + counts.pending),
        str(counts.failed) if counts.failed else "",
        age(work.since) if work.since else "",
        work.runtime,
        "" if work.pid is None else str(work.pid),
        why,
    )


@click.command
@output_option
def apps(as_json: bool) -> None:
    """List the apps of this user that run on this machine.

    The exit code is also 0 if no app runs.
    """
    try:
        found = running_apps()
    except PlatformError as error:
        raise CommandFailure(str(error), NO_APP) from error
    if as_json:
        # Without the tokens, because the output of a command ends up in logs.
        items = [{key: value for key, value in msgspec.to_builtins(app).items() if key != "token"} for app in found]
        print_json({"items": items, "total": len(items)})
        return
    rows = [(app.name, app.run, str(app.pid), clock(app.started_at), app.url, app.file or "") for app in found]
    print_table(("name", "run", "pid", "started", "url", "file"), rows)
