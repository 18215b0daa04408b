"""Commands that start and stop works and make calls: ``start``, ``stop``, ``call``, ``retry`` and ``cancel``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lightwork.cli.arguments import parse_arguments
from lightwork.cli.connect import ConnectedApp, asks_app, find_works, full_name
from lightwork.cli.inspect import value_text
from lightwork.cli.names import complete_work
from lightwork.cli.output import FAILED, NOT_FOUND, TIMED_OUT, CommandFailure, output_option, print_json
from lightwork.errors import RequestFailed
from lightwork.server.types import CallDetail
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.client import Client

__all__ = ["call", "cancel", "retry", "start", "stop"]

_PAGE = 1000


@click.command
@click.argument("works", metavar="WORK...", nargs=-1, required=True, shell_complete=complete_work)
@click.option("--wait", is_flag=True, help="Wait until the works run.")
@output_option
@asks_app
async def start(connected: ConnectedApp, works: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Start the processes of works, so that the first call does not have to wait for its process.

    WORK is a name or a pattern.
    """
    client = connected.client
    names = await find_works(client, works)
    await _each(names, lambda name: client.start_work(name, wait=wait))
    _print_changes("started" if wait else "starting", names, as_json)


@click.command
@click.argument("works", metavar="[WORK]...", nargs=-1, shell_complete=complete_work)
@click.option("--all", "is_all", is_flag=True, help="Stop the whole app gracefully.")
@click.option("-m", "--message", help="With --all: the stop message of the app.")
@click.option("--wait", is_flag=True, help="Wait until the works have stopped, or until the app has ended.")
@output_option
@asks_app
async def stop(
    connected: ConnectedApp, works: tuple[str, ...], is_all: bool, message: str | None, wait: bool, as_json: bool
) -> None:
    """Stop works, or with --all the app. Running calls of the works are ended, queued calls are dropped.

    WORK is a name or a pattern.
    """
    client = connected.client
    if is_all == bool(works):
        raise click.UsageError("name the works to stop, or use --all to stop the app")
    if message is not None and not is_all:
        raise click.UsageError("--message requires --all")
    if is_all:
        feed = client.feed()
        try:
            await anext(feed)  # follow the feed before the request, so that the end of the app is not missed
            await client.stop_app(message)
            if wait:
                async for _ in feed:
                    pass
        finally:
            await feed.aclose()
        _print_changes("ended" if wait else "stopping", ["app"], as_json)
        return
    names = await find_works(client, works)
    await _each(names, lambda name: client.stop_work(name, wait=wait))
    _print_changes("stopped" if wait else "stopping", names, as_json)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("work", shell_complete=complete_work)
@click.argument("arguments", metavar="[NAME=VALUE|VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Print the number of the call, and do not wait for the result.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Stop waiting after SECONDS, with exit code 124.",
)
@output_option
@asks_app
async def call(
    connected: ConnectedApp, work: str, arguments: tuple[str, ...], detach: bool, timeout: float | None, as_json: bool
) -> int:
    """Call a work and print the result.

    A value is parsed as the type of its parameter if the type is bool, int, float or str. Otherwise it is parsed as
    JSON, and kept as text if it is not valid JSON: lightwork call train 10 rate=0.1 layers=[64,32]

    Exit codes: 0 when the call succeeded, 1 when it did not, 2 when the arguments are invalid, 124 when the time limit
    has passed. If this command ends before the call, the call continues: `lightwork cancel NUMBER` ends it.
    """
    name = full_name(work)
    args, kwargs = parse_arguments(arguments, (await connected.client.work(name)).parameters)
    made = await connected.client.submit(name, args, kwargs)
    return await _follow(connected.client, made, detach, timeout, as_json)


