"""How the apps that run on this machine are found: a file for each, which its process holds locked.

The files are in ``lightwork-<uid>/apps`` in ``$XDG_RUNTIME_DIR``, or in the folder for temporary files; nobody else
can read them, because a file may hold the token of its app. A process that dies lets go of the lock, whatever
killed it, so a file that can be locked is left over from one that died; whoever comes upon it removes it. A pid
alone would not tell: it is given out again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from lightwork.errors import PlatformError

__all__ = ["AppFile", "announce", "apps_folder", "running_apps"]


class AppFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a running app says of itself.

    Attributes:
        run: Id of the run, which names the file.
        name: The app's name, for people; several may have the same.
        file: The Python file it was made in, None where that is not known.
        pid: Its process.
        url: Where its HTTP side listens.
        token: What requests must show, None where nothing is asked.
        started_at: Seconds since the epoch.
        logs: Absolute path of the folder with the works' output, None where it is not kept.
    """

    run: str
    name: str
    pid: int
    url: str
    started_at: float
    file: str | None = None
    token: str | None = None
    logs: str | None = None

    def __repr__(self) -> str:
        return f"AppFile(run={self.run!r}, name={self.name!r}, pid={self.pid}, url={self.url!r})"


def apps_folder() -> Path:
    """The folder with the files. It need not exist."""
    parent = os.environ.get("XDG_RUNTIME_DIR")
    base = parent if parent and os.access(parent, os.W_OK) else tempfile.gettempdir()
    return Path(base) / f"lightwork-{os.getuid()}" / "apps"


def announce(app: AppFile) -> Callable[[], None]:
    """Let the app be found, until the returned function is called or this process ends.

    Raises:
        PlatformError: The folder cannot be made, or belongs to another user.
    """
    folder = apps_folder()
    try:
        _open_folder(folder)
        path = folder / f"{app.run}.json"
        # Locked before it has its name: whoever finds it finds it locked.
        descriptor, aside = tempfile.mkstemp(prefix=f".{app.run}-", dir=folder)
        try:
            os.write(descriptor, msgspec.json.encode(app))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.rename(aside, path)
        except BaseException:
            os.close(descriptor)
            os.unlink(aside)
            raise
    except OSError as error:
        raise PlatformError(f"the app cannot be made known in {folder}: {error}") from error
    open_descriptors = [descriptor]

    def withdraw() -> None:
        if open_descriptors:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(open_descriptors.pop())

    return withdraw


def running_apps() -> list[AppFile]:
    """The apps of this user that run on this machine, the latest first. Removes what dead ones left behind.

    Raises:
        PlatformError: The folder belongs to another user, so what is in it cannot be trusted.
    """
    folder = apps_folder()
    try:
        _check_owner(folder.parent)
        _check_owner(folder)
        paths = sorted(folder.glob("*.json"))
    except FileNotFoundError:
        return []
    found = [app for path in paths if (app := _read(path)) is not None]
    return sorted(found, key=lambda app: app.started_at, reverse=True)


def _open_folder(folder: Path) -> None:
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(place)
        place.chmod(0o700)


def _check_owner(folder: Path) -> None:
    """Where temporary files are everybody's, another user could have made the folder first."""
    info = folder.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
        raise PlatformError(f"{folder} is not a folder of this user's: remove it, or set XDG_RUNTIME_DIR to one")


def _read(path: Path) -> AppFile | None:
    """The app of a file; None if it is not running, and then the file is removed."""
    try:
        with path.open("rb") as file:
            if _is_held(file.fileno()):
                app = msgspec.json.decode(file.read(), type=AppFile)
                return app if _exists(app.pid) else None
            path.unlink()
    except FileNotFoundError:  # it ended, or somebody else has removed it
        return None
    except msgspec.MsgspecError:  # of another version, and running: its own version finds it
        return None
    return None


def _is_held(descriptor: int) -> bool:
    try:
        # Shared, so that two who look at the same time do not take each other for the app.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _exists(pid: int) -> bool:
    """Whether there is such a process. A child that it forked holds its lock when it has gone itself."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
