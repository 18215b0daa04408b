"""The start of a worker's process, from the fork or the exec to the entry, and its end.

Everything here runs in the worker's process, before and after the user's code.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from lightwork.runtime import resolve_entry
from lightwork_runtimes.local._launchdir import LaunchDir, PidFile, SpecFile
from lightwork_runtimes.local._process import STAMP, Identity, birth_of

__all__ = ["after_fork", "prepare", "spawned"]

_OOM_SCORE = b"500"
_LINE_BUFFERED = 1  # _IOLBF of glibc, musl and macOS
_FRESH: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}
"""Signal handlers that the interpreter sets when it starts."""

_RESETTABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def prepare() -> list[int]:
    """Do the work that every child would repeat, once before the first fork. Return the signals that a child resets."""
    _libc()
    _streams()
    if sys.platform == "linux":
        birth_of(os.getpid())
    return [number for number in _RESETTABLE if signal.getsignal(number) is not _FRESH.get(number, signal.SIG_DFL)]


def after_fork(
    folder: LaunchDir,
    spec: SpecFile,
    launcher: int,
    stdin: int,
    log: int,
    signals: list[int],
    stamp: Callable[[str], None],
) -> NoReturn:
    """Become the worker of `spec`. Called in the forked child; never returns.

    `signals` is the result of `prepare`. These signals are blocked when this is called.
    """
    code = 1
    try:
        os.setsid()
        _take_streams(stdin, log)
        _reset_signals(signals)
        stamp(spec.name)
        if _announce(folder, "", launcher):
            os.environ.update(spec.env)
            os.environ[STAMP] = spec.name
            _settle_in(spec)
            _reseed_numpy()
            gc.enable()
            code = _finish(_run(spec.entry))
    except BaseException as error:
        _print_exception(error)
    finally:
        os._exit(code)


def spawned(path: str, launcher: int, note: str) -> NoReturn:
    """Become the worker of the launch folder `path`. Called in a fresh interpreter; never returns.

    It leaves the interpreter by `sys.exit`, so that the interpreter finalizes as usual.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    folder = LaunchDir(path)
    spec = folder.spec()
    if spec is None or not _announce(folder, note, launcher):
        sys.exit(1)
    _settle_in(spec)
    code = _run(spec.entry)
    _flush_c()
    sys.exit(code)


def _take_streams(stdin: int, log: int) -> None:
    os.dup2(stdin, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(stdin)
    os.close(log)


def _reset_signals(numbers: list[int]) -> None:
    """Set the signal handlers of a fresh interpreter, then unblock the signals that arrived meanwhile."""
    for number in numbers:
        signal.signal(number, _FRESH.get(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _announce(folder: LaunchDir, note: str, launcher: int) -> bool:
    """Record this process; return False if it must not run because the launch was released or its launcher is dead.

    The record is written before the parent is checked. So a process that sees the launcher dead and then reads the
    record either finds this worker, or is right that there is no worker.
    """
    birth = birth_of(os.getpid())
    assert birth is not None
    try:
        folder.write_started(PidFile(Identity(os.getpid(), birth), note))
    except FileNotFoundError:  # released meanwhile
        return False
    return os.getppid() == launcher


def _settle_in(spec: SpecFile) -> None:
    sys.argv = [spec.entry]
    if spec.cwd is not None:
        os.chdir(spec.cwd)
    if sys.platform == "linux":
        try:
            # When memory runs out, the kernel should kill a worker, not the scheduler, which can report it.
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, _OOM_SCORE)
            finally:
                os.close(fd)
        except OSError as error:  # some sandboxes forbid it; the worker runs without it
            print(f"lightwork: cannot set oom_score_adj: {error}", file=sys.stderr)
    stdin, stdout, stderr = _streams()
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = stderr  # type: ignore[misc]
    _line_buffer_c()


@functools.cache
def _streams() -> tuple[Any, Any, Any]:
    """Return the three standard streams. They are made once: a child takes the unused ones that its parent made.

    Closing one of them does not close its descriptor. Otherwise the next file that is opened would get descriptor 1
    or 2.
    """
    return open(0, encoding="utf-8", closefd=False), _output(1), _output(2)


def _output(fd: int) -> Any:
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _line_buffer_c() -> None:
    """Set the stdout of the C library to line buffering, so that its output is not lost when the process crashes."""
    libc = _libc()
    try:
        stdout = ctypes.c_void_p.in_dll(libc, "__stdoutp" if sys.platform == "darwin" else "stdout")
    except ValueError:
        return  # a C library without that symbol: it flushes when its buffer is full, and at the end
    libc.setvbuf(stdout, None, _LINE_BUFFERED, 0)


def _flush_c() -> None:
    _libc().fflush(None)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.fflush.argtypes = [ctypes.c_void_p]
    return libc


def _reseed_numpy() -> None:
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def _run(entry: str) -> int:
    """Call the entry. Return the exit code that Python would use for its outcome."""
    try:
        result = resolve_entry(entry)()
    except SystemExit as leaving:
        return _exit_code(leaving.code)
    except BaseException as error:
        _print_exception(error)
        return 1
    return result & 0xFF if isinstance(result, int) else 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _print_exception(error: BaseException) -> None:
    """Print the traceback as the interpreter does, without the frame of this module that caught the error."""
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def _finish(code: int) -> int:
    """Do what the interpreter does at its end: wait for threads, run the atexit functions, flush."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a full disk, or the user closed the stream: Python exits with 120 then
            code = code or 120
    _flush_c()
    return code