@click.command
@click.argument("what", metavar="CALL|WORK", shell_complete=complete_work)
@click.option("-d", "--detach", is_flag=True, help="Print the number of the new call, and do not wait for the result.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Stop waiting after SECONDS, with exit code 124.",
)
@output_option
@asks_app
async def retry(connected: ConnectedApp, what: str, detach: bool, timeout: float | None, as_json: bool) -> int:
    """Repeat a call with the same arguments, and print the result.

    CALL is the number of a call. WORK is the name of a work: its latest failed call is repeated.
    The exit codes are those of `lightwork call`.
    """
    client = connected.client
    if what.isdigit():
        number = int(what)
    else:
        name = full_name(what)
        await client.work(name)  # raises for an unknown work, which is not the same as a work without failed calls
        failed = (await client.calls(work=name, stage="failed", limit=1)).items
        if not failed:
            raise CommandFailure(f"{name} has no failed call to retry", NOT_FOUND)
        number = failed[0].id
    return await _follow(client, await client.retry_call(number), detach, timeout, as_json)


@click.command
@click.argument("what", metavar="CALL|WORK...", nargs=-1, required=True, shell_complete=complete_work)
@output_option
@asks_app
async def cancel(connected: ConnectedApp, what: tuple[str, ...], as_json: bool) -> None:
    """Cancel calls by number, or every queued and running call of a work.

    WORK is a name or a pattern. The command only requests the cancellation: `lightwork wait CALL` waits until a call
    has ended.
    """
    client = connected.client
    numbers = dict.fromkeys(int(one) for one in what if one.isdigit())
    for number in numbers:
        await client.cancel_call(number)
    for name in await find_works(client, [one for one in what if not one.isdigit()]):
        await client.work(name)
        # Queued calls first: a queued call must not start because the call before it was cancelled.
        for stage in ("pending", "running"):
            for found in (await client.calls(work=name, stage=stage, limit=_PAGE)).items:
                if await _cancel_if_active(client, found.id):
                    numbers[found.id] = None
    _print_changes("cancelling", [f"call {number}" for number in numbers], as_json)


async def _cancel_if_active(client: Client, number: int) -> bool:
    """Cancel a call, and return whether that was possible. False: the call has ended meanwhile."""
    try:
        await client.cancel_call(number)
    except RequestFailed as error:
        if error.code != "conflict":
            raise
        return False
    return True


async def _follow(client: Client, made: CallDetail, detach: bool, timeout: float | None, as_json: bool) -> int:
    """Wait for a call, print its result or its error, and return the exit code."""
    if detach:
        print_json(msgspec.to_builtins(made)) if as_json else click.echo(str(made.id))
        return 0
    try:
        async with asyncio.timeout(timeout):
            done = made if made.stage.is_final else await client.wait_call(made.id)
    except TimeoutError:
        raise CommandFailure(
            f"call {made.id} has not ended within {timeout:g} s; it continues: `lightwork cancel {made.id}` ends it",
            TIMED_OUT,
        ) from None
    except asyncio.CancelledError:
        click.echo(f"call {made.id} continues; `lightwork cancel {made.id}` ends it", err=True)
        raise
    if done.stage.is_final and done.result is None and done.error is None:
        done = await client.call(done.id)
    if as_json:
        print_json(msgspec.to_builtins(done))
    elif done.stage is Stage.SUCCEEDED:
        click.echo(value_text(done.result))
    if done.stage is Stage.SUCCEEDED:
        return 0
    if done.error is not None and not as_json:
        click.echo(done.error.traceback.rstrip() or f"{done.error.type}: {done.error.message}", err=True)
    why = ": ".join(part for part in (str(done.reason or ""), (done.message or "").partition("\n")[0]) if part)
    click.echo(f"call {done.id} {done.stage}" + (f" ({why})" if why else ""), err=True)
    return FAILED


async def _each(names: Sequence[str], request: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Make the request for every name concurrently. Raise the first refusal after all requests were tried."""
    outcomes = await asyncio.gather(*map(request, names), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors[1:]:
        if not isinstance(error, RequestFailed):
            raise error
        click.echo(f"Error: {error}", err=True)
    if errors:
        raise errors[0]


def _print_changes(change: str, names: Sequence[str], as_json: bool) -> None:
    """Print for each name that it has the change: ``root.train stopping``."""
    if as_json:
        print_json({"items": [{"what": name, "is": change} for name in names]})
    else:
        click.echo("".join(f"{name} {change}\n" for name in names), nl=False)
