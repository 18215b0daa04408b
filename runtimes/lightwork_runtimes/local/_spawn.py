"""Start a worker as a fresh interpreter: if it cannot be forked, or runs in a virtual environment."""

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
    """Start the worker of `spec` as a child of this process, the launcher. Return its pid.

    Raises:
        OSError: The process cannot be started, or the interpreter does not exist.
        ValueError: The environment contains a NUL byte.
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
    """Hold an environment while the worker lives: the worker inherits the returned descriptor."""
    held = kept.hold(venv, kept.MARKER)
    if held is None:
        raise OSError(errno.ENOENT, "the environment was removed", venv)
    os.set_inheritable(held, True)
    return held


def _path_code(spec: SpecFile) -> str:
    """Return the statement that sets the `sys.path` of a spawned worker to the scheduler's.

    In a virtual environment, the packages of the environment come before the scheduler's packages.
    """
    if spec.venv is None:
        return f"sys.path[:] = {sys.path!r}"
    packages = {*site.getsitepackages(), site.getusersitepackages()}
    split = next((index for index, entry in enumerate(sys.path) if entry in packages), len(sys.path))
    first, last = sys.path[:split], sys.path[split:]
    return f"f, l = {first!r}, {last!r}; sys.path[:] = f + [p for p in sys.path if p and p not in f + l] + l"


def _environment(spec: SpecFile) -> dict[str, str]:
    """Return the variables of a spawned worker. A virtual environment is set as if it were activated."""
    env = {**os.environ, **spec.env, STAMP: spec.name}
    if spec.venv is not None:
        env.pop("PYTHONHOME", None)
        env["VIRTUAL_ENV"] = spec.venv
        env["PATH"] = f"{spec.venv}/bin{os.pathsep}{env.get('PATH', os.defpath)}"
    return env
