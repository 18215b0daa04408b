"""Starting a worker as a fresh interpreter: where it cannot be forked, or runs in a virtual environment."""

from __future__ import annotations

import errno
import os
import signal
import site
import sys

from lightwork_runtimes.local._launchdir import LaunchDir, SpecFile
from lightwork_runtimes.local._process import STAMP, interpreter_flags
from lightwork_runtimes.remote import kept

__all__ = ["spawn"]

_RESETTABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def spawn(folder: LaunchDir, spec: SpecFile, stdin: int, log: int, note: str) -> int:
    """Start the worker of `spec` as a child of this process, the launcher; returns its pid.

    Raises:
        OSError: There is no process to be had, or no interpreter where one should be.
        ValueError: There is a NUL in the environment.
    """
    code = (
        f"import sys; {_path_code(spec)}; from lightwork_runtimes.local import _child; "
        f"_child.spawned({folder.path!r}, {os.getpid()}, {note!r})"
    )
    executable = sys.executable if spec.venv is None else f"{spec.venv}/bin/python"
    held = None if spec.venv is None else _hold(spec.venv)
    try:
        return os.posix_spawn(
            executable,
            [executable, *interpreter_flags(), "-c", code],
            _environment(spec),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsigmask=[],
            setsigdef=_RESETTABLE,
        )
    finally:
        if held is not None:
            os.close(held)


def _hold(venv: str) -> int:
    """Use an environment for as long as the worker lives, which inherits the descriptor."""
    held = kept.hold(venv, kept.MARKER)
    if held is None:
        raise OSError(errno.ENOENT, "the environment was removed", venv)
    os.set_inheritable(held, True)
    return held


def _path_code(spec: SpecFile) -> str:
    """The statement that gives a spawned worker the scheduler's `sys.path`.

    In a virtual environment, what that has put on the path comes before the scheduler's packages.
    """
    if spec.venv is None:
        return f"sys.path[:] = {sys.path!r}"
    packages = {*site.getsitepackages(), site.getusersitepackages()}
    split = next((index for index, entry in enumerate(sys.path) if entry in packages), len(sys.path))
    first, last = sys.path[:split], sys.path[split:]
    return f"f, l = {first!r}, {last!r}; sys.path[:] = f + [p for p in sys.path if p and p not in f + l] + l"


def _environment(spec: SpecFile) -> dict[str, str]:
    """Variables of a spawned worker; in a virtual environment, as if that were activated."""
    env = {**os.environ, **spec.env, STAMP: spec.name}
    if spec.venv is not None:
        env.pop("PYTHONHOME", None)
        env["VIRTUAL_ENV"] = spec.venv
        env["PATH"] = f"{spec.venv}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
    return env
