"""The operations of the remote side for launches: start, watch and end them. See `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from . import files, kept
from .files import Identity, LaunchDir, Refusal
from .preparing import Answer, Preparing
from .waiting import CONTENT, FOLDER, Inotify, watch_process

__all__ = ["Operations"]

_CHUNK = 65536
_MOST_TICKET = 60000
"""Maximum size of a ticket in bytes. It fits into a pipe whose reader has not begun to read."""


class Operations(Preparing):
    """All operations, with those of `Preparing`. Each public coroutine is one, with the request's arguments.

    Args:
        folder: The helper's folder, absolute.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._folders = Inotify(FOLDER)
        self._contents = Inotify(CONTENT)
        self._leases: dict[str, int] = {}
        self._supervisors: list[subprocess.Popen[bytes]] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    # --- launching ------------------------------------------------------------------------------

    async def reserve(self, owner: str, name: str, digest: str, slots: int, payload: bytes) -> Answer:
        """Make the launch's folder, which takes a slot.

        Return ``new``, ``known`` if the folder exists, or ``full`` if no slot is free.
        """
        if not files.SAFE.fullmatch(owner) or not files.SAFE.fullmatch(name):
            raise Refusal("rejected", f"owner and name must be valid file names, got {owner!r} and {name!r}")
        launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
        with kept.locked(f"{self._folder}/launches/.lock"):
            if launch.exists:
                spec = launch.read("spec")
                if spec is None or spec["digest"] != digest:
                    raise Refusal("conflict", f"{name} was launched already, from another spec; use each name once")
                return "known", b""
            if len(files.living(self._folder)) >= slots:
                return "full", b""
            launch.make({"name": name, "owner": owner, "digest": digest, "maker": list(files.me())})
        return "new", b""

    async def wait_free(self, slots: int, payload: bytes) -> Answer:
        """Return when fewer than `slots` slots are taken."""
        changed = asyncio.Event()
        while True:
            changed.clear()
            with contextlib.ExitStack() as watches:
                # Watch before counting, so that no end is missed in between.
                for launch in files.living(self._folder):
                    watches.enter_context(self._folders.watch(launch.path, changed))
                    process = launch.depends_on()
                    if process is not None:
                        watches.enter_context(watch_process(process, changed))
                if len(files.living(self._folder)) < slots:
                    return None, b""
                await changed.wait()

    async def start(
        self, owner: str, name: str, job: dict[str, Any], service: list[int], uses: list[str], payload: bytes
    ) -> Answer:
        """Start the worker of a reserved launch, unless it was stopped before, and store `service`.

        Return the folders in `uses` that are missing, because they were removed since they were prepared. If any is
        missing, nothing is started. The other folders are not removed while the worker lives.
        """
        launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
        if not launch.exists:
            raise Refusal("rejected", f"{name} was released while it was launched")
        if len(payload) > _MOST_TICKET:
            raise Refusal("rejected", f"the ticket must have at most {_MOST_TICKET} bytes, got {len(payload)}")
        held: list[int] = []
        with self._held(uses, held) as missing:
            if not missing and launch.add("claim", list(files.me())):
                launch.add("service", service)
                await self._supervise(launch, job, payload, held)
                self._attach(launch)
        return missing, b""

    async def _supervise(self, launch: LaunchDir, job: dict[str, Any], ticket: bytes, held: list[int]) -> None:
        process = _start_supervisor(self._code, launch, held)
        self._supervisors.append(process)
        message = json.dumps({**job, "held": held}).encode() + b"\n" + ticket
        # Shielded: a cancellation before the thread starts would leave a supervisor that waits for its job forever,
        # and a launch that stays pending.
        said = await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, _converse, process, message))
        if not said:
            detail = "the supervisor failed; see the output of the launch"
            launch.add("exit", [None, "start_failed", detail])
            raise Refusal("failed", f"{launch.name}: {detail}")
        problem = json.loads(said)
        if problem:
            raise Refusal(problem["kind"], f"cannot start a process: {problem['message']}")

    def _reap(self) -> None:
        self._supervisors = [process for process in self._supervisors if process.poll() is None]

    # --- asking ---------------------------------------------------------------------------------

    async def look(self, refs: list[list[str | None]], payload: bytes) -> Answer:
        """Return the report of each ``[owner, name]``, in order."""
        return [self._report(owner, str(name)) for owner, name in refs], b""

    def _report(self, owner: str | None, name: str) -> dict[str, Any]:
        try:
            launch = files.locate(self._folder, owner, name)
            return files.ABSENT if launch is None else self._seen(launch)
        except (OSError, ValueError) as error:
            return files.report("unknown", detail=f"{type(error).__name__}: {error}")

    def _seen(self, launch: LaunchDir) -> dict[str, Any]:
        view = launch.look()
        if _is_over(view):
            self._detach(launch)
        return view

    async def service(self, owner: str | None, name: str, payload: bytes) -> Answer:
        """Return the `service` that `start` received; None if the launch does not exist or was not started."""
        launch = files.locate(self._folder, owner, name)
        return (None if launch is None else launch.read("service")), b""

    async def find(self, owner: str, payload: bytes) -> Answer:
        """Return the names of all launches of this owner that were not released."""
        return files.names(self._folder, owner), b""

    async def wait(self, owner: str | None, name: str, payload: bytes) -> Answer:
        """Return the report when the launch has ended. This process looks after the launch from now on."""
        launch = files.locate(self._folder, owner, name)
        if launch is None:
            return files.ABSENT, b""
        await self._until(launch, lambda view: view["standing"] != "pending")
        self._attach(launch)
        return await self._over(launch), b""

    async def attach(self, refs: list[list[str]], payload: bytes) -> Answer:
        """Look after these launches from now on."""
        for owner, name in refs:
            launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
            if launch.exists:
                self._attach(launch)
        return None, b""

    async def read(self, owner: str | None, name: str, start: int, follow: bool, payload: bytes) -> Answer:
        """Return the next output from byte `start` on, as payload. The value is True if no more output can follow."""
        launch = files.locate(self._folder, owner, name)
        if launch is None:
            return True, b""
        try:
            fd = os.open(f"{launch.path}/log", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True, b""
        try:
            return await self._read(launch, fd, start, follow)
        finally:
            os.close(fd)

    async def _read(self, launch: LaunchDir, fd: int, start: int, follow: bool) -> Answer:
        changed = asyncio.Event()
        with contextlib.ExitStack() as watches:
            if follow:
                watches.enter_context(self._contents.watch(f"{launch.path}/log", changed))
                watches.enter_context(self._folders.watch(launch.path, changed))
            watched: list[Identity] = []
            while True:
                changed.clear()
                view = launch.look()  # before the read: a launch that has ended writes nothing more
                data = os.pread(fd, _CHUNK, start)
                if data or not follow or _is_over(view):
                    return not data, data
                self._watch_also(launch, watched, watches, changed)
                await changed.wait()

    # --- waiting --------------------------------------------------------------------------------

    async def _until(self, launch: LaunchDir, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        changed = asyncio.Event()
        with contextlib.ExitStack() as watches:
            watches.enter_context(self._folders.watch(launch.path, changed))
            watched: list[Identity] = []
            while True:
                changed.clear()
                view = self._seen(launch)
                if done(view):
                    return view
                self._watch_also(launch, watched, watches, changed)
                await changed.wait()

    def _watch_also(
        self, launch: LaunchDir, watched: list[Identity], watches: contextlib.ExitStack, changed: asyncio.Event
    ) -> None:
        process = launch.depends_on()
        if process is not None and process not in watched:
            watched.append(process)
            watches.enter_context(watch_process(process, changed))

    async def _over(self, launch: LaunchDir) -> dict[str, Any]:
        """Return the report when the launch has ended and no process of its tree is left."""
        view = await self._until(launch, _is_over)
        if launch.supervisor() is not None and launch.read("exit") is None and launch.exists:
            await _end_stamped(launch.name)
            launch.add("exit", [view["exit_code"], view["cause"], view["detail"]])
        return view

    # --- looking after --------------------------------------------------------------------------

    def _attach(self, launch: LaunchDir) -> None:
        """Hold the lease. Do nothing if the launch has ended or has not started."""
        if launch.path not in self._leases:
            with contextlib.suppress(FileNotFoundError):
                fd = self._open_lease(launch)
                if fd is not None:
                    self._leases[launch.path] = fd
                    os.write(fd, b"A")

    def _open_lease(self, launch: LaunchDir) -> int | None:
        try:
            return os.open(f"{launch.path}/lease", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no reader
                return None
            raise

    def _detach(self, launch: LaunchDir) -> None:
        fd = self._leases.pop(launch.path, None)
        if fd is not None:
            os.close(fd)

    def _ask(self, launch: LaunchDir, what: bytes) -> None:
        with contextlib.suppress(FileNotFoundError, BrokenPipeError):  # it has ended, so the request is fulfilled
            fd = self._open_lease(launch)
            if fd is not None:
                try:
                    os.write(fd, what)
                finally:
                    os.close(fd)

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, owner: str | None, name: str, grace: float, payload: bytes) -> Answer:
        """End the launch: send SIGTERM to the worker, and SIGKILL to the whole tree after `grace` seconds."""
        launch = files.locate(self._folder, owner, name)
        if launch is not None:
            await self._stop(launch, grace)
        return None, b""

    async def _stop(self, launch: LaunchDir, grace: float) -> None:
        if not _is_over(self._seen(launch)):
            launch.add("stop", "stopped")
            if launch.add("claim", list(files.me())):  # before a start, so the worker never starts
                launch.add("exit", [None, "stopped", "stopped before it was started"])
                return
            await self._until(launch, lambda view: view["standing"] != "pending")
            if grace > 0:
                self._ask(launch, b"T")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._over(launch), grace)
            if not _is_over(self._seen(launch)):
                self._ask(launch, b"K")
        await self._over(launch)

    async def release(self, owner: str | None, name: str, payload: bytes) -> Answer:
        """End the launch and remove its folder."""
        launch = files.locate(self._folder, owner, name)
        if launch is not None:
            await self._stop(launch, 0)
            self._detach(launch)
        if files.SAFE.fullmatch(name):
            owners = [owner] if owner is not None else os.listdir(f"{self._folder}/launches")
            for each in owners:
                if files.SAFE.fullmatch(each):
                    LaunchDir(f"{self._folder}/launches/{each}/{name}").remove()
        return None, b""


def _is_over(view: dict[str, Any]) -> bool:
    return view["standing"] in ("exited", "absent")


def _start_supervisor(code: str, launch: LaunchDir, held: list[int]) -> subprocess.Popen[bytes]:
    # Not asyncio's subprocess, which kills running processes when its loop is closed.
    argv = [sys.executable, "-I", code, "supervise", launch.path, str(os.getpid())]
    pipe = subprocess.PIPE
    with open(f"{launch.path}/log", "ab") as log:
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True, pass_fds=held)


def _converse(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Write the input of a process and read its output to the end. Blocks."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout, contextlib.suppress(BrokenPipeError):
        with process.stdin:
            process.stdin.write(message)
        return process.stdout.read()
    return b""


async def _end_stamped(name: str) -> None:
    """Kill the remaining processes of a launch whose supervisor was killed."""
    while left := files.stamped(name):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in left:
            ended = asyncio.Event()
            with watch_process(process, ended):
                await ended.wait()
