"""The virtual environments of works with requirements: one for each set of requirements, made once and kept.

The name of an environment is a digest of everything that it was made from. So an environment never changes, and works
with the same requirements share it. `lightwork_runtimes.remote.venv`, the maker, makes it in a separate process. Within
one runtime a single launch runs the maker, and the others wait for it. Several schedulers wait for each other at the
maker's lock. An environment in use is held (`lightwork_runtimes.remote.kept`), so it is not removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import site
import stat
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread
import msgspec

from lightwork.build import BuildConfig
from lightwork.runtime import Cached, NoCapacity, Rejected, RuntimeFailure
from lightwork_runtimes import remote
from lightwork_runtimes.remote import kept
from lightwork_runtimes.remote.venv import find_uv

__all__ = ["Venvs"]

_CLEAN_WITHIN = 30.0
"""Seconds that an aborted maker has to kill its installer and to remove the half-made environment."""

_PATH_IN_LINE = re.compile(
    r"((?:-[rcef]|--(?:requirement|constraint|editable|find-links))(?:\s+|\s*=\s*))?([^\s;\[]+)(.*)"
)

_log = logging.getLogger("lightwork.runtimes.local")


_MAKER = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
folder = sys.argv[1]
found = spec_from_file_location("remote", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["remote"] = module_from_spec(found)
from remote.venv import main
sys.exit(main())
"""
"""Code that imports the maker from its folder, without the packages around it."""

_STEPS = {
    "venv": "cannot make a virtual environment in {folder}",
    "command": "the build command {what!r} failed",
    "install": "cannot install the requirements {wanted}",
}
_SHOWN = 20
_KIND = "environment"


class _Job(msgspec.Struct, frozen=True):
    """The job of the maker; see `lightwork_runtimes.remote.venv`."""

    folder: str
    requirements: list[str]
    commands: list[str]
    uv: str | None
    site: list[str]
    cwd: str
    made_of: dict[str, object]
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    seeds: bool = True
    options: list[str] = []
    env: dict[str, str] = {}


class _Making:
    """One run of the maker. `error` is why it failed; None if it succeeded or was aborted."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.error: RuntimeFailure | None = None


class Venvs:
    """Finds and makes the environments in one folder.

    Args:
        folder: Folder of the environments; None for ``lightwork/venvs`` in the user's cache folder.

    Attributes:
        folder: The same folder, absolute.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = str(Path(folder or kept.cache_folder("venvs")).absolute())
        self._makings: dict[str, _Making] = {}
        self._warned = False

    @contextlib.asynccontextmanager
    async def held(self, build: BuildConfig | None, cwd: str | None) -> AsyncIterator[str | None]:
        """Do the same as `ready`, and hold the environment, so that it is not removed until the context is left."""
        job = None if build is None else self._job_for(build, cwd)
        if job is None:
            yield None
            return
        claim = kept.claim(job.folder)
        try:
            yield await self._ready(job)
        finally:
            self._let_go(job.folder, claim)

    def _let_go(self, folder: str, claim: int) -> None:
        os.close(claim)
        if not os.path.isdir(folder):
            kept.discard(self.folder, os.path.basename(folder))  # the files beside it

    async def cached(self) -> Sequence[Cached]:
        """Return every environment; see `lightwork.runtime.Caching`."""
        found = await anyio.to_thread.run_sync(kept.entries, self.folder, _KIND)
        return [msgspec.convert({**entry, "place": self.folder}, Cached) for entry in found]

    async def discard(self, entry: Cached) -> bool:
        """Remove an environment, unless it is in use or being made. Return whether it is gone."""
        if (entry.kind, entry.place) != (_KIND, self.folder):
            return True
        try:
            return await anyio.to_thread.run_sync(kept.discard, self.folder, entry.name)
        except OSError as error:
            raise RuntimeFailure(f"cannot remove {self.folder}/{entry.name}: {error}") from error

    async def ready(self, build: BuildConfig | None, cwd: str | None) -> str | None:
        """Return the folder of the environment for `build`; make it if needed. None if `build` needs no environment.

        Args:
            build: What to install.
            cwd: Folder in which commands run and to which paths in requirements are relative.

        Raises:
            Rejected: A command failed, or the requirements cannot be installed. The message has the last lines of the
                output of pip or uv.
            NoCapacity: The maker failed, for example because the disk is full.
        """
        job = None if build is None else self._job_for(build, cwd)
        return None if job is None else await self._ready(job)

    async def _ready(self, job: _Job) -> str:
        while not _is_complete(job.folder):
            making = self._makings.get(job.folder)
            if making is None:
                await self._make(job)
                continue
            await making.over.wait()
            if making.error is not None:
                raise type(making.error)(str(making.error))
        return job.folder

    def _job_for(self, build: BuildConfig, cwd: str | None) -> _Job | None:
        self._warn_of_images(build)
        commands: object = build.build_commands()
        if not build.requirements and not commands:
            return None
        if not isinstance(commands, list | tuple) or not all(isinstance(command, str) for command in commands):
            raise Rejected(f"{type(build).__name__}.build_commands() must return a list of strings, got {commands!r}")
        folder = cwd or os.getcwd()
        if not os.path.isdir(folder):
            raise Rejected(f"cwd must be an existing folder, got {folder!r}")
        return self._job(list(build.requirements), list(commands), folder)

    def _warn_of_images(self, build: BuildConfig) -> None:
        if not self._warned and (build.image is not None or build.dockerfile is not None):
            self._warned = True
            _log.warning("the runtime `local` ignores image and dockerfile: it runs works directly on this machine")

    def _job(self, requirements: list[str], commands: list[str], cwd: str) -> _Job:
        packages = _packages()
        requirements = [_absolute(line, cwd) for line in requirements]
        facts: dict[str, object] = {
            "requirements": sorted(requirements),
            "commands": commands,
            "python": [sys.version, sys.executable, sysconfig.get_platform()],
            "packages": packages,
            "files": [_stamp_of(line) for line in sorted(requirements)],
        }
        if commands:
            facts["cwd"] = cwd
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        made_of: dict[str, object] = {"requirements": requirements, "commands": commands, "python": sys.version}
        return _Job(f"{self.folder}/{digest}", requirements, commands, find_uv(), packages, cwd, made_of)

    async def _make(self, job: _Job) -> None:
        making = self._makings[job.folder] = _Making()
        try:
            await _run_maker(job)
        except RuntimeFailure as error:
            making.error = error
            raise
        finally:
            del self._makings[job.folder]
            making.over.set()


