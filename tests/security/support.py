"""Works to attack, an app for them, and a proxy that records the traffic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from lightwork import App, Flow, Work
from lightwork.engine.workers.worker import Worker
from lightwork.link.messages import Ticket
from lightwork.runtime import Address, Runtime
from lightwork_runtimes.inprocess import InProcessRuntime


class Counts(Work):
    """Adds one, and counts its calls in its state."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.calls = 0

    async def run(self, n: int) -> int:
        self.calls += 1
        return n + 1


class Holds(Flow):
    """Holds one work, which the test uses."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Counts()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Live:
    """An app with one running worker, and the secrets that only its insiders know."""

    def __init__(self, app: App[Any], work: Counts) -> None:
        self.app = app
        self.work = work
        self.route = ("127.0.0.1", app.address.port)

    @property
    def listener(self) -> Any:
        return self.app._running().engine._listener

    @property
    def worker(self) -> Worker:
        (worker,) = self.app._running().engine.entries.workers.values()
        return worker

    def ticket(self, secret: bytes | None = None) -> Ticket:
        """Return the worker's ticket; with `secret`, the ticket of an attacker who has guessed a secret."""
        worker = self.worker
        return Ticket(worker.launch, secret or worker.secret, [self.route], 5.0, 5.0, self.listener.fingerprint)

    async def check(self) -> None:
        """Check that the work answers, its process is the same, and its state arrives."""
        before = self.work.calls
        statuses = len([one for one in self.work.statuses if one.call is None])
        assert await self.work.run(41) == 42
        assert self.work.calls == before + 1
        assert len([one for one in self.work.statuses if one.call is None]) == statuses


@asynccontextmanager
async def live(
    runtime: str = "local", *, runtimes: dict[str, Runtime] | None = None, **settings: Any
) -> AsyncIterator[Live]:
    """Run an app whose one worker has answered a call. A report of the event loop fails the test."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    root = Holds()
    async with App(root, runtime=runtime, runtimes=runtimes, **settings) as app:
        assert await root.work.run(0) == 1
        here = Live(app, root.work)
        yield here
        await here.check()
    assert reports == []


class Tape:
    """A proxy in front of a listener. `said` has the bytes of each connection: the worker's, then the scheduler's."""

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.said: list[tuple[bytearray, bytearray]] = []
        self.route = Address("", 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.route = Address(*self._server.sockets[0].getsockname())

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_connection(self.upstream.host, self.upstream.port)
        up, down = bytearray(), bytearray()
        self.said.append((up, down))
        await asyncio.gather(_copy(reader, up_writer, up), _copy(up_reader, writer, down))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tape: bytearray) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            tape += data
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class Taped(InProcessRuntime):
    """Runs works as tasks that reach their scheduler through a `Tape`."""

    tape: Tape

    async def routes(self, listener: Address) -> Sequence[Address]:
        self.tape = Tape(listener)
        await self.tape.start()
        return [self.tape.route]


async def knock(route: tuple[str, int], data: bytes, *, end: bool = True) -> bytes:
    """Connect and send `data`; return the whole answer, until the other end closes."""
    reader, writer = await asyncio.open_connection(*route)
    answer = b""
    try:
        with suppress(ConnectionError):
            writer.write(data)
            if end:
                writer.write_eof()
            while piece := await reader.read(65536):
                answer += piece
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return answer
