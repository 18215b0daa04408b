"""Looks after one worker: starts it, ends it on request, as an orphan or after its lifetime, and records its end.

There is one supervisor process for each launch, in its own session and independent of the connection that requested it.
It is the subreaper of the worker's tree: a process of the tree that loses its parent becomes a child of the supervisor,
so the tree is gone when the supervisor has no child left. The worker dies with the supervisor (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from .files import SHORTAGES, STAMP, LaunchDir, me

__all__ = ["MARGIN", "Supervisor", "main"]

MARGIN = 10.0
"""Seconds after the worker's own deadlines at which the supervisor ends it."""

_TREE_WITHIN = 30.0
_LOOK_AGAIN = 0.05
"""Seconds between two checks of killed processes that are still dying. The kernel reports direct children only."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_OOM_SCORE = "500"


class Supervisor:
    """The supervisor of one launch.

    Args:
        launch: Folder of the launch.
        job: How to start the worker: argv, env, cwd, the times in seconds, and the descriptors that it inherits.
        ticket: Data for the worker's standard input.
    """

    def __init__(self, launch: LaunchDir, job: dict[str, Any], ticket: bytes) -> None:
        self._launch = launch
        self._job = job
        self._ticket = ticket
        self._orphan_at: float | None = None
        self._force_at: float | None = None
        self._lifetime_at: float | None = None
        self._asked = False
        self._killed = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._lease = os.open(f"{launch.path}/lease", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._oom_file = _oom_file()
        self._oom_before = _oom_kills(self._oom_file)
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker. Raise OSError if it cannot be started."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        stdin, ticket = os.pipe()
        os.write(ticket, self._ticket)  # `serve` has checked that it fits into the pipe
        os.close(ticket)
        log = os.open(f"{self._launch.path}/log", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            self._worker = subprocess.Popen(
                self._job["argv"],
                stdin=stdin,
                stdout=log,
                stderr=log,
                cwd=self._job["cwd"],
                env={**os.environ, **self._job["env"], STAMP: self._launch.name},
                start_new_session=True,
                pass_fds=self._job["held"],
                preexec_fn=self._before_exec,
            )
        finally:
            # Only the worker's tree holds the used folders, so they are free when its end is recorded.
            for fd in (stdin, log, *self._job["held"]):
                os.close(fd)
        self._prefer_for_oom()
        now = time.monotonic()
        if self._job["max_lifetime"] is not None:
            self._lifetime_at = now + self._job["max_lifetime"]
        self._lease_lost()

    def _before_exec(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def _prefer_for_oom(self) -> None:
        """Make the kernel kill the worker when memory runs out, not the supervisor, which can report it."""
        assert self._worker is not None
        # Some sandboxes forbid it; the worker runs without it.
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{self._worker.pid}/oom_score_adj", "w", encoding="ascii") as file,
        ):
            file.write(_OOM_SCORE)

    # --- watching -------------------------------------------------------------------------------

    def watch(self) -> None:
        """Return when the worker and its tree are gone and the end is recorded."""
        events = select.epoll()
        events.register(self._wake_read, select.EPOLLIN)
        # Edge-triggered: a FIFO without writers is ready all the time, and the next writer's first byte is an edge.
        events.register(self._lease, select.EPOLLIN | select.EPOLLET)
        assert self._worker is not None
        # Check without reaping, so that the pid of the worker and its group is not reused until the tree is gone.
        while (ended := _look_at(self._worker.pid)) is None:
            events.poll(self._next_timer())
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            self._read_lease()
            self._run_timers()
        left = self._clear_tree()
        self._write_end(ended, left)

    def _next_timer(self) -> float | None:
        times = [at for at in (self._orphan_at, self._force_at, self._lifetime_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        if self._lifetime_at is not None and now >= self._lifetime_at:
            self._lifetime_at, self._force_at = None, now + MARGIN
            self._launch.add("stop", "lifetime")
            self._ask()
        if self._orphan_at is not None and now >= self._orphan_at:
            self._orphan_at = None
            self._launch.add("stop", "stopped")
            self._kill()
        if self._force_at is not None and now >= self._force_at:
            self._force_at = None
            self._kill()

    def _read_lease(self) -> None:
        while True:
            try:
                data = os.read(self._lease, 512)
            except BlockingIOError:  # read to the end, and a writer has it open
                return
            if not data:
                if self._orphan_at is None:
                    self._lease_lost()
                return
            self._orphan_at = None
            if b"T" in data:
                self._ask()
            if b"K" in data:
                self._kill()

    def _lease_lost(self) -> None:
        if self._job["leased"]:
            self._orphan_at = time.monotonic() + self._job["orphan_after"] + MARGIN

    # --- ending ---------------------------------------------------------------------------------

    def _ask(self) -> None:
        # Only once: to many programs a second SIGTERM means "now".
        assert self._worker is not None
        if not self._asked:
            self._asked = True
            os.kill(self._worker.pid, signal.SIGTERM)

    def _kill(self) -> None:
        assert self._worker is not None
        self._killed = True
        os.kill(self._worker.pid, signal.SIGKILL)

    def _clear_tree(self) -> list[int]:
        """Kill all descendants of the worker. Return the pids that do not die in time."""
        assert self._worker is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._worker.pid, signal.SIGKILL)
        os.waitpid(self._worker.pid, 0)
        give_up = time.monotonic() + _TREE_WITHIN
        while children := _children():
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # a child that is not reaped yet, so its pid is not reused
            if time.monotonic() > give_up:
                return children
            select.select([self._wake_read], [], [], _LOOK_AGAIN)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
        return []

    def _write_end(self, code: int, left: list[int]) -> None:
        cause = self._launch.read("stop")
        detail = f"exit code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
        if cause is None:
            cause = "exit"
            if code == -signal.SIGKILL and _oom_kills(self._oom_file) > self._oom_before:
                cause = "oom"
                detail += ", and the kernel counted an out-of-memory kill in this control group"
        if left:
            detail += f"; these processes do not die: {left}"
        self._launch.add("exit", [code, cause, detail])


def _look_at(pid: int) -> int | None:
    """Return the exit code of a child that has ended, or minus its signal; None while it runs."""
    seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if seen is None:
        return None
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without that file
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(entry) == os.getpid()]


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _oom_file() -> str | None:
    """Return the file with the out-of-memory kill count of this control group, None if not found."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    candidates = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            candidates += [f"/sys/fs/cgroup{group}/memory.events", f"/sys/fs/cgroup/unified{group}/memory.events"]
        elif controllers == "memory":
            candidates.append(f"/sys/fs/cgroup/memory{group}/memory.oom_control")
    return next((path for path in candidates if os.path.isfile(path)), None)


