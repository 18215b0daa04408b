"""What the engine's word on a container means in the seam's terms."""

from __future__ import annotations

import re
import signal
from typing import Any

from lightwork.runtime import Cause, Report, Standing
from lightwork_runtimes.docker._engine import parse_time

__all__ = ["ABSENT", "DIGEST", "LIFETIME", "OWNER", "report_of", "start_failure"]

OWNER = "lightwork.owner"
DIGEST = "lightwork.digest"
LIFETIME = "lightwork.lifetime"
"""Labels of a container: whose it is, of which spec it was made, and the seconds that it may live."""

ABSENT = Report(Standing.ABSENT, detail="not launched on this engine, or released")

_PYTHON_MISSING = re.compile(r"executable file not found|no such file or directory", re.IGNORECASE)
_SIGNALED = 128
_NEVER = "0001-"
"""What the engine's times begin with for what has not happened."""


def report_of(container: dict[str, Any] | None, stop_asked: bool) -> Report:
    """What became of a container.

    Args:
        container: As the engine describes it, None if it is not there.
        stop_asked: Whether this runtime was told to stop it while it ran.
    """
    if container is None or OWNER not in (container["Config"].get("Labels") or {}):
        return ABSENT
    state = container["State"]
    short = f"container {container['Id'][:12]}"
    match state["Status"]:
        case "created" if state.get("ExitCode") or state.get("Error"):
            return Report(
                Standing.EXITED, None, Cause.START_FAILED, f"{short}: {state.get('Error') or 'did not start'}"
            )
        case "created":
            return Report(Standing.PENDING, detail=short)
        case "running" | "paused" | "restarting":
            return Report(Standing.RUNNING, detail=short)
    if state["StartedAt"].startswith(_NEVER):
        return ABSENT  # it is being removed and never ran
    code = exit_code_of(state["ExitCode"])
    if state.get("Error") and state["ExitCode"] in (126, 127, _SIGNALED):
        return Report(Standing.EXITED, None, Cause.START_FAILED, f"{short}: {state['Error']}")
    cause = _cause(container, code, stop_asked)
    detail = short
    if state.get("OOMKilled"):
        limit = container["HostConfig"].get("Memory") or 0
        limited = f" of {limit // 2**20} MB" if limit else ""
        detail += f"; a process in it was ended because the memory{limited} was used up"
    return Report(Standing.EXITED, code, cause, detail)


def exit_code_of(code: int) -> int:
    """The exit code, or minus the signal: the first process passes on a signal as 128 and its number.

    A program that exits with such a code itself cannot be told apart.
    """
    number = code - _SIGNALED
    return -number if number in signal.valid_signals() else code


def _cause(container: dict[str, Any], code: int, stop_asked: bool) -> Cause:
    if stop_asked:
        return Cause.STOPPED
    state = container["State"]
    # Also set where a child alone was ended, and the worker went on: then the exit code says nothing of it.
    if state.get("OOMKilled") and code == -signal.SIGKILL:
        return Cause.OOM
    lifetime = container["Config"]["Labels"].get(LIFETIME)
    if lifetime and code == -signal.SIGKILL:
        lived = parse_time(state["FinishedAt"]) - parse_time(state["StartedAt"])
        if lived >= float(lifetime):
            return Cause.LIFETIME
    return Cause.EXIT


def start_failure(message: str, image: str, python: str) -> str:
    """What the engine said when a container did not start, for people."""
    if _PYTHON_MISSING.search(message) and python in message:
        return (
            f"the image {image!r} has no {python!r}: set `python` of the profile to the path of its interpreter, or "
            f"use an image with Python ({message.strip()})"
        )
    return message.strip()