async def _run_maker(job: _Job) -> None:
    """Run the maker to its end. Cancelling kills its installer and leaves no half-made environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-c", _MAKER, os.path.dirname(remote.__file__)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the scheduler, which then aborts the maker
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        said = await process.stdout.read()
        code = await process.wait()
    finally:
        process.stdin.close()  # this aborts the maker if it still runs
        if process.returncode is None:
            with anyio.move_on_after(_CLEAN_WITHIN, shield=True):
                await process.stdout.read()
                await process.wait()
        if process.returncode is None:
            process.kill()
    text = said.decode("utf-8", "replace").strip()
    problem = json.loads(text.splitlines()[-1]) if code == 0 and text else None
    if problem is not None:
        raise Rejected(_explain(job, problem))
    if code:
        raise NoCapacity(f"cannot make the environment {job.folder} (exit code {code}):\n{text}")


def _explain(job: _Job, problem: dict[str, str]) -> str:
    shown = [repr(line) for line in job.requirements[:_SHOWN]]
    if len(job.requirements) > _SHOWN:
        shown.append(f"and {len(job.requirements) - _SHOWN} more")
    failure = _STEPS[problem["step"]].format(folder=job.folder, what=problem["what"], wanted=", ".join(shown))
    tool = "sh" if problem["step"] == "command" else problem["what"]
    return f"{failure} ({tool}: {problem['how']}):\n{problem['text']}"


def _is_complete(folder: str) -> bool:
    return os.path.exists(f"{folder}/{kept.MARKER}")


def _packages() -> list[str]:
    """Return the package folders of this interpreter, first the one that is searched first."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [folder for folder in [*user, *site.getsitepackages()] if os.path.isdir(folder)]


def _absolute(line: str, cwd: str) -> str:
    """Return the line of a requirements file with its relative path, if any, made absolute.

    pip and uv resolve relative paths from different folders.
    """
    found = _PATH_IN_LINE.fullmatch(line)
    if found is None:
        return line
    option, path, rest = found.groups(default="")
    whole = os.path.normpath(os.path.join(cwd, path))
    is_path = bool(option) or path.startswith(".") or "/" in path
    return f"{option}{whole}{rest}" if is_path and not os.path.isabs(path) and os.path.exists(whole) else line


def _stamp_of(requirement: str) -> list[int]:
    """Return size and time of a requirement that is a file, so that a changed file makes another environment."""
    text = (requirement.partition(" @ ")[2] or requirement).partition(";")[0].partition("#")[0].strip()
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    if not os.path.isabs(text):
        return []
    try:
        info = os.stat(text)
    except OSError:  # the installer will report the error
        return []
    return [info.st_size, info.st_mtime_ns] if stat.S_ISREG(info.st_mode) else []
