"""The folder of one launch on the remote machine, and the identity of processes.

``<folder>/launches/<owner>/<name>/`` contains:

- ``spec``: name, owner and digest of the spec, and the ``serve`` process that took the slot for it.
- ``log``: standard output and error of every process in the launch.
- ``claim``: the first claim decides: a start, or a stop that prevents the start.
- ``service``: ports of the work's service, on the scheduler's machine and on this one, as in the url of the work.
- ``pid``: identity of the supervisor, which writes it before it starts the worker.
- ``lease``: a FIFO. The ``serve`` process that looks after the launch holds it open for writing, and writes requests
  of one byte.
- ``stop``: the launch should end, with the cause of that end.
- ``exit``: the whole process tree has ended, and how.

Every file except the log appears complete. A launch takes a slot while it has no ``exit`` and its supervisor lives;
before there is a supervisor, while the process that made the folder lives.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
from typing import Any, NamedTuple

from .kept import remove_tree

__all__ = [
    "ABSENT",
    "GONE",
    "SAFE",
    "SHORTAGES",
    "STAMP",
    "Identity",
    "LaunchDir",
    "Refusal",
    "birth_of",
    "has_variable",
    "living",
    "locate",
    "me",
    "names",
    "open_folder",
    "report",
    "stamped",
]

SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
GONE = ".gone-"
STAMP = "LIGHTWORK_LAUNCH"
"""Environment variable that every process of a launch inherits. Its value is the launch's name."""

SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
"""Error numbers of exhausted resources: disk, quota, memory, processes, descriptors."""


class Refusal(Exception):
    """A request failed. `kind` is the kind of failure: conflict, rejected, no_capacity or failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Identity(NamedTuple):
    """A unique identity of a process. A pid alone is reused."""

    pid: int
    birth: str

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. False for a zombie."""
        return birth_of(self.pid) == self.birth


def me() -> Identity:
    """Return the identity of this process."""
    return Identity(os.getpid(), birth_of(os.getpid()) or "")


@functools.cache
def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(8)


def birth_of(pid: int) -> str | None:
    """Return the start time of a process as text to compare. None if it does not exist or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else f"{_boot()}-{fields[19]}"


def stamped(name: str) -> list[Identity]:
    """Return every process with the stamp of the launch `name`."""
    found = []
    wanted = f"{STAMP}={name}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            birth = birth_of(int(entry))
            if birth is not None and has_variable(int(entry), wanted):
                found.append(Identity(int(entry), birth))
    return found


def has_variable(pid: int, wanted: bytes) -> bool:
    """Whether the environment of a process contains `wanted`, a ``NAME=value``. False if it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # the process has ended, or belongs to another user


def open_folder(path: str) -> str:
    """Return the absolute path of the helper's folder. Make it if it does not exist.

    Raises:
        Refusal: It belongs to another user, or others can write in it.
    """
    folder = os.path.abspath(os.path.expanduser(path))
    os.makedirs(folder, 0o700, exist_ok=True)
    info = os.stat(folder)
    if info.st_uid != os.getuid():
        raise Refusal("rejected", f"the folder {folder} belongs to user {info.st_uid}; set `folder` to your own folder")
    if info.st_mode & 0o022:
        raise Refusal("rejected", f"other users can write in the folder {folder}; run `chmod go-w` on it")
    os.makedirs(f"{folder}/launches", 0o700, exist_ok=True)
    return folder


def report(standing: str, code: int | None = None, cause: str | None = None, detail: str = "") -> dict[str, Any]:
    """Return the fields of a `lightwork.runtime.Report`."""
    return {"standing": standing, "exit_code": code, "cause": cause, "detail": detail}


ABSENT = report("absent", detail="not launched here, or released")


