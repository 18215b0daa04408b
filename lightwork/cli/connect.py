"""Which app a command means, and what its errors become: shared by every command that asks a running app."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from lightwork.cli.output import FAILED, NO_APP, NOT_FOUND, TIMED_OUT, CommandFailure
from lightwork.discovery import AppFile, running_apps
from lightwork.errors import AppEnded, AppUnreachable, PlatformError, RequestFailed

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
"""Exit codes of what a running app answers; of any other it is `FAILED`."""


class AppTarget(NamedTuple):
    """The app that is meant. `file` is what it says of itself, None where a URL was given."""

    url: str
    token: str | None
    file: AppFile | None


def app_options(command: _FnT) -> _FnT:
    """Give a command ``--app``, ``--url`` and ``--token``."""
    for option in (
        click.option("--token", envvar="LIGHTWORK_TOKEN", help="Token of that app. Also LIGHTWORK_TOKEN."),
        click.option("--url", envvar="LIGHTWORK_URL", help="Ask the app at this URL. Also LIGHTWORK_URL."),
        click.option(
            "--app",
            "app_name",
            metavar="NAME|RUN",
            envvar="LIGHTWORK_APP",
            help="Which app of this machine: its name, the beginning of its run's id, or its pid. Also LIGHTWORK_APP.",
        ),
    ):
        command = option(command)
    return command


def find_target(app_name: str | None, url: str | None, token: str | None) -> AppTarget:
    """The app that the options mean.

    Raises:
        Failure: There is none, or more than one.
    """
    if url:
        return AppTarget(url, token, None)
    try:
        found = choose_app(running_apps(), app_name)
    except PlatformError as error:
        raise CommandFailure(str(error), NO_APP) from error
    return AppTarget(found.url, token or found.token, found)


def choose_app(apps: Sequence[AppFile], wanted: str | None) -> AppFile:
    """The one of these apps that is meant.

    Raises:
        Failure: There is none, or more than one; lists them.
    """
    found = [app for app in apps if wanted is None or _is_meant(app, wanted)]
    if len(found) == 1:
        return found[0]
    if not apps:
        raise CommandFailure(
            "no app runs here: start one (lightwork run app.py), or name another machine's by --url", NO_APP
        )
    if not found:
        raise CommandFailure(f"no app {wanted!r} runs here; there are:\n{_listed(apps)}", NO_APP)
    raise CommandFailure(f"{len(found)} apps run here; say which by --app:\n{_listed(found)}", 2)


def _is_meant(app: AppFile, wanted: str) -> bool:
    return wanted in (app.run, app.name, str(app.pid)) or (len(wanted) >= 4 and app.run.startswith(wanted))


def _listed(apps: Sequence[AppFile]) -> str:
    return "\n".join(f"  {app.name}  {app.run}  pid {app.pid}  {app.url}  {app.file or ''}".rstrip() for app in apps)


# --- asking ---------------------------------------------------------------------------------------


class ConnectedApp(NamedTuple):
    """What a command that asks an app is given: a client in its context, and which app that is."""

    client: Client
    target: AppTarget


def asks_app(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Make a command of a coroutine function, whose first argument is `ConnectedApp`; what it returns is the exit code.

    Gives it the options that say which app is meant, and makes exit codes of what the app answers.
    """

    @app_options
    @functools.wraps(command)
    def run(*args: Any, app_name: str | None, url: str | None, token: str | None, **options: Any) -> None:
        target = find_target(app_name, url, token)
        code = ask(target, lambda connected: command(connected, *args, **options))
        click.get_current_context().exit(code or 0)

    return run


def ask(target: AppTarget, question: Callable[[ConnectedApp], Coroutine[Any, Any, _T]]) -> _T:
    """What the question gives, asked in a loop of its own.

    Raises:
        Failure: With the exit code that what the app answers has.
    """
    # Late: aiohttp takes longer to load than everything else of a command.
    from lightwork.client import Client

    async def enter() -> _T:
        async with Client(target.url, target.token) as client:
            return await question(ConnectedApp(client, target))

    try:
        return asyncio.run(enter())
    except (AppEnded, AppUnreachable, RequestFailed) as error:
        raise translated(error) from error


def translated(error: AppEnded | AppUnreachable | RequestFailed) -> CommandFailure:
    """What an error of the client means for a command."""
    if isinstance(error, AppEnded):
        return CommandFailure(str(error))
    if isinstance(error, AppUnreachable):
        return CommandFailure(str(error), NO_APP)
    if error.code == "unauthorized":
        return CommandFailure(f"{error}; give it by --token, or LIGHTWORK_TOKEN", NO_APP)
    return CommandFailure(str(error), _CODES.get(error.code, FAILED))


# --- names ----------------------------------------------------------------------------------------


def full_name(text: str) -> str:
    """A component's name as the app has it: ``train`` means ``root.train``."""
    return text if text == "root" or text.startswith("root.") else f"root.{text}"


async def every_work(
    client: Client, *, match: str | None = None, stage: str | None = None, runtime: str | None = None
) -> AsyncIterator[WorkView]:
    """Works, page by page, in the order of the tree."""
    offset = 0
    while True:
        page = await client.works(match=match, stage=stage, runtime=runtime, limit=_PAGE, offset=offset)
        for work in page.items:
            yield work
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


async def find_works(client: Client, names: Sequence[str]) -> list[str]:
    """Full names of the works that are meant, in order: a pattern means all that match, and has to match one.

    Raises:
        Failure: A pattern matches none. A plain name is not looked up: the app says so when it is used.
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
