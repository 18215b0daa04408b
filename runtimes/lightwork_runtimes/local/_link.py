"""The scheduler's side of a launcher: its process, the socket, and the launches that await an answer."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from typing import assert_never

import anyio
import anyio.to_thread

from lightwork.runtime import NoCapacity, Rejected, RuntimeFailure, Unreachable
from lightwork_runtimes.local._launchdir import LaunchDir
from lightwork_runtimes.local._messages import (
    Broken,
    Finish,
    Finishing,
    FrameBuffer,
    Launch,
    Launched,
    Ready,
    Refused,
    Setup,
    ToLauncher,
    decode_from_launcher,
    frame,
)
from lightwork_runtimes.local._process import STAMP, Identity, birth_of, interpreter_flags
from lightwork_runtimes.local._stamp import PLACEHOLDER

__all__ = ["Answer", "LauncherDied", "LauncherLink"]

_PIPE_HOLDS = 4096
"""Bytes that fit into every pipe, even if the user has many pipes."""

_EXIT_WITHIN = 5.0

_left_behind: list[subprocess.Popen[bytes]] = []
"""Launchers that stayed with their workers. They are reaped when the next launcher is started or finished."""


class LauncherDied(NoCapacity):
    """The launcher died before it began this launch. Nothing is left of the launch."""


class Answer:
    """The outcome of one launch request. Any number of tasks may wait for it and be cancelled independently."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._error: RuntimeFailure | None = None

    def give(self, error: RuntimeFailure | None) -> None:
        """Set the outcome."""
        self._error = error
        self._event.set()

    async def wait(self) -> None:
        """Return when the worker was started. Raise the error if it was not."""
        await self._event.wait()
        if self._error is not None:
            raise self._error


class LauncherLink:
    """One launcher. `start` once, `submit` any number of times, `finish` once."""

    def __init__(self, *, fork: bool, entry_module: str, preload: list[str], warmup: str) -> None:
        self._setup = Setup(fork, entry_module, preload, warmup, scheduler=os.getpid())
        self._frames = FrameBuffer()
        self._outbox: deque[tuple[bytes, int | None]] = deque()
        self._answers: dict[str, Answer] = {}
        self._ready = asyncio.Event()
        self._finishing = asyncio.Event()
        self._stays_for = 0
        self._error: RuntimeFailure | None = None
        self.is_lost = False
        self.identity = Identity(0, "")

    async def start(self) -> None:
        """Start the process. Return while it still imports its modules."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await anyio.to_thread.run_sync(_start_process, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        birth = birth_of(self._process.pid)
        self.identity = Identity(self._process.pid, birth or "")
        self._sock = ours
        self._sock.setblocking(False)
        asyncio.get_running_loop().add_reader(self._sock, self._receive)
        self._send(self._setup)

    async def wait_ready(self) -> None:
        """Return when the launcher can launch.

        Raises:
            Rejected: A module of `preload` cannot be imported.
            Unreachable: The launcher died.
        """
        await self._ready.wait()
        if self._error is not None:
            raise self._error

    def submit(self, folder: str, ticket: bytes) -> Answer:
        """Request the process of this launch folder. The request is sent or queued when this returns.

        Raises:
            NoCapacity: This process has no descriptor left. Nothing was requested.
        """
        try:
            stdin = _readable(ticket)
        except OSError as error:
            raise NoCapacity(f"cannot make a pipe for the worker's ticket: {error}") from error
        answer = self._answers[folder] = Answer()
        self._send(Launch(folder), stdin)
        return answer

    def answer_to(self, folder: str) -> Answer | None:
        """Return the outcome of a request that was not answered yet; None if it was answered."""
        return self._answers.get(folder)

    async def finish(self) -> None:
        """Release the launcher. It ends now if it has no worker, otherwise after its last worker."""
        if self.is_lost:
            await anyio.to_thread.run_sync(_reap, self._process)
            return
        self._send(Finish())
        await self._finishing.wait()
        self._lose("the runtime was left")
        if self._stays_for:
            _left_behind.append(self._process)
        else:
            await anyio.to_thread.run_sync(_reap, self._process)

    # --- the socket -----------------------------------------------------------------------------

    def _send(self, message: ToLauncher, fd: int | None = None) -> None:
        self._outbox.append((frame(message), fd))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outbox:
            data, fd = self._outbox[0]
            try:
                sent = self._sock.send(data) if fd is None else socket.send_fds(self._sock, [data], [fd])
            except BlockingIOError:
                loop.add_writer(self._sock, self._flush)
                return
            except ConnectionError as error:
                self._lose(f"the launcher died: {error}")
                return
            if fd is not None:
                os.close(fd)
            if sent < len(data):
                self._outbox[0] = (data[sent:], None)
            else:
                self._outbox.popleft()
        loop.remove_writer(self._sock)

    def _receive(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._lose("the launcher died")
            return
        for body in self._frames.feed(data):
            self._take(decode_from_launcher(body))

    def _take(self, message: Ready | Launched | Refused | Finishing | Broken) -> None:
        match message:
            case Ready(error):
                if error:
                    self._error = Rejected(f"a module of `preload` cannot be imported:\n{error}")
                self._ready.set()
            case Launched(folder):
                self._answers.pop(folder).give(None)
            case Refused(folder, for_good, text):
                self._answers.pop(folder).give(Rejected(text) if for_good else NoCapacity(text))
            case Finishing(workers):
                self._stays_for = workers
                self._finishing.set()
            case Broken(text):
                self._lose(f"the launcher failed:\n{text}")
            case _:
                assert_never(message)

    def _lose(self, why: str) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._sock.close()
        for _, fd in self._outbox:
            if fd is not None:
                os.close(fd)
        self._outbox.clear()
        self._error = self._error or Unreachable(why)
        for path, answer in self._answers.items():
            folder = LaunchDir(path)
            if folder.claim():
                folder.discard()
                answer.give(LauncherDied(f"{why} before it started the worker"))
            else:
                answer.give(Unreachable(f"{why}; it is not known whether the worker was started"))
        self._answers.clear()
        self._ready.set()
        self._finishing.set()


def _start_process(fd: int) -> subprocess.Popen[bytes]:
    _left_behind[:] = [process for process in _left_behind if process.poll() is None]
    if not sys.executable:
        raise Rejected("the local runtime must start a Python process, but sys.executable is empty in this interpreter")
    code = f"import sys; sys.path[:] = {sys.path!r}; from lightwork_runtimes.local._launcher import main; main({fd})"
    return subprocess.Popen(
        [sys.executable, *interpreter_flags(), "-c", code],
        stdin=subprocess.DEVNULL,
        # It may outlive the scheduler, so it must not keep the scheduler's terminal or pipes open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[fd],
        env={**os.environ, STAMP: PLACEHOLDER},
        start_new_session=True,
    )


def _reap(process: subprocess.Popen[bytes]) -> None:
    _left_behind[:] = [left for left in _left_behind if left.poll() is None]
    try:
        process.wait(_EXIT_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _readable(data: bytes) -> int:
    """Return a descriptor from which `data` can be read up to the end of the stream."""
    if len(data) <= _PIPE_HOLDS:
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        return read
    with open(os.memfd_create("ticket"), "w+b") if sys.platform == "linux" else tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return os.dup(file.fileno())
