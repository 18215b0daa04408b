"""The app's code: the local folders that are sent, and their paths on the remote machine.

Each folder becomes ``code/<digest>`` there. So it is sent once for each content, and works with different versions
do not affect each other. The worker's `sys.path` is the scheduler's, with the paths of these folders rewritten and
the other entries left out: the remote environment has its own installed packages.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

import anyio.to_thread
import msgspec

from lightwork.errors import UsageError
from lightwork.runtime import Rejected
from lightwork.runtime.bundle import Bundle, make_bundle

__all__ = ["Code", "CodePlan"]


class CodePlan(msgspec.Struct, frozen=True):
    """The place of the code on one remote machine.

    Attributes:
        cwd: The remote working folder, None for the home folder.
        path: Remote folders that come first in `sys.path`.
        moved: Local folder to remote folder.
    """

    cwd: str | None
    path: list[str]
    moved: dict[str, str]


class Code:
    """The code folders of one profile. Each is read once, so every work of a run gets the same code.

    Args:
        where: Name of the profile for messages.
        folders: The configured folders, None to find them.
        exclude: Patterns of files that are not sent.
    """

    def __init__(self, where: str, folders: Sequence[str] | None, exclude: Sequence[str]) -> None:
        self._where = where
        self._folders = folders
        self._exclude = exclude
        self._bundles: dict[tuple[str, tuple[str, ...]], Bundle] = {}
        self._making = anyio.Lock()

    async def bundles(self, cwd: str | None, patterns: tuple[str, ...] = ()) -> list[Bundle]:
        """Return every folder as a bundle, made at the first request.

        Args:
            cwd: The working folder.
            patterns: Patterns of files that this work leaves out in addition to the profile's.

        Raises:
            Rejected: A folder does not exist, is a home folder or the root, or holds files that cannot be sent.
        """
        found = []
        async with self._making:
            for folder in self._find(cwd):
                key = folder, patterns
                if key not in self._bundles:
                    try:
                        left_out = [*self._exclude, *patterns]
                        self._bundles[key] = await anyio.to_thread.run_sync(make_bundle, folder, left_out)
                    except (UsageError, OSError) as error:
                        raise Rejected(f"{self._where}: the code cannot be sent: {error}") from error
                found.append(self._bundles[key])
        return found

    def plan(self, bundles: Sequence[Bundle], cwd: str | None, root: str) -> CodePlan:
        """Return the paths on a machine where lightwork's folder is `root`."""
        moved = {bundle.folder: f"{root}/{code_path(bundle)}" for bundle in bundles}
        path = [found for entry in sys.path if (found := _moved(os.path.abspath(entry), moved)) is not None]
        return CodePlan(_moved(cwd, moved) if cwd is not None else None, path, moved)

    def _find(self, cwd: str | None) -> list[str]:
        if self._folders is not None:
            given = [os.path.abspath(os.path.expanduser(folder)) for folder in self._folders]
        else:
            given = [os.path.abspath(entry) for entry in sys.path if _is_code(os.path.abspath(entry))]
            given = [cwd, *given] if cwd is not None else given
        kept: list[str] = []
        for folder in sorted(set(given)):  # a folder comes before its subfolders
            if not any(folder.startswith(f"{other}{os.sep}") for other in kept):
                self._check(folder)
                kept.append(folder)
        return kept

    def _check(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise Rejected(f"{self._where}: code: {folder} is not a folder")
        if folder in (os.path.expanduser("~"), os.path.dirname(folder)):
            raise Rejected(
                f"{self._where}: the whole of {folder} would be sent as the app's code; start the app in its folder, "
                "or set `code` to that folder"
            )


def code_path(bundle: Bundle) -> str:
    """Return the remote folder that a bundle is unpacked into, relative to lightwork's folder there."""
    return f"code/{bundle.digest[:32]}"


def write_bundle(bundle: Bundle) -> IO[bytes]:
    """Return a temporary file with the bundle's tar. Closing it removes it. Blocks."""
    file = tempfile.NamedTemporaryFile(prefix="lightwork-", suffix=".tar")  # noqa: SIM115 -- the caller closes it
    try:
        bundle.write(file)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _moved(path: str, moved: Mapping[str, str]) -> str | None:
    for local, there in moved.items():
        if path == local or path.startswith(f"{local}{os.sep}"):
            return there + path[len(local) :]
    return None


def _is_code(folder: str) -> bool:
    """Whether an entry of `sys.path` holds the user's own code, not installed packages or lightwork itself."""
    if not os.path.isdir(folder):
        return False
    paths = sysconfig.get_paths()
    installed = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], sys.prefix, sys.base_prefix]
    if any(folder == each or folder.startswith(f"{each}{os.sep}") for each in installed):
        return False
    if os.path.basename(folder) in ("site-packages", "dist-packages"):
        return False
    return not any(os.path.isfile(f"{folder}/{package}/py.typed") for package in ("lightwork", "lightwork_runtimes"))
