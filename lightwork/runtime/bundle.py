"""An app's folder as one tar: the same files give the same bytes, and so the same digest, on every machine.

A bundle is not held in memory: `make_bundle` reads the files for their digest, and `Bundle.write` reads them
once more where the tar is wanted. Most starts find that the other side has the digest and never come to that.
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
"""Bytes past which `make_bundle` warns: what is sent to every machine should be code."""

_MTIME = 315532800
"""Time of every file: 1980-01-01 UTC, the first that zip files can express."""

_NUM_NAMED = 5
_log = get_logger(__name__)


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Bundle(msgspec.Struct, frozen=True):
    """The files of a folder that are sent along.

    Attributes:
        folder: Where they are, absolute.
        digest: SHA-256 of the tar, in hexadecimal.
        size: Sum of the files' sizes in bytes.
        files: The files, relative to the folder and sorted.
    """

    folder: str
    digest: str
    size: int
    files: tuple[str, ...]

    def write(self, target: _Sink) -> None:
        """Write the tar. Blocks while it reads the files.

        Raises:
            UsageError: The files have changed since the bundle was made; `target` then has a tar that must not
                be used.
            OSError: A file cannot be read, or `target` not written.
        """
        hashing = _Hashing(target)
        _write_tar(self.folder, self.files, hashing)
        if hashing.hexdigest() != self.digest:
            raise UsageError(f"files in {self.folder} were changed while they were bundled: start again")


def make_bundle(folder: str | os.PathLike[str], patterns: Sequence[str] = ()) -> Bundle:
    """Find the files of an app's folder that are sent along, and their digest. Blocks while it reads them.

    Names, contents, links and whether a file is executable decide the digest; times and owners do not. A file that
    is not readable to all still becomes so.

    Args:
        folder: The app's folder.
        patterns: What to leave out, as lines of ``.lightningignore``; see `lightwork.runtime.ignore.app_files`.

    Raises:
        ConfigError: A pattern cannot be understood.
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
    """Unpack a bundle's tar into the folder `target`, which appears whole or not at all. Blocks.

    A `target` that is there already stays as it is. Nothing is written outside of it: ``..``, links that lead out and
    devices are refused, a leading slash and special mode bits are dropped.

    Args:
        source: The tar, readable; `digest` needs it to be seekable as well.
        target: The folder to make. Its parents are made too.
        digest: What the tar must have, None to take it as it is.

    Raises:
        UsageError: The digest is another, or the tar has what is refused, or is none.
        OSError: The folder cannot be written.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("this Python cannot unpack a tar safely: take 3.11.4 or newer")
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
        shutil.rmtree(aside, ignore_errors=True)  # renamed, it is not there any more


def _rename(aside: str, place: Path) -> None:
    try:
        os.rename(aside, place)
    except OSError:
        if not place.is_dir():  # else another did it at the same time
            raise


def _check_digest(source: IO[bytes], digest: str) -> None:
    found = hashlib.file_digest(cast(io.BufferedIOBase, source), "sha256").hexdigest()
    if found != digest:
        raise UsageError(f"the bundle has the digest {found[:12]}, not {digest[:12]}: it was damaged on its way")
    source.seek(0)


class _Hashing:
    """A file to write to that digests what passes through."""

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
    # In stream mode nothing is sought, and headers of the pax format depend on the names and sizes alone.
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
        f"the app's folder is large, and is sent to wherever a work runs: leave files out in {IGNORE_FILE}",
        folder=root,
        megabytes=round(size / 1e6),
        largest=[f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest],
    )
