"""Check whether this machine has what the runtime `local` needs, without starting anything."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lightwork.runtime import Finding, Health
from lightwork_runtimes.local._launchdir import home_of
from lightwork_runtimes.remote.venv import find_uv

__all__ = ["look"]


def look(home: str | None, start_method: str) -> Iterator[Finding]:
    """Check the platform, the folder for launches, and the installer of environments for works with requirements."""
    if os.name != "posix":
        yield Finding("platform", Health.PROBLEM, f"{sys.platform} has no POSIX processes", "use Linux, macOS or WSL")
        return
    method = start_method if start_method != "auto" else "fork" if sys.platform == "linux" else "spawn"
    yield Finding("platform", Health.OK, f"{sys.platform}, works are started by {method}")
    yield _folder(home_of(home))
    installer = "uv" if find_uv() else "pip" if importlib.util.find_spec("pip") else None
    if installer is None:
        yield Finding(
            "installer",
            Health.WARNING,
            "neither uv nor pip is installed, so a work with requirements cannot start",
            "run `pip install uv` or `python -m ensurepip`",
        )
    else:
        yield Finding("installer", Health.OK, f"{installer} makes the environments of works with requirements")


def _folder(home: Path) -> Finding:
    fix = "set `home` of the profile to a folder that you own and can write"
    if home.exists():
        info = home.lstat()
        if info.st_uid != os.getuid():
            return Finding("folder", Health.PROBLEM, f"{home} belongs to user {info.st_uid}", fix)
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("folder", Health.PROBLEM, f"{place} cannot be written", fix)
    return Finding("folder", Health.OK, str(home))
