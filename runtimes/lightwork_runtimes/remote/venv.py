"""Makes one virtual environment, in a separate process.

Standard input carries one line of JSON, the job, and stays open while the environment is wanted. When it ends, also
because the scheduler was killed, the maker kills the running command and removes the half-made environment. The lock is
held to the end: only one process of the user at a time makes an environment, and the process that gets the lock may
remove what a killed maker has left. `MARKER` is written last: a folder without it is never used.

The job is an object with these keys:

- ``folder``: the folder to make.
- ``python``: the minor version.
- ``uv``: path of uv, or null.
- ``seeds``: whether uv may install pip from a registry into the environment.
- ``commands``, ``requirements``, and ``options``: build commands, requirements, and more options for pip or uv.
- ``cwd``: the folder to run in.
- ``env``: variables to set if they are not set already.
- ``site``: package folders to search after the environment's own.
- ``made_of``: the content of the marker.

The last line of standard output is JSON: null, or an object that explains the failure: the ``step``, ``what`` was run,
``how`` it ended, and ``text``, the last lines of its output.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

from .kept import MARKER, locked

__all__ = ["find_uv", "main"]

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 15
_TAIL_BYTES = 8192
_BROKEN_OFF = 4
_PTH = "zzzz_lightwork_scheduler.pth"
"""A name that sorts after other .pth files, so that their folders come before the folders of ``site``."""


class _Failed(Exception):
    def __init__(self, step: str, what: str = "", how: str = "", text: str = "") -> None:
        super().__init__(text)
        self.said = {"step": step, "what": what, "how": how, "text": text}


class _Maker:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._folder: str = job["folder"]
        # Guards the three attributes below, which the thread that waits for the end of standard input also uses.
        self._guard = threading.Lock()
        self._is_locked = False
        self._is_cancelled = False
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Wait until standard input ends, then abort: the environment is no longer wanted."""
        while os.read(0, 4096):
            continue
        with self._guard:
            self._is_cancelled = True
            if not self._is_locked:  # it still waits for another maker and has made nothing
                os._exit(_BROKEN_OFF)
            if self._child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)

    def make(self) -> dict[str, str] | None:
        """Make the environment if it does not exist. Return None, or why it failed."""
        os.makedirs(os.path.dirname(self._folder), 0o700, exist_ok=True)
        with locked(f"{self._folder}.lock"):
            with self._guard:
                self._is_locked = True
            if os.path.exists(f"{self._folder}/{MARKER}"):
                return None
            self._remove()
            try:
                self._build()
            except _Failed as error:
                self._remove()
                return error.said
            except BaseException:
                self._remove()
                raise
        return None

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if os.path.lexists(self._folder):
            raise OSError(f"cannot remove the half-made environment {self._folder}")

    def _build(self) -> None:
        self._run("venv", self._venv_command())
        for command in self._job["commands"]:
            self._run("command", ["/bin/sh", "-c", command])
        if self._job["requirements"]:
            self._install()
        # Last, so that the installers do not find these packages.
        if self._job["site"]:
            lines = [f"import site; site.addsitedir({path!r})\n" for path in self._job["site"]]
            with open(
                f"{self._folder}/lib/python{self._job['python']}/site-packages/{_PTH}", "w", encoding="utf-8"
            ) as file:
                file.writelines(lines)
        with open(f"{self._folder}/{MARKER}.new", "w", encoding="utf-8") as file:
            json.dump(self._job["made_of"], file)
        os.rename(f"{self._folder}/{MARKER}.new", f"{self._folder}/{MARKER}")

    def _venv_command(self) -> list[str]:
        wanted: str = self._job["python"]
        uv: str | None = self._job["uv"]
        python = _find_python(wanted)
        # Commands may call pip, as in every other environment, so pip is installed only if there are commands. The
        # `venv` of Python installs pip without a registry, unless the system has removed ensurepip. It takes three
        # times as long as uv.
        has_pip = python is not None and importlib.util.find_spec("ensurepip") is not None
        if self._job["commands"] and has_pip and (uv is None or not self._job["seeds"]):
            return [python or wanted, "-m", "venv", self._folder]
        if uv is not None:
            seed = ["--seed"] if self._job["commands"] else []
            return [uv, "venv", "--quiet", "--no-project", *seed, "--python", python or wanted, self._folder]
        if python is None:
            here = ".".join(map(str, sys.version_info[:3]))
            raise _Failed(
                "venv",
                f"python{wanted}",
                "not found",
                f"works need the scheduler's Python version {wanted}, but neither python{wanted} nor uv, which can "
                f"install it, was found ({sys.executable} is {here}); install one of them",
            )
        return [python, "-m", "venv", self._folder]

    def _install(self) -> None:
        path = f"{self._folder}/requirements.txt"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self._job["requirements"])
        python = f"{self._folder}/bin/python"
        if self._job["uv"] is not None:
            tool = [self._job["uv"], "pip", "install", "--quiet", "--python", python, "--color", "never"]
        else:
            tool = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-color"]
        self._run("install", [*tool, *self._job["options"], "-r", path])

    def _run(self, step: str, argv: list[str]) -> None:
        """Run one step. Its process group is gone when this returns or raises."""
        log = f"{self._folder}.log"
        with open(log, "w+b", opener=_private) as output:
            with self._guard:
                if self._is_cancelled:
                    raise _Failed("cancelled")
                self._child = child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._job["cwd"],
                    env=self._environment(),
                    start_new_session=True,
                    # The other thread is in a read, so it holds no lock that the fork could copy.
                    preexec_fn=_die_with_parent(),
                )
            # Wait without reaping, so that the pid of the child and its group is not reused until the kill.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            with self._guard:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
                    os.killpg(child.pid, signal.SIGKILL)
                code = child.wait()
                self._child = None
                is_cancelled = self._is_cancelled
            text = _tail(log)
        os.unlink(log)
        if is_cancelled:
            raise _Failed("cancelled")
        if code:
            how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            raise _Failed(step, argv[2] if step == "command" else os.path.basename(argv[0]), how, text)

    def _environment(self) -> dict[str, str]:
        """Return the variables of this process, as if the virtual environment were activated."""
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
        env["VIRTUAL_ENV"] = self._folder
        env["PATH"] = f"{self._folder}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
        return {**self._job["env"], **env}


def _find_python(wanted: str) -> str | None:
    """Return an interpreter of the wanted version: this one, or one on the search path. None if not found."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == wanted:
        return sys.executable
    return shutil.which(f"python{wanted}")


def find_uv() -> str | None:
    """Return the path of uv: on the search path, which a login without a terminal may lack, or in its usual places."""
    usual = os.pathsep.join(os.path.expanduser(folder) for folder in ("~/.local/bin", "~/.cargo/bin"))
    return shutil.which("uv") or shutil.which("uv", path=f"{os.path.dirname(sys.executable)}{os.pathsep}{usual}")


def _die_with_parent() -> Any:
    """Return a function for a child to call, so that the kernel kills it when this process dies. Linux only."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


def main() -> int:
    """Do the job on standard input. Return the exit code."""
    line = b""
    while not line.endswith(b"\n"):  # not buffered: the thread that watches reads the rest of the stream
        piece = os.read(0, 65536)
        if not piece:
            return _BROKEN_OFF
        line += piece
    maker = _Maker(json.loads(line))
    threading.Thread(target=maker.watch, daemon=True).start()
    print(json.dumps(maker.make()))
    return 0
