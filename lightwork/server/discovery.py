"""Discovery of the apps that run on this machine. Each app has a file, which its process holds locked.

The files are in ``lightwork-<uid>/apps`` in ``$XDG_RUNTIME_DIR``, or in the folder for temporary files. Only the user
can read them, because a file may hold the token of its app. The kernel releases the lock when the process dies,
whatever killed it. So a file that can be locked is left over from a dead app, and the next reader removes it. A pid
alone would not show this, because the kernel reuses pids.
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
    """The entry of a running app.

    Attributes:
        run: Id of the run; the file's name.
        name: Name of the app, not necessarily unique.
        file: The Python file that made the app, None if unknown.
        pid: Process id.
        url: Address of the HTTP server.
        token: Token that requests must send, None if no token is required.
        started_at: Seconds since the epoch.
        logs: Absolute path of the folder with the works' output, None if output is not kept.
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
    """Return the folder with the files. It may not exist."""
    parent = os.environ.get("XDG_RUNTIME_DIR")
    base = parent if parent and os.access(parent, os.W_OK) else tempfile.gettempdir()
    return Path(base) / f"lightwork-{os.getuid()}" / "apps"


def announce(app: AppFile) -> Callable[[], None]:
    """Publish the app until the returned function is called or this process ends.

    Raises:
        PlatformError: The folder cannot be made, or belongs to another user.
    """
    folder = apps_folder()
    try:
        _open_folder(folder)
        path = folder / f"{app.run}.json"
        # Locked before the rename, so every reader finds the file locked.
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
        raise PlatformError(f"cannot publish the app in {folder}: {error}") from error
    open_descriptors = [descriptor]

    def withdraw() -> None:
        if open_descriptors:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(open_descriptors.pop())

    return withdraw


def running_apps() -> list[AppFile]:
    """Return the running apps of this user on this machine, the latest first. Remove the files of dead apps.

    Raises:
        PlatformError: The folder belongs to another user, so its content cannot be trusted.
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
    """Refuse a folder of another user, who may have made it first where every user can write temporary files."""
    info = folder.lstat()
    if info.st_uid != os.getuid() or not stat.S_ISDIR(info.st_mode):
        raise PlatformError(
            f"{folder} must be a folder of the current user: remove it, or set XDG_RUNTIME_DIR to your own"
        )


def _read(path: Path) -> AppFile | None:
    """Return the app of a file. If the app is not running, remove the file and return None."""
    try:
        with path.open("rb") as file:
            if _is_held(file.fileno()):
                app = msgspec.json.decode(file.read(), type=AppFile)
                return app if _exists(app.pid) else None
            path.unlink()
    except FileNotFoundError:  # the app ended, or another reader removed the file
        return None
    except msgspec.MsgspecError:  # a running app of another version, which can read this file
        return None
    return None


def _is_held(descriptor: int) -> bool:
    try:
        # Shared, so that two readers at the same time do not take each other for the app.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _exists(pid: int) -> bool:
    """Return whether the process exists. The lock alone proves nothing: a forked child keeps it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
