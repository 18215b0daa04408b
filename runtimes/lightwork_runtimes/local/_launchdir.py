"""The folder of one launch. It has all facts about the launch, so that any process can adopt it.

``<home>/<owner>/<name>/`` is made before the process starts. It contains:

- ``log``: standard output and error of every process in the launch.
- ``record``: the facts, one JSON object per line. Each line is appended with one write.

The lines of the record, in the order in which they can appear:

- ``spec``: the requested spec without the ticket, and the launcher that should start it.
- ``claim``: the first claim decides. The launcher claims to start the worker; a stop claims to prevent the start.
- ``pid``: the worker's identity. The worker writes it before any code of the user runs, and then checks that its
  launcher still lives. So a record without this line, whose launcher is dead, has no worker.
- ``stop``: the launch should end, with the cause of that end.
- ``keeper``: the process that adopted the launch, if it is not the one that made it.
- ``exit``: the whole process tree has ended, and how.

The kernel orders appends to a file, so all readers agree on which line was first; the first one counts. A write that a
full disk or a crash has cut short leaves an incomplete line, which readers skip. The spec is padded, so that the
following lines fit into a disk block that the file has already. So an end can be recorded on a full disk.

There are only two files because making a file is expensive, on some file systems a hundred times as expensive as a
write. Each operation takes a few system calls on a local file system and runs in the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
import time
from pathlib import Path

import msgspec

from lightwork.runtime import ABSENT, Cause, Conflict, Rejected, Report, Spec, Standing, Unreachable
from lightwork_runtimes.local._process import Identity, read_file

__all__ = ["ExitFile", "LaunchDir", "PidFile", "Record", "SpecFile", "View", "check_name", "home_of", "open_home"]

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_GONE = ".gone-"
_BLOCK = 4096
"""Size of a disk block in bytes. On a full disk with smaller blocks, recording an end waits for free space."""

_ROOM = 3072
"""Bytes of its last block that a record reserves for the lines after the spec."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpecFile(msgspec.Struct, frozen=True, tag="spec"):
    """The requested spec. `digest` covers the whole spec with the ticket; `maker` is the scheduler's identity.

    `venv` is the folder of the virtual environment to run in; None to use the scheduler's packages.
    """

    name: str
    owner: str
    entry: str
    env: dict[str, str]
    cwd: str | None
    orphan_after: float
    max_lifetime: float | None
    digest: str
    launcher: Identity
    maker: Identity
    venv: str | None = None


class Claim(msgspec.Struct, frozen=True, tag="claim"):
    """The writer decides whether the worker starts. The first of several claims counts."""


