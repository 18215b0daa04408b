"""The helper process of a `LocalRuntime`. It forks workers, is their parent, and records their ends.

It imports the worker's modules once and forks from there, so it runs no thread and no event loop. If the scheduler
dies, the launcher lives on while it has workers: it waits for their ends, kills the rest of their process trees and
records their exit codes.

A worker's tree is its process group, and every process that has left the group but has the `LIGHTWORK_LAUNCH` stamp in
its environment. On Linux the launcher is the subreaper: a process of the tree that loses its parent becomes a child of
the launcher, so it is found among the launcher's children.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import heapq
import importlib
import itertools
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lightwork.runtime import Cause, resolve_entry, signal_name
from lightwork_runtimes.local import _child
from lightwork_runtimes.local._launchdir import LaunchDir, SpecFile
from lightwork_runtimes.local._messages import (
    Broken,
    Finish,
    Finishing,
    FrameBuffer,
    FromLauncher,
    Launch,
    Launched,
    Ready,
    Refused,
    Setup,
    decode_to_launcher,
    frame,
)
from lightwork_runtimes.local._oom import OomCounter
from lightwork_runtimes.local._process import Identity, all_pids, belongs, send_signal
from lightwork_runtimes.local._spawn import spawn
from lightwork_runtimes.local._stamp import StampWriter

__all__ = ["main"]

MARGIN = 5.0
"""Seconds that a worker has to end itself when its time as an orphan, or its lifetime, has passed."""

_TREE_WITHIN = 5.0
"""Seconds after which the end of a tree is recorded even if a process of it does not die."""

_LOOK_AGAIN = 0.05
"""Seconds between two checks of a killed tree that is not gone yet. There are no checks without such a tree."""

_PR_SET_CHILD_SUBREAPER = 36
_BATCH = 64


@dataclass
class _Worker:
    """A worker that was started and whose process tree may still exist."""

    pid: int
    folder: LaunchDir
    spec: SpecFile
    code: int | None = None
    give_up: float = 0.0
    is_unrecorded: bool = False
    doomed: set[Identity] = field(default_factory=set)


def main(fd: int) -> None:
    """Serve the scheduler at the other end of the socket `fd` until there is nothing left to do."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)  # it was inheritable to get here; workers must not inherit it
    try:
        _Launcher(sock).run()
        os._exit(0)  # only the workers run the exit functions of preloaded modules
    except BaseException:
        with contextlib.suppress(OSError):  # the scheduler has ended too
            sock.sendall(frame(Broken(traceback.format_exc())))
        raise


