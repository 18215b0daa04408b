"""A proxy between workers and their scheduler that injects network faults.

Each connection is a `Line` of two `Pipe`s: data of the worker (``up``) and data of the scheduler (``down``). A pipe can
end the line after a number of bytes, pass bytes one by one or late, or pass nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, Self

from lightwork.runtime import Address
from lightwork_runtimes.inprocess import InProcessRuntime
from lightwork_runtimes.local import LocalOptions, LocalRuntime

__all__ = ["FaultProxy", "Line", "LocalThroughProxies", "Pipe", "ThroughProxies", "Way", "proxies"]

Way = Literal["up", "down"]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class _CutError(Exception):
    """The line ends here."""


class Pipe:
    """One direction of a line.

    Attributes:
        passed: Bytes that have passed.
        fuse: Bytes after which the line is cut, None for never.
        one_by_one: Number of further bytes that pass singly.
        late: Seconds that each piece waits.
        is_open: Cleared while nothing passes.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.fuse: int | None = None
        self.one_by_one = 0
        self.late = 0.0
        self.is_open = asyncio.Event()
        self.is_open.set()

    def be_in_time(self) -> None:
        """Deliver pieces without delay from now on."""
        self.late = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on incoming data until it ends."""
        while data := await reader.read(65536):
            while data:
                if self.late:
                    await asyncio.sleep(self.late)
                await self.is_open.wait()
                size = len(data) if self.fuse is None else min(len(data), self.fuse)
                if self.one_by_one:
                    size = min(size, 1)
                    self.one_by_one -= 1
                writer.write(data[:size])
                self.passed += size
                data = data[size:]
                await writer.drain()
                if self.fuse is not None:
                    self.fuse -= size
                    if not self.fuse:
                        raise _CutError
        if writer.can_write_eof():
            writer.write_eof()


class Line:
    """One connection through the proxy.

    Args:
        number: Number of the line in its proxy, from 0.
        worker: The worker's end.
        scheduler: The scheduler's end.
    """

    def __init__(self, number: int, worker: asyncio.StreamWriter, scheduler: asyncio.StreamWriter) -> None:
        self.number = number
        self.up = Pipe()
        self.down = Pipe()
        self._worker = worker
        self._scheduler = scheduler
        self.is_reset = True
        self.linger = 0.0

    def pipe(self, way: Way) -> Pipe:
        """Return the pipe of that direction."""
        return self.up if way == "up" else self.down

    def cut(self) -> None:
        """End the line now, at both ends."""
        self.cut_worker()
        self.cut_scheduler()

    def cut_worker(self) -> None:
        """End the line towards the worker only: half-open, the scheduler does not notice."""
        _end(self._worker, is_reset=self.is_reset)

    def cut_scheduler(self) -> None:
        """End the line towards the scheduler only."""
        _end(self._scheduler, is_reset=self.is_reset)

    def hold(self) -> None:
        """Pass nothing in either direction, without closing."""
        self.up.is_open.clear()
        self.down.is_open.clear()

    def release(self) -> None:
        """Pass everything again."""
        self.up.is_open.set()
        self.down.is_open.set()


def _end(writer: asyncio.StreamWriter, *, is_reset: bool) -> None:
    sock = writer.get_extra_info("socket")
    if is_reset and sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


Plan = Callable[[Line], None]
"""The treatment of a connection before its first byte passes."""


class FaultProxy:
    """Listens for workers, and connects each to the scheduler.

    Attributes:
        upstream: Address of the scheduler.
        route: Address that workers dial.
        lines: The open connections, oldest first.
        plans: Plans for the next connections, one each.
        is_closed_to_new: Whether new connections are closed at once.
        came: Number of connections so far.
    """

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.route = Address("127.0.0.1", 0)
        self.lines: list[Line] = []
        self.plans: deque[Plan] = deque()
        self.is_closed_to_new = False
        self.came = 0
        self._numbers = itertools.count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.route = Address(*self._server.sockets[0].getsockname())

    async def aclose(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.came += 1
        try:
            if self.is_closed_to_new:
                return
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self.upstream.host, self.upstream.port)
        line = Line(next(self._numbers), writer, up_writer)
        self.lines.append(line)
        if self.plans:
            self.plans.popleft()(line)
        try:
            await _both(line.up.carry(reader, up_writer), line.down.carry(up_reader, writer))
        except (_CutError, ConnectionError):
            if line.linger:
                line.cut_worker()
                await asyncio.sleep(line.linger)
            line.cut()
        finally:
            self.lines.remove(line)
            up_writer.transport.abort()


async def _both(*carried: object) -> None:
    """Return when both directions have ended. If one raises, end the other and raise."""
    tasks = [asyncio.ensure_future(one) for one in carried]  # type: ignore[call-overload]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def proxies(number: int = 1, upstream: Address | None = None) -> AsyncIterator[list[FaultProxy]]:
    """Start that many proxies; the address of the scheduler may be set later."""
    made = [FaultProxy(upstream or Address("127.0.0.1", 0)) for _ in range(number)]
    try:
        for one in made:
            await one.start()
        yield made
    finally:
        for one in made:
            await one.aclose()


class ThroughProxies(InProcessRuntime):
    """Works as tasks that reach their scheduler through proxies."""

    def __init__(self, made: Sequence[FaultProxy]) -> None:
        super().__init__()
        self._made = made

    async def routes(self, listener: Address) -> Sequence[Address]:
        for one in self._made:
            one.upstream = listener
        return [one.route for one in self._made]


class LocalThroughProxies(LocalRuntime):
    """Works as processes that reach their scheduler by the given routes.

    Args:
        options: Options of the runtime.
        routes: Addresses that the works dial.
        environ: Environment variables of the works only.
    """

    def __init__(self, options: LocalOptions, routes: Sequence[Address], environ: Mapping[str, str]) -> None:
        super().__init__("local", options)
        self._routes = routes
        self._environ = environ

    async def __aenter__(self) -> Self:
        # The launcher copies the environment of this process when it starts.
        os.environ.update(self._environ)
        try:
            return await super().__aenter__()
        finally:
            for name in self._environ:
                del os.environ[name]

    async def routes(self, listener: Address) -> Sequence[Address]:
        return self._routes
