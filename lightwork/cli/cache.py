"""``lightwork cache ls`` and ``prune``: list and remove what runtimes keep to make later launches faster.

The commands ask every runtime that implements `lightwork.runtime.Caching`, also those of other packages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from typing import Any

import click
import msgspec

from lightwork.cli.output import FAILED, NOT_CONFIRMED, duration, output_option, print_json, print_table
from lightwork.config import Config, load_config
from lightwork.engine.workers.runtimes import installed, load_kind, make
from lightwork.errors import ConfigError, PlatformError
from lightwork.runtime import Cached, Caching

__all__ = ["cache", "ls", "parse_age", "prune", "size"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_PREFIXES = ("B", "kB", "MB", "GB", "TB")


class _CacheItem(msgspec.Struct, frozen=True):
    """A cache entry, and the profile that lists it."""

    profile: str
    entry: Cached

    @property
    def key(self) -> tuple[str, str, str]:
        return self.entry.place, self.entry.kind, self.entry.name


class _CacheListing(msgspec.Struct):
    """Cache entries that were found or removed, and the errors.

    Attributes:
        items: Each entry once, even if several profiles list it. The entries of a place are in the order in which they
            can be discarded.
        errors: Profile to its error. The error of one entry has the key ``PROFILE ENTRY``.
    """

    items: list[_CacheItem] = []
    errors: dict[str, str] = {}


def parse_age(text: str) -> float:
    """Return the seconds of an age such as ``45s``, ``90m``, ``12h``, ``30d`` or ``2w``.

    Raises:
        ValueError: The text is not an age.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"must be a number and a unit (s, m, h, d or w), for example 30d, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_age(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


_RUNTIME_OPTION = click.option(
    "--runtime",
    "profiles",
    metavar="PROFILE",
    multiple=True,
    help="Only entries of this runtime or profile of the configuration. Repeatable.",
)


@click.group
def cache() -> None:
    """List and remove what runtimes keep for later launches.

    Entries are environments with the requirements of works, container images, and code and wheels on other machines.
    A launch that needs a removed entry makes it again.
    """


@cache.command
@_RUNTIME_OPTION
@output_option
@click.pass_context
def ls(ctx: click.Context, profiles: tuple[str, ...], as_json: bool) -> None:
    """List the cache entries, least recently used first.

    The command asks every profile of the configuration and every other installed runtime. The exit code is 1 if a
    profile of the configuration, or a runtime named with --runtime, does not answer. Other installed runtimes that do
    not answer are skipped.
    """
    found = asyncio.run(_collect(_config(), profiles))
    if as_json:
        print_json({"items": [_plain(one) for one in _by_age(found.items)], "errors": found.errors})
    else:
        _show(found.items)
        _print_errors(found)
    ctx.exit(FAILED if found.errors else 0)