class _Launcher:
    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ, self._receive)
        self._frames = FrameBuffer()
        self._stdins: deque[int] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wakeups)
        self._workers: dict[int, _Worker] = {}
        self._ending: list[_Worker] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._fork = False
        self._scheduler_fd: int | None = None
        self._oom = OomCounter()
        self._stamp = StampWriter()
        self._signals: list[int] = []

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the scheduler has ended or sent `Finish`, and the last tree is gone."""
        self._prepare()
        while self._sock is not None or self._workers or self._ending:
            for key, _ in self._selector.select(self._next_timer()):
                key.data()
            self._reap()
            self._run_timers()
            self._clear_trees()

    def _prepare(self) -> None:
        # Signals of a terminal or a supervisor are for the scheduler and the workers. If the launcher ended first,
        # nobody would record how the workers ended.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def _drain_wakeups(self) -> None:
        self._wake_read.recv(4096)

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._count), action))

    def _next_timer(self) -> float | None:
        now = time.monotonic()
        waits = [self._timers[0][0] - now] if self._timers else []
        if self._ending:
            waits.append(_LOOK_AGAIN)
        return max(0.0, min(waits)) if waits else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    # --- the scheduler --------------------------------------------------------------------------

    def _receive(self) -> None:
        if self._sock is None:
            return
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 65536, _BATCH)
        except ConnectionError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)
        self._stdins.extend(fds)
        if not data:
            self._lost()
            return
        for body in self._frames.feed(data):
            message = decode_to_launcher(body)
            if isinstance(message, Setup):
                self._set_up(message)
            elif isinstance(message, Launch):
                self._launch(LaunchDir(message.folder), self._stdins.popleft())
            elif isinstance(message, Finish):
                self._reap()
                self._clear_trees()
                self._send(Finishing(len(self._workers) + len(self._ending)))
                self._hang_up()

    def _send(self, message: FromLauncher) -> None:
        if self._sock is not None:
            # The next read finds the end of the stream. The buffer is full only if the scheduler is dead.
            with contextlib.suppress(ConnectionError, BlockingIOError):
                self._sock.sendall(frame(message))

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._selector.unregister(self._sock)
            self._sock.close()
            self._sock = None
        if self._scheduler_fd is not None:
            self._selector.unregister(self._scheduler_fd)
            os.close(self._scheduler_fd)
            self._scheduler_fd = None

    def _lost(self) -> None:
        """Handle the scheduler's death: its workers must end themselves in time; kill those that do not."""
        if self._sock is None:
            return
        self._hang_up()
        for worker in self._workers.values():
            self._watch_orphan(worker)

    def _watch_orphan(self, worker: _Worker) -> None:
        self._look_at_orphan_later(worker, None)

    def _look_at_orphan_later(self, worker: _Worker, dead: Identity | None) -> None:
        window = max(0.0, worker.spec.orphan_after) + MARGIN
        self._at(time.monotonic() + window, lambda: self._end_orphan(worker, dead))

    def _end_orphan(self, worker: _Worker, dead: Identity | None) -> None:
        """End a worker that has been an orphan for a whole window.

        A keeper that lives, or was not known to be `dead` when the window began, may have kept the worker until now.
        So the worker is checked again after another window.
        """
        if worker.code is not None:
            return
        keeper = worker.folder.record().keeper
        if keeper is not None and keeper.is_alive:
            self._look_at_orphan_later(worker, None)
        elif keeper is not None and keeper != dead:
            self._look_at_orphan_later(worker, keeper)
        else:
            worker.folder.mark_stop(Cause.STOPPED)
            self._kill(worker)

    def _set_up(self, setup: Setup) -> None:
        self._fork = setup.fork
        if setup.fork:
            # The module of the entry: if it cannot be imported, the worker's log shows the error.
            with contextlib.suppress(Exception):
                importlib.import_module(setup.entry_module)
        error = ""
        try:
            for module in setup.preload if setup.fork else []:
                importlib.import_module(module)
        except BaseException:
            error = traceback.format_exc()
        if setup.fork and not error:
            resolve_entry(setup.warmup)()
        self._signals = _child.prepare()
        gc.collect()
        gc.freeze()
        # A process that the scheduler forked may keep the other end of the socket open after the scheduler's death.
        # So the launcher also watches the scheduler's pid.
        if sys.platform == "linux" and setup.scheduler == os.getppid():
            with contextlib.suppress(OSError):
                self._scheduler_fd = os.pidfd_open(setup.scheduler)
                self._selector.register(self._scheduler_fd, selectors.EVENT_READ, self._scheduler_died)
        self._send(Ready(error))

    def _scheduler_died(self) -> None:
        # Read first what the scheduler sent before it died.
        if self._scheduler_fd is not None:
            self._selector.unregister(self._scheduler_fd)
            os.close(self._scheduler_fd)
            self._scheduler_fd = None
        while self._sock is not None:
            self._sock.setblocking(False)
            try:
                self._receive()
            except BlockingIOError:
                self._lost()

    # --- starting -------------------------------------------------------------------------------

    def _launch(self, folder: LaunchDir, stdin: int) -> None:
        try:
            self._start(folder, stdin)
        except FileNotFoundError as error:  # the folder, or a file in it: released meanwhile
            self._refuse(folder, for_good=True, message=f"the launch was released while it started: {error}")
        except OSError as error:
            self._refuse(folder, for_good=False, message=f"cannot start a process: {error}")
        except ValueError as error:  # from posix_spawn: a NUL in the environment
            self._refuse(folder, for_good=True, message=str(error))
        else:
            self._send(Launched(folder.path))
        finally:
            os.close(stdin)

    def _start(self, folder: LaunchDir, stdin: int) -> None:
        spec = folder.spec()
        if spec is None:
            raise FileNotFoundError(errno.ENOENT, "no spec", folder.path)
        if spec.cwd is not None and not os.path.isdir(spec.cwd):
            raise ValueError(f"cwd must be an existing folder, got {spec.cwd!r}")
        if not folder.claim():
            if folder.exists:  # stopped before it was started
                return
            raise FileNotFoundError(errno.ENOENT, "no folder", folder.path)
        log = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            pid = self._start_process(folder, spec, stdin, log)
        finally:
            os.close(log)
        worker = _Worker(pid, folder, spec)
        self._workers[pid] = worker
        if spec.max_lifetime is not None:
            self._at(time.monotonic() + spec.max_lifetime, lambda: self._end_lifetime(worker))

    def _start_process(self, folder: LaunchDir, spec: SpecFile, stdin: int, log: int) -> int:
        if spec.venv is not None:
            return spawn(folder, spec, stdin, log, f"in {spec.venv}")
        if not self._fork:
            return spawn(folder, spec, stdin, log, "")
        threads = _threads()
        if threads > 1:
            note = f"spawned: the launcher has {threads} threads, started by a module of `preload`, and cannot fork"
            return spawn(folder, spec, stdin, log, note)
        launcher = os.getpid()
        # Signals that the launcher ignores or handles stay blocked until the child has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            pid = os.fork()
            if pid == 0:
                self._leave_to_child()
                _child.after_fork(folder, spec, launcher, stdin, log, self._signals, self._stamp.write)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return pid

    def _leave_to_child(self) -> None:
        """In the child: close the launcher's descriptors, with the standard inputs of later launches.

        Descriptors that a preloaded module opened stay open: the module may still use them.
        """
        if self._sock is not None:
            self._sock.close()
        if self._scheduler_fd is not None:
            os.close(self._scheduler_fd)
        self._selector.close()
        self._wake_read.close()
        signal.set_wakeup_fd(-1)
        self._wake_write.close()
        for fd in self._stdins:
            os.close(fd)

    def _refuse(self, folder: LaunchDir, *, for_good: bool, message: str) -> None:
        folder.discard()
        self._send(Refused(folder.path, for_good, message))

    def _end_lifetime(self, worker: _Worker) -> None:
        if worker.code is None:
            worker.folder.mark_stop(Cause.LIFETIME)
            os.kill(worker.pid, signal.SIGTERM)
            self._at(time.monotonic() + MARGIN, lambda: self._kill(worker))

    # --- ending ---------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Handle every child that has ended. It is reaped last, so that its pid is not reused before."""
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            worker = self._workers.pop(seen.si_pid, None)
            if worker is not None:
                worker.code = seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status
                worker.give_up = time.monotonic() + _TREE_WITHIN
                _kill_group(worker.pid)
                self._ending.append(worker)
            os.waitpid(seen.si_pid, 0)

    def _kill(self, worker: _Worker) -> None:
        if worker.code is None:
            os.kill(worker.pid, signal.SIGKILL)  # a child that was just forked may not lead its group yet
            _kill_group(worker.pid)

    def _clear_trees(self) -> None:
        if not self._ending:
            return
        strays = self._strays()
        remaining: list[_Worker] = []
        for worker in self._ending:
            found = belongs(strays, worker.spec.name, worker.pid) if strays else []
            for process in found:
                send_signal(process, signal.SIGKILL)
            # A dying process loses its environment before it becomes a zombie: remember the killed processes.
            worker.doomed.update(found)
            left = [process for process in worker.doomed if process.is_alive]
            note = ""
            if left or _group_exists(worker.pid):
                if time.monotonic() <= worker.give_up:
                    remaining.append(worker)
                    continue
                note = f"; these processes do not die: {[process.pid for process in left]}"
            try:
                self._report_end(worker, note)
            except OSError as error:
                # The disk is full, and so is the reserved space. Try again until it works: a worker without a recorded
                # end would count as alive forever. So would all other workers if the launcher exited now.
                if not worker.is_unrecorded:
                    worker.is_unrecorded = True
                    print(f"lightwork: cannot record the end of {worker.spec.name}: {error}", file=sys.stderr)
                remaining.append(worker)
        self._ending = remaining

    def _strays(self) -> list[int]:
        """Return the children that are not workers: processes of a tree that lost their parent."""
        if sys.platform != "linux":
            return []
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                pids = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:  # a kernel without that file
            pids = [pid for pid in all_pids() if pid != os.getpid()]
        return [pid for pid in pids if pid not in self._workers]

    def _report_end(self, worker: _Worker, note: str) -> None:
        assert worker.code is not None
        cause = worker.folder.record().stop
        detail = f"exit code {worker.code}" if worker.code >= 0 else f"killed by {signal_name(-worker.code)}"
        if cause is None:
            cause = Cause.EXIT
            if worker.code == -signal.SIGKILL and self._oom.take():
                cause = Cause.OOM
                detail += ", and the kernel counted an out-of-memory kill in this control group"
        worker.folder.write_ended(worker.code, cause, detail + note)


def _threads() -> int:
    """Return the number of threads of this process, with those not started by Python."""
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else threading.active_count()


def _kill_group(leader: int) -> None:
    """Kill the group of a leader that is not reaped yet, so that its pid, and the group's, cannot be reused."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
        os.killpg(leader, signal.SIGKILL)


def _group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return sys.platform != "darwin"  # on macOS it means that only zombies are left
    return True
