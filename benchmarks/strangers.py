"""Warm calls while 1,000 connections of strangers come in each second, against warm calls in peace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from benchmarks.calls import LightworkCall
from benchmarks.harness import Batch, Budget, Contender, Report, Scale, take_turns
from benchmarks.works import Increment, Waiting
from lightwork import App

SUBJECT = "a warm call among strangers"
RATE = 1000

_ROUND = 0.01


def knock(host: str, port: int, first: bytes) -> None:
    """Connect `RATE` times a second, say something, and stay until pushed out. Run in a process of its own."""
    kept: list[socket.socket] = []
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
        for sock in kept[:-500]:
            sock.close()
        del kept[:-500]


@contextmanager
def strangers(port: int, first: bytes) -> Iterator[None]:
    """1,000 of them a second, while the context lasts."""
    code = f"from benchmarks.strangers import knock; knock('127.0.0.1', {port}, {first!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


class Besieged:
    """Warm calls; the strangers come while a batch runs, and are there before it."""

    loop_factory = None

    def __init__(self, name: str, first: bytes) -> None:
        self.name = name
        self.first = first

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        async with App(Waiting([work])) as app:

            async def batch(count: int) -> float:
                with strangers(app.address.port, self.first):
                    listener = app._running().scheduler._listener
                    while not listener.pending:
                        await work.run(0)
                    start = time.perf_counter()
                    for n in range(count):
                        if await work.run(n) != n + 1:
                            raise ValueError(f"a wrong answer to {n}")
                    taken = time.perf_counter() - start
                while listener.pending:
                    await work.run(0)
                return taken

            yield batch


def contenders() -> list[Contender]:
    """In peace, among silent strangers, and among some that send what is no handshake."""
    return [
        LightworkCall("in peace", None),
        Besieged("1,000 silent strangers a second", b""),
        Besieged("1,000 talking strangers a second", b"GET / HTTP/1.1\r\n\r\n"),
    ]


def measure(report: Report, scale: Scale) -> None:
    """The three in turns."""
    samples = take_turns(contenders(), scale.repeats, scale.calls * 5)
    rows = {name: report.add(SUBJECT, name, "µs", [s * 1e6 for s in taken]) for name, taken in samples.items()}
    peace, *others = rows.values()
    for row in others:
        report.budgets.append(Budget(f"a warm call, {row.who}", "×", 1.2, row.median / peace.median))
