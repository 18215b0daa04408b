"""Answers the requests of one connection, many at once, until its standard input ends.

A frame is two lengths (``>II``), a header in JSON and a payload. A request's header has ``id`` and ``op`` and the
operation's arguments; ``{"id": n, "op": "cancel", "of": m}`` breaks off request m. An answer's header has ``id``
and ``value``, or ``error`` and ``kind``. The first line of all is text, for what else a login prints goes before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from typing import IO, Any

from . import files
from .files import Identity, LaunchDir, Refusal
from .waiting import CONTENT, FOLDER, Inotify, watch_process

HELLO = "lightwork-helper "
_LENGTHS = struct.Struct(">II")
_CHUNK = 65536
_MOST_TICKET = 60000
"""Bytes of a ticket that surely fit into a pipe whose reader has not begun to read."""

Answer = tuple[Any, bytes]


class Server:
    """The operations. Each public coroutine is one; its parameters are the request's.

    Args:
        folder: Our folder, absolute.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self._folders = Inotify(FOLDER)
        self._contents = Inotify(CONTENT)
        self._leases: dict[str, int] = {}
        self._supervisors: list[subprocess.Popen[bytes]] = []
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    # --- launching ------------------------------------------------------------------------------

    async def reserve(self, owner: str, name: str, digest: str, slots: int, payload: bytes) -> Answer:
        """Make the launch's folder, which takes a slot: ``new``, ``known`` if it is there, ``full`` if none is free."""
        if not files.SAFE.fullmatch(owner) or not files.SAFE.fullmatch(name):
            raise Refusal("rejected", f"{owner!r} and {name!r} must be file names")
        launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
        with files.locked(f"{self._folder}/launches/.lock"):
            if launch.exists:
                spec = launch.read("spec")
                if spec is None or spec["digest"] != digest:
                    raise Refusal("conflict", f"{name}: launched already, from another spec; names are used once")
                return "known", b""
            if len(files.living(self._folder)) >= slots:
                return "full", b""
            launch.make({"name": name, "owner": owner, "digest": digest, "maker": list(files.me())})
        return "new", b""

    async def wait_free(self, slots: int, payload: bytes) -> Answer:
        """Return when fewer than `slots` are taken."""
        changed = asyncio.Event()
        while True:
            changed.clear()
            with contextlib.ExitStack() as watches:
                # Watched before it is counted, so that no end comes between.
                for launch in files.living(self._folder):
                    watches.enter_context(self._folders.watch(launch.path, changed))
                    process = launch.depends_on()
                    if process is not None:
                        watches.enter_context(watch_process(process, changed))
                if len(files.living(self._folder)) < slots:
                    return None, b""
                await changed.wait()

    async def start(self, owner: str, name: str, job: dict[str, Any], payload: bytes) -> Answer:
        """Start the worker of a reserved launch, unless it was stopped before."""
        launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
        if not launch.exists:
            raise Refusal("rejected", f"{name}: released while it was launched")
        if len(payload) > _MOST_TICKET:
            raise Refusal("rejected", f"the ticket has {len(payload)} bytes, more than {_MOST_TICKET}")
        if launch.add("claim", list(files.me())):
            await self._supervise(launch, job, payload)
            self._attach(launch)
        return None, b""

    async def _supervise(self, launch: LaunchDir, job: dict[str, Any], ticket: bytes) -> None:
        # Not asyncio's subprocess, which kills what still runs when its loop is closed.
        argv = [sys.executable, "-I", self._code, "supervise", launch.path, str(os.getpid())]
        with _open_log(launch) as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        self._supervisors.append(process)
        message = json.dumps(job).encode() + b"\n" + ticket
        said = await asyncio.get_running_loop().run_in_executor(None, _converse, process, message)
        if not said:
            detail = "its supervisor broke; the output may tell why"
            launch.add("exit", [None, "start_failed", detail])
            raise Refusal("failed", f"{launch.name}: {detail}")
        problem = json.loads(said)
        if problem:
            raise Refusal(problem["kind"], f"no process could be started: {problem['message']}")

    def _reap(self) -> None:
        self._supervisors = [process for process in self._supervisors if process.poll() is None]

    # --- asking ---------------------------------------------------------------------------------

    async def look(self, refs: list[list[str | None]], payload: bytes) -> Answer:
        """What became of each ``[owner, name]``, in order."""
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

    async def find(self, owner: str, payload: bytes) -> Answer:
        """Names of every launch of this owner that was not released."""
        return files.names(self._folder, owner), b""

    async def wait(self, owner: str | None, name: str, payload: bytes) -> Answer:
        """Return the report once it is over. Whoever waits looks after it."""
        launch = files.locate(self._folder, owner, name)
        if launch is None:
            return files.ABSENT, b""
        await self._until(launch, lambda view: view["standing"] != "pending")
        self._attach(launch)
        return await self._over(launch), b""

    async def attach(self, refs: list[list[str]], payload: bytes) -> Answer:
        """Look after these launches; gives nothing."""
        for owner, name in refs:
            launch = LaunchDir(f"{self._folder}/launches/{owner}/{name}")
            if launch.exists:
                self._attach(launch)
        return None, b""

    async def read(self, owner: str | None, name: str, start: int, follow: bool, payload: bytes) -> Answer:
        """The next output from byte `start` on, as payload; the value is true when there is and will be none."""
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
                view = launch.look()  # before the read: what is over writes nothing more
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
        """The report when it is over, and nothing of its tree is left."""
        view = await self._until(launch, _is_over)
        if launch.supervisor() is not None and launch.read("exit") is None and launch.exists:
            await _end_stamped(launch.name)
            launch.add("exit", [view["exit_code"], view["cause"], view["detail"]])
        return view

    # --- looking after --------------------------------------------------------------------------

    def _attach(self, launch: LaunchDir) -> None:
        """Hold the lease. Nobody to hold it for is no error: the launch is over, or not started."""
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
            if error.errno == errno.ENXIO:  # nobody reads
                return None
            raise

    def _detach(self, launch: LaunchDir) -> None:
        fd = self._leases.pop(launch.path, None)
        if fd is not None:
            os.close(fd)

    def _ask(self, launch: LaunchDir, what: bytes) -> None:
        with contextlib.suppress(FileNotFoundError, BrokenPipeError):  # it is over: what is asked for has happened
            fd = self._open_lease(launch)
            if fd is not None:
                try:
                    os.write(fd, what)
                finally:
                    os.close(fd)

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, owner: str | None, name: str, grace: float, payload: bytes) -> Answer:
        """End it: SIGTERM to the worker, and after `grace` seconds SIGKILL to all of the tree."""
        launch = files.locate(self._folder, owner, name)
        if launch is not None:
            await self._stop(launch, grace)
        return None, b""

    async def _stop(self, launch: LaunchDir, grace: float) -> None:
        if not _is_over(self._seen(launch)):
            launch.add("stop", "stopped")
            if launch.add("claim", list(files.me())):  # before a start did: there will be none
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
        """End it and remove its folder."""
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

    # --- preparing ------------------------------------------------------------------------------

    async def missing(self, paths: list[str], payload: bytes) -> Answer:
        """Those of the paths, relative to our folder, that are not there."""
        return _missing(self._folder, paths), b""

    async def unpack(self, archive: str, digest: str, payload: bytes) -> Answer:
        """Unpack an archive that was sent, as ``code/<digest>``."""
        # In a thread: it takes long, and waits for another scheduler that does the same.
        run = asyncio.get_running_loop().run_in_executor
        await run(None, _unpack, f"{self._folder}/{archive}", f"{self._folder}/code/{digest}")
        return None, b""

    async def make_venv(self, job: dict[str, Any], payload: bytes) -> Answer:
        """Make a virtual environment; gives None, or why there is none. Broken off, it leaves nothing half-made."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", self._code, "venv"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({**job, "root": self._folder}).encode() + b"\n")
            said = await process.stdout.read()
            code = await process.wait()
        finally:
            process.stdin.close()  # its end breaks off what still runs
        lines = said.decode("utf-8", "replace").splitlines()
        if code or not lines:
            raise Refusal("failed", "the virtual environment could not be made:\n" + "\n".join(lines[-15:]))
        return json.loads(lines[-1]), b""


def _is_over(view: dict[str, Any]) -> bool:
    return view["standing"] in ("exited", "absent")


def _open_log(launch: LaunchDir) -> IO[bytes]:
    return open(f"{launch.path}/log", "ab")


def _converse(process: subprocess.Popen[bytes], message: bytes) -> bytes:
    """Give a process its input, and return what it says until it closes its output. Blocks."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout, contextlib.suppress(BrokenPipeError):
        with process.stdin:
            process.stdin.write(message)
        return process.stdout.read()
    return b""