@cache.command
@click.option(
    "--older-than", metavar="AGE", callback=_age, help="Only entries that no launch has used for this long (30d)."
)
@_RUNTIME_OPTION
@click.option("--dry-run", is_flag=True, help="List what would be removed, and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@output_option
@click.pass_context
def prune(
    ctx: click.Context, older_than: float | None, profiles: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove cache entries that no work uses and no launch is making.

    AGE is a number and a unit: s, m, h, d or w. --older-than keeps entries whose last use is unknown.

    Exit codes: 0 when nothing to remove is left, 1 when an entry could not be removed or a profile does not answer,
    5 when there are entries to remove, and --dry-run or the answer no left them.
    """
    config = _config()
    found = asyncio.run(_collect(config, profiles))
    wanted = [one for one in found.items if _is_old(one.entry, older_than)]
    if not as_json:
        if wanted:
            _show(wanted)
        _print_errors(found)
    leave = dry_run or not (yes or not wanted or _ask(wanted))
    done = _CacheListing() if leave else asyncio.run(_remove(config, wanted, older_than))
    errors = {**found.errors, **done.errors}
    if as_json:
        removed, freed = [_plain(one) for one in done.items], _total(done.items)
        print_json({"items": [_plain(one) for one in wanted], "removed": removed, "freed": freed, "errors": errors})
    else:
        _print_errors(done)
        click.echo(_summary(wanted, done, found, leave))
    ctx.exit(FAILED if errors else NOT_CONFIRMED if wanted and leave else 0)


def _is_old(entry: Cached, older_than: float | None) -> bool:
    if entry.in_use:
        return False
    return older_than is None or (entry.unused_for is not None and entry.unused_for >= older_than)


def _summary(wanted: Sequence[_CacheItem], done: _CacheListing, found: _CacheListing, leave: bool) -> str:
    if not wanted:
        kept = len(found.items)
        return "nothing to remove" + (f", {kept} kept" if kept else "")
    if leave:
        return f"{len(wanted)} not removed, {size(_total(wanted))}"
    return f"{len(done.items)} of {len(wanted)} removed, {size(_total(done.items))}"


def _ask(wanted: Sequence[_CacheItem]) -> bool:
    what = "this" if len(wanted) == 1 else f"these {len(wanted)}"
    return click.confirm(f"Remove {what}, {size(_total(wanted))}?", err=True)


# --- requests to runtimes -----------------------------------------------------------------------------


def _config() -> Config:
    try:
        return load_config()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _chosen(config: Config, profiles: tuple[str, ...]) -> dict[str, bool]:
    """Return the profiles to ask, each with whether its errors are reported."""
    works = (profile.runtime for profile in config.works.values())
    configured = dict.fromkeys([config.runtime, *works, *config.runtimes])
    found: dict[str, bool] = {}
    for name in profiles or dict.fromkeys([*configured, *sorted(installed())]):
        is_needed = bool(profiles) or name in configured
        try:
            cls: Any = load_kind(config, name)
            if issubclass(cls, Caching):
                config.options(name, cls.Options)
                found[name] = is_needed
                continue
        except ConfigError as error:
            if is_needed:
                raise click.UsageError(str(error)) from error
            continue  # a runtime that needs options and has no profile keeps nothing
        except Exception:  # code of other packages: an import may raise any exception
            if is_needed:
                raise
            continue
        if profiles:
            raise click.UsageError(f"the runtime {name!r} keeps nothing")
    return found


async def _collect(config: Config, profiles: tuple[str, ...]) -> _CacheListing:
    found = _CacheListing()
    seen: set[tuple[str, str, str]] = set()
    for name, is_needed in _chosen(config, profiles).items():
        try:
            async with make(config, name) as runtime:
                assert isinstance(runtime, Caching)
                items = [_CacheItem(name, entry) for entry in await runtime.cached()]
        except (PlatformError, ConfigError) as error:
            if is_needed:
                found.errors[name] = str(error)
            continue
        found.items += [item for item in items if item.key not in seen]
        seen.update(item.key for item in items)
    return found


async def _remove(config: Config, wanted: Collection[_CacheItem], older_than: float | None) -> _CacheListing:
    """Remove the entries, except those used meanwhile. The listing contains the removed entries."""
    done = _CacheListing()
    for name in dict.fromkeys(item.profile for item in wanted):
        keys = {item.key for item in wanted if item.profile == name}
        try:
            async with make(config, name) as runtime:
                assert isinstance(runtime, Caching)
                items = [_CacheItem(name, entry) for entry in await runtime.cached()]
                for item in items:
                    if item.key in keys and _is_old(item.entry, older_than):
                        await _discard(runtime, item, done)
        except (PlatformError, ConfigError) as error:
            done.errors[name] = str(error)
    return done


async def _discard(runtime: Caching, item: _CacheItem, done: _CacheListing) -> None:
    try:
        if await runtime.discard(item.entry):
            done.items.append(item)
    except PlatformError as error:
        done.errors[f"{item.profile} {item.entry.name}"] = str(error)


# --- output -------------------------------------------------------------------------------------------


def size(number: int) -> str:
    """Format a number of bytes: ``812 B``, ``1.4 MB``."""
    value, power = float(number), 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.0f} {_PREFIXES[power]}" if power == 0 or value >= 99.5 else f"{value:.1f} {_PREFIXES[power]}"


def _total(items: Collection[_CacheItem]) -> int:
    return sum(item.entry.size for item in items)


def _by_age(items: Collection[_CacheItem]) -> list[_CacheItem]:
    return sorted(items, key=lambda item: -(item.entry.unused_for or 0.0))


def _plain(item: _CacheItem) -> dict[str, Any]:
    return {"profile": item.profile, **msgspec.to_builtins(item.entry)}


def _last_used(entry: Cached) -> str:
    if entry.in_use:
        return "in use"
    return f"{duration(entry.unused_for)} ago" if entry.unused_for is not None else "unknown"


def _show(items: Collection[_CacheItem]) -> None:
    print_table(
        ("name", "kind", "profile", "place", "size", "last used", "made of"),
        [
            (
                *(one.entry.name, one.entry.kind, one.profile, one.entry.place),
                *(size(one.entry.size), _last_used(one.entry), one.entry.detail),
            )
            for one in _by_age(items)
        ],
        right=("size", "last used"),
    )


def _print_errors(found: _CacheListing) -> None:
    for name, text in found.errors.items():
        click.echo(f"{name}: {text}", err=True)
