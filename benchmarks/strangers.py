"""Warm calls and dials of workers, with and without 1,000 connections of strangers each second.

The strangers run in a process of this machine, and on few cores take time from all other processes. The row "next door"
shows this share of the slowdown: there the strangers connect to a process that has nothing to do with the app. The CPU
time that a stranger costs the scheduler's process does not depend on the load of the machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

from benchmarks.calls import calling
from benchmarks.harness import Batch, Budget, Contender, Report, Scale, take_turns
from benchmarks.works import Increment, Waiting
from lightwork import App
from lightwork.link.messages import Ticket
from lightwork.worker.dial import dial

SUBJECT = "a warm call among strangers"
TLS_SUBJECT = "a warm call among strangers, over TLS"
DIAL_SUBJECT = "a worker's dial among strangers"
COST_SUBJECT = "CPU of the scheduler for each stranger"
RATE = 1000

LONGEST_DIAL = 200.0
"""Milliseconds: five rounds in which the acceptor checks its connections take 50, the rest is for a busy machine."""

MOST_CPU = 80.0
"""Microseconds: at 1,000 a second 8 % of a core."""

_BETWEEN_DIALS = 0.05
_ROUND = 0.01
_KEPT = 500


def knock(host: str, port: int, first: bytes) -> None:
    """Connect `RATE` times a second, send something, and stay for half a second. Run in a separate process.

    Prints a line when the first connections close. From then on as many close as open.
    """
    kept: list[socket.socket] = []
    told = False
    due = time.monotonic()
    while os.getppid() != 1:
        for _ in range(int(RATE * _ROUND)):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((host, port))
            kept.append(sock)
        due += _ROUND
        time.sleep(max(0.0, due - time.monotonic()))
        for sock in kept[-int(RATE * _ROUND) :]:
            try:
                sock.send(first)
            except OSError:
                continue  # refused or not connected yet: one stranger fewer
        for sock in kept[:-_KEPT]:
            sock.close()
        if len(kept) > _KEPT:
            del kept[:-_KEPT]
            if not told:
                told = True
                print("there", flush=True)


def open_house() -> None:
    """Accept and close every connection; print the port. Run in a separate process."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            server.accept()[0].close()


@contextmanager
def neighbour() -> Iterator[int]:
    """Yield the port of an open listener in another process."""
    code = "from benchmarks.strangers import open_house; open_house()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@asynccontextmanager
async def strangers(port: int, first: bytes) -> AsyncIterator[None]:
    """Run 1,000 strangers a second."""
    code = f"from benchmarks.strangers import knock; knock('127.0.0.1', {port}, {first!r})"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


def tls_greeting() -> bytes:
    """Return the first message of a browser."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    channel = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="example.org")
    with suppress(ssl.SSLWantReadError):
        channel.do_handshake()
    return out.read()


class InPeace:
    """Warm calls of an app without strangers. It listens at `host`; off loopback its link is TLS."""

    loop_factory = None

    def __init__(self, name: str, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        async with App(Waiting([work]), host=self.host):
            yield calling(work)


class Besieged(InPeace):
    """Warm calls; the strangers connect during each batch, and before it."""

    def __init__(self, name: str, first: bytes, host: str = "127.0.0.1") -> None:
        super().__init__(name, host)
        self.first = first

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        calls = calling(work)
        async with App(Waiting([work]), host=self.host) as app:

            async def batch(count: int) -> float:
                doorway = app._running().engine._listener._acceptor
                assert doorway is not None
                async with strangers(app.address.port, self.first):
                    came = doorway.came
                    taken = await calls(count)
                    if came == doorway.came:
                        raise RuntimeError("no stranger came")
                while doorway.waiting:
                    await work.run(0)
                return taken

            yield batch


class NextDoor(InPeace):
    """Warm calls while the strangers connect to another process."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        calls = calling(work)
        async with App(Waiting([work]), host=self.host):
            with neighbour() as port:

                async def batch(count: int) -> float:
                    async with strangers(port, b""):
                        return await calls(count)

                yield batch


