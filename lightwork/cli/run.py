"""``lightwork run``: find the app, configure it, run it to its end."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from lightwork._logging import LEVELS, configure_logging
from lightwork.cli.discover import AppImportError, AppNotFound, find_app
from lightwork.cli.plain import JsonView, PlainView, View
from lightwork.cli.report import format_error
from lightwork.cli.settings import SettingError, apply_settings
from lightwork.cli.supervise import serve
from lightwork.errors import ConfigError

if TYPE_CHECKING:
    from lightwork.app import App

__all__ = ["run"]


@click.command
@click.argument("target", metavar="APP", shell_complete=lambda ctx, param, text: _complete_target(text))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--runtime", metavar="NAME", help="Runtime, or profile of the configuration, that works use by default.")
@click.option("--host", metavar="HOST", help="Address on which the scheduler listens for works.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="Port of that address, 0 for a free one.")
@click.option("--http/--no-http", default=None, help="Whether it has a dashboard and an HTTP interface; it has.")
@click.option("--http-host", metavar="HOST", help="Address of these. Off loopback a token is asked for.")
@click.option(
    "--http-port", metavar="PORT", type=click.IntRange(0, 65535), help="Port of that address, 0 for a free one."
)
@click.option(
    "--journal",
    metavar="PATH",
    type=click.Path(dir_okay=False),
    help="File in which the app writes down what happens, so that it can go on after its process was killed.",
)
@click.option("--resume", is_flag=True, default=None, help="Go on with what the journal holds.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a state attribute before the start, as in root.lr=0.1. May be repeated.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="Least level of lightwork's own log records. With debug, tracebacks leave no frame out.",
)
@click.option(
    "--json-logs/--no-json-logs", default=None, help="Write log records, statuses and works' output as JSON lines."
)
@click.option("--uvloop", "use_uvloop", is_flag=True, help="Use uvloop's event loop.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    target: str,
    args: tuple[str, ...],
    settings: tuple[str, ...],
    log_level: str | None,
    json_logs: bool | None,
    use_uvloop: bool,
    **overrides: Any,
) -> None:
    """Run the app of a file until it stops.

    APP is a file (app.py), a folder with an app.py in it, or a module; where it has several apps,
    add the name of one: app.py:name or module:name.

    ARGS are what the file finds in sys.argv; put -- before those that begin with a dash.

    Ctrl-C ends everything in order, twice ends it now.
    """
    _make_streams_robust()
    configure_logging(log_level or "info", bool(json_logs))
    sys.argv = [target, *args]
    overrides.update(log_level=log_level, json_logs=json_logs)
    app = _prepare(target, {key: value for key, value in overrides.items() if value is not None}, settings)
    config = app.config
    configure_logging(config.log_level, config.json_logs)
    view = _choose_view(config.json_logs)
    ctx.exit(
        serve(
            app,
            view,
            use_uvloop=use_uvloop,
            full_tracebacks=config.log_level == "debug",
            # One that was made for this run is known to nobody else; one that was configured is nobody's to see.
            tells_token=config.http_token is None,
        )
    )


def _prepare(target: str, overrides: dict[str, Any], settings: tuple[str, ...]) -> App[Any]:
    """The app, configured. What the command line has wrong is a usage error; what the file raises is shown."""
    try:
        app = find_app(target)
        app.configure(**overrides)
        if app.config.http is None:
            app.configure(http=True)  # an app that is run for itself has it, one that is embedded has to ask
        apply_settings(app, settings)
    except (AppNotFound, ConfigError, SettingError) as error:
        raise click.UsageError(str(error)) from error
    except AppImportError as error:
        full = overrides.get("log_level") == "debug"
        click.echo(format_error(error.__cause__ or error, full=full), err=True, nl=False)
        click.get_current_context().exit(1)
    return app


def _choose_view(json_logs: bool) -> View:
    if json_logs:
        return JsonView()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from lightwork.cli.live import LiveView

        return LiveView()
    return PlainView()


def _make_streams_robust() -> None:
    """What a work prints may hold characters that this terminal's encoding has not; that must not end the app."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complete_target(text: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(text, type="file")]
