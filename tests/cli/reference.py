"""Writes the reference part of docs/cli.md from the commands themselves: ``python -m tests.cli.reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from lightwork.cli import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN = "<!-- from here on written by python -m tests.cli.reference -->\n"

COMMON = {"app_name", "url", "token", "as_json", "help"}
"""Options that many commands have. The page describes them once."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, without groups and aliases."""
    context = click.Context(cli)
    seen: set[int] = set()
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        members = [(f"{name} {inner}", below) for inner, below in getattr(command, "commands", {}).items()]
        for words, one in members or [(name, command)]:
            # `ls` is an alias of `ps`: only the command's own name is described.
            if id(one) not in seen and (members or one.name == name):
                seen.add(id(one))
                yield words, one


def reference() -> str:
    """Return the reference: each command with its help and its own options."""
    return "\n".join(_describe(words, command) for words, command in commands())


def _describe(words: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"lightwork {words}")
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    lines = [f"### lightwork {words}", "", f"`lightwork {words} {usage}`".replace(" `", "`"), ""]
    help_text = inspect.cleandoc(command.help or "").split("\f")[0]
    verbatim = False
    for line in help_text.splitlines():
        if line == "\b":
            verbatim = True
            lines.append("```")
            continue
        if verbatim and not line:
            verbatim = False
            lines.append("```")
        lines.append(line)
    lines += ["```", ""] if verbatim else [""]
    rows = [_option(option, context) for option in command.params if _is_shown(option)]
    if rows:
        lines += ["| option | |", "|---|---|", *rows, ""]
    shared = [option.opts[0] for option in command.params if option.name in ("app_name", "as_json")]
    if shared:
        lines += [f"Common options: {', '.join(_SHARED[name] for name in sorted(shared))}.", ""]
    return "\n".join(lines)


_SHARED = {"--app": "[`--app`, `--url`, `--token`](#selecting-the-app)", "-o": "[`-o json`](#output)"}


def _is_shown(option: click.Parameter) -> bool:
    return isinstance(option, click.Option) and option.name not in COMMON


def _option(option: click.Parameter, context: click.Context) -> str:
    assert isinstance(option, click.Option)
    record = option.get_help_record(context)
    assert record is not None
    names, text = record
    cells = (re.sub(" +", " ", names), text)
    names, text = (cell.replace("|", "\\|") for cell in cells)
    return f"| `{names}` | {text} |"


def written(page: str) -> str:
    """Return the page with a current reference."""
    head, found, _ = page.partition(BEGIN)
    assert found, f"docs/cli.md has no line {BEGIN!r}"
    return f"{head}{BEGIN}\n{reference()}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
