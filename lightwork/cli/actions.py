"""Commands that change what runs: ``start``, ``stop``, ``call``, ``retry`` and ``cancel``."""

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
@click.option("--wait", is_flag=True, help="Return when they run.")
@output_option
@asks_app
async def start(connected: ConnectedApp, works: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Start the processes of works, so that their first call need not wait for that.

    WORK is a name or a pattern.
    """
    client = connected.client
    names = await find_works(client, works)
    await _each(names, lambda name: client.start_work(name, wait=wait))
    _tell("started" if wait else "starting", names, as_json)


@click.command
@click.argument("works", metavar="[WORK]...", nargs=-1, shell_complete=complete_work)
@click.option("--all", "is_all", is_flag=True, help="Stop the whole app, in order.")
@click.option("-m", "--message", help="With --all: what the app says when it ends.")
@click.option("--wait", is_flag=True, help="Return when they have stopped, or the app has ended.")
@output_option
@asks_app
async def stop(
    connected: ConnectedApp, works: tuple[str, ...], is_all: bool, message: str | None, wait: bool, as_json: bool
) -> None:
    """Stop works: what runs of them is ended, what waits is given up. With --all, the app.

    WORK is a name or a pattern.
    """
    client = connected.client
    if is_all == bool(works):
        raise click.UsageError("name the works to stop, or give --all to stop the app")
    if message is not None and not is_all:
        raise click.UsageError("--message goes with --all")
    if is_all:
        feed = client.feed()
        try:
            await anext(feed)  # joined before it is asked, so that its end is not missed
            await client.stop_app(message)
            if wait:
                async for _ in feed:
                    pass
        finally:
            await feed.aclose()
        _tell("ended" if wait else "stopping", ["app"], as_json)
        return
    names = await find_works(client, works)
    await _each(names, lambda name: client.stop_work(name, wait=wait))
    _tell("stopped" if wait else "stopping", names, as_json)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("work", shell_complete=complete_work)
@click.argument("arguments", metavar="[NAME=VALUE|VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Print the call's number, and do not wait for its result.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Wait so long, then give 124.")
@output_option
@asks_app
async def call(
    connected: ConnectedApp, work: str, arguments: tuple[str, ...], detach: bool, timeout: float | None, as_json: bool
) -> int:
    """Call a work, and print what it returns.

    Values take the type of the parameter; of one that is no bool, int, float or str they are JSON, or text as it
    stands: lightwork call train 10 rate=0.1 layers=[64,32]

    Exit codes: 0 when the call succeeded, 1 when it did not, 2 when the arguments do not fit, 124 when the time was
    up. The call goes on when this command ends before it: `lightwork cancel NUMBER` ends it.
    """
    name = full_name(work)
    args, kwargs = parse_arguments(arguments, (await connected.client.work(name)).parameters)
    made = await connected.client.submit(name, args, kwargs)
    return await _follow(connected.client, made, detach, timeout, as_json)


@click.command
@click.argument("what", metavar="CALL|WORK", shell_complete=complete_work)
@click.option("-d", "--detach", is_flag=True, help="Print the new call's number, and do not wait for its result.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Wait so long, then give 124.")
@output_option
@asks_app
async def retry(connected: ConnectedApp, what: str, detach: bool, timeout: float | None, as_json: bool) -> int:
    """Call again with the same arguments: a call by its number, or the latest call of a work that failed.

    Prints what it returns, and has the exit codes of `lightwork call`.
    """
    client = connected.client
    if what.isdigit():
        number = int(what)
    else:
        name = full_name(what)
        await client.work(name)  # to tell one that is not there from one that has not failed
        failed = (await client.calls(work=name, stage="failed", limit=1)).items
        if not failed:
            raise CommandFailure(f"no call of {name} has failed", NOT_FOUND)
        number = failed[0].id
    return await _follow(client, await client.retry_call(number), detach, timeout, as_json)


@click.command
@click.argument("what", metavar="CALL|WORK...", nargs=-1, required=True, shell_complete=complete_work)
@output_option
@asks_app
async def cancel(connected: ConnectedApp, what: tuple[str, ...], as_json: bool) -> None:
    """Cancel calls by their numbers, or every call of a work that waits or runs.

    WORK is a name or a pattern. Returns when that was asked for; `lightwork wait CALL` waits for the end.
    """
    client = connected.client
    numbers = dict.fromkeys(int(one) for one in what if one.isdigit())
    for number in numbers:
        await client.cancel_call(number)
    for name in await find_works(client, [one for one in what if not one.isdigit()]):
        await client.work(name)
        # What waits first: it must not start because the one before it was cancelled.
        for stage in ("pending", "running"):
            for found in (await client.calls(work=name, stage=stage, limit=_PAGE)).items:
                if await _cancel_if_not_over(client, found.id):
                    numbers[found.id] = None
    _tell("cancelling", [f"call {number}" for number in numbers], as_json)


async def _cancel_if_not_over(client: Client, number: int) -> bool:
    """Cancel a call that was not over a moment ago; whether it was not over still."""
    try:
        await client.cancel_call(number)
    except RequestFailed as error:
        if error.code != "conflict":
            raise
        return False
    return True


async def _follow(client: Client, made: CallDetail, detach: bool, timeout: float | None, as_json: bool) -> int:
    """Wait for a call that was made, and print how it went; the exit code."""
    if detach:
        print_json(msgspec.to_builtins(made)) if as_json else click.echo(str(made.id))
        return 0
    try:
        async with asyncio.timeout(timeout):
            done = made if made.stage.is_final else await client.wait_call(made.id)
    except TimeoutError:
        raise CommandFailure(f"call {made.id} is not over after {timeout:g} s, and goes on", TIMED_OUT) from None
    except asyncio.CancelledError:
        click.echo(f"call {made.id} goes on; `lightwork cancel {made.id}` ends it", err=True)
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


async def _each(names: Sequence[str], order: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Give the order for every name, all at once. Raises the first refusal, after all have been tried."""
    outcomes = await asyncio.gather(*map(order, names), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors[1:]:
        if not isinstance(error, RequestFailed):
            raise error
        click.echo(f"Error: {error}", err=True)
    if errors:
        raise errors[0]


def _tell(what: str, names: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json({"items": [{"what": name, "is": what} for name in names]})
    else:
        click.echo("".join(f"{name} {what}\n" for name in names), nl=False)
