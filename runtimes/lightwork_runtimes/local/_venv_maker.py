"""Makes one virtual environment: the program that `Venvs` runs for it.

A process of its own, so that nothing of this is in the scheduler's event loop, and so that one end of a pipe
tells both of a cancellation and of a scheduler that was killed: standard input carries one line of JSON, the
job, and is then held open for as long as the environment is wanted. At its end what runs is killed, and what
is half-made is removed. The lock is taken first and held to the end, so of all processes of this user one at
a time makes one environment, and whoever gets the lock may remove what a killed maker has left. `MARKER` is
written last: a folder without it is never used.

Run by its path in an isolated interpreter: it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["FAILED", "MARKER"]

MARKER = "lightwork.json"
"""The file in a complete environment that says so, and what it was made from."""

FAILED = 3
"""Exit code of a job that cannot be done as it stands; standard output says why."""

_CANCELLED = 4
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 15
_TAIL_BYTES = 8192
_SHOWN = 20
# Sorts behind the names of other .pth files, so that what those add comes before the scheduler's packages.
_PTH = "zzzz_lightwork_scheduler.pth"


class _StepError(Exception):
    """A step failed; the text is for whoever asked for the environment."""


class _CancelledError(Exception):
    """Nobody wants the environment any more."""


class _Maker:
    def __init__(self, job: dict[str, Any]) -> None:
        self._folder: str = job["folder"]
        self._requirements: list[str] = job["requirements"]
        self._commands: list[str] = job["commands"]
        self._uv: str | None = job["uv"]
        self._python: str = job["python"]
        self._site: list[str] = job["site"]
        self._cwd: str = job["cwd"]
        # Guards the three below: the thread that waits for the end of standard input acts on them.
        self._guard = threading.Lock()
        self._locked = False
        self._cancelled = False
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Wait until nobody wants the environment any more, and break off."""
        while os.read(0, 4096):
            continue
        with self._guard:
            self._cancelled = True
            if not self._locked:  # it waits for another maker, and has made nothing
                os._exit(_CANCELLED)
            if self._child is not None:
                os.killpg(self._child.pid, signal.SIGKILL)

    def make(self) -> int:
        """Make it if it is not there; returns the exit code."""
        os.makedirs(os.path.dirname(self._folder), 0o700, exist_ok=True)
        lock = os.open(f"{self._folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with self._guard:
            self._locked = True
        marker = f"{self._folder}/{MARKER}"
        if os.path.exists(marker):
            return 0
        self._remove()
        try:
            self._build()
        except _StepError as error:
            print(error)
            self._remove()
            return FAILED
        except _CancelledError:
            self._remove()
            return _CANCELLED
        except BaseException:
            self._remove()
            raise
        with open(f"{marker}.new", "w", encoding="utf-8") as file:
            json.dump({"requirements": self._requirements, "commands": self._commands, "python": sys.version}, file)
        os.rename(f"{marker}.new", marker)
        return 0

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if os.path.lexists(self._folder):
            raise OSError(f"{self._folder} is half-made and cannot be removed")

    def _build(self) -> None:
        if self._uv is not None:
            # Commands may call pip, as in every other environment; only then it is worth its installation.
            seed = ["--seed"] if self._commands else []
            make = [self._uv, "venv", "--quiet", "--no-project", *seed, "--python", self._python, self._folder]
        else:
            make = [self._python, "-m", "venv", self._folder]
        self._run(make, f"no virtual environment could be made in {self._folder}")
        for command in self._commands:
            self._run(["/bin/sh", "-c", command], f"the build command {command!r} failed")
        if self._requirements:
            self._install()
        # Last, so that no installer takes the scheduler's packages for the environment's own.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in self._site]
        with open(f"{self._own_site()}/{_PTH}", "w", encoding="utf-8") as file:
            file.writelines(lines)

    def _install(self) -> None:
        path = f"{self._folder}/requirements.txt"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self._requirements)
        python = f"{self._folder}/bin/python"
        if self._uv is not None:
            tool = [self._uv, "pip", "install", "--quiet", "--python", python, "--color", "never"]
        else:
            tool = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-color"]
        shown = [repr(line) for line in self._requirements[:_SHOWN]]
        if len(self._requirements) > _SHOWN:
            shown.append(f"and {len(self._requirements) - _SHOWN} more")
        self._run([*tool, "-r", path], f"the requirements {', '.join(shown)} could not be installed")

    def _own_site(self) -> str:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return f"{self._folder}/lib/{version}/site-packages"

    def _run(self, argv: list[str], failure: str) -> None:
        """Run one step. Its process group is gone when this returns or raises."""
        log = f"{self._folder}.log"
        with open(log, "w+b", opener=_private) as output:
            with self._guard:
                if self._cancelled:
                    raise _CancelledError
                self._child = child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._cwd,
                    env=self._environment(),
                    start_new_session=True,
                    # The thread that exists beside this one is in a read: it holds no lock that the fork could keep.
                    preexec_fn=_die_with_parent(),
                )
            # Looked at first and reaped later: until then its pid, and so its group's, is its own.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            with self._guard:
                os.killpg(child.pid, signal.SIGKILL)
                code = child.wait()
                self._child = None
                cancelled = self._cancelled
            text = _tail(log)
        os.unlink(log)
        if cancelled:
            raise _CancelledError
        if code:
            how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            raise _StepError(f"{failure} ({os.path.basename(argv[0])}: {how}):\n{text}")

    def _environment(self) -> dict[str, str]:
        """That of the scheduler, as if the environment were activated."""
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
        env["VIRTUAL_ENV"] = self._folder
        env["PATH"] = f"{self._folder}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
        return env


def _die_with_parent() -> Callable[[], object] | None:
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
            return _CANCELLED
        line += piece
    maker = _Maker(json.loads(line))
    threading.Thread(target=maker.watch, daemon=True).start()
    return maker.make()


if __name__ == "__main__":
    sys.exit(main())
