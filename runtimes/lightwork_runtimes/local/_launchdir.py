"""The folder of one launch: all that is known of it, so that any process can take it over.

``<home>/<owner>/<name>/`` is made before the process is. In it:

- ``spec``: what was asked, without the ticket, and which launcher was to do it.
- ``log``: standard output and error of everything in the launch.
- ``claim``: made by whoever decides first: the launcher that it starts, or a stop that it never does.
- ``pid``: the worker's identity. The worker writes it itself before anything of the user's runs, and then
  looks whether its launcher still lives; so a folder without it, whose launcher is dead, has no worker.
- ``stop``: somebody wants it to end, and as what that counts.
- ``keeper``: the process that adopted it, if not the one that made it.
- ``exit``: it is over, the whole process tree of it, and how.
- ``.room``: a block of the disk for ``exit``, so that an end can be told when the disk is full.

Every file but the log and the empty claim appears whole, by a rename or by a link. The operations are a few
system calls on a local file system each, and run in the event loop.
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
from typing import TypeVar

import msgspec

from lightwork.runtime import Cause, Conflict, Rejected, Report, Spec, Standing, Unreachable
from lightwork_runtimes.local._process import Identity, read_file

__all__ = ["ExitFile", "LaunchDir", "PidFile", "SpecFile", "View", "check_name", "home_of", "open_home"]

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_GONE = ".gone-"
_ROOM = ".room"
_MOST_EXIT = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT)
_encoder = msgspec.json.Encoder()
_T = TypeVar("_T")


class SpecFile(msgspec.Struct, frozen=True):
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


class PidFile(msgspec.Struct, frozen=True):
    """Which process it is. `note` says what is unusual about how it was started."""

    worker: Identity
    note: str = ""


class ExitFile(msgspec.Struct, frozen=True):
    """How it ended; `time` in seconds since the epoch."""

    exit_code: int | None
    cause: Cause | None
    detail: str
    time: float


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
        _write(f"{folder.path}/{_ROOM}", os.O_CREAT, bytes(_MOST_EXIT))
        folder._replace("spec", _encoder.encode(content))
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

    def spec(self) -> SpecFile | None:
        """What was asked, None if the maker died before it had written that."""
        return self._read("spec", SpecFile)

    def started(self) -> PidFile | None:
        """Which process it is, None while there is none."""
        return self._read("pid", PidFile)

    def ended(self) -> ExitFile | None:
        """How it ended, None while it has not."""
        return self._read("exit", ExitFile)

    def stop_cause(self) -> Cause | None:
        """As what its end counts, None if nobody asked for it."""
        return self._read("stop", Cause)

    def keeper(self) -> Identity | None:
        """The process that adopted it, if any did."""
        return self._read("keeper", Identity)

    def claim(self) -> bool:
        """Decide whether it is started or never will be; False if that was decided before, or it was released."""
        try:
            os.close(os.open(f"{self.path}/claim", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    def write_started(self, content: PidFile) -> None:
        """Say which process it is."""
        self._replace("pid", _encoder.encode(content))

    def mark_stop(self, cause: Cause) -> None:
        """Say that its end is wanted. The first to say so decides as what it counts.

        On a full disk nothing is said, and it ends as what it is: that must not keep anybody from ending it.
        """
        try:
            self._add("stop", _encoder.encode(cause))
        except OSError as error:
            if error.errno not in _FULL:
                raise

    def mark_keeper(self, keeper: Identity) -> None:
        """Say who looks after it from now on."""
        self._replace("keeper", _encoder.encode(keeper))

    def write_ended(self, exit_code: int | None, cause: Cause | None, detail: str = "") -> None:
        """Say that it is over. The first to say so is believed. On a full disk it takes the room that was kept."""
        self._add("exit", _encoder.encode(ExitFile(exit_code, cause, detail, time.time())))

    def _read(self, name: str, kind: type[_T]) -> _T | None:
        data = read_file(f"{self.path}/{name}")
        return None if data is None else msgspec.json.decode(data, type=kind)

    def _write_aside(self, name: str, data: bytes) -> str:
        path = f"{self.path}/.{name}-{os.getpid()}"
        try:
            _write(path, os.O_CREAT | os.O_TRUNC, data)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if name != "exit" or error.errno not in _FULL:
                raise
            os.rename(f"{self.path}/{_ROOM}", path)
            _write(path, 0, data)
            os.truncate(path, len(data))
        return path

    def _replace(self, name: str, data: bytes) -> None:
        os.rename(self._write_aside(name, data), f"{self.path}/{name}")

    def _add(self, name: str, data: bytes) -> bool:
        try:
            aside = self._write_aside(name, data)
        except FileNotFoundError:
            return False  # released meanwhile
        try:
            os.link(aside, f"{self.path}/{name}")
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):  # released meanwhile, this file with it
                os.unlink(aside)
        return True

    # --- what became of it ----------------------------------------------------------------------

    def look(self) -> View:
        """What became of it, from the files and the processes they name."""
        if not self.exists:
            return View(Report(Standing.ABSENT, detail="not launched here, or released"))
        if (ended := self.ended()) is not None:
            return _over(ended)
        spec = self.spec()
        if spec is None:
            return View(Report(Standing.ABSENT, cause=Cause.START_FAILED, detail="never launched"))
        # In this order: a dead launcher starts nothing, so the pid file that is read after it is the last word.
        launcher_lives = spec.launcher.is_alive
        started = self.started()
        if launcher_lives:
            if started is None:
                return View(Report(Standing.PENDING), spec.launcher)
            return View(_running(started), spec.launcher)
        if started is not None and started.worker.is_alive:
            return View(_running(started), started.worker)
        if (ended := self.ended()) is not None:
            return _over(ended)
        if started is None:
            detail = "the launcher died before it had started the process"
            return View(Report(Standing.ABSENT, cause=Cause.START_FAILED, detail=detail))
        detail = f"pid {started.worker.pid} ended after its launcher had died; nobody saw its exit code"
        return View(Report(Standing.EXITED, cause=self.stop_cause(), detail=detail))


def _write(path: str, flags: int, data: bytes) -> None:
    """Write a file from its beginning, all of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        if os.write(fd, data) < len(data):  # the disk took a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
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
