"""The command line: ``lightwork COMMAND``.

The module of a command is imported when the command is used. ``lightwork --help`` and shell completion therefore
stay fast, whatever the number of commands.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

__all__ = ["cli", "main"]

_COMMANDS = {
    "app": ("lightwork.cli.commands:app", "Run a command that the app defines."),
    "apps": ("lightwork.cli.ps:apps", "List the apps that run on this machine."),
    "cache": ("lightwork.cli.cache:cache", "List and remove what runtimes keep for later launches."),
    "call": ("lightwork.cli.actions:call", "Call a work and print the result."),
    "cancel": ("lightwork.cli.actions:cancel", "Cancel calls."),
    "checkpoint": ("lightwork.cli.checkpoint:checkpoint", "List, show and restore the checkpoints of a journal."),
    "cloud": ("lightwork.cli.cloud:cloud", "List and give back machines that were made for works."),
    "completion": ("lightwork.cli.completion:completion", "Print the completion script of a shell."),
    "config": ("lightwork.cli.config:config", "Show the configuration."),
    "doctor": ("lightwork.cli.doctor:doctor", "Check that works can start here, and report what is missing."),
    "init": ("lightwork.cli.init:init", "Write a small new app that is ready to run."),
    "inspect": ("lightwork.cli.inspect:inspect", "Show everything about the app, a component or a call."),
    "logs": ("lightwork.cli.logs:logs", "Print the output of works."),
    "ls": ("lightwork.cli.ps:ps", "Same as ps."),
    "ps": ("lightwork.cli.ps:ps", "List the works of a running app."),
    "retry": ("lightwork.cli.actions:retry", "Repeat a call with the same arguments."),
    "run": ("lightwork.cli.run:run", "Run the app of a file until it stops."),
    "schedule": ("lightwork.cli.schedule:schedule", "List the schedules, and fire one now."),
    "stack": ("lightwork.cli.timeline:stack", "Show the current stack of a work's process."),
    "start": ("lightwork.cli.actions:start", "Start the processes of works."),
    "state": ("lightwork.cli.state:state", "Read, change and watch the state."),
    "stop": ("lightwork.cli.actions:stop", "Stop works, or the app."),
    "timeline": ("lightwork.cli.timeline:timeline", "Show when calls waited and ran."),
    "wait": ("lightwork.cli.wait:wait", "Wait until works, calls or the app have ended."),
}
"""Command name to its location, ``module:attribute``, and its line in ``lightwork --help``."""


class _LazyGroup(click.Group):
    """A command group that imports each command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in sorted(_COMMANDS.items())])


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from lightwork._version import __version__

    click.echo(f"lightwork {__version__}, Python {sys.version.split()[0]}")
    ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Coordinate long jobs from asyncio."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the ``lightwork`` program. It ends by raising `SystemExit`.

    Exit codes: 0 when the command succeeded, 1 when an app, a call or a request has failed, 2 when the command line
    or the configuration is invalid, 3 when no app is found or the app does not answer, 4 when the app has no such
    work, call or value, 124 when the time limit has passed, 130 after an interrupt (Ctrl-C), 143 after SIGTERM.
    """
    try:
        # Not click's standalone mode: there an interrupt has the exit code 1.
        code = cli.main(args, prog_name="lightwork", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone. Discard the rest, so that the interpreter's last flush does not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
