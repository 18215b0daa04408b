"""Identify processes, and signal them without hitting another process that got the same pid later.

An identity is a pid and a birth: the kernel's start time within this boot. Signals go through a pidfd that was opened
before the birth was compared, so the check and the signal concern the same process. Without pidfd the check comes just
before the signal, which leaves a small race; those platforms offer nothing better.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterable

import msgspec

from lightwork_runtimes.remote.files import has_variable

__all__ = [
    "HAS_PIDFD",
    "STAMP",
    "Identity",
    "all_pids",
    "belongs",
    "birth_of",
    "interpreter_flags",
    "open_pidfd",
    "read_file",
    "send_signal",
]

_PIECE = 65536

STAMP = "LIGHTWORK_LAUNCH"
"""Environment variable that every process of a launch inherits. Its value is the launch's name."""

HAS_PIDFD = sys.platform == "linux" and hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


class Identity(msgspec.Struct, frozen=True):
    """A unique identity of a process. A pid alone is reused."""

    pid: int
    birth: str

    @property
    def is_alive(self) -> bool:
        """Whether the process runs. False for a zombie."""
        return birth_of(self.pid) == self.birth


def read_file(path: str) -> bytes | None:
    """Return the content of a file, None if it does not exist. For a small file this takes a third of `open`'s time."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        pieces = [os.read(fd, _PIECE)]
        while len(pieces[-1]) == _PIECE:
            pieces.append(os.read(fd, _PIECE))
    except ProcessLookupError:  # a file of /proc whose process has just been reaped
        return None
    finally:
        os.close(fd)
    return b"".join(pieces)


@functools.cache
def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(8)


def birth_of(pid: int) -> str | None:
    """Return the start time of a process as text to compare. None if it does not exist or is a zombie."""
    if sys.platform != "linux":
        return _birth_by_ps(pid)
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return f"{_boot()}-{fields[19]}"


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third (state) on. The second may contain spaces and brackets."""
    data = read_file(f"/proc/{pid}/stat")
    return None if data is None else data.rpartition(b")")[2].decode().split()


def _birth_by_ps(pid: int) -> str | None:
    done = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    state, _, birth = done.stdout.strip().partition(" ")
    return None if not birth or state.startswith("Z") else " ".join(birth.split())


def open_pidfd(identity: Identity) -> int | None:
    """Open a pidfd of exactly this process. Return None if it has ended. Linux only."""
    assert sys.platform == "linux"
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if identity.is_alive:
        return fd
    os.close(fd)
    return None


def send_signal(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process. Return False if it has ended."""
    if sys.platform != "linux" or not HAS_PIDFD:
        if not identity.is_alive:
            return False
        os.kill(identity.pid, number)
        return True
    fd = open_pidfd(identity)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def all_pids() -> list[int]:
    """Return the pid of every process of this machine. Linux only."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def belongs(pids: Iterable[int], name: str, leader: int | None) -> list[Identity]:
    """Return the processes of `pids` that descend from the launch `name`. Linux only.

    A process belongs to the launch by its stamp or by its session. The session counts only while no process has the
    leader's pid: the kernel then reserves the number for the session, and no other process can get it.
    """
    by_session = leader is not None and _stat(leader) is None
    stamp = f"{STAMP}={name}".encode()
    found: list[Identity] = []
    for pid in pids:
        birth = birth_of(pid)
        if birth is None:
            continue
        if has_variable(pid, stamp) or (by_session and _session(pid) == leader):
            found.append(Identity(pid, birth))
    return found


def _session(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


def interpreter_flags() -> list[str]:
    """Return the options of this interpreter, to start another one that behaves the same."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags
