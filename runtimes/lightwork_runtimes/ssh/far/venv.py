"""Makes one virtual environment, in a process of its own.

Standard input carries one line of JSON, the job, and is then held open for as long as the environment is wanted: at
its end what runs is killed and what is half-made is removed. The lock is held to the end, so of all processes of
this user one at a time makes one environment, and whoever gets the lock may remove what a killed maker has left.
`MARKER` is written last: a folder without it is never used.

The last line of standard output is JSON: null, or an object with ``step`` and ``text`` that says why there is none.
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

from .files import locked

__all__ = ["MARKER", "main"]

MARKER = "lightwork.json"
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 15
_TAIL_BYTES = 8192
_NETWORK = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1"}
"""Without a registry a failure must come soon: then the wheels are sent along. What the host sets itself wins."""


class _Failed(Exception):
    def __init__(self, step: str, text: str) -> None:
        super().__init__(text)
        self.step = step


class _Maker:
    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._root: str = job["root"]
        self._folder = f"{self._root}/venvs/{job['digest']}"
        self._guard = threading.Lock()
        self._cancelled = False
        self._child: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Wait until nobody wants the environment any more, and break off."""
        while os.read(0, 4096):
            continue
        with self._guard:
            self._cancelled = True
            if self._child is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._child.pid, signal.SIGKILL)

    def make(self) -> dict[str, str] | None:
        """Make it if it is not there; returns why there is none, if so."""
        os.makedirs(f"{self._root}/venvs", 0o700, exist_ok=True)
        with locked(f"{self._folder}.lock"):
            if os.path.exists(f"{self._folder}/{MARKER}"):
                return None
            self._remove()
            try:
                self._build()
            except _Failed as error:
                self._remove()
                return {"step": error.step, "text": str(error)}
            except BaseException:
                self._remove()
                raise
        return None

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if os.path.lexists(self._folder):
            raise OSError(f"{self._folder} is half-made and cannot be removed")

    def _build(self) -> None:
        uv, python = _find_uv(), self._find_python()
        self._run("venv", self._venv_command(uv, python))
        for command in self._job["commands"]:
            self._run("command", ["/bin/sh", "-c", command])
        self._install(uv)
        with open(f"{self._folder}/{MARKER}.new", "w", encoding="utf-8") as file:
            json.dump({"requirements": self._job["requirements"], "commands": self._job["commands"]}, file)
        os.rename(f"{self._folder}/{MARKER}.new", f"{self._folder}/{MARKER}")

    def _find_python(self) -> str | None:
        """An interpreter of the wanted version: the one that runs this, or one of the search path."""
        wanted: str = self._job["python"]
        if f"{sys.version_info[0]}.{sys.version_info[1]}" == wanted:
            return sys.executable
        return shutil.which(f"python{wanted}")

    def _venv_command(self, uv: str | None, python: str | None) -> list[str]:
        wanted: str = self._job["python"]
        # Commands may call pip, as in every other environment; only then it is worth its installation. Python's own
        # way has it without a registry, where the system has not taken it out.
        if self._job["commands"] and python is not None and importlib.util.find_spec("ensurepip") is not None:
            return [python, "-m", "venv", self._folder]
        if uv is not None:
            seed = ["--seed"] if self._job["commands"] else []
            return [uv, "venv", "--quiet", "--no-project", *seed, "--python", python or wanted, self._folder]
        if python is None:
            here = ".".join(map(str, sys.version_info[:3]))
            raise _Failed(
                "venv",
                f"there is neither a python{wanted} nor uv, which could fetch one ({sys.executable} is {here}); works "
                f"need the minor version of the scheduler, {wanted}",
            )
        return [python, "-m", "venv", self._folder]

    def _install(self, uv: str | None) -> None:
        path = f"{self._folder}/requirements.txt"
        wheels: str | None = self._job["wheels"]
        lines = [f"{self._root}/{self._job['lightwork']}", *self._job["requirements"]]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        python = f"{self._folder}/bin/python"
        if uv is not None:
            tool = [uv, "pip", "install", "--python", python, "--color", "never"]
        else:
            tool = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-color"]
        source = [] if wheels is None else ["--no-index", "--find-links", f"{self._root}/{wheels}"]
        self._run("install", [*tool, *source, "-r", path])

    def _run(self, step: str, argv: list[str]) -> None:
        """Run one step. Its process group is gone when this returns or raises."""
        log = f"{self._folder}.log"
        with open(log, "w+b") as output:
            with self._guard:
                if self._cancelled:
                    raise _Failed("cancelled", "")
                self._child = child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._job["cwd"] or self._root,
                    env=self._environment(),
                    start_new_session=True,
                    # The thread that exists beside this one is in a read: it holds no lock that the fork could keep.
                    preexec_fn=_die_with_parent(),
                )
            # Looked at first and reaped later: until then its pid, and so its group's, is its own.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            with self._guard:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                code = child.wait()
                self._child = None
            text = _tail(log)
        os.unlink(log)
        if code:
            how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            shown = argv[2] if step == "command" else os.path.basename(argv[0])
            raise _Failed(step, f"{shown}: {how}\n{text}")

    def _environment(self) -> dict[str, str]:
        """That of the login, as if the environment were activated."""
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
        env["VIRTUAL_ENV"] = self._folder
        env["PATH"] = f"{self._folder}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
        return {**_NETWORK, **env}


def _find_uv() -> str | None:
    """The `uv` of the search path, which a login without a terminal has not always got, or of its usual places."""
    usual = os.pathsep.join(os.path.expanduser(folder) for folder in ("~/.local/bin", "~/.cargo/bin"))
    return shutil.which("uv") or shutil.which("uv", path=f"{usual}{os.pathsep}{os.path.dirname(sys.executable)}")


def _die_with_parent() -> Any:
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


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
            return 1
        line += piece
    maker = _Maker(json.loads(line))
    threading.Thread(target=maker.watch, daemon=True).start()
    print(json.dumps(maker.make()))
    return 0
