"""``lightwork run``: finds the app, configures it, and runs it until it ends."""

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
@click.option(
    "--runtime", metavar="PROFILE", help="Default profile of works: a runtime, or a profile of the configuration."
)
@click.option("--host", metavar="HOST", help="Address that workers connect to.")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="Port of --host; 0 selects a free port.")
@click.option("--http/--no-http", default=None, help="Serve the dashboard and the HTTP API (default: yes).")
@click.option("--http-host", metavar="HOST", help="Address of the HTTP server. Off loopback, clients need a token.")
@click.option(
    "--http-port", metavar="PORT", type=click.IntRange(0, 65535), help="Port of --http-host; 0 selects a free port."
)
@click.option(
    "--journal",
    metavar="PATH",
    type=click.Path(dir_okay=False),
    help="File in which the app records its progress, so that it can resume after its process was killed.",
)
@click.option("--resume", is_flag=True, default=None, help="Resume the app from the journal.")
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a state attribute before the start, for example root.lr=0.1. Repeatable.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="Minimum level of lightwork's own log records. With debug, tracebacks show every frame.",
)
@click.option(
    "--json-logs/--no-json-logs", default=None, help="Write log records, statuses and output of works as JSON lines."
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

    APP is a file (app.py), a folder that contains an app.py, or a module. If it defines several apps,
    add the name of one: app.py:name or module:name.

    ARGS are passed to the file in sys.argv. Put -- before arguments that begin with a dash.

    Press Ctrl-C once to stop gracefully, twice to kill everything.
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
            # A token that is generated for this run must be shown: nobody knows it. A configured token stays secret.
            shows_token=config.http_token is None,
        )
    )


def _prepare(target: str, overrides: dict[str, Any], settings: tuple[str, ...]) -> App[Any]:
    """Return the configured app. An invalid command line is a usage error; an exception of the file is printed."""
    try:
        app = find_app(target)
        app.configure(**overrides)
        if app.config.http is None:
            app.configure(http=True)  # the default of a standalone app; an embedded app has to request it
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
    """Escape characters that the terminal's encoding does not have. Output of a work must not end the app."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complete_target(text: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(text, type="file")]
