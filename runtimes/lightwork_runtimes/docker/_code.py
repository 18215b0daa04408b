"""The app's own code: the folders that hold it, and the files of them that are sent.

A worker puts the scheduler's ``sys.path`` before its own. So each folder has the same path in the container as here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import IO

from lightwork.errors import UsageError
from lightwork.runtime.bundle import Bundle, make_bundle

__all__ = ["AppCode", "code_roots"]

_IN_MEMORY = 16 * 1024 * 1024
_WORTH_COMPILING = 100_000
"""Bytes of Python code above which compiling once, which takes a second, is cheaper than compiling at each start."""


def code_roots(folder: str) -> list[str]:
    """Return the folders to send: the app's folder, and the folders on ``sys.path`` outside of it with the user's code.

    Python's own folders, those of installed packages and lightwork's own folder are left out.

    Raises:
        UsageError: The app's folder is the root, a home folder or a system folder, or does not exist.
    """
    app = os.path.realpath(folder)
    if not os.path.isdir(app):
        raise UsageError(f"the app's folder {folder!r} is not a folder")
    if app in _never():
        raise UsageError(
            f"the app's folder is {app!r}, and all of it would be sent: start the app from a separate folder, or set "
            "`folder` of the profile"
        )
    # Symbolic links are not resolved: ``sys.path`` has the path as it is spelled.
    roots = [os.path.abspath(folder)]
    for path in dict.fromkeys(os.path.abspath(path) for path in sys.path):
        if os.path.isdir(path) and not _is_left_out(path) and not any(_is_below(path, root) for root in roots):
            roots.append(path)
    return roots


class AppCode:
    """The files of the app's folders that are sent. The constructor reads all files, which blocks.

    Attributes:
        roots: The folders.
        digest: Digest of the paths and contents of the folders.
        parts: For each folder the name of a tar for an image's root, and the function that writes it.
        is_worth_compiling: Whether the folders hold more than 100 kB of Python code.
    """

    def __init__(self, roots: Sequence[str], patterns: Sequence[str] = ()) -> None:
        self.roots = list(roots)
        bundles = [make_bundle(root, patterns) for root in roots]
        facts = "\n".join(f"{root} {bundle.digest}" for root, bundle in zip(roots, bundles, strict=True))
        self.digest = hashlib.sha256(facts.encode()).hexdigest()
        self.parts: dict[str, Callable[[IO[bytes]], None]] = {
            f"app{number}.tar": _writer(root, bundle)
            for number, (root, bundle) in enumerate(zip(roots, bundles, strict=True))
        }
        code = [
            os.path.join(bundle.folder, file) for bundle in bundles for file in bundle.files if file.endswith(".py")
        ]
        self.is_worth_compiling = sum(os.path.getsize(path) for path in code) > _WORTH_COMPILING


def _writer(root: str, bundle: Bundle) -> Callable[[IO[bytes]], None]:
    def write(target: IO[bytes]) -> None:
        """Write the bundle's files under their absolute path. The tar does not name their parent folders."""
        prefix = PurePosixPath(root).relative_to("/")
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as data:
            bundle.write(data)
            data.seek(0)
            with tarfile.open(fileobj=data, mode="r:") as source, tarfile.open(fileobj=target, mode="w") as tar:
                folder = tarfile.TarInfo(str(prefix))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
                for member in source:
                    content = source.extractfile(member) if member.isfile() else None
                    member.name = str(prefix / member.name)
                    member.pax_headers = {}  # they have the old name
                    tar.addfile(member, content)

    return write


def _never() -> set[str]:
    homes = {os.path.expanduser("~"), os.path.dirname(os.path.expanduser("~"))}
    return {"/", "/tmp", "/usr", "/opt", "/var", *map(os.path.realpath, homes)}


def _is_left_out(path: str) -> bool:
    real = os.path.realpath(path)
    if real in _never():
        return True
    pythons = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    libraries = {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    inside = any(_is_below(real, folder) for folder in pythons | libraries if folder not in ("/", "/usr"))
    return inside or "site-packages" in real or "dist-packages" in real or _holds_lightwork(real)


def _holds_lightwork(path: str) -> bool:
    for package in ("lightwork", "lightwork_runtimes"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            if os.path.realpath(os.path.dirname(folder)) == path:
                return True
    return False


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
