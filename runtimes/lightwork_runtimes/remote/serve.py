"""Answers the requests of one connection concurrently, until standard input ends or is silent for too long.

A frame is two lengths (``>II``), a header in JSON and a payload. A request's header has ``id``, ``op`` and the
operation's arguments; ``{"id": n, "op": "cancel", "of": m}`` cancels request m. An answer's header has ``id`` and
``value``, or ``error`` and ``kind``. The first line of the output is text, because a login may print other text before
it. ``{"id": 0, "op": "beat"}`` is a heartbeat of the scheduler and has no answer. An SSH server may need hours to
notice a lost network; without heartbeats it would keep dead connections of works open for that time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import files
from .files import Identity, Refusal
from .operations import Operations
from .preparing import Answer

__all__ = ["Channel", "main"]

_HELLO = "lightwork-helper "
_LENGTHS = struct.Struct(">II")


class Channel:
    """Reads requests, runs each as a task, and writes the answers."""

    def __init__(self, operations: Operations, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._operations = operations
        self._reader = reader
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Serve until the other end has closed the connection, then cancel every request."""
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
        if op == "beat":
            return
        if op == "cancel":
            task = self._tasks.get(request["of"])
            if task is not None:
                task.cancel()
            return
        method = getattr(self._operations, op)
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
        except Exception as error:  # reported to the scheduler; this process goes on
            kind = "no_capacity" if getattr(error, "errno", None) in files.SHORTAGES else "failed"
            header.update(error=f"{type(error).__name__}: {error}", kind=kind)
        text = json.dumps(header).encode()
        self._writer.write(_LENGTHS.pack(len(text), len(data)) + text + data)
        with contextlib.suppress(ConnectionError):  # the connection has ended
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
    """End an earlier connection of the same scheduler, if the SSH server has not noticed that it is lost."""
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


class _Heard(asyncio.StreamReaderProtocol):
    """Remembers the time of the last received data."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.at = time.monotonic()

    def data_received(self, data: bytes) -> None:
        self.at = time.monotonic()
        super().data_received(data)

    async def wait_silence(self, patience: float) -> None:
        """Return when nothing was received for `patience` seconds."""
        while True:
            left = self.at + patience - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)


async def _serve(folder: str, patience: float) -> None:
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):  # otherwise a thread waits for each child
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    heard = _Heard(reader)
    await loop.connect_read_pipe(lambda: heard, sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    operations = Operations(folder)
    writer.write((_HELLO + json.dumps(_facts(folder)) + "\n").encode())
    serving = asyncio.ensure_future(Channel(operations, reader, writer).serve())
    silence = asyncio.ensure_future(heard.wait_silence(patience))
    await asyncio.wait([serving, silence], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        _end_session()
        serving.cancel()
    silence.cancel()
    await asyncio.gather(serving, silence, return_exceptions=True)


def _end_session() -> None:
    """Kill the SSH server's process of this connection, which closes every connection forwarded through it."""
    if os.getppid() != 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(os.getppid(), signal.SIGKILL)


def main(folder: str, instance: str, patience: str) -> int:
    """Serve one connection.

    Args:
        folder: The helper's folder on this machine.
        instance: Id of the scheduler; the same if the scheduler connects again.
        patience: Seconds of silence after which the connection counts as lost.
    """
    try:
        folder = files.open_folder(folder)
        _replace_session(folder, instance)
    except (Refusal, OSError) as error:
        print(_HELLO + json.dumps({"error": str(error)}), flush=True)
        return 1
    try:
        asyncio.run(_serve(folder, float(patience)))
    finally:
        _forget_session(folder, instance)
    return 0
