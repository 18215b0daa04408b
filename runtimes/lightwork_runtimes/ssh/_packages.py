"""The files that are sent: the helper, a wheel of lightwork as it is here, and wheels of its dependencies."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from lightwork.runtime import Rejected
from lightwork_runtimes.remote import kept

__all__ = ["Wheel", "download_wheels", "downloaded_wheels", "helper_files", "lightwork_wheel", "pins"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_TAIL_LINES = 15
_GLIBC = (5, 12, 17, 24, 27, 28, 31, 34, 35, 38, 39)
"""Minor versions of glibc that wheels are built for."""

Wheel = tuple[str, bytes]
"""File name and content."""


@functools.cache
def helper_files() -> tuple[str, Mapping[str, bytes]]:
    """Return the digest and the files, by relative path, of the program that runs on the remote machine."""
    source = Path(__file__).parents[1] / "remote"
    files = {f"remote/{path.name}": path.read_bytes() for path in sorted(source.glob("*.py"))}
    files["__main__.py"] = files.pop("remote/__main__.py")
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:32]
    return digest, files


@functools.cache
def lightwork_wheel() -> Wheel:
    """Return a wheel of the running lightwork, made from its files. The same files give the same bytes."""
    found = importlib.metadata.distribution("lightwork")
    info = f"lightwork-{found.version}.dist-info"
    files: dict[str, bytes] = {}
    for package in ("lightwork", "lightwork_runtimes"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        for root in spec.submodule_search_locations or ():
            files.update(_package_files(package, Path(root)))
    files[f"{info}/METADATA"] = (found.read_text("METADATA") or "").encode()
    files[f"{info}/entry_points.txt"] = (found.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: lightwork\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [f"{name},sha256={_urlsafe_digest(data)},{len(data)}\n" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return f"lightwork-{found.version}-py3-none-any.whl", target.getvalue()


def _package_files(package: str, root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{package}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _urlsafe_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@functools.cache
def pins() -> tuple[str, ...]:
    """Return lightwork's dependencies as requirements, each with the version that is installed here."""
    found: dict[str, str] = {}
    todo = ["lightwork"]
    while todo:
        name = todo.pop()
        for requirement in importlib.metadata.requires(name) or ():
            requirement, _, marker = requirement.partition(";")
            match = _NAME.match(requirement.strip())
            if match is None or "extra" in marker or match[0].lower() in found:
                continue
            try:
                version = importlib.metadata.version(match[0])
            except importlib.metadata.PackageNotFoundError:
                continue  # for another platform or version of Python: its marker does not apply here
            found[match[0].lower()] = f"{match[0]}=={version}"
            todo.append(match[0])
    return tuple(sorted(found.values()))


@contextlib.asynccontextmanager
async def downloaded_wheels(requirements: Sequence[str], facts: Mapping[str, Any], python: str) -> AsyncIterator[Path]:
    """Enter with the folder of `download_wheels`. It is not removed inside the context."""
    held = None
    while held is None:
        folder = await download_wheels(requirements, facts, python)
        held = kept.hold(str(folder))
    try:
        yield folder
    finally:
        os.close(held)


async def download_wheels(requirements: Sequence[str], facts: Mapping[str, Any], python: str) -> Path:
    """Return a folder with wheels of these requirements and their dependencies, for the machine of `facts`.

    The folder is made once for each set. Cancelling leaves no incomplete folder.

    Args:
        requirements: Requirements for pip.
        facts: The facts of the remote machine, from the helper.
        python: Minor version of the remote interpreter, such as ``3.11``.

    Raises:
        Rejected: The wheels could not be downloaded here either; the message has pip's last lines.
    """
    key = repr([sorted(requirements), facts["machine"], facts["libc"], python])
    folder = Path(kept.cache_folder("wheels")) / hashlib.sha256(key.encode()).hexdigest()[:32]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    try:
        tool = await _pip()
        options = ["--disable-pip-version-check", "--no-input", "--only-binary=:all:", "--python-version", python]
        for platform in _platforms(facts["machine"], facts["libc"]):
            options += ["--platform", platform]
        done = await anyio.run_process([*tool, "download", "-q", "-d", aside, *options, *requirements], check=False)
        if done.returncode:
            lines = (done.stdout + done.stderr).decode("utf-8", "replace").strip().splitlines()
            raise Rejected("the packages could not be downloaded here either:\n" + "\n".join(lines[-_TAIL_LINES:]))
        if not folder.exists():
            os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # does nothing after the rename
    return folder


async def _pip() -> list[str]:
    """Return the command for pip: this interpreter's pip, otherwise a pip that uv fetches."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if uv is None:
        raise Rejected(
            "neither pip nor uv is installed here to download packages: install one, or set wheels = 'never'"
        )
    return [uv, "run", "--no-project", "--quiet", "--python", sys.executable, "--with", "pip", "python", "-m", "pip"]


def _platforms(machine: str, libc: str) -> list[str]:
    """Return the tags of wheels that run with this version of glibc, newest first; without glibc, musl's tags."""
    if not libc:
        return [f"musllinux_1_2_{machine}", f"musllinux_1_1_{machine}"]
    minor = int(libc.split(".")[1])
    return [f"manylinux_2_{each}_{machine}" for each in reversed(_GLIBC) if each <= minor] + [
        f"manylinux2014_{machine}"
    ]
