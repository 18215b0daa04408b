"""Warm calls while 1,000 connections of strangers come in each second, against warm calls in peace.

The strangers are a process of this machine, too, and on few cores take time from everybody. How much of the slowdown
is theirs shows in the row of those who knock next door: at a listener of a process that has nothing to do with the app.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from benchmarks.calls import LightworkCall, calling
from benchmarks.harness import Batch, Budget, Contender, Report, Scale, take_turns
from benchmarks.works import Increment, Waiting
from lightwork import App

SUBJECT = "a warm call among strangers"
RATE = 1000

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


class Besieged:
    """Warm calls; the strangers come while a batch runs, and are there before it."""

    loop_factory = None

    def __init__(self, name: str, first: bytes) -> None:
        self.name = name
        self.first = first

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        calls = calling(work)
        async with App(Waiting([work])) as app:

            async def batch(count: int) -> float:
                async with strangers(app.address.port, self.first):
                    taken = await calls(count)
                    listener = app._running().scheduler._listener
                    if not listener.pending:
                        raise RuntimeError("no stranger came")
                while listener.pending:
                    await work.run(0)
                return taken

            yield batch


class NextDoor:
    """Warm calls, while the strangers are at somebody else's door."""

    loop_factory = None
    name = "1,000 strangers a second next door"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        calls = calling(work)
        async with App(Waiting([work])):
            with neighbour() as port:

                async def batch(count: int) -> float:
                    async with strangers(port, b""):
                        return await calls(count)

                yield batch


def contenders() -> list[Contender]:
    """In peace, with the strangers elsewhere, among silent ones, and among some that send what is no handshake."""
    return [
        LightworkCall("in peace", None),
        NextDoor(),
        Besieged("1,000 silent strangers a second", b""),
        Besieged("1,000 talking strangers a second", b"GET / HTTP/1.1\r\n\r\n"),
    ]


def measure(report: Report, scale: Scale) -> None:
    """All in turns."""
    samples = take_turns(contenders(), scale.repeats, scale.calls * 5)
    rows = {name: report.add(SUBJECT, name, "µs", [s * 1e6 for s in taken]) for name, taken in samples.items()}
    peace, beside, *others = rows.values()
    for row in others:
        report.budgets.append(Budget(f"a warm call, {row.who}, to peace", "×", 1.2, row.median / peace.median))
        report.budgets.append(Budget(f"a warm call, {row.who}, to next door", "×", 1.2, row.median / beside.median))
