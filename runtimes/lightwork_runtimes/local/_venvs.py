"""The virtual environments that works with requirements run in: one for each set, made once and kept.

The name of an environment is a digest of all that went into it. So an environment never changes, and works that want
the same one share it. `lightwork_runtimes.remote.venv` makes it, in a process of its own. Within one runtime a single
launch runs the maker, and the others wait for it. Several schedulers wait for each other at the maker's lock. An
environment in use is held (`lightwork_runtimes.remote.kept`), and so is not removed.
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
"""Seconds that a maker has to kill its installer and to remove what is half-made, when it is broken off."""

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
"""The maker is imported from where it is, without the packages that are around it."""

_STEPS = {
    "venv": "no virtual environment could be made in {folder}",
    "command": "the build command {what!r} failed",
    "install": "the requirements {wanted} could not be installed",
}
_SHOWN = 20
_KIND = "environment"


class _Job(msgspec.Struct, frozen=True):
    """What the maker is told; see `lightwork_runtimes.remote.venv`."""

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
    """One run of the maker. `error` is why there is no environment; None also if it was broken off."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.error: RuntimeFailure | None = None


class Venvs:
    """Finds and makes the environments below one folder.

    Args:
        folder: Where they are; None for ``lightwork/venvs`` in the user's folder for caches.

    Attributes:
        folder: The same, absolute.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = str(Path(folder or kept.cache_folder("venvs")).absolute())
        self._makings: dict[str, _Making] = {}
        self._warned = False

    @contextlib.asynccontextmanager
    async def held(self, build: BuildConfig | None, cwd: str | None) -> AsyncIterator[str | None]:
        """As `ready`; nobody removes the environment from the first look at it until the context is left."""
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
            kept.discard(self.folder, os.path.basename(folder))  # what lies beside it

    async def cached(self) -> Sequence[Cached]:
        """Every environment that is there; see `lightwork.runtime.Caching`."""
        found = await anyio.to_thread.run_sync(kept.entries, self.folder, _KIND)
        return [msgspec.convert({**entry, "place": self.folder}, Cached) for entry in found]

    async def discard(self, entry: Cached) -> bool:
        """Remove an environment unless it is in use or being made; says whether it is gone."""
        if (entry.kind, entry.place) != (_KIND, self.folder):
            return True
        try:
            return await anyio.to_thread.run_sync(kept.discard, self.folder, entry.name)
        except OSError as error:
            raise RuntimeFailure(f"{self.folder}/{entry.name} could not be removed: {error}") from error

    async def ready(self, build: BuildConfig | None, cwd: str | None) -> str | None:
        """The folder of the environment for `build`, made if need be; None if `build` asks for none.

        Args:
            build: What to install.
            cwd: Folder in which commands run and to which paths in requirements are relative.

        Raises:
            Rejected: A command failed, or the requirements cannot be installed; with the last lines of
                what pip or uv said.
            NoCapacity: The maker broke, for instance because the disk is full.
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
            raise Rejected(f"{type(build).__name__}.build_commands() must return a list of strings, not {commands!r}")
        folder = cwd or os.getcwd()
        if not os.path.isdir(folder):
            raise Rejected(f"cwd {folder!r} is not a folder")
        return self._job(list(build.requirements), list(commands), folder)

    def _warn_of_images(self, build: BuildConfig) -> None:
        if not self._warned and (build.image is not None or build.dockerfile is not None):
            self._warned = True
            _log.warning("the runtime `local` runs works on this machine as it is: image and dockerfile are not used")

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
    """Run the maker to its end; cancelled, it ends with its installer and leaves nothing half-made."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-c", _MAKER, os.path.dirname(remote.__file__)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the scheduler, which then breaks it off
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        said = await process.stdout.read()
        code = await process.wait()
    finally:
        process.stdin.close()  # if it still runs, this breaks it off
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
        raise NoCapacity(f"the environment {job.folder} could not be made (exit code {code}):\n{text}")


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
    """Folders of packages of this interpreter, best first."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [folder for folder in [*user, *site.getsitepackages()] if os.path.isdir(folder)]


def _absolute(line: str, cwd: str) -> str:
    """The line of a requirements file with the relative path in it, if there is one, made absolute.

    pip and uv look for relative paths in different folders.
    """
    found = _PATH_IN_LINE.fullmatch(line)
    if found is None:
        return line
    option, path, rest = found.groups(default="")
    whole = os.path.normpath(os.path.join(cwd, path))
    is_path = bool(option) or path.startswith(".") or "/" in path
    return f"{option}{whole}{rest}" if is_path and not os.path.isabs(path) and os.path.exists(whole) else line


def _stamp_of(requirement: str) -> list[int]:
    """Size and time of the file that the requirement is, so that another file of its name is noticed."""
    text = (requirement.partition(" @ ")[2] or requirement).partition(";")[0].partition("#")[0].strip()
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    if not os.path.isabs(text):
        return []
    try:
        info = os.stat(text)
    except OSError:  # whoever installs it will say what is wrong
        return []
    return [info.st_size, info.st_mtime_ns] if stat.S_ISREG(info.st_mode) else []
