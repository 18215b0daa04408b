"""Selects the running app, connects to it, and translates its errors. Every command that asks an app uses this."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from lightwork.cli.output import FAILED, NO_APP, NOT_FOUND, TIMED_OUT, CommandFailure
from lightwork.errors import AppEnded, AppUnreachable, PlatformError, RequestFailed
from lightwork.server.discovery import AppFile, running_apps

if TYPE_CHECKING:
    from lightwork.client import Client
    from lightwork.server.types import WorkView

__all__ = [
    "AppTarget",
    "ConnectedApp",
    "app_options",
    "ask",
    "asks_app",
    "choose_app",
    "every_work",
    "find_target",
    "find_works",
    "full_name",
    "translated",
]

_T = TypeVar("_T")
_FnT = TypeVar("_FnT", bound=Callable[..., Any])
_PAGE = 1000

_CODES = {
    "not_found": NOT_FOUND,
    "unknown_work": NOT_FOUND,
    "unknown_component": NOT_FOUND,
    "unknown_call": NOT_FOUND,
    "unknown_path": NOT_FOUND,
    "unknown_command": NOT_FOUND,
    "unauthorized": NO_APP,
    "forbidden_origin": NO_APP,
    "not_ready": NO_APP,
    "bad_request": 2,
    "bad_json": 2,
    "too_large": 2,
    "timeout": TIMED_OUT,
}
"""Error code of the HTTP API to exit code. The exit code of every other error is `FAILED`."""


class AppTarget(NamedTuple):
    """The selected app.

    Attributes:
        url: The URL of its HTTP server.
        token: The token for its HTTP server, None if no token is known.
        file: The file that the app announces itself with. None if the app was selected by its URL.
    """

    url: str
    token: str | None
    file: AppFile | None


def app_options(command: _FnT) -> _FnT:
    """Add the options ``--app``, ``--url`` and ``--token`` to a command."""
    for option in (
        click.option("--token", envvar="LIGHTWORK_TOKEN", help="Token of the app (or LIGHTWORK_TOKEN)."),
        click.option("--url", envvar="LIGHTWORK_URL", help="URL of the app (or LIGHTWORK_URL)."),
        click.option(
            "--app",
            "app_name",
            metavar="NAME|RUN",
            envvar="LIGHTWORK_APP",
            help="App on this machine: its name, the start of its run id, or its pid (or LIGHTWORK_APP).",
        ),
    ):
        command = option(command)
    return command


def find_target(app_name: str | None, url: str | None, token: str | None) -> AppTarget:
    """Return the app that the options select.

    Raises:
        CommandFailure: No app is found, or more than one.
    """
    if url:
        return AppTarget(url, token, None)
    try:
        found = choose_app(running_apps(), app_name)
    except PlatformError as error:
        raise CommandFailure(str(error), NO_APP) from error
    return AppTarget(found.url, token or found.token, found)


def choose_app(apps: Sequence[AppFile], wanted: str | None) -> AppFile:
    """Return the app that has the name, the run id or the pid `wanted`, or the only app if that is None.

    Raises:
        CommandFailure: No app matches, or more than one. The message lists the apps.
    """
    found = [app for app in apps if wanted is None or _matches(app, wanted)]
    if len(found) == 1:
        return found[0]
    if not apps:
        raise CommandFailure(
            "no app runs on this machine: start one (lightwork run app.py), or select an app elsewhere with --url",
            NO_APP,
        )
    if not found:
        raise CommandFailure(f"no app {wanted!r} runs on this machine; running apps:\n{_listed(apps)}", NO_APP)
    raise CommandFailure(f"{len(found)} apps run on this machine; select one with --app:\n{_listed(found)}", 2)


def _matches(app: AppFile, wanted: str) -> bool:
    return wanted in (app.run, app.name, str(app.pid)) or (len(wanted) >= 4 and app.run.startswith(wanted))


def _listed(apps: Sequence[AppFile]) -> str:
    return "\n".join(f"  {app.name}  {app.run}  pid {app.pid}  {app.url}  {app.file or ''}".rstrip() for app in apps)


# --- asking ---------------------------------------------------------------------------------------


class ConnectedApp(NamedTuple):
    """The first argument of a command that asks an app: a client that is ready for requests, and the selected app."""

    client: Client
    target: AppTarget


def asks_app(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Turn a coroutine function into a command that asks an app.

    The first argument of the coroutine function is a `ConnectedApp`; its return value is the exit code. The command
    gets the options that select the app, and errors of the app become exit codes.
    """

    @app_options
    @functools.wraps(command)
    def run(*args: Any, app_name: str | None, url: str | None, token: str | None, **options: Any) -> None:
        target = find_target(app_name, url, token)
        code = ask(target, lambda connected: command(connected, *args, **options))
        click.get_current_context().exit(code or 0)

    return run


def ask(target: AppTarget, question: Callable[[ConnectedApp], Coroutine[Any, Any, _T]]) -> _T:
    """Run the question in a new event loop, and return its result.

    Raises:
        CommandFailure: The app refused, ended or did not answer. Its exit code depends on the app's error.
    """
    # Imported here: aiohttp takes longer to load than everything else in a command.
    from lightwork.client import Client

    async def enter() -> _T:
        async with Client(target.url, target.token) as client:
            return await question(ConnectedApp(client, target))

    try:
        return asyncio.run(enter())
    except (AppEnded, AppUnreachable, RequestFailed) as error:
        raise translated(error) from error


def translated(error: AppEnded | AppUnreachable | RequestFailed) -> CommandFailure:
    """Translate an error of the client into the failure of a command."""
    if isinstance(error, AppEnded):
        return CommandFailure(str(error))
    if isinstance(error, AppUnreachable):
        return CommandFailure(str(error), NO_APP)
    if error.code == "unauthorized":
        return CommandFailure(f"{error}; set --token or LIGHTWORK_TOKEN", NO_APP)
    return CommandFailure(str(error), _CODES.get(error.code, FAILED))


# --- names ----------------------------------------------------------------------------------------


def full_name(text: str) -> str:
    """Return the full name of a component: ``root.train`` for ``train``."""
    return text if text == "root" or text.startswith("root.") else f"root.{text}"


async def every_work(
    client: Client, *, match: str | None = None, stage: str | None = None, runtime: str | None = None
) -> AsyncIterator[WorkView]:
    """Iterate over the works in the order of the tree. They are fetched page by page."""
    offset = 0
    while True:
        page = await client.works(match=match, stage=stage, runtime=runtime, limit=_PAGE, offset=offset)
        for work in page.items:
            yield work
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


async def find_works(client: Client, names: Sequence[str]) -> list[str]:
    """Return the full names of works in the order of `names`. A pattern is replaced by all works that match.

    A plain name is not checked: the app reports an unknown work when the name is used.

    Raises:
        CommandFailure: A pattern matches no work.
    """
    found: dict[str, None] = {}
    for name in names:
        if not any(char in name for char in "*?["):
            found[full_name(name)] = None
            continue
        matches = [work.name async for work in every_work(client, match=full_name(name))]
        if not matches:
            raise CommandFailure(f"no work matches {full_name(name)!r}", NOT_FOUND)
        found |= dict.fromkeys(matches)
    return list(found)
