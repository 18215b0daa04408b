"""``lightwork schedule``: lists and fires the cron schedules of a running app's flows."""

from __future__ import annotations

import time

import click
import msgspec

from lightwork.cli.connect import ConnectedApp, asks_app, full_name
from lightwork.cli.names import complete_component
from lightwork.cli.output import NOT_FOUND, CommandFailure, clock, duration, output_option, print_json, print_table

__all__ = ["ls", "schedule", "trigger"]


@click.group
def schedule() -> None:
    """List the schedules of a running app, and fire one now."""


@schedule.command
@output_option
@asks_app
async def ls(connected: ConnectedApp, as_json: bool) -> None:
    """List the schedules, ordered by the time at which they fire next."""
    page = await connected.client.schedules()
    if as_json:
        print_json(msgspec.to_builtins(page))
        return
    now = time.time()
    rows = [
        (view.flow, view.key, view.pattern, clock(view.last), clock(view.next), duration(view.next - now))
        for view in page.items
    ]
    print_table(("flow", "key", "pattern", "last", "next", "in"), rows, right=("in",))


@schedule.command
@click.argument("flow", shell_complete=complete_component)
@click.argument("key", required=False)
@output_option
@asks_app
async def trigger(connected: ConnectedApp, flow: str, key: str | None, as_json: bool) -> None:
    """Fire a schedule now, in addition to its pattern. KEY is optional if the flow has only one schedule."""
    name = full_name(flow)
    keys = [view.key for view in (await connected.client.schedules()).items if view.flow == name]
    if key is None:
        if len(keys) != 1:
            if not keys:
                raise CommandFailure(f"{name} has no schedules", NOT_FOUND)
            raise CommandFailure(f"{name} has {len(keys)} schedules; add the KEY of one: {', '.join(keys)}", 2)
        key = keys[0]
    elif key not in keys:
        known = f"its schedules are: {', '.join(keys)}" if keys else "it has no schedules"
        raise CommandFailure(f"{name} has no schedule {key!r}; {known}", NOT_FOUND)
    await connected.client.trigger(name, key)
    if as_json:
        print_json({"flow": name, "key": key})
    else:
        click.echo(f"{name} {key} fires now")