def _missing(folder: str, paths: list[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(f"{folder}/{path}")]


def _unpack(path: str, target: str) -> None:
    """Unpack an archive into a folder that appears whole, and remove the archive."""
    aside = f"{target}.new"
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    with files.locked(f"{target}.lock"):
        if not os.path.exists(target):
            shutil.rmtree(aside, ignore_errors=True)
            with tarfile.open(path) as archive:
                if hasattr(tarfile, "data_filter"):
                    archive.extractall(aside, filter="data")
                else:  # an old Python: the archive is the scheduler's, which may run anything here anyway
                    archive.extractall(aside)
            os.rename(aside, target)
        os.unlink(path)


async def _end_stamped(name: str) -> None:
    """Kill what is left of a launch whose supervisor was killed."""
    while left := files.stamped(name):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for process in left:
            ended = asyncio.Event()
            with watch_process(process, ended):
                await ended.wait()


# --- the connection -----------------------------------------------------------------------------


class Channel:
    """Reads requests, runs each as a task, writes answers."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Return when the other end has gone, with every request broken off."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
                request = json.loads(await self._reader.readexactly(head))
                payload = await self._reader.readexactly(body)
                self._take(request, payload)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _take(self, request: dict[str, Any], payload: bytes) -> None:
        number, op = request.pop("id"), request.pop("op")
        if op == "cancel":
            task = self._tasks.get(request["of"])
            if task is not None:
                task.cancel()
            return
        method = getattr(self._server, op)
        self._tasks[number] = task = asyncio.ensure_future(self._answer(number, method, request, payload))
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(
        self, number: int, method: Callable[..., Awaitable[Answer]], arguments: dict[str, Any], payload: bytes
    ) -> None:
        header: dict[str, Any] = {"id": number}
        data = b""
        try:
            header["value"], data = await method(**arguments, payload=payload)
        except Refusal as error:
            header.update(error=str(error), kind=error.kind)
        except Exception as error:  # the scheduler shall know; this process goes on
            kind = "no_capacity" if getattr(error, "errno", None) in files.SHORTAGES else "failed"
            header.update(error=f"{type(error).__name__}: {error}", kind=kind)
        text = json.dumps(header).encode()
        self._writer.write(_LENGTHS.pack(len(text), len(data)) + text + data)
        with contextlib.suppress(ConnectionError):  # nobody waits for it any more
            await self._writer.drain()


def _facts(folder: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "libc": platform.libc_ver()[1],
        "path": os.environ.get("PATH", os.defpath),
    }


def _replace_session(folder: str, instance: str) -> None:
    """End the earlier connection of the same scheduler, where the server has not noticed that it is cut."""
    os.makedirs(f"{folder}/sessions", 0o700, exist_ok=True)
    path = f"{folder}/sessions/{instance}"
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
        for process in [Identity(*each) for each in json.load(file)]:
            if process.is_alive and process.pid not in (os.getppid(), os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)
    parent = Identity(os.getppid(), files.birth_of(os.getppid()) or "")
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump([list(parent), list(files.me())], file)
    os.rename(f"{path}.new", path)


def _forget_session(folder: str, instance: str) -> None:
    path = f"{folder}/sessions/{instance}"
    with contextlib.suppress(FileNotFoundError, ValueError):
        with open(path, encoding="utf-8") as file:
            mine = Identity(*json.load(file)[1]) == files.me()
        if mine:
            os.unlink(path)


async def _serve(folder: str) -> None:
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):  # else a thread waits for each child
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    server = Server(folder)
    writer.write((HELLO + json.dumps(_facts(folder)) + "\n").encode())
    await Channel(server, reader, writer).serve()


def main(folder: str, instance: str) -> int:
    """Serve one connection; `instance` is the same when the same scheduler comes again."""
    try:
        folder = files.open_folder(folder)
        _replace_session(folder, instance)
    except (Refusal, OSError) as error:
        print(HELLO + json.dumps({"error": str(error)}), flush=True)
        return 1
    try:
        asyncio.run(_serve(folder))
    finally:
        _forget_session(folder, instance)
    return 0
