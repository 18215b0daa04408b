"""The folder of one launch: all that is known of it, so that any process can take it over.

``<home>/<owner>/<name>/`` is made before the process is. In it:

- ``log``: standard output and error of everything in the launch.
- ``record``: what is known, one JSON object a line, each added by one write to the end of the file.

The lines of the record, in the order in which they can come:

- ``spec``: what was asked, without the ticket, and which launcher was to do it.
- ``claim``: of whoever decided first: the launcher that it starts, or a stop that it never does.
- ``pid``: the worker's identity. The worker writes it itself before anything of the user's runs, and then
  looks whether its launcher still lives; so a record without it, whose launcher is dead, has no worker.
- ``stop``: somebody wants it to end, and as what that counts.
- ``keeper``: the process that adopted it, if not the one that made it.
- ``exit``: it is over, the whole process tree of it, and how.

The kernel puts writes to the end of a file one after the other, so all readers agree on who was first: that one is
believed. A write that a full disk or a crash has cut short leaves a line that is no object, which is passed over. The
spec is padded so that what can follow lies in a block of the disk that the file has already: an end can be told when
the disk is full.

Two files and no more because making one is dear, on some file systems a hundred times as dear as a write. The
operations are a few system calls on a local file system each, and run in the event loop.
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
"""Bytes that a file takes of the disk at once. Where it is less, an end that finds the disk full waits for room."""

_ROOM = 3072
"""Bytes of its last block that a record has left for what follows the spec."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpecFile(msgspec.Struct, frozen=True, tag="spec"):
    """What was asked. `digest` covers the whole spec, the ticket too; `maker` is the scheduler's identity.

    `venv` is the folder of the virtual environment to run in, None for the scheduler's own packages.
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
    """It is decided whether it is started: of several, the first one has decided."""


class PidFile(msgspec.Struct, frozen=True, tag="pid"):
    """Which process it is. `note` says what is unusual about how it was started."""

    worker: Identity
    note: str = ""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Its end is wanted, and counts as `cause`."""

    cause: Cause


class Keeper(msgspec.Struct, frozen=True, tag="keeper"):
    """Who looks after it from now on."""

    process: Identity


class ExitFile(msgspec.Struct, frozen=True, tag="exit"):
    """How it ended; `time` in seconds since the epoch."""

    exit_code: int | None
    cause: Cause | None
    detail: str
    time: float


_Line = SpecFile | Claim | PidFile | Stop | Keeper | ExitFile
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class Record:
    """All that a launch's record says at one moment.

    Attributes:
        spec: What was asked, None if the maker died before it had written that.
        is_claimed: Whether it is decided if it is started.
        started: Which process it is, None while there is none.
        stop: As what its end counts, None if nobody asked for it.
        keeper: The process that adopted it, if any did.
        ended: How it ended, None while it has not.
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
            if text.endswith(b"}"):  # else it is empty, or was cut short
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
    """A report, and the process whose death would change it without a change in the folder."""

    report: Report
    depends_on: Identity | None = None


def check_name(name: str, what: str) -> str:
    """Return `name` if it can be a file name of its own, else raise `Rejected`."""
    if not _SAFE.fullmatch(name):
        raise Rejected(f"{what} {name!r}: use at most 200 letters, digits, '.', '_' and '-', no dot in front")
    return name


def open_home(configured: str | None) -> Path:
    """The folder for launch folders, made if it is not there.

    Raises:
        Rejected: If it belongs to another user, or others may write in it.
    """
    home = home_of(configured)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = home.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise Rejected(f"{home} is not a folder; set `home` of the local runtime to one")
    if info.st_uid != os.getuid():
        raise Rejected(f"{home} belongs to user {info.st_uid}; set `home` of the local runtime to a folder of yours")
    if info.st_mode & 0o077:
        if configured:
            raise Rejected(f"{home} can be entered by other users; `chmod 700` it or set another `home`")
        home.chmod(0o700)
    return home.absolute()


def home_of(configured: str | None) -> Path:
    """The folder for launch folders, which need not exist."""
    if configured:
        return Path(configured)
    # Not in $XDG_RUNTIME_DIR: it is a small part of the memory, which the output of a chatty work would fill, it goes
    # with the user's last session, and a scheduler that is started again by another way would look elsewhere.
    return Path(tempfile.gettempdir()) / f"lightwork-{os.getuid()}"


def digest_of(spec: Spec) -> str:
    """A digest of everything in the spec. The ticket's secret makes it say nothing about the ticket."""
    return hashlib.sha256(msgspec.msgpack.encode(spec, order="deterministic")).hexdigest()


