"""``lightwork config view``: shows every key of the configuration, its value, and the source of the value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from lightwork.cli.output import output_option, print_json, print_table
from lightwork.config import Origin, find_config, load_config
from lightwork.errors import ConfigError

__all__ = ["config", "hidden", "view"]

_SECRET = re.compile(
    r"(^|[_.-])(token|password|passphrase|passwd|secret|credentials?|auth|key|apikey)s?([_.-]|$)", re.IGNORECASE
)
_NO_SECRET = frozenset({"client_keys"})  # names of files, not their content
_REFERENCE = re.compile(r"(env|file):\S+")  # the location of a secret, not the secret
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
_HIDDEN = "********"


@click.group
def config() -> None:
    """Show the configuration."""


@config.command
@click.option(
    "--file", metavar="FILE", type=click.Path(dir_okay=False), help="Read this file instead of the default file."
)
@click.option("--changed", is_flag=True, help="Leave out keys with their default value.")
@output_option
def view(file: str | None, changed: bool, as_json: bool) -> None:
    """Show every key with its value and the source of the value.

    The sources are the defaults, the configuration file and the LIGHTWORK_* variables, as for an app in this folder.
    The code of an app and the options of `lightwork run` can override these values. Values that look secret are hidden.
    """
    try:
        loaded = load_config(file=file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    path = Path(file) if file else find_config()
    rows = [hidden(origin) for origin in loaded.explained() if not changed or origin.where != "default"]
    if as_json:
        items = [{"key": row.key, "value": row.value, "where": row.where} for row in rows]
        print_json({"file": None if path is None else str(path.absolute()), "items": items})
        return
    if path is None:
        click.echo("no lightwork.toml or pyproject.toml found in this folder or above it", err=True)
    print_table(("key", "value", "where"), [(row.key, _text(row.value), row.where) for row in rows])


def hidden(origin: Origin) -> Origin:
    """Return a copy with secrets masked: values whose key looks secret, and logins in URLs."""
    return origin._replace(value=_masked(origin.key.rpartition(".")[2], origin.value))


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _masked(inner, below) for inner, below in value.items()}
    if isinstance(value, list) and not _is_secret(key):
        return [_masked("", below) for below in value]
    if _is_secret(key):
        is_reference = isinstance(value, str) and _REFERENCE.fullmatch(value)
        return _HIDDEN if value and not is_reference else value
    return _LOGIN.sub(f"{_HIDDEN}@", value) if isinstance(value, str) else value


def _is_secret(key: str) -> bool:
    return key not in _NO_SECRET and _SECRET.search(key) is not None


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
