"""The command line: ``lightwork COMMAND``.

A command's module is imported when the command is used, so ``lightwork --help`` and shell completion stay
fast however many commands there are.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

__all__ = ["cli", "main"]

_COMMANDS = {
    "app": ("lightwork.cli.commands:app", "Run a command of the app's own."),
    "apps": ("lightwork.cli.ps:apps", "List the apps that run on this machine."),
    "cache": ("lightwork.cli.cache:cache", "See and remove what runtimes keep for later launches."),
    "call": ("lightwork.cli.actions:call", "Call a work, and print what it returns."),
    "cancel": ("lightwork.cli.actions:cancel", "Cancel calls."),
    "checkpoint": ("lightwork.cli.checkpoint:checkpoint", "List, show and restore the checkpoints of a journal."),
    "cloud": ("lightwork.cli.cloud:cloud", "See and give back machines that works were given."),
    "completion": ("lightwork.cli.completion:completion", "Print the script that completes commands in a shell."),
    "config": ("lightwork.cli.config:config", "Look at the configuration."),
    "doctor": ("lightwork.cli.doctor:doctor", "Check that works can be started here, and say what is missing."),
    "init": ("lightwork.cli.init:init", "Write a small new app that runs at once."),
    "inspect": ("lightwork.cli.inspect:inspect", "Show all that is known of the app, a component or a call."),
    "logs": ("lightwork.cli.logs:logs", "Print what works have printed."),
    "ls": ("lightwork.cli.ps:ps", "The same as ps."),
    "ps": ("lightwork.cli.ps:ps", "List the works of a running app."),
    "retry": ("lightwork.cli.actions:retry", "Call again with the same arguments."),
    "run": ("lightwork.cli.run:run", "Run the app of a file until it stops."),
    "schedule": ("lightwork.cli.schedule:schedule", "See the schedules, and let one fire now."),
    "stack": ("lightwork.cli.timeline:stack", "Show what a work's process does at this moment."),
    "start": ("lightwork.cli.actions:start", "Start the processes of works."),
    "state": ("lightwork.cli.state:state", "Read, change and follow the state."),
    "stop": ("lightwork.cli.actions:stop", "Stop works, or the app."),
    "timeline": ("lightwork.cli.timeline:timeline", "Show when calls waited and ran."),
    "wait": ("lightwork.cli.wait:wait", "Return when works, calls or the app are over."),
}
"""Name of a command: where it is, and its line in ``lightwork --help``."""


class _LazyGroup(click.Group):
    """A group whose commands are imported one by one, when they are used."""

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
    """The ``lightwork`` program; ends by `SystemExit`.

    Exit codes: 0 when all went well, 1 when what was run or asked about has failed, 2 when the command line or the
    configuration is wrong, 3 when no app is found or it does not answer, 4 when it has no such work, call or value,
    124 when the time was up, 130 after an interrupt (Ctrl-C), 143 after a request to terminate.
    """
    try:
        # Not click's standalone mode: it makes 1 of an interrupt.
        code = cli.main(args, prog_name="lightwork", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except BrokenPipeError:
        # Who read our output has gone; nothing more can be said to it, at the interpreter's last flush either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