class PidFile(msgspec.Struct, frozen=True, tag="pid"):
    """The worker started. `note` tells anything unusual about the start."""

    worker: Identity
    note: str = ""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The end was requested, with its `cause`."""

    cause: Cause


class Keeper(msgspec.Struct, frozen=True, tag="keeper"):
    """`process` adopted the launch."""

    process: Identity


class ExitFile(msgspec.Struct, frozen=True, tag="exit"):
    """The whole process tree ended. `time` is in seconds since the epoch."""

    exit_code: int | None
    cause: Cause | None
    detail: str
    time: float


_Line = SpecFile | Claim | PidFile | Stop | Keeper | ExitFile
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class Record:
    """The content of a launch's record at one moment.

    Attributes:
        spec: The requested spec; None if the maker died before it wrote the spec.
        is_claimed: Whether it is decided if the worker starts.
        started: The worker's process; None while it has not started.
        stop: Cause of the requested end; None if no end was requested.
        keeper: The process that adopted the launch, if any.
        ended: How the launch ended; None while it has not ended.
    """

    def __init__(self, data: bytes) -> None:
        self.spec: SpecFile | None = None
        self.is_claimed = False
        self.started: PidFile | None = None
        self.stop: Cause | None = None
        self.keeper: Identity | None = None
        self.ended: ExitFile | None = None
        for line in data.split(b"\n"):
            text = line.strip()
            if text.endswith(b"}"):  # otherwise the line is empty or was cut short
                self._add(_decode(text))

    def _add(self, line: _Line) -> None:
        match line:
            case SpecFile():
                self.spec = self.spec or line
            case Claim():
                self.is_claimed = True
            case PidFile():
                self.started = self.started or line
            case Stop(cause):
                self.stop = self.stop or cause
            case Keeper(process):
                self.keeper = process
            case ExitFile():
                self.ended = self.ended or line


class View(msgspec.Struct, frozen=True):
    """A report, and the process whose death changes the report without a change in the folder."""

    report: Report
    depends_on: Identity | None = None


def check_name(name: str, what: str) -> str:
    """Return `name` if it is a valid file name, otherwise raise `Rejected`."""
    if not _SAFE.fullmatch(name):
        raise Rejected(
            f"{what} must have 1 to 200 letters, digits, '.', '_' or '-', and not begin with '.' or '-'; got {name!r}"
        )
    return name


def open_home(configured: str | None) -> Path:
    """Return the folder for launch folders. Make it if it does not exist.

    Raises:
        Rejected: It belongs to another user, or other users can enter the configured folder.
    """
    home = home_of(configured)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = home.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise Rejected(f"{home} is not a folder; set `home` of the local runtime to a folder")
    if info.st_uid != os.getuid():
        raise Rejected(f"{home} belongs to user {info.st_uid}; set `home` of the local runtime to your own folder")
    if info.st_mode & 0o077:
        if configured:
            raise Rejected(f"other users can enter {home}; run `chmod 700` on it or set another `home`")
        home.chmod(0o700)
    return home.absolute()


def home_of(configured: str | None) -> Path:
    """Return the folder for launch folders. It need not exist."""
    if configured:
        return Path(configured)
    # Not in $XDG_RUNTIME_DIR, for three reasons. It is in memory and small, so a work with much output would fill it.
    # It is removed with the user's last session. A scheduler restarted in another way may have another value.
    return Path(tempfile.gettempdir()) / f"lightwork-{os.getuid()}"


def digest_of(spec: Spec) -> str:
    """Return a digest of the whole spec. It reveals nothing about the ticket, which contains a random secret."""
    return hashlib.sha256(msgspec.msgpack.encode(spec, order="deterministic")).hexdigest()


class LaunchDir:
    """One launch folder. It keeps no file open: every method reads the files as they are now."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def log(self) -> str:
        """Path of the file with the output."""
        return f"{self.path}/log"

    @property
    def log_size(self) -> int:
        """Bytes of output; 0 if the file does not exist."""
        try:
            return os.stat(self.log).st_size
        except FileNotFoundError:
            return 0

    @property
    def exists(self) -> bool:
        """Whether the folder was made and not released."""
        return os.path.isdir(self.path)

    # --- making and finding ---------------------------------------------------------------------

    @classmethod
    def create(
        cls, home: Path, spec: Spec, launcher: Identity, maker: Identity, venv: str | None = None
    ) -> tuple[LaunchDir, bool]:
        """Make the folder of `spec`. Return it, and whether it is new.

        Raises:
            Conflict: A folder of this name exists from another spec.
        """
        folder = cls(f"{home}/{spec.owner}/{spec.name}")
        digest = digest_of(spec)
        if not folder._make():
            folder._compare(digest)
            return folder, False
        content = SpecFile(
            name=spec.name,
            owner=spec.owner,
            entry=spec.entry,
            env=spec.env,
            cwd=spec.cwd,
            orphan_after=spec.orphan_after,
            max_lifetime=spec.max_lifetime,
            digest=digest,
            launcher=launcher,
            maker=maker,
            venv=venv,
        )
        os.close(os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _append(folder.record_path, _padded(_encode(content)), os.O_CREAT)
        return folder, True

    def _make(self) -> bool:
        owner = os.path.dirname(self.path)
        while True:
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                return False
            except FileNotFoundError:
                # The first launch of this owner, or a release has just removed the owner's empty folder.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(owner, 0o700)
            else:
                return True

    def _compare(self, digest: str) -> None:
        name = os.path.basename(self.path)
        made = self.spec()
        if made is None:
            raise Conflict(f"{name}: a folder of this name exists without a launch; release it first")
        if made.digest != digest:
            raise Conflict(f"{name} was launched already, from another spec; use each name once")

    @classmethod
    def locate(cls, home: Path, name: str, owner: object = None) -> LaunchDir | None:
        """Return the folder of that name, None if not found. Search under `owner` first."""
        if not _SAFE.fullmatch(name):
            return None
        if isinstance(owner, str) and _SAFE.fullmatch(owner):
            folder = cls(f"{home}/{owner}/{name}")
            if folder.exists:
                return folder
        for entry in os.listdir(home):
            folder = cls(f"{home}/{entry}/{name}")
            if folder.exists:
                return folder
        return None

    @staticmethod
    def names(home: Path, owner: str) -> list[str]:
        """Return the names of all launches of this owner that were not released, or only partly."""
        if not _SAFE.fullmatch(owner):
            return []
        try:
            entries = os.listdir(home / owner)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unreachable(f"{home / owner}: {error}") from error
        return sorted({entry.removeprefix(_GONE) for entry in entries})

    def discard(self) -> None:
        """Remove the folder of a launch that did not start."""
        _unlink_all(self.path)

    @staticmethod
    def remove(home: Path, owner: str, name: str) -> None:
        """Remove the folder of that name and the rest of an interrupted removal. May be repeated."""
        path, gone = f"{home}/{owner}/{name}", f"{home}/{owner}/{_GONE}{name}"
        _unlink_all(gone)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, gone)  # in one step, so that no process reads a half-removed folder
        _unlink_all(gone)
        with contextlib.suppress(OSError):  # the owner has other launches, or the folder is gone
            os.rmdir(f"{home}/{owner}")

    # --- the files ------------------------------------------------------------------------------

    @property
    def record_path(self) -> str:
        """Path of the record."""
        return f"{self.path}/record"

    def record(self) -> Record:
        """Read the record. It is empty if the folder does not exist."""
        return Record(read_file(self.record_path) or b"")

    def spec(self) -> SpecFile | None:
        """Read the requested spec; None if the maker died before it wrote the spec."""
        return self.record().spec

    def claim(self) -> bool:
        """Claim the decision whether the worker starts. Return False if it was claimed before or released."""
        try:
            before = _append(self.record_path, _line(Claim()))
        except FileNotFoundError:
            return False
        return not Record(before).is_claimed

    def write_started(self, content: PidFile) -> None:
        """Record the worker's process.

        Raises:
            FileNotFoundError: The launch was released.
        """
        _append(self.record_path, _line(content))

    def mark_stop(self, cause: Cause) -> None:
        """Record that the end is requested. The first call decides the cause.

        On a full disk this may not be recorded, and the launch ends with another cause: a full disk must not prevent
        the end.
        """
        try:
            self._tell(Stop(cause))
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def mark_keeper(self, keeper: Identity) -> None:
        """Record the process that adopts the launch."""
        _append(self.record_path, _line(Keeper(keeper)))

    def write_ended(self, exit_code: int | None, cause: Cause | None, detail: str = "") -> None:
        """Record the end. The first call counts. On a full disk it uses the reserved space."""
        self._tell(ExitFile(exit_code, cause, detail, time.time()))

    def _tell(self, line: _Line) -> None:
        with contextlib.suppress(FileNotFoundError):  # released meanwhile
            _append(self.record_path, _line(line))

    # --- what became of it ----------------------------------------------------------------------

    def look(self) -> View:
        """Return what became of the launch, from its files and the processes that they name."""
        record = self.record()
        if record.ended is not None:
            return _over(record.ended)
        spec = record.spec
        if spec is None:
            if not self.exists:
                return View(ABSENT)
            return View(Report(Standing.ABSENT, cause=Cause.START_FAILED, detail="never launched"))
        if spec.launcher.is_alive:
            if record.started is None:
                return View(Report(Standing.PENDING), spec.launcher)
            return View(_running(record.started), spec.launcher)
        # A dead launcher starts nothing, so a record that is read from here on is final.
        record = self.record()
        started = record.started
        if started is not None and started.worker.is_alive:
            return View(_running(started), started.worker)
        record = self.record()
        if record.ended is not None:
            return _over(record.ended)
        if started is None:
            detail = "the launcher died before it started the worker"
            return View(Report(Standing.ABSENT, cause=Cause.START_FAILED, detail=detail))
        detail = f"pid {started.worker.pid} ended after its launcher died, so the exit code is not known"
        return View(Report(Standing.EXITED, cause=record.stop, detail=detail))


