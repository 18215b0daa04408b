"""The entry that the launches of these tests run. The ticket, read from standard input, is one command in text."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main() -> int | str | None:
    command, _, rest = sys.stdin.buffer.read().decode().partition(" ")
    return _COMMANDS[command](rest)


def not_int() -> str:
    sys.stdin.read()
    return "a value that is no exit code"


def _exit(rest: str) -> int:
    return int(rest)


def _raise(rest: str) -> int:
    raise ValueError(rest)


def _leave(rest: str) -> int:
    sys.exit(json.loads(rest))


def _say(rest: str) -> int:
    print(rest)
    return 0


def _last_words(rest: str) -> int:
    print(rest)
    ctypes.CDLL(None).puts(b"and from C")
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def _c_buffered(rest: str) -> int:
    ctypes.CDLL(None).puts(rest.encode())
    return 0


def _wait(rest: str) -> int:
    print("waiting", flush=True)
    signal.pause()
    return 0


def _graceful(rest: str) -> int:
    def bye(*_: object) -> None:
        os.write(1, b"bye\n")  # not print: the signal may come while the main program is inside one
        sys.exit(7)

    signal.signal(signal.SIGTERM, bye)
    print("waiting", flush=True)
    while True:
        signal.pause()


def _stubborn(rest: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no\n"))
    print("waiting", flush=True)
    while True:
        signal.pause()


def _tree(rest: str) -> int:
    """Start a child, a child in its own session, and a daemon by double fork. Write their pids to a file."""
    sleep = [sys.executable, "-c", "import signal; signal.pause()"]
    pids = [subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid, _daemon()]
    target = Path(rest)
    aside = target.with_suffix(".new")
    aside.write_text(json.dumps([os.getpid(), *pids]))
    aside.rename(target)
    print("waiting", flush=True)
    signal.pause()
    return 0


def _daemon() -> int:
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(write, str(pid).encode())
            os._exit(0)
        signal.pause()
        os._exit(0)
    os.wait()
    return int(os.read(read, 20))


def _facts(rest: str) -> int:
    """Print facts about this process as JSON."""
    import random

    facts = {
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "env": os.environ.get("LW_TEST"),
        "stamp": os.environ.get("LIGHTWORK_LAUNCH"),
        "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        "fds": sorted(_open_fds()),
        "sigterm": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "oom": Path("/proc/self/oom_score_adj").read_text().strip(),
        "cmdline": Path("/proc/self/cmdline").read_text("utf-8", "replace"),
        "environ": Path("/proc/self/environ").read_text("utf-8", "replace"),
        "random": random.random(),
    }
    print(json.dumps(facts))
    return 0


def _open_fds() -> list[int]:
    found: list[int] = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(entry))
            found.append(int(entry))
    return found


def _write_lines(rest: str) -> int:
    for number in range(int(rest)):
        print(f"line {number:06}")
    return 0


def _atexit(rest: str) -> int:
    import atexit

    atexit.register(print, "at exit")
    return 0


def _clock(rest: str) -> int:
    """Print the time of the entry's start, by the clock that all processes of a machine share."""
    print(time.monotonic_ns())
    signal.pause()
    return 0


_COMMANDS: dict[str, Callable[[str], int]] = {
    "exit": _exit,
    "raise": _raise,
    "leave": _leave,
    "say": _say,
    "last-words": _last_words,
    "c-buffered": _c_buffered,
    "wait": _wait,
    "graceful": _graceful,
    "stubborn": _stubborn,
    "tree": _tree,
    "facts": _facts,
    "lines": _write_lines,
    "atexit": _atexit,
    "clock": _clock,
}
