"""``lightwork app``: the commands that the app defines in ``configure_commands``."""

from __future__ import annotations

import difflib

import click
import msgspec

from lightwork.cli.arguments import parse_options
from lightwork.cli.connect import ConnectedApp, asks_app
from lightwork.cli.inspect import value_text
from lightwork.cli.names import complete_command
from lightwork.cli.output import NOT_FOUND, CommandFailure, output_option, print_json, print_table
from lightwork.server.types import CommandView

__all__ = ["app"]


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", required=False, shell_complete=complete_command)
@click.argument("arguments", metavar="[--KEY VALUE]...", nargs=-1, type=click.UNPROCESSED)
@output_option
@asks_app
async def app(connected: ConnectedApp, name: str | None, arguments: tuple[str, ...], as_json: bool) -> None:
    """Run a command that the app defines, and print its result. Without NAME, list these commands.

    Options of `lightwork app` come before NAME. Options of the app's command come after NAME:
    lightwork app add --amount 3. `lightwork app NAME --help` shows the options of the app's command.
    """
    commands = (await connected.client.commands()).items
    if name is None:
        if as_json:
            print_json({"items": msgspec.to_builtins(commands)})
        else:
            print_table(("command", "help"), [(command.name, command.help.partition("\n")[0]) for command in commands])
        return
    command = next((command for command in commands if command.name == name), None)
    if command is None:
        raise CommandFailure(_unknown(name, [command.name for command in commands]), NOT_FOUND)
    if any(text in ("--help", "-h") for text in arguments):
        _show_help(command)
        return
    result = await connected.client.command(name, parse_options(arguments, command.parameters))
    if as_json:
        print_json({"result": result})
    elif result is not None:
        click.echo(value_text(result))


def _show_help(command: CommandView) -> None:
    shown = " ".join(
        f"--{parameter.name.replace('_', '-')} VALUE"
        if parameter.required
        else f"[--{parameter.name.replace('_', '-')} VALUE]"
        for parameter in command.parameters
    )
    click.echo(f"Usage: lightwork app {command.name} {shown}".rstrip())
    if command.help:
        click.echo(f"\n{command.help}")
    if command.parameters:
        click.echo()
        rows = [
            (
                f"--{parameter.name.replace('_', '-')}",
                parameter.type,
                "required" if parameter.required else f"default {value_text(parameter.default)}",
            )
            for parameter in command.parameters
        ]
        print_table(("option", "type", ""), rows)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"the app has no command {name!r}; did you mean {near[0]}?"
    if not known:
        return f"the app has no command {name!r}; it defines no commands"
    return f"the app has no command {name!r}; its commands are: {', '.join(known)}"
