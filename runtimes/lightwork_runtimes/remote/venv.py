"""Makes one virtual environment, in a process of its own.

Standard input carries one line of JSON, the job, and is then held open for as long as the environment is wanted: at
its end, which a scheduler that was killed makes too, what runs is killed and what is half-made is removed. The lock is
held to the end, so of all processes of this user one at a time makes one environment, and whoever gets the lock may
remove what a killed maker has left. `MARKER` is written last: a folder without it is never used.

The job is an object: the ``folder`` to make; ``python``, the minor version; ``uv``, its path or null, and whether that
``seeds`` environments with pip from a registry; ``commands``, ``requirements``, and ``options`` for pip or uv besides;
``cwd``; ``env``, variables that are set where they are not; ``site``, folders of packages to be found behind the
environment's own; ``made_of``, what the marker says.

The last line of standard output is JSON: null, or an object that says why there is none: the ``step``, ``what`` was
run, ``how`` it ended, and the last lines of its output, ``text``.
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
"""Sorts behind the names of other .pth files, so that what those add comes before the folders of ``site``."""


class _Failed(Exception):
    def __init__(self, step: str, what: str = "", how: str = "", text: str = "") -> None:
        super().__init__(text)
        self.said = {"step": step, "what": what, "how": how, "text": text}


class _Maker:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._folder: str = job["folder"]
        # Guards the three below: the thread that waits for the end of standard input acts on them.
        self._guard = threading.Lock()
        self._is_locked = False
        self._is_cancelled = False
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Wait until nobody wants the environment any more, and break off."""
        while os.read(0, 4096):
            continue
        with self._guard:
            self._is_cancelled = True
            if not self._is_locked:  # it waits for another maker, and has made nothing
                os._exit(_BROKEN_OFF)
            if self._child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)

    def make(self) -> dict[str, str] | None:
        """Make it if it is not there; returns why there is none, if so."""
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
            raise OSError(f"{self._folder} is half-made and cannot be removed")

    def _build(self) -> None:
        self._run("venv", self._venv_command())
        for command in self._job["commands"]:
            self._run("command", ["/bin/sh", "-c", command])
        if self._job["requirements"]:
            self._install()
        # Last, so that no installer takes these packages for the environment's own.
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
        # Commands may call pip, as in every other environment; only then it is worth its installation. Python's own
        # way has it without a registry, where the system has not taken it out, and takes three times as long.
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
                f"there is neither a python{wanted} nor uv, which could fetch one ({sys.executable} is {here}); works "
                f"need the minor version of the scheduler, {wanted}",
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
                    # The thread that exists beside this one is in a read: it holds no lock that the fork could keep.
                    preexec_fn=_die_with_parent(),
                )
            # Looked at first and reaped later: until then its pid, and so its group's, is its own.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            with self._guard:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses where zombies are left
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
        """That of whoever asked, as if the environment were activated."""
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
        env["VIRTUAL_ENV"] = self._folder
        env["PATH"] = f"{self._folder}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
        return {**self._job["env"], **env}


def _find_python(wanted: str) -> str | None:
    """An interpreter of the wanted version: the one that runs this, or one of the search path."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == wanted:
        return sys.executable
    return shutil.which(f"python{wanted}")


def find_uv() -> str | None:
    """The `uv` of the search path, which a login without a terminal has not always got, or of its usual places."""
    usual = os.pathsep.join(os.path.expanduser(folder) for folder in ("~/.local/bin", "~/.cargo/bin"))
    return shutil.which("uv") or shutil.which("uv", path=f"{os.path.dirname(sys.executable)}{os.pathsep}{usual}")


def _die_with_parent() -> Any:
    """What a child calls so that the kernel kills it when this process is killed. Linux only."""
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
    """Do the job on standard input; returns the exit code."""
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
