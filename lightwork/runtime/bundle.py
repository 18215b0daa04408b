"""An app's folder as one tar. The same files make the same bytes, and so the same digest, on every machine.

A bundle is not held in memory: `make_bundle` reads the files to compute the digest, and `Bundle.write` reads them
again to write the tar. For most launches the remote machine has the digest already, and no tar is written.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

import msgspec

from lightwork._logging import get_logger
from lightwork.errors import UsageError
from lightwork.runtime.ignore import IGNORE_FILE, app_files

__all__ = ["LARGE", "Bundle", "make_bundle", "unpack"]

LARGE = 50 * 1000 * 1000
"""Size in bytes above which `make_bundle` warns: only code should be sent to every machine."""

_MTIME = 315532800
"""Modification time of every member: 1980-01-01 UTC, the first time that a zip file can express."""

_NUM_NAMED = 5
_log = get_logger(__name__)


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Bundle(msgspec.Struct, frozen=True):
    """The files of a folder that are sent to where works run.

    Attributes:
        folder: Absolute path of the folder.
        digest: SHA-256 of the tar, in hexadecimal.
        size: Sum of the file sizes in bytes.
        files: The files, relative to the folder and sorted.
    """

    folder: str
    digest: str
    size: int
    files: tuple[str, ...]

    def write(self, target: _Sink) -> None:
        """Write the tar. Blocks while it reads the files.

        Raises:
            UsageError: The files have changed since the bundle was made. Do not use the tar in `target` then.
            OSError: A file cannot be read, or `target` cannot be written.
        """
        hashing = _Hashing(target)
        _write_tar(self.folder, self.files, hashing)
        if hashing.hexdigest() != self.digest:
            raise UsageError(f"files in {self.folder} were changed while they were bundled; start the app again")


def make_bundle(folder: str | os.PathLike[str], patterns: Sequence[str] = ()) -> Bundle:
    """List the files of an app's folder to send, and compute their digest. Blocks while it reads them.

    The digest depends on names, contents, links and whether a file is executable, not on times and owners. All
    files of the tar are readable to everybody, even if the original is not.

    Args:
        folder: The app's folder.
        patterns: Files to leave out, as lines of ``.lightningignore``; see `lightwork.runtime.ignore.app_files`.

    Raises:
        ConfigError: A pattern is invalid.
        UsageError: Links lead out of the folder.
        OSError: The folder, or a file in it, cannot be read.
    """
    root = os.path.abspath(folder)
    files = tuple(map(str, app_files(root, patterns)))
    sizes = {file: os.lstat(os.path.join(root, file)).st_size for file in files}
    size = sum(sizes.values())
    if size > LARGE:
        _warn(root, size, sizes)
    hashing = _Hashing(io.BytesIO(), keep=False)
    _write_tar(root, files, hashing)
    return Bundle(root, hashing.hexdigest(), size, files)


def unpack(source: IO[bytes], target: str | os.PathLike[str], digest: str | None = None) -> None:
    """Unpack a bundle's tar into the folder `target`, which appears complete or not at all. Blocks.

    A `target` that exists is left as it is. Nothing is written outside of it: ``..``, links that lead out and devices
    are refused; a leading slash and special mode bits are dropped.

    Args:
        source: The tar, readable; with `digest` also seekable.
        target: The folder to make. Its parents are made too.
        digest: Expected digest of the tar; None to skip the check.

    Raises:
        UsageError: The digest differs, the tar has refused members, or `source` is not a tar.
        OSError: The folder cannot be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("this Python cannot unpack a tar safely; use Python 3.11.4 or newer")
    place = Path(target)
    if digest is not None:
        _check_digest(source, digest)
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent)
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            tar.extractall(aside, filter="data")
        os.chmod(aside, 0o755)
        _rename(aside, place)
    except tarfile.TarError as error:
        raise UsageError(f"the bundle for {place} is refused: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # not found if it was renamed


def _rename(aside: str, place: Path) -> None:
    try:
        os.rename(aside, place)
    except OSError:
        if not place.is_dir():  # otherwise another process made it at the same time
            raise


def _check_digest(source: IO[bytes], digest: str) -> None:
    found = hashlib.file_digest(cast(io.BufferedIOBase, source), "sha256").hexdigest()
    if found != digest:
        raise UsageError(
            f"the bundle must have the digest {digest[:12]}, got {found[:12]}: it was damaged in transit; send it again"
        )
    source.seek(0)


class _Hashing:
    """A writable file that computes the digest of the data written to it."""

    def __init__(self, target: _Sink, *, keep: bool = True) -> None:
        self._target = target
        self._keep = keep
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        if self._keep:
            self._target.write(data)
        return len(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _write_tar(root: str, files: Sequence[str], target: _Hashing) -> None:
    # Stream mode does not seek, and headers of the pax format depend on the names and sizes alone.
    with tarfile.open(fileobj=cast(IO[bytes], target), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        folders: set[PurePosixPath] = set()
        for name in files:
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                if parent not in folders:
                    folders.add(parent)
                    tar.addfile(_member(str(parent), tarfile.DIRTYPE, 0o755))
            _add(tar, os.path.join(root, name), name)


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        member = _member(name, tarfile.SYMTYPE, 0o777)
        member.linkname = os.readlink(path)
        tar.addfile(member)
        return
    with open(path, "rb") as file:
        info = os.fstat(file.fileno())
        member = _member(name, tarfile.REGTYPE, 0o755 if info.st_mode & 0o111 else 0o644)
        member.size = info.st_size
        tar.addfile(member, file)


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, _MTIME
    return member


def _warn(root: str, size: int, sizes: dict[str, int]) -> None:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_NUM_NAMED]
    _log.warning(
        f"the app's folder is large and is sent to every machine that runs works; exclude files in {IGNORE_FILE}",
        folder=root,
        megabytes=round(size / 1e6),
        largest=[f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest],
    )
