"""``lightwork wait``: waits until works, calls or the app have ended. The exit code tells whether they succeeded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from lightwork.cli.connect import ConnectedApp, asks_app, find_works
from lightwork.cli.names import complete_work
from lightwork.cli.output import FAILED, NOT_FOUND, STYLES, TIMED_OUT, CommandFailure, output_option, print_json, styled
from lightwork.errors import AppEnded
from lightwork.server.types import CallDetail, WorkView
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.client import Client

__all__ = ["wait"]


class _WaitResults:
    """The results of works, calls and the app, in the order in which they ended. Each is printed unless `as_json`."""

    def __init__(self, as_json: bool) -> None:
        self.items: list[dict[str, object]] = []
        self._as_json = as_json

    def add(self, what: str, stage: str, ok: bool, message: str | None = None) -> None:
        self.items.append({"what": what, "stage": stage, "ok": ok, "message": message})
        if not self._as_json:
            click.echo(f"{what} {styled(stage, **STYLES.get(stage, {}))}" + (f": {message}" if message else ""))

    @property
    def is_ok(self) -> bool:
        return all(item["ok"] for item in self.items)


@click.command
@click.argument("what", metavar="[WORK|CALL]...", nargs=-1, shell_complete=complete_work)
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Stop waiting after SECONDS, with exit code 124."
)
@click.option(
    "--for",
    "stage",
    type=click.Choice([str(stage) for stage in Stage]),
    help="Wait until each work is in this stage instead.",
)
@output_option
@asks_app
async def wait(
    connected: ConnectedApp, what: tuple[str, ...], timeout: float | None, stage: str | None, as_json: bool
) -> int:
    """Wait until works are done and calls have ended. Without arguments, wait until the app has ended.

    WORK is a name or a pattern. A work is done when it was called and has no queued or running call.

    Exit codes: 0 when every work and call succeeded (with --for: every work reached the stage), 1 when one did not,
    when the app failed, or when it ended too early, 4 when a work or a call is unknown, 124 when the time limit has
    passed.
    """
    results = _WaitResults(as_json)
    waiting = set(what)
    is_late = False
    try:
        async with asyncio.timeout(timeout):
            await _wait(connected.client, what, stage, results, waiting)
    except TimeoutError:
        is_late = True
    if as_json:
        print_json({"ok": results.is_ok and not is_late, "timed_out": is_late, "items": results.items})
    if is_late:
        left = ", ".join(sorted(waiting)) or "the end of the app"
        raise CommandFailure(f"{timeout:g} s have passed, still waiting for: {left}", TIMED_OUT)
    return 0 if results.is_ok else FAILED


async def _wait(
    client: Client, what: Sequence[str], stage: str | None, results: _WaitResults, waiting: set[str]
) -> None:
    """Wait for all works and calls. `waiting` holds the names and numbers of those that have not ended."""
    if not what:
        await _wait_app(client, results)
        return
    numbers = [int(one) for one in what if one.isdigit()]
    names = await find_works(client, [one for one in what if not one.isdigit()])
    waiting.clear()
    waiting.update([*names, *map(str, numbers)])
    if numbers and stage is not None:
        raise click.UsageError("--for applies to works only: leave out the numbers of calls")
    try:
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(_wait_number(client, number, results, waiting))
            if names:
                group.create_task(_wait_works(client, names, stage, results, waiting))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # one error is enough to explain the failure


async def _wait_app(client: Client, results: _WaitResults) -> None:
    app: dict[str, Any] = {}
    async with contextlib.aclosing(client.feed()) as feed:
        async for event in feed:
            if event.kind == "app":
                app = event.data
    if error := app.get("error"):
        results.add("app", "failed", False, f"{error['type']}: {error['message']}")
    else:
        results.add("app", "ended", True, app.get("stop_message"))


async def _wait_number(client: Client, number: int, results: _WaitResults, waiting: set[str]) -> None:
    call = await client.wait_call(number)
    waiting.discard(str(number))
    results.add(f"call {number}", str(call.stage), call.stage is Stage.SUCCEEDED, _why(call))


async def _wait_works(
    client: Client, names: Sequence[str], stage: str | None, results: _WaitResults, waiting: set[str]
) -> None:
    has_arrived: Callable[[WorkView], bool] = _is_done if stage is None else lambda work: work.stage == stage
    left = set(names)
    async with contextlib.aclosing(client.feed()) as feed:
        async for event in feed:
            if event.kind == "snapshot":
                present = {work["name"]: work for work in event.data["works"]}
                if missing := sorted(left - present.keys()):
                    raise CommandFailure(f"the app has no work {', '.join(missing)}", NOT_FOUND)
                works = [present[name] for name in names if name in left]
            elif event.kind == "work" and event.data["name"] in left:
                works = [event.data]
            elif event.kind == "removed" and event.data["name"] in left:
                raise CommandFailure(f"{event.data['name']} was removed from the app", FAILED)
            else:
                continue
            for data in works:
                work = msgspec.convert(data, WorkView)
                if has_arrived(work):
                    left.discard(work.name)
                    waiting.discard(work.name)
                    await _add_work(client, work, stage, results)
            if not left:
                return
    raise AppEnded(f"the app ended too early, still waiting for: {', '.join(sorted(left))}")


async def _add_work(client: Client, work: WorkView, stage: str | None, results: _WaitResults) -> None:
    if stage is not None:
        results.add(work.name, stage, True)
        return
    # A process that ends gracefully after its last call makes the work `stopped`. The last call has the result.
    latest = (await client.calls(work=work.name, limit=1)).items
    if latest:
        results.add(work.name, str(latest[0].stage), latest[0].stage is Stage.SUCCEEDED, _why(latest[0]))
    else:
        results.add(work.name, str(work.stage), work.stage is not Stage.FAILED, work.message)


def _is_done(work: WorkView) -> bool:
    return work.stage.is_final and not work.calls.pending and not work.calls.running


def _why(call: CallDetail) -> str | None:
    if call.stage is Stage.SUCCEEDED:
        return None
    return call.error.message if call.error is not None else call.message
