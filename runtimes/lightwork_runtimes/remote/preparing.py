"""The operations of the remote side for what launches need: code, environments and wheels. See `kept`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

from . import kept
from .files import Refusal
from .venv import find_uv

__all__ = ["Answer", "Preparing"]

Answer = tuple[Any, bytes]
"""Value and payload of an answer."""

_KINDS = {"code": "code", "environment": "venvs", "wheels": "wheels"}
"""Kinds of cache entries, and the folder of each kind in the helper's folder."""

_NETWORK = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1"}
"""Short timeouts: without a registry the installation must fail soon, so that the scheduler sends the wheels. Variables
that the host sets take precedence."""


class Preparing:
    """The operations. Each public coroutine is one, with the request's arguments.

    Args:
        folder: The helper's folder, absolute.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._claims: dict[int, dict[str, int]] = {}
        self._code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    async def touch(self, payload: bytes) -> Answer:
        """Write a sign of life. The content of ``alive`` changes each time, so a reader needs no clock."""
        _leave_sign(f"{self._folder}/alive")
        return None, b""

    async def missing(self, paths: list[str], payload: bytes) -> Answer:
        """Return the paths that do not exist. They are relative to the helper's folder."""
        return _missing(self._folder, paths), b""

    async def unpack(self, archive: str, digest: str, payload: bytes) -> Answer:
        """Unpack an archive that was sent, as ``code/<digest>``."""
        # In a thread: it takes long, and may wait for another scheduler that does the same.
        await _in_thread(_unpack, f"{self._folder}/{archive}", f"{self._folder}/code/{digest}")
        return None, b""

    async def make_venv(self, job: dict[str, Any], wheels: list[str], payload: bytes) -> Answer:
        """Make a virtual environment. Return None, or why it failed. Cancelling leaves no half-made environment.

        Args:
            job: The job as `venv` describes it, with paths relative to the helper's folder, and ``digest`` instead of
                ``folder``.
            wheels: Files to install, and folders in which the installer searches for others.
            payload: Unused.
        """
        files = [f"{self._folder}/{path}" for path in wheels if path.endswith(".whl")]
        folders = [f"{self._folder}/{path}" for path in wheels if not path.endswith(".whl")]
        whole = {
            **job,
            "folder": f"{self._folder}/venvs/{job['digest']}",
            "requirements": [*files, *job["requirements"]],
            "options": [word for folder in folders for word in ("--no-index", "--find-links", folder)],
            "cwd": job["cwd"] or self._folder,
            "uv": find_uv(),
            "seeds": False,
            "env": _NETWORK,
            "site": [],
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", self._code, "venv"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(whole).encode() + b"\n")
            said = await process.stdout.read()
            code = await process.wait()
        finally:
            process.stdin.close()  # this aborts the maker if it still runs
        lines = said.decode("utf-8", "replace").splitlines()
        if code or not lines:
            raise Refusal("failed", "cannot make the virtual environment:\n" + "\n".join(lines[-15:]))
        return json.loads(lines[-1]), b""

    # --- the cache ------------------------------------------------------------------------------

    async def cached(self, payload: bytes) -> Answer:
        """Return every cache entry; see `lightwork.runtime.Caching`."""
        found = [
            await _in_thread(kept.entries, f"{self._folder}/{folder}", kind) for kind, folder in sorted(_KINDS.items())
        ]
        return [entry for entries in found for entry in entries], b""

    async def discard(self, kind: str, name: str, payload: bytes) -> Answer:
        """Remove a cache entry, unless it is in use. Return whether it is gone."""
        if kind not in _KINDS:
            return True, b""
        return await _in_thread(kept.discard, f"{self._folder}/{_KINDS[kind]}", name), b""

    async def claim(self, paths: list[str], payload: bytes) -> Answer:
        """Keep these folders from being removed, even if they do not exist yet. Return a number for `unclaim`.

        The paths are relative to the helper's folder. The end of the connection also releases them.
        """
        number = len(self._claims) + 1
        while number in self._claims:
            number += 1
        self._claims[number] = {path: kept.claim(f"{self._folder}/{path}") for path in paths}
        return number, b""

    async def unclaim(self, number: int, payload: bytes) -> Answer:
        """Release the folders of a `claim`."""
        for path, held in self._claims.pop(number, {}).items():
            os.close(held)
            _forget_if_absent(f"{self._folder}/{path}")
        return None, b""

    @contextlib.contextmanager
    def _held(self, paths: Iterable[str], into: list[int]) -> Iterator[list[str]]:
        """Use these folders, relative to the helper's. Yield the missing ones; add the descriptors to `into`."""
        missing = []
        with contextlib.ExitStack() as stack:
            for path in paths:
                held = kept.hold(f"{self._folder}/{path}", kept.MARKER if path.startswith("venvs/") else "")
                if held is None:
                    missing.append(path)
                else:
                    stack.callback(os.close, held)
                    into.append(held)
            yield missing


async def _in_thread(function: Any, *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _leave_sign(path: str) -> None:
    aside = f"{path}.{os.getpid()}"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(os.urandom(8).hex() + "\n")
    os.rename(aside, path)


def _missing(folder: str, paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(f"{folder}/{path}")]


def _forget_if_absent(folder: str) -> None:
    """Remove the lock files of a folder that was claimed and never made."""
    if not os.path.isdir(folder):
        kept.discard(os.path.dirname(folder), os.path.basename(folder))


def _unpack(path: str, target: str) -> None:
    """Unpack an archive into a folder that appears complete, and remove the archive."""
    aside = f"{target}.new"
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    with kept.locked(f"{target}.lock"):
        if not os.path.exists(target):
            shutil.rmtree(aside, ignore_errors=True)
            with tarfile.open(path) as archive:
                if hasattr(tarfile, "data_filter"):
                    archive.extractall(aside, filter="data")
                else:  # an old Python: the archive is from the scheduler, which may run any code here anyway
                    archive.extractall(aside)
            os.rename(aside, target)
        os.unlink(path)
