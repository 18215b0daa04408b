"""``lightwork cloud ls`` and ``gc``: list the machines that runtimes made for works, and give back unused machines.

The commands ask every profile whose runtime implements `lightwork.runtime.Inventory`, also runtimes of other packages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import click
import msgspec

from lightwork.cli.output import FAILED, NOT_CONFIRMED, duration, output_option, print_json, print_table
from lightwork.config import Config, load_config
from lightwork.engine.workers.runtimes import load_kind, make
from lightwork.errors import ConfigError, PlatformError
from lightwork.runtime import Holding, Inventory

__all__ = ["cloud", "gc", "ls"]

_APP = {True: "lives", False: "dead", None: "elsewhere"}


class _MachineListing(msgspec.Struct):
    """Machines that were found or given back, and the errors.

    Attributes:
        holdings: Each machine once, even if several profiles list it.
        errors: Profile to its error. The error of one machine has the key ``PROFILE ID``.
    """

    holdings: list[Holding] = []
    errors: dict[str, str] = {}


@click.group
def cloud() -> None:
    """List and give back machines that were made for works.

    The commands ask the profiles of the configuration that make machines, for example those of kind cloud.
    """


@cloud.command
@click.argument("profiles", metavar="[PROFILE]...", nargs=-1)
@output_option
@click.pass_context
def ls(ctx: click.Context, profiles: tuple[str, ...], as_json: bool) -> None:
    """List the machines, oldest first.

    The column app shows the status of the app that a machine was made for: lives, dead, or elsewhere (started on
    another machine, so unknown). The exit code is 1 if a profile does not answer.
    """
    config = _config()
    found = asyncio.run(_collect(config, _chosen(config, profiles)))
    if as_json:
        print_json({"items": [_plain(one) for one in found.holdings], "errors": found.errors})
    else:
        _show(found.holdings)
        _print_errors(found)
    ctx.exit(FAILED if found.errors else 0)


@cloud.command
@click.argument("profiles", metavar="[PROFILE]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="List what would be given back, and give back nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--elsewhere", is_flag=True, help="Also give back machines of apps that were started on other machines.")
@output_option
@click.pass_context
def gc(ctx: click.Context, profiles: tuple[str, ...], dry_run: bool, yes: bool, elsewhere: bool, as_json: bool) -> None:
    """Give back the machines of apps that are dead.

    Exit codes: 0 when no such machine is left, 1 when one could not be given back or a profile does not answer,
    5 when there are such machines, and --dry-run or the answer no left them.
    """
    config = _config()
    names = _chosen(config, profiles)
    found = asyncio.run(_collect(config, names))
    wanted = [one for one in found.holdings if one.is_wanted is False or (elsewhere and one.is_wanted is None)]
    if not as_json:
        if wanted:
            _show(wanted)
        _print_errors(found)
    leave = dry_run or not (yes or not wanted or _ask(wanted))
    done = _MachineListing() if leave else asyncio.run(_give_back(config, names, wanted))
    errors = {**found.errors, **done.errors}
    if as_json:
        given = [_plain(one) for one in done.holdings]
        print_json({"items": [_plain(one) for one in wanted], "given_back": given, "errors": errors})
    else:
        _print_errors(done)
        click.echo(_summary(wanted, done, found, leave))
    ctx.exit(FAILED if errors else NOT_CONFIRMED if wanted and leave else 0)


def _summary(wanted: Sequence[Holding], done: _MachineListing, found: _MachineListing, leave: bool) -> str:
    if not wanted:
        kept = len(found.holdings)
        return "nothing to give back" + (f"; {kept} machines are kept" if kept else "")
    return f"{len(wanted)} not given back" if leave else f"{len(done.holdings)} of {len(wanted)} given back"


def _ask(wanted: Sequence[Holding]) -> bool:
    what = "this machine" if len(wanted) == 1 else f"these {len(wanted)} machines"
    return click.confirm(f"Give {what} back?", err=True)


# --- requests to runtimes -----------------------------------------------------------------------------


def _config() -> Config:
    try:
        return load_config()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _chosen(config: Config, profiles: tuple[str, ...]) -> list[str]:
    """Return the profiles to ask."""
    found = []
    for name in profiles or tuple(config.runtimes):
        try:
            cls: Any = load_kind(config, name)
            if issubclass(cls, Inventory):
                config.options(name, cls.Options)
                found.append(name)
                continue
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        if profiles:
            raise click.UsageError(f"the runtime of profile {name!r} does not make machines")
    if not found:
        raise click.UsageError(
            "no profile of the configuration makes machines; add a section [runtimes.NAME] with kind = 'cloud'"
        )
    return found


async def _collect(config: Config, profiles: Sequence[str]) -> _MachineListing:
    found = _MachineListing()
    seen: set[tuple[str, str]] = set()
    for name in profiles:
        try:
            async with make(config, name) as runtime:
                assert isinstance(runtime, Inventory)
                for one in await runtime.holdings():
                    if (one.place, one.id) not in seen:
                        seen.add((one.place, one.id))
                        found.holdings.append(one)
        except (PlatformError, ConfigError) as error:
            found.errors[name] = str(error)
    found.holdings.sort(key=lambda one: -(one.age or 0.0))
    return found


async def _give_back(config: Config, profiles: Sequence[str], wanted: Collection[Holding]) -> _MachineListing:
    """Give back the machines, except those whose app lives again. The listing contains the machines given back."""
    done = _MachineListing()
    for name in profiles:
        ids = {one.id for one in wanted if one.ref.runtime == name}
        try:
            async with make(config, name) as runtime:
                assert isinstance(runtime, Inventory)
                still = [one for one in await runtime.holdings() if one.id in ids and not one.is_wanted]
                results = await asyncio.gather(*(runtime.release(one.ref) for one in still), return_exceptions=True)
        except (PlatformError, ConfigError) as error:
            done.errors[name] = str(error)
            continue
        for one, result in zip(still, results, strict=True):
            if result is None:
                done.holdings.append(one)
            elif isinstance(result, PlatformError | ExceptionGroup):
                done.errors[f"{name} {one.id}"] = _message(result)
            else:
                raise result
    return done


def _message(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_message(each) for each in error.exceptions)
    return str(error)


# --- output -------------------------------------------------------------------------------------------


def _plain(one: Holding) -> dict[str, Any]:
    return {
        "profile": one.ref.runtime,
        "id": one.id,
        "place": one.place,
        "owner": one.owner,
        "work": one.work,
        "name": one.ref.name,
        "size": one.size,
        "state": one.state,
        "age": one.age,
        "app": _APP[one.is_wanted],
    }


def _show(holdings: Sequence[Holding]) -> None:
    print_table(
        ("machine", "profile", "owner", "work", "size", "state", "age", "app"),
        [
            (
                *(one.id, one.ref.runtime, one.owner, one.work, one.size, one.state),
                *(duration(one.age), _APP[one.is_wanted]),
            )
            for one in holdings
        ],
        right=("age",),
    )


def _print_errors(found: _MachineListing) -> None:
    for name, text in found.errors.items():
        click.echo(f"{name}: {text}", err=True)