class LaunchDir:
    """One launch folder. It keeps no file open: every method reads the files as they are now."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Name of the launch."""
        return os.path.basename(self.path)

    @property
    def exists(self) -> bool:
        """Whether the folder was made and not released."""
        return os.path.isdir(self.path)

    def make(self, spec: dict[str, Any]) -> None:
        """Make the folder. The caller holds the lock and has checked that it does not exist."""
        while True:
            try:
                os.mkdir(self.path, 0o700)
                break
            except FileNotFoundError:
                # The first launch of this owner, or a release has just removed the owner's empty folder.
                os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        try:
            os.close(os.open(f"{self.path}/log", os.O_WRONLY | os.O_CREAT, 0o600))
            os.mkfifo(f"{self.path}/lease", 0o600)
            self.add("spec", spec)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder and the rest of an interrupted removal. May be repeated."""
        owner, name = os.path.split(self.path)
        gone = f"{owner}/{GONE}{name}"
        remove_tree(gone)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, gone)  # in one step, so that no process reads a half-removed folder
        remove_tree(gone)
        with contextlib.suppress(OSError):  # the owner has other launches, or the folder is gone
            os.rmdir(owner)

    def read(self, name: str) -> Any:
        """Return the content of a file, None if it does not exist."""
        try:
            with open(f"{self.path}/{name}", encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return None

    def add(self, name: str, content: Any) -> bool:
        """Write a new file. Return False if it exists already or the folder was released."""
        aside = f"{self.path}/.{name}-{os.getpid()}"
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except FileNotFoundError:
            return False
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.link(aside, f"{self.path}/{name}")
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
        return True

    def supervisor(self) -> Identity | None:
        """Return the process that looks after the worker, None before it has started."""
        found = self.read("pid")
        return None if found is None else Identity(*found)

    def maker(self) -> Identity | None:
        """Return the process that took the slot, None if it died before it wrote the spec."""
        spec = self.read("spec")
        return None if spec is None else Identity(*spec["maker"])

    def depends_on(self) -> Identity | None:
        """Return the process whose death changes the report without a change in the folder."""
        return self.supervisor() or self.maker()

    def look(self) -> dict[str, Any]:
        """Return what became of the launch, from its files and the processes that they name."""
        if not self.exists:
            return ABSENT
        ended = self.read("exit")
        if ended is not None:
            return report("exited", *ended)
        maker = self.maker()
        if maker is None:
            return report("absent", cause="start_failed", detail="never launched")
        # In this order: a dead maker starts nothing, so a pid file that is read after its death is final.
        maker_lives = maker.is_alive
        supervisor = self.supervisor()
        if supervisor is not None:
            if supervisor.is_alive:
                return report("running", detail=f"supervised by pid {supervisor.pid}")
            ended = self.read("exit")
            if ended is not None:
                return report("exited", *ended)
            detail = "the supervisor was killed, so the exit code is not known"
            return report("exited", None, self.read("stop"), detail)
        if maker_lives:
            return report("pending", detail="being prepared")
        detail = "the connection ended before the worker was started"
        return report("absent", cause="start_failed", detail=detail)


def locate(folder: str, owner: str | None, name: str) -> LaunchDir | None:
    """Return the launch of that name, None if not found. Search under `owner` first."""
    if not SAFE.fullmatch(name):
        return None
    owners = [owner] if owner is not None and SAFE.fullmatch(owner) else []
    with contextlib.suppress(FileNotFoundError):
        owners += os.listdir(f"{folder}/launches")
    for each in owners:
        found = LaunchDir(f"{folder}/launches/{each}/{name}")
        if found.exists:
            return found
    return None


def names(folder: str, owner: str) -> list[str]:
    """Return the names of all launches of this owner that were not released, or only partly."""
    if not SAFE.fullmatch(owner):
        return []
    try:
        entries = os.listdir(f"{folder}/launches/{owner}")
    except FileNotFoundError:
        return []
    return sorted({entry[len(GONE) :] if entry.startswith(GONE) else entry for entry in entries})


def living(folder: str) -> list[LaunchDir]:
    """Return every launch that takes a slot, of all owners."""
    found = []
    for owner in os.listdir(f"{folder}/launches"):
        for name in names(folder, owner) if SAFE.fullmatch(owner) else ():
            launch = LaunchDir(f"{folder}/launches/{owner}/{name}")
            if launch.look()["standing"] in ("pending", "running"):
                found.append(launch)
    return found
