"""Translation of the engine's description of a container into a `Report`."""

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
"""Labels of a container: its owner, the digest of its spec, and its maximum lifetime in seconds."""

ABSENT = Report(Standing.ABSENT, detail="not launched on this engine, or released")

_PYTHON_MISSING = re.compile(r"executable file not found|no such file or directory", re.IGNORECASE)
_SIGNALED = 128
_NEVER = "0001-"
"""Start of the time that the engine reports for an event that has not happened."""


def report_of(container: dict[str, Any] | None, stop_asked: bool) -> Report:
    """Return the report of a container.

    Args:
        container: The engine's description, None if the container does not exist.
        stop_asked: Whether this runtime was asked to stop the container while it ran.
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
        return ABSENT  # it never ran and is being removed
    code = exit_code_of(state["ExitCode"])
    if state.get("Error") and state["ExitCode"] in (126, 127, _SIGNALED):
        return Report(Standing.EXITED, None, Cause.START_FAILED, f"{short}: {state['Error']}")
    cause = _cause(container, code, stop_asked)
    detail = short
    if state.get("OOMKilled"):
        limit = container["HostConfig"].get("Memory") or 0
        limited = f" of {limit // 2**20} MB" if limit else ""
        detail += f"; the memory{limited} was used up and a process in the container was killed"
    return Report(Standing.EXITED, code, cause, detail)


def exit_code_of(code: int) -> int:
    """Return the exit code, or minus the signal: the first process reports a signal as 128 plus its number.

    A program that itself exits with such a code looks the same.
    """
    number = code - _SIGNALED
    return -number if number in signal.valid_signals() else code


def _cause(container: dict[str, Any], code: int, stop_asked: bool) -> Cause:
    if stop_asked:
        return Cause.STOPPED
    state = container["State"]
    # The flag is also set if only a child was killed and the worker went on. Then the exit code has another cause.
    if state.get("OOMKilled") and code == -signal.SIGKILL:
        return Cause.OOM
    lifetime = container["Config"]["Labels"].get(LIFETIME)
    if lifetime and code == -signal.SIGKILL:
        lived = parse_time(state["FinishedAt"]) - parse_time(state["StartedAt"])
        if lived >= float(lifetime):
            return Cause.LIFETIME
    return Cause.EXIT


def start_failure(message: str, image: str, python: str) -> str:
    """Return the engine's error for a container that did not start, with the fix where it is known."""
    if _PYTHON_MISSING.search(message) and python in message:
        return (
            f"the image {image!r} has no {python!r}: set `python` of the profile to the path of its interpreter, or "
            f"use an image with Python ({message.strip()})"
        )
    return message.strip()
