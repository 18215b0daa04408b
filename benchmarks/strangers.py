"""Warm calls and dials of workers while 1,000 connections of strangers come in each second, and both in peace.

The strangers are a process of this machine, too, and on few cores take time from everybody. How much of the slowdown
is theirs shows in the row of those who knock next door: at a listener of a process that has nothing to do with the app.
What a machine that is busy otherwise does not upset is the CPU that a stranger costs the scheduler's process.
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
"""Milliseconds: five rounds in which the doorway looks who is there take 50, the rest is for a machine with others."""

MOST_CPU = 80.0
"""Microseconds: at 1,000 a second 8 % of a core."""

_BETWEEN_DIALS = 0.05
_ROUND = 0.01
_KEPT = 500


def knock(host: str, port: int, first: bytes) -> None:
    """Connect `RATE` times a second, say something, and stay for half a second. Run in a process of its own.

    Says on standard output when the first ones leave, from when on as many go as come.
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
                continue  # refused or not connected yet: one stranger less
        for sock in kept[:-_KEPT]:
            sock.close()
        if len(kept) > _KEPT:
            del kept[:-_KEPT]
            if not told:
                told = True
                print("there", flush=True)


def open_house() -> None:
    """Accept and close whoever comes; tell the port on standard output. Run in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            server.accept()[0].close()


@contextmanager
def neighbour() -> Iterator[int]:
    """The port of an open house, while the context lasts."""
    code = "from benchmarks.strangers import open_house; open_house()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@asynccontextmanager
async def strangers(port: int, first: bytes) -> AsyncIterator[None]:
    """1,000 of them a second, while the context lasts."""
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
    """What a browser says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    channel = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="example.org")
    with suppress(ssl.SSLWantReadError):
        channel.do_handshake()
    return out.read()


class InPeace:
    """Warm calls of an app that listens at `host`; off loopback its link is TLS."""

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
    """Warm calls; the strangers come while a batch runs, and are there before it."""

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
    """Warm calls, while the strangers are at somebody else's door."""

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
    """Seconds that each of so many dials takes until both ends have proved the secret, one now and then.

    Workers that come all the time would make the listener look all the time who is there.
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
    """Dials by TCP to an app, as its worker would; None for in peace, else among strangers that say this."""
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
    """Seconds of CPU of an app that is at rest for each stranger that comes, in so many seconds."""
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
    """In peace, with the strangers elsewhere, among silent ones, and among some that send what is no handshake."""
    return [
        InPeace("in peace"),
        NextDoor("1,000 strangers a second next door"),
        Besieged("1,000 silent strangers a second", b""),
        Besieged("1,000 talking strangers a second", b"GET / HTTP/1.1\r\n\r\n"),
    ]


def tls_contenders() -> list[Contender]:
    """The same where the link is TLS, and the strangers begin it."""
    anywhere = "0.0.0.0"
    return [
        InPeace("in peace", anywhere),
        NextDoor("1,000 strangers a second next door", anywhere),
        Besieged("1,000 strangers a second that begin TLS", tls_greeting(), anywhere),
    ]


def measure(report: Report, scale: Scale) -> None:
    """Calls all in turns, then dials."""
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
    """What the strangers say, and where the app listens."""
    return {
        "1,000 silent strangers a second": (b"", "127.0.0.1"),
        "1,000 talking strangers a second": (b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1"),
        "1,000 strangers a second that begin TLS, over TLS": (tls_greeting(), "0.0.0.0"),
    }


def measure_dials(report: Report, scale: Scale) -> None:
    """How long a worker needs until it is in, and the longest that one needed."""
    for name, (first, host) in {"in peace": (None, "127.0.0.1"), **sieges()}.items():
        times = asyncio.run(dialling(first, host, scale.latencies))
        report.add(DIAL_SUBJECT, name, "ms", [s * 1e3 for s in times])
        if first is not None:
            report.budgets.append(Budget(f"the longest dial, {name}", "ms", LONGEST_DIAL, max(times) * 1e3))