class LaunchDir:
    """One launch folder. Holds nothing open; every question is answered from the files as they are."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def log(self) -> str:
        """Path of the output."""
        return f"{self.path}/log"

    @property
    def log_size(self) -> int:
        """Bytes of output, 0 if there is no such file."""
        try:
            return os.stat(self.log).st_size
        except FileNotFoundError:
            return 0

    @property
    def exists(self) -> bool:
        """Whether it was made and not released."""
        return os.path.isdir(self.path)

    # --- making and finding ---------------------------------------------------------------------

    @classmethod
    def create(
        cls, home: Path, spec: Spec, launcher: Identity, maker: Identity, venv: str | None = None
    ) -> tuple[LaunchDir, bool]:
        """Make the folder of `spec`; the flag says whether it is new.

        Raises:
            Conflict: If there is one of this name from another spec.
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
                # The first launch of this owner, or a release took the empty owner's folder away just now.
                with contextlib.suppress(FileExistsError):
                    os.mkdir(owner, 0o700)
            else:
                return True

    def _compare(self, digest: str) -> None:
        name = os.path.basename(self.path)
        made = self.spec()
        if made is None:
            raise Conflict(f"{name}: there is a folder of this name that nothing was launched from; release it first")
        if made.digest != digest:
            raise Conflict(f"{name}: launched already, from another spec; names are used once")

    @classmethod
    def locate(cls, home: Path, name: str, owner: object = None) -> LaunchDir | None:
        """The folder of that name, looked for under `owner` first."""
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
        """Names of every launch of this owner that was not released, those half released included."""
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
        """Remove a folder whose launch never began."""
        _unlink_all(self.path)

    @staticmethod
    def remove(home: Path, owner: str, name: str) -> None:
        """Remove the folder of that name and what an interrupted removal left of it. May be repeated."""
        path, gone = f"{home}/{owner}/{name}", f"{home}/{owner}/{_GONE}{name}"
        _unlink_all(gone)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, gone)  # in one step, so that nobody reads a folder that is half removed
        _unlink_all(gone)
        with contextlib.suppress(OSError):  # others of this owner are there, or it is gone
            os.rmdir(f"{home}/{owner}")

    # --- the files ------------------------------------------------------------------------------

    @property
    def record_path(self) -> str:
        """Path of the record."""
        return f"{self.path}/record"

    def record(self) -> Record:
        """What is known now; nothing, if there is no such folder."""
        return Record(read_file(self.record_path) or b"")

    def spec(self) -> SpecFile | None:
        """What was asked, None if the maker died before it had written that."""
        return self.record().spec

    def claim(self) -> bool:
        """Decide whether it is started or never will be; False if that was decided before, or it was released."""
        try:
            before = _append(self.record_path, _line(Claim()))
        except FileNotFoundError:
            return False
        return not Record(before).is_claimed

    def write_started(self, content: PidFile) -> None:
        """Say which process it is.

        Raises:
            FileNotFoundError: It was released.
        """
        _append(self.record_path, _line(content))

    def mark_stop(self, cause: Cause) -> None:
        """Say that its end is wanted. The first to say so decides as what it counts.

        On a full disk that may not come to be known, and it ends as what it is: that must not keep anybody from
        ending it.
        """
        try:
            self._tell(Stop(cause))
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def mark_keeper(self, keeper: Identity) -> None:
        """Say who looks after it from now on."""
        _append(self.record_path, _line(Keeper(keeper)))

    def write_ended(self, exit_code: int | None, cause: Cause | None, detail: str = "") -> None:
        """Say that it is over. The first to say so is believed. On a full disk it takes the room that was kept."""
        self._tell(ExitFile(exit_code, cause, detail, time.time()))

    def _tell(self, line: _Line) -> None:
        with contextlib.suppress(FileNotFoundError):  # released meanwhile
            _append(self.record_path, _line(line))

    # --- what became of it ----------------------------------------------------------------------

    def look(self) -> View:
        """What became of it, from the files and the processes they name."""
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
        # A dead launcher starts nothing, so what is read from here on is the last word.
        record = self.record()
        started = record.started
        if started is not None and started.worker.is_alive:
            return View(_running(started), started.worker)
        record = self.record()
        if record.ended is not None:
            return _over(record.ended)
        if started is None:
            detail = "the launcher died before it had started the process"
            return View(Report(Standing.ABSENT, cause=Cause.START_FAILED, detail=detail))
        detail = f"pid {started.worker.pid} ended after its launcher had died; nobody saw its exit code"
        return View(Report(Standing.EXITED, cause=record.stop, detail=detail))


def _line(line: _Line) -> bytes:
    """A line of the record. What comes before it may be one that was cut short."""
    return b"\n" + _encode(line) + b"\n"


def _padded(spec: bytes) -> bytes:
    """The first line of a record, so long that the last block it takes has room for those that can follow."""
    used = (len(spec) + 1) % _BLOCK
    missing = 0 if 0 < used <= _BLOCK - _ROOM else _BLOCK - used + 1
    return spec + b" " * (missing % _BLOCK) + b"\n"


def _append(path: str, data: bytes, flags: int = 0) -> bytes:
    """Write `data` to the end of the file in one piece; gives what was before it.

    Raises:
        FileNotFoundError: There is no such file, and the flags do not say that there shall be.
        OSError: The disk is full. It may have taken a part.
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
    """Remove a folder of files. Another that does the same at the same time is no error."""
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
