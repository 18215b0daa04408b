from __future__ import annotations

import re

import click

import lightwork.cli
from lightwork.cli import cli
from tests.cli.reference import PAGE, commands, written


def test_the_page_is_what_the_commands_say() -> None:
    """docs/cli.md describes every command with its help and options. `python -m tests.cli.reference` updates it."""
    page = PAGE.read_text()
    assert page == written(page), "run python -m tests.cli.reference"


def test_every_command_of_the_list_is_there() -> None:
    """Each name in `lightwork --help` is a command with a help text."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str()


def test_every_exit_code_is_in_the_page() -> None:
    """The page explains the same exit codes as the docstring of `main`."""
    table = set(re.findall(r"^\| ([\d, ]+) \|", PAGE.read_text(), re.MULTILINE))
    listed = {int(code) for row in table for code in row.split(",")}
    told = re.findall(r"(\d+) (?:when|after)", lightwork.cli.main.__doc__ or "")
    assert listed == set(map(int, told))


def test_commands_that_ask_an_app_have_the_same_options() -> None:
    """Every command that asks a running app has --app, --url, --token and -o."""
    for words, command in commands():
        names = {option.name for option in command.params}
        if "app_name" in names:
            assert {"url", "token", "as_json"} <= names, words