async def dial_times(
    route: tuple[str, int], fingerprint: bytes, launch: bytes, secret: bytes, count: int
) -> list[float]:
    """Return the seconds of each dial until both ends have proved the secret, with pauses between dials.

    Without pauses the dials would make the listener check its connections all the time.
    """
    times = []
    ticket = Ticket(launch, secret, [route], 60.0, 60.0, fingerprint)
    for _ in range(count):
        began = time.perf_counter()
        connection = await dial(ticket, timeout=60.0)
        times.append(time.perf_counter() - began)
        lost = asyncio.Event()
        connection.on_closed = lambda error, lost=lost: lost.set()  # type: ignore[misc]
        connection.close()
        await lost.wait()
        await asyncio.sleep(_BETWEEN_DIALS)
    return times


async def dialling(first: bytes | None, host: str, count: int) -> list[float]:
    """Measure dials by TCP to an app, like its worker's; `first` is what strangers send, None for no strangers."""
    work = Increment()
    times: list[float] = []
    async with App(Waiting([work]), host=host) as app:
        await work.run(0)
        engine = app._running().engine
        (worker,) = engine.entries.workers.values()
        route = "127.0.0.1", app.address.port
        async with nullcontext() if first is None else strangers(route[1], first):
            times += await dial_times(route, engine._listener.fingerprint, worker.launch, worker.secret, count)
    return times


async def costs(first: bytes, host: str, repeats: int) -> list[float]:
    """Return the CPU seconds of an idle app for each stranger that connects, over that many seconds."""
    work = Increment()
    found: list[float] = []
    async with App(Waiting([work]), host=host) as app:
        await work.run(0)
        doorway = app._running().engine._listener._acceptor
        assert doorway is not None
        async with strangers(app.address.port, first):
            for _ in range(repeats):
                came, used = doorway.came, time.process_time()
                await asyncio.sleep(1.0)
                found.append((time.process_time() - used) / (doorway.came - came))
    return found


def contenders() -> list[Contender]:
    """Return the contenders: no strangers, strangers elsewhere, silent strangers, and an invalid handshake."""
    return [
        InPeace("in peace"),
        NextDoor("1,000 strangers a second next door"),
        Besieged("1,000 silent strangers a second", b""),
        Besieged("1,000 talking strangers a second", b"GET / HTTP/1.1\r\n\r\n"),
    ]


def tls_contenders() -> list[Contender]:
    """Return the same contenders for a TLS link; the strangers begin a TLS handshake."""
    anywhere = "0.0.0.0"
    return [
        InPeace("in peace", anywhere),
        NextDoor("1,000 strangers a second next door", anywhere),
        Besieged("1,000 strangers a second that begin TLS", tls_greeting(), anywhere),
    ]


def measure(report: Report, scale: Scale) -> None:
    """Measure calls of all contenders in turns, then dials."""
    for subject, everybody, over in ((SUBJECT, contenders(), ""), (TLS_SUBJECT, tls_contenders(), " over TLS")):
        samples = take_turns(everybody, scale.repeats, scale.calls * 5)
        rows = {name: report.add(subject, name, "µs", [s * 1e6 for s in taken]) for name, taken in samples.items()}
        peace, beside, *others = rows.values()
        for row in others:
            for what, reference in (("peace", peace), ("next door", beside)):
                name = f"a warm call{over}, {row.who}, to {what}"
                report.budgets.append(Budget(name, "×", 1.2, row.median / reference.median))
    measure_dials(report, scale)
    for name, (first, host) in sieges().items():
        series = report.add(COST_SUBJECT, name, "µs", [s * 1e6 for s in asyncio.run(costs(first, host, scale.repeats))])
        report.budgets.append(Budget(f"{COST_SUBJECT}, {name}", "µs", MOST_CPU, series.median))


def sieges() -> dict[str, tuple[bytes, str]]:
    """Return what the strangers send, and where the app listens."""
    return {
        "1,000 silent strangers a second": (b"", "127.0.0.1"),
        "1,000 talking strangers a second": (b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1"),
        "1,000 strangers a second that begin TLS, over TLS": (tls_greeting(), "0.0.0.0"),
    }


def measure_dials(report: Report, scale: Scale) -> None:
    """Measure how long a worker takes to connect, and the longest time."""
    for name, (first, host) in {"in peace": (None, "127.0.0.1"), **sieges()}.items():
        times = asyncio.run(dialling(first, host, scale.latencies))
        report.add(DIAL_SUBJECT, name, "ms", [s * 1e3 for s in times])
        if first is not None:
            report.budgets.append(Budget(f"the longest dial, {name}", "ms", LONGEST_DIAL, max(times) * 1e3))
