"""``lightwork doctor``: what is missing on this machine for works to run, and how to get it.

Every runtime that is installed is asked, other people's too. What a profile lacks that the configuration uses is
a problem; what is installed and not used may lack what it likes.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from lightwork._version import __version__
from lightwork.cli.output import FAILED, STYLES, output_option, print_json, styled
from lightwork.config import LOG_DIR, Config, find_config, load_config
from lightwork.discovery import apps_folder
from lightwork.engine.workers.runtimes import installed, load_kind
from lightwork.errors import ConfigError, LightworkError
from lightwork.runtime import Diagnosable, Finding, Health

__all__ = ["DoctorReport", "doctor", "examine"]

_WITHIN = 30.0
"""Seconds that one profile may take to look at itself."""

_FEW_FILES = 4096
_LITTLE_SPACE, _NO_SPACE = 1 << 30, 100 << 20
_LOOPBACK = ("127.", "::1", "localhost")


class DoctorReport(msgspec.Struct, frozen=True):
    """What was looked at in one place.

    Attributes:
        about: ``lightwork``, or a runtime's profile.
        is_needed: Whether an app of this folder uses it by default.
        findings: What was found.
    """

    about: str
    is_needed: bool
    findings: list[Finding]

    @property
    def is_ill(self) -> bool:
        """Whether something needed is missing."""
        return self.is_needed and any(finding.health is Health.PROBLEM for finding in self.findings)


@click.command
@click.argument("profiles", metavar="[PROFILE]...", nargs=-1)
@output_option
@click.pass_context
def doctor(ctx: click.Context, profiles: tuple[str, ...], as_json: bool) -> None:
    """Check that works can be started here: Python, limits, space, the configuration, each runtime.

    With PROFILE only these runtimes, or profiles of the configuration, and then they are needed.
    The exit code is 1 if something that is needed is missing.
    """
    reports = asyncio.run(_collect(profiles))
    if as_json:
        print_json(
            {
                "ok": not any(report.is_ill for report in reports),
                "items": [
                    {"about": report.about, "needed": report.is_needed, **msgspec.to_builtins(finding)}
                    for report in reports
                    for finding in report.findings
                ],
            }
        )
    else:
        _show(reports)
    ctx.exit(FAILED if any(report.is_ill for report in reports) else 0)


async def _collect(profiles: tuple[str, ...]) -> list[DoctorReport]:
    return [report async for report in examine(profiles)]


async def examine(profiles: tuple[str, ...] = ()) -> AsyncIterator[DoctorReport]:
    """Look at this machine, at the configuration of the working folder, and at every runtime, in that order.

    Args:
        profiles: Look at these runtimes only.
    """
    config, configured = _configuration()
    yield DoctorReport("lightwork", True, [*_machine(config), configured])
    used = {config.runtime, *(profile.runtime for profile in config.works.values())}
    names = profiles or tuple(dict.fromkeys([*sorted(used), *config.runtimes, *sorted(installed())]))
    for name in names:
        is_configured = name in used or name in config.runtimes
        yield DoctorReport(
            f"runtime {name}", bool(profiles) or name in used, await _runtime(config, name, is_configured)
        )


# --- this machine ---------------------------------------------------------------------------------


def _configuration() -> tuple[Config, Finding]:
    """The configuration, lightwork's own defaults where it is wrong."""
    try:
        config = load_config()
    except ConfigError as error:
        fix = "mend it; `lightwork config view` shows what is in force"
        return Config(), Finding("configuration", Health.PROBLEM, str(error), fix)
    path = find_config()
    return config, Finding("configuration", Health.OK, "defaults and variables only" if path is None else str(path))


def _machine(config: Config) -> Iterator[Finding]:
    python = sys.version.split()[0]
    yield Finding("versions", Health.OK, f"lightwork {__version__}, Python {python} at {sys.executable}")
    yield _files()
    yield _space(config)
    yield _known()
    if not config.host.startswith(_LOOPBACK) and importlib.util.find_spec("cryptography") is None:
        detail = f"host is {config.host}, no loopback address, so the link to works is TLS; cryptography is missing"
        yield Finding("tls", Health.PROBLEM, detail, 'pip install "lightwork[tls]", or set host = "127.0.0.1"')


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FEW_FILES:
        return Finding("open files", Health.OK, "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")
    detail = f"at most {soft}: a few for each work that runs, so some hundred works are too many"
    return Finding("open files", Health.WARNING, detail, f"ulimit -n {_FEW_FILES if hard < 0 else min(hard, 65536)}")


def _space(config: Config) -> Finding:
    if config.log_dir == "":
        return Finding("space for logs", Health.OK, "works' output is not kept: log_dir is empty")
    folder = Path(config.log_dir or LOG_DIR).absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        detail = f"{place} cannot be written, so works' output is not kept"
        return Finding("space for logs", Health.PROBLEM, detail, "run in another folder")
    free = shutil.disk_usage(place).free
    health = Health.PROBLEM if free < _NO_SPACE else Health.WARNING if free < _LITTLE_SPACE else Health.OK
    fix = "" if health is Health.OK else f"make room on the disk of {place}"
    return Finding("space for logs", health, f"{free / (1 << 30):.1f} GiB free at {place}", fix)


def _known() -> Finding:
    """Whether commands will find an app that runs."""
    folder = apps_folder()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("running apps", Health.OK, f"are known in {folder}")
    fix = "set XDG_RUNTIME_DIR to a folder of yours"
    return Finding("running apps", Health.WARNING, f"{place} cannot be written: commands will not find apps", fix)


# --- runtimes -------------------------------------------------------------------------------------


async def _runtime(config: Config, name: str, is_configured: bool) -> list[Finding]:
    """What a profile says of itself, or a runtime that nothing is configured for."""
    kind, _ = config.profile(name)
    try:
        cls: Any = load_kind(config, name)
        options = config.options(name, cls.Options) if is_configured else None
    except ConfigError as error:
        return [Finding("configuration", Health.PROBLEM, str(error))]
    except Exception as error:  # other people's code, which may raise anything when it is imported
        return [Finding("installation", Health.PROBLEM, f"{kind!r} cannot be imported: {error!r}")]
    if not isinstance(cls, Diagnosable):
        return [Finding("installation", Health.OK, "is installed, and says nothing more about itself")]
    try:
        async with asyncio.timeout(_WITHIN):
            return list(await cls.diagnose(name, options))
    except TimeoutError:
        return [Finding("answer", Health.PROBLEM, f"none within {_WITHIN:g} s")]
    except LightworkError as error:
        return [Finding("answer", Health.PROBLEM, str(error))]
    except Exception as error:  # one runtime that breaks must not hide the others
        return [Finding("answer", Health.PROBLEM, f"its diagnose raised {error!r}")]


def _show(reports: list[DoctorReport]) -> None:
    width = max(len(finding.what) for report in reports for finding in report.findings)
    for report in reports:
        click.echo(styled(report.about, bold=True) + ("" if report.is_needed else " (not used by this folder's apps)"))
        for finding in report.findings:
            health = finding.health
            if health is Health.PROBLEM and not report.is_needed:
                health = Health.WARNING
            first, *more = finding.detail.splitlines() or [""]
            click.echo(f"  {styled(f'{health:7}', **STYLES[health])}  {finding.what:{width}}  {first}")
            for line in more:
                click.echo(f"  {'':7}  {'':{width}}  {line}")
            if finding.fix:
                click.echo(f"  {'':7}  {'':{width}}  -> {finding.fix}")
