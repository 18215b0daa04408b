"""The remote virtual environments that works run in: one for each set of requirements, created once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread

from lightwork.build import BuildConfig
from lightwork.runtime import Rejected
from lightwork_runtimes.ssh._claims import claimed
from lightwork_runtimes.ssh._options import SshOptions
from lightwork_runtimes.ssh._packages import downloaded_wheels, lightwork_wheel, pins
from lightwork_runtimes.ssh._session import Facts, Session

__all__ = ["Environment"]

_log = logging.getLogger("lightwork.runtimes.ssh")
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Environment:
    """Plans and creates the environments on one machine.

    Args:
        where: Names of profile and host for messages.
        options: The profile's options.
    """

    def __init__(self, where: str, options: SshOptions) -> None:
        self._where = where
        self._options = options
        self._warned = False

    def plan(
        self, facts: Facts, build: BuildConfig | None, cwd: str | None
    ) -> tuple[str, Callable[[Session], Awaitable[None]]]:
        """Return the environment's folder, relative to lightwork's folder there, and the function to create it.

        The folder's name is a digest of everything in the environment, so an environment never changes.
        """
        self._warn_of_images(build)
        commands: Any = [] if build is None else build.build_commands()
        if isinstance(commands, str) or not all(isinstance(command, str) for command in commands):
            raise Rejected(f"{type(build).__name__}.build_commands() must return a list of strings, not {commands!r}")
        name, data = lightwork_wheel()
        wheel = f"wheels/{hashlib.sha256(data).hexdigest()[:32]}/{name}"
        asked = [] if build is None else list(build.requirements)
        requirements = [*pins(), *asked]
        # A command may read the code at `cwd`. So may a requirement that is a path.
        reads_code = bool(commands) or any("/" in line or line.startswith(("-", ".")) for line in requirements)
        key = [wheel, sorted(requirements), commands, _PYTHON, facts["machine"], cwd if reads_code else None]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        job = {
            "digest": digest,
            "python": _PYTHON,
            "requirements": requirements,
            "commands": commands,
            "cwd": cwd,
            "made_of": {"requirements": asked, "commands": commands},
        }

        async def make(session: Session) -> None:
            await self._make(session, job, wheel, data)

        return f"venvs/{digest}", make

    def check_as_is(self, facts: Facts, build: BuildConfig | None) -> None:
        """Check the remote interpreter for a profile that prepares nothing.

        Raises:
            Rejected: It has another minor version of Python, which cannot read the scheduler's pickles; or there are
                requirements, which would not be installed.
        """
        self._warn_of_images(build)
        there = ".".join(map(str, facts["python"][:2]))
        if there != _PYTHON:
            raise Rejected(
                f"{self._where}: {facts['executable']} is Python {there}, but the scheduler has Python {_PYTHON}: "
                "works need the same minor version. Set `python` to an interpreter that has it, or prepare = true"
            )
        if build is not None and (build.requirements or build.build_commands()):
            raise Rejected(f"{self._where}: requirements and build commands need prepare = true")

    def _warn_of_images(self, build: BuildConfig | None) -> None:
        if not self._warned and build is not None and (build.image is not None or build.dockerfile is not None):
            self._warned = True
            _log.warning("%s: image and dockerfile are ignored: works run directly on the machine", self._where)

    async def _make(self, session: Session, job: dict[str, Any], wheel: str, data: bytes) -> None:
        _log.info("%s: creating the virtual environment %s", self._where, job["digest"])
        async with claimed(session, [os.path.dirname(wheel)]):
            problem = await self._try_to_make(session, job, wheel, data)
        if problem is None:
            return
        asked = job["made_of"]["requirements"]
        wanted = f" ({', '.join(map(repr, asked))})" if asked else ""
        raise Rejected(f"{self._where}: {_STEPS[problem['step']]}{wanted}: {_text(problem)}")

    async def _try_to_make(
        self, session: Session, job: dict[str, Any], wheel: str, data: bytes
    ) -> dict[str, str] | None:
        with tempfile.NamedTemporaryFile(prefix="lightwork-", suffix=".whl") as file:
            file.write(data)
            file.flush()
            await session.send({file.name: wheel})
        if self._options.wheels == "always":
            return await self._make_from_wheels(session, job, wheel)
        problem: dict[str, str] | None
        problem, _ = await session.request("make_venv", job=job, wheels=[wheel])
        if problem is not None and problem["step"] == "install" and self._options.wheels == "auto":
            text = _text(problem)
            _log.info("%s: the packages cannot be installed from there (%s); sending them", self._where, text)
            return await self._make_from_wheels(session, job, wheel, text)
        return problem

    async def _make_from_wheels(
        self, session: Session, job: dict[str, Any], wheel: str, before: str = ""
    ) -> dict[str, str] | None:
        try:
            async with downloaded_wheels(job["requirements"], session.facts, job["python"]) as folder:
                target = f"wheels/{folder.name}"
                async with claimed(session, [target]):
                    names = await anyio.to_thread.run_sync(_names, folder)
                    missing, _ = await session.request("missing", paths=[f"{target}/{name}" for name in names])
                    await session.send({f"{folder}/{Path(path).name}": path for path in missing})
                    problem: dict[str, str] | None
                    problem, _ = await session.request("make_venv", job=job, wheels=[wheel, target])
                    return problem
        except Rejected as error:
            first = f"the requirements could not be installed: {before}\n" if before else ""
            raise Rejected(f"{self._where}: {first}{error}") from None


_STEPS = {
    "venv": "the virtual environment could not be created",
    "command": "a build command failed",
    "install": "the requirements could not be installed",
    "cancelled": "creating the virtual environment was cancelled",
}


def _text(problem: dict[str, str]) -> str:
    return f"{problem['what']}: {problem['how']}\n{problem['text']}"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
