"""``lightwork doctor``: reports missing requirements of works on this machine, and how to fix them.

The doctor checks every installed runtime, also those of other packages. A missing requirement is a problem only for a
profile that the configuration uses, not for a runtime that is only installed.
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
from lightwork.engine.workers.runtimes import installed, load_kind
from lightwork.errors import ConfigError, LightworkError
from lightwork.runtime import Diagnosable, Finding, Health
from lightwork.server.discovery import apps_folder

__all__ = ["DoctorReport", "doctor", "examine"]

_TIMEOUT = 30.0
"""Seconds that the diagnosis of one profile may take."""

_FEW_FILES = 4096
_LITTLE_SPACE, _NO_SPACE = 1 << 30, 100 << 20
_LOOPBACK = ("127.", "::1", "localhost")


class DoctorReport(msgspec.Struct, frozen=True):
    """The findings about lightwork itself or about one profile.

    Attributes:
        about: ``lightwork``, or ``runtime`` and the name of a profile.
        is_needed: Whether an app in this folder uses it by default, or the user named it.
        findings: The findings.
    """

    about: str
    is_needed: bool
    findings: list[Finding]

    @property
    def is_ill(self) -> bool:
        """Whether it is needed and has a problem."""
        return self.is_needed and any(finding.health is Health.PROBLEM for finding in self.findings)


@click.command
@click.argument("profiles", metavar="[PROFILE]...", nargs=-1)
@output_option
@click.pass_context
def doctor(ctx: click.Context, profiles: tuple[str, ...], as_json: bool) -> None:
    """Check that works can start here: Python, limits, disk space, the configuration, each runtime.

    With PROFILE, check only these runtimes or profiles of the configuration, and treat them as needed.
    The exit code is 1 if something that is needed has a problem.
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
    """Check this machine, the configuration of the working directory, and every runtime, in that order.

    Args:
        profiles: Check only these runtimes or profiles.
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
    """Return the configuration, or the defaults if it is invalid, and the finding about it."""
    try:
        config = load_config()
    except ConfigError as error:
        fix = "correct the configuration; `lightwork config view` shows the values in effect"
        return Config(), Finding("configuration", Health.PROBLEM, str(error), fix)
    path = find_config()
    return config, Finding(
        "configuration", Health.OK, "no file, only defaults and variables" if path is None else str(path)
    )


def _machine(config: Config) -> Iterator[Finding]:
    python = sys.version.split()[0]
    yield Finding("versions", Health.OK, f"lightwork {__version__}, Python {python} at {sys.executable}")
    yield _files()
    yield _space(config)
    yield _apps_folder()
    if not config.host.startswith(_LOOPBACK) and importlib.util.find_spec("cryptography") is None:
        detail = f"host {config.host} is not a loopback address, so workers need TLS; cryptography is not installed"
        yield Finding("tls", Health.PROBLEM, detail, 'pip install "lightwork[tls]", or set host = "127.0.0.1"')


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FEW_FILES:
        return Finding("open files", Health.OK, "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")
    detail = f"at most {soft}: each running work needs a few, so this is not enough for several hundred works"
    return Finding("open files", Health.WARNING, detail, f"ulimit -n {_FEW_FILES if hard < 0 else min(hard, 65536)}")


def _space(config: Config) -> Finding:
    if config.log_dir == "":
        return Finding("space for logs", Health.OK, "the output of works is not stored, because log_dir is empty")
    folder = Path(config.log_dir or LOG_DIR).absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        detail = f"{place} is not writable, so the output of works is not stored"
        return Finding("space for logs", Health.PROBLEM, detail, "run in another folder")
    free = shutil.disk_usage(place).free
    health = Health.PROBLEM if free < _NO_SPACE else Health.WARNING if free < _LITTLE_SPACE else Health.OK
    fix = "" if health is Health.OK else f"free space on the disk of {place}"
    return Finding("space for logs", health, f"{free / (1 << 30):.1f} GiB free at {place}", fix)


def _apps_folder() -> Finding:
    """Check that commands can find a running app."""
    folder = apps_folder()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("running apps", Health.OK, f"are announced in {folder}")
    fix = "set XDG_RUNTIME_DIR to a folder that you own"
    return Finding("running apps", Health.WARNING, f"{place} is not writable, so commands cannot find apps", fix)


# --- runtimes -------------------------------------------------------------------------------------


async def _runtime(config: Config, name: str, is_configured: bool) -> list[Finding]:
    """Return the findings about a profile. A runtime without a profile is checked without options."""
    kind, _ = config.profile(name)
    try:
        cls: Any = load_kind(config, name)
        options = config.options(name, cls.Options) if is_configured else None
    except ConfigError as error:
        return [Finding("configuration", Health.PROBLEM, str(error))]
    except Exception as error:  # code of other packages: an import may raise any exception
        return [Finding("installation", Health.PROBLEM, f"{kind!r} cannot be imported: {error!r}")]
    if not isinstance(cls, Diagnosable):
        return [Finding("installation", Health.OK, "is installed, and has no diagnosis")]
    try:
        async with asyncio.timeout(_TIMEOUT):
            return list(await cls.diagnose(name, options))
    except TimeoutError:
        return [Finding("answer", Health.PROBLEM, f"no answer within {_TIMEOUT:g} s")]
    except LightworkError as error:
        return [Finding("answer", Health.PROBLEM, str(error))]
    except Exception as error:  # a bug of one runtime must not hide the others
        return [Finding("answer", Health.PROBLEM, f"the diagnosis raised {error!r}")]


def _show(reports: list[DoctorReport]) -> None:
    width = max(len(finding.what) for report in reports for finding in report.findings)
    for report in reports:
        click.echo(styled(report.about, bold=True) + ("" if report.is_needed else " (not used by apps in this folder)"))
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
