"""Parses the arguments of calls and commands on a command line: ``name=value``, ``--name value``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lightwork.cli.settings import parse_value, with_article

if TYPE_CHECKING:
    from lightwork.server.types import Parameter

__all__ = ["parse_arguments", "parse_options"]

_SAMPLES: dict[str, Any] = {"bool": False, "int": 0, "float": 0.0, "str": ""}


def parse_arguments(texts: Sequence[str], parameters: Sequence[Parameter]) -> tuple[list[Any], dict[str, Any]]:
    """Parse the arguments of a call into positional and named arguments.

    ``name=value`` is a named argument, everything else is positional. A value is parsed as the type of its parameter
    if the type is bool, int, float or str. Otherwise it is parsed as JSON, and kept as text if it is not valid JSON.

    Raises:
        click.UsageError: A value does not have the type of its parameter, or a positional argument follows a named one.
    """
    known = {parameter.name: parameter for parameter in parameters}
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = _typed(name, value, known.get(name))
        elif kwargs:
            raise click.UsageError(f"the positional argument {text!r} follows a named argument; write NAME={text}")
        else:
            parameter = parameters[len(args)] if len(args) < len(parameters) else None
            args.append(_typed(parameter.name if parameter else f"argument {len(args) + 1}", text, parameter))
    return args, kwargs


def parse_options(texts: Sequence[str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Parse the arguments of an app's command: ``--name value``, ``--name=value``, ``--flag``, ``--no-flag``.

    A value without ``--name`` is assigned to the first parameter that has no value yet. Types are as in
    `parse_arguments`.

    Raises:
        click.UsageError: An option is unknown, a required parameter is missing, or a value does not have the type of
            its parameter.
    """
    known = {parameter.name: parameter for parameter in parameters}
    given: dict[str, Any] = {}
    waiting = list(texts)
    while waiting:
        text = waiting.pop(0)
        if not text.startswith("--") or text == "--":
            free = [name for name in known if name not in given]
            if not free:
                raise click.UsageError(f"too many arguments: {text!r} belongs to no parameter")
            given[free[0]] = _typed(free[0], text, known[free[0]])
            continue
        name, equals, value = text[2:].partition("=")
        name = name.replace("-", "_")
        if not equals and name.startswith("no_") and _is_flag(known.get(name[3:])):
            given[name[3:]] = False
            continue
        if name not in known:
            raise click.UsageError(f"unknown option --{name.replace('_', '-')}; {_hint(name, known)}")
        if not equals and _is_flag(known[name]) and not (waiting and waiting[0].lower() in ("true", "false")):
            given[name] = True
            continue
        if not equals:
            if not waiting:
                raise click.UsageError(f"--{name.replace('_', '-')} needs a value")
            value = waiting.pop(0)
        given[name] = _typed(name, value, known[name])
    missing = [parameter.name for parameter in parameters if parameter.required and parameter.name not in given]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise click.UsageError(f"missing required options: {options}")
    return given


def _is_flag(parameter: Parameter | None) -> bool:
    return parameter is not None and parameter.type == "bool"


def _typed(name: str, text: str, parameter: Parameter | None) -> Any:
    sample = None if parameter is None else _SAMPLES.get(parameter.type)
    try:
        return parse_value(text, sample)
    except (ValueError, OverflowError):
        assert parameter is not None
        raise click.UsageError(f"{name} must be {with_article(parameter.type)}, got {text!r}") from None


def _hint(name: str, known: dict[str, Any]) -> str:
    """Return the nearest option, or else all options."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean --{near[0].replace('_', '-')}?"
    return f"the parameters are: {json.dumps(sorted(known))[1:-1]}" if known else "the command has no options"