def _oom_kills(path: str | None) -> int:
    if path is None:
        return 0
    try:
        with open(path, encoding="ascii") as file:
            counts = dict(line.split(None, 1) for line in file)
    except (OSError, ValueError):  # the control group was removed
        return 0
    return int(counts.get("oom_kill", 0))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def main(path: str, parent: str) -> int:
    """Supervise the launch at `path`, requested by the process with the pid `parent`. Return the exit code.

    Standard input carries one line of JSON, the job, and then the ticket. Standard output gets one line of JSON: an
    empty object if the worker was started, otherwise the reason why it was not.
    """
    data = sys.stdin.buffer.read()
    head, _, ticket = data.partition(b"\n")
    launch = LaunchDir(path)
    supervisor = None
    problem: dict[str, str] = {}
    try:
        supervisor = Supervisor(launch, json.loads(head), ticket)
        # The file is written before the parent is checked. So a process that sees the parent dead and then reads the
        # file either finds this supervisor, or is right that there is no worker.
        if not launch.add("pid", list(me())) or os.getppid() != int(parent):
            raise ConnectionError("the connection ended before the worker was started")
        supervisor.start()
    except (OSError, ValueError) as error:
        kind = "no_capacity" if getattr(error, "errno", None) in SHORTAGES else "rejected"
        problem = {"kind": kind, "message": str(error)}
        launch.add("exit", [None, "start_failed", str(error)])
    print(json.dumps(problem), flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    if supervisor is None or problem:
        return 1
    supervisor.watch()
    return 0
