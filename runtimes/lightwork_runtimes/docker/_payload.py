"""The parts of an image besides the app: lightwork itself, its dependencies, and the requirements of the work.

Everything is below ``/opt/lightwork``. On the import path, ``code`` and ``requirements`` come before the image's own
packages. ``packages``, with the dependencies of lightwork, comes after them. So the image or the work decides over
versions, not lightwork. A ``.pth`` file in the image's site-packages sets this path for every process of that Python.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import IO

import msgspec

from lightwork.runtime import Rejected

__all__ = [
    "CODE",
    "PACKAGES",
    "PROBE",
    "REQUIREMENTS",
    "START",
    "Facts",
    "Payload",
    "add_bytes",
    "install_here",
    "load_payload",
    "tar_tree",
]

ROOT = "/opt/lightwork"
CODE, PACKAGES, REQUIREMENTS, START = f"{ROOT}/code", f"{ROOT}/packages", f"{ROOT}/requirements", f"{ROOT}/start.py"

PROBE = """
import json, sys, sysconfig
print(json.dumps({"version": list(sys.version_info[:3]), "soabi": sysconfig.get_config_var("SOABI") or "",
                  "purelib": sysconfig.get_path("purelib")}))
"""
"""Prints the `Facts` of an interpreter. Old versions of Python must run it too, so that they can be reported."""

_PTH = f"import sys; sys.path[0:0] = [{CODE!r}, {REQUIREMENTS!r}]\n{PACKAGES}\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEPT_LINES = 25
_AT_HOME = {"click", "rich"}
"""Dependencies of the command line and the terminal only. Workers do not need them."""

_PACKAGES_OF_OURS = ("lightwork", "lightwork_runtimes")


class Facts(msgspec.Struct, frozen=True):
    """The facts that an image's interpreter reports.

    Attributes:
        version: ``sys.version_info``, three numbers.
        soabi: Name of the platform that its extension modules are built for.
        purelib: Its folder of packages.
    """

    version: list[int]
    soabi: str
    purelib: str

    @property
    def is_like_here(self) -> bool:
        """Whether the image's interpreter can use the packages of this interpreter."""
        return self.soabi == str(sysconfig.get_config_var("SOABI"))


@functools.cache
def load_payload() -> Payload:
    """Return the payload of this process, whose code does not change. The first call reads files, which blocks."""
    return Payload()


class Payload:
    """Lightwork and its dependencies as they are installed here. The constructor reads files, which blocks.

    Attributes:
        digest: Digest of everything that `write` writes.
        pins: The dependencies as requirements with exactly the installed versions.
    """

    def __init__(self) -> None:
        self._trees = [(name, folder) for name in _PACKAGES_OF_OURS for folder in _folders_of(name)]
        self._own = importlib.metadata.distribution("lightwork")
        self._others = _dependencies(self._own)
        self.pins = sorted(f"{found.metadata['Name']}=={found.version}" for found in self._others)
        hashing = hashlib.sha256("\n".join([_PTH, *self.pins, _start_file().read_text()]).encode())
        for name, folder in self._trees:
            for file in sorted(folder.rglob("*.py")):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                hashing.update(f"{name}/{file.relative_to(folder)} {content}\n".encode())
        self.digest = hashing.hexdigest()

    def write(self, target: IO[bytes], facts: Facts) -> None:
        """Write a tar for the root of an image, with the dependencies if the image can use them. Blocks."""
        with tarfile.open(fileobj=target, mode="w") as tar:
            add_bytes(tar, START, _start_file().read_bytes())
            add_bytes(tar, f"{facts.purelib}/lightwork-container.pth", _PTH.encode())
            for name, folder in self._trees:
                tar.add(folder, f"{CODE}/{name}", filter=_as_root)
            for file, path in _files_of(self._own):
                if ".dist-info" in file and not file.endswith(("direct_url.json", "RECORD")):
                    tar.add(path, f"{CODE}/{file}", filter=_as_root)
            if facts.is_like_here:
                for found in self._others:
                    for file, path in _files_of(found):
                        tar.add(path, f"{PACKAGES}/{file}", filter=_as_root)


def tar_tree(folder: str, prefix: str, target: IO[bytes]) -> None:
    """Write a tar of a folder under another name. Blocks."""
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.add(folder, prefix, filter=_as_root)


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file that every user can read."""
    member = tarfile.TarInfo(name.lstrip("/"))
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make the member owned by root and readable by all. Keep its times, which validate compiled files."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() or member.mode & 0o100 else 0o444
    return member


def _start_file() -> Path:
    return Path(__file__).with_name("_start.py")


def _folders_of(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        yield Path(folder)


def _dependencies(root: Distribution) -> list[Distribution]:
    """Return the dependencies of a worker, transitive ones included, without extras, as far as they are installed."""
    found: dict[str, Distribution] = {}
    open_ends = [root]
    while open_ends:
        end = open_ends.pop()
        found_at_root = end is root
        for line in end.requires or ():
            requirement, _, marker = line.partition(";")
            match = _NAME.match(requirement)
            if match is None or "extra ==" in marker or (found_at_root and match[0] in _AT_HOME):
                continue
            try:
                needed = importlib.metadata.distribution(match[0])
            except importlib.metadata.PackageNotFoundError:  # not for this platform or Python
                continue
            key = re.sub(r"[-_.]+", "-", match[0]).lower()
            if key not in found:
                found[key] = needed
                open_ends.append(needed)
    return list(found.values())


def _files_of(found: Distribution) -> Iterator[tuple[str, str]]:
    """Yield names and paths of the distribution's files inside the folder of packages, so without its programs."""
    for file in found.files or ():
        path = str(found.locate_file(file))
        if not file.parts[0].startswith("..") and os.path.isfile(path):
            yield str(file), path
            if file.suffix == ".py" and os.path.isfile(cached := importlib.util.cache_from_source(path)):
                yield importlib.util.cache_from_source(str(file)), cached


# --- requirements ---------------------------------------------------------------------------------


async def install_here(requirements: Sequence[str], target: str, cwd: str | None) -> None:
    """Install requirements into a folder by uv or pip of this machine.

    Cancelling kills the installer and leaves an incomplete folder.

    Raises:
        Rejected: The installation failed; the message has the last lines of uv's or pip's output.
    """
    program = [*_installer(), "--target", target, *requirements]
    process = await asyncio.create_subprocess_exec(
        *program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd,
        start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()[-_KEPT_LINES:]
        raise Rejected("\n".join([f"the requirements {list(requirements)} cannot be installed:", *lines]))


def _installer() -> list[str]:
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", sys.executable]
    if importlib.util.find_spec("pip") is None:
        raise Rejected(
            "neither uv nor pip is installed here: install one for the requirements, or set requirements = 'image'"
        )
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


_INSTALL = """
import importlib.util, shutil, subprocess, sys
uv = shutil.which("uv")
if uv:
    command = [uv, "pip", "install", "--no-cache", "--python", sys.executable]
elif importlib.util.find_spec("pip"):
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir"]
else:
        sys.exit("the image has neither uv nor pip: use an image with one of them, or set requirements = 'here'")
sys.exit(subprocess.call([*command, "--target", *sys.argv[1:]]))
"""
"""Run by an image's interpreter, because only the image shows which of uv and pip it has."""


def install_line(python: str, target: str, requirements: Iterable[str]) -> str:
    """Return the Dockerfile line that installs requirements in the image, by uv if present, otherwise by pip."""
    program = [python, "-c", _INSTALL, target, *requirements]
    return f"RUN {msgspec.json.encode(program).decode()}"