def _line(line: _Line) -> bytes:
    """Encode a line of the record. It begins with a newline: the line before it may have been cut short."""
    return b"\n" + _encode(line) + b"\n"


def _padded(spec: bytes) -> bytes:
    """Pad the first line of a record, so that its last disk block has room for the lines that can follow."""
    used = (len(spec) + 1) % _BLOCK
    missing = 0 if 0 < used <= _BLOCK - _ROOM else _BLOCK - used + 1
    return spec + b" " * (missing % _BLOCK) + b"\n"


def _append(path: str, data: bytes, flags: int = 0) -> bytes:
    """Append `data` to the file with one write. Return the content before it.

    Raises:
        FileNotFoundError: The file does not exist, and `flags` do not contain `O_CREAT`.
        OSError: The disk is full. A part of `data` may have been written.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
    try:
        if os.write(fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        start = os.lseek(fd, 0, os.SEEK_CUR) - len(data)
        return os.pread(fd, start, 0) if start else b""
    finally:
        os.close(fd)


def _unlink_all(path: str) -> None:
    """Remove a folder of files. Another process may do the same at the same time."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}/{name}")
        os.rmdir(path)


def _over(ended: ExitFile) -> View:
    return View(Report(Standing.EXITED, ended.exit_code, ended.cause, ended.detail))


def _running(started: PidFile) -> Report:
    note = f", {started.note}" if started.note else ""
    return Report(Standing.RUNNING, detail=f"pid {started.worker.pid}{note}")
