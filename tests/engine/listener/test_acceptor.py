"""The acceptor admits a bare socket only after its first bytes are those of a worker. On both event loops."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from lightwork.engine.listener.acceptor import Acceptor, Pace
from lightwork.link import Connection
from lightwork.link.messages import Ticket
from tests.engine.listener.listeners import Door, Run, answer, door, ended, let_in, stranger
from tests.engine.listener.test_listener import connected, linux
from tests.link.support import LAUNCH, SECRET, client


class Guest(asyncio.Protocol):
    """The protocol of an admitted connection."""

    def __init__(self, been_here: float) -> None:
        self.been_here = been_here
        self.heard = bytearray()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class House:
    """An acceptor, its address, and the admitted connections: those that send ``friend``."""

    def __init__(self, timeout: float = 10.0) -> None:
        self.guests: asyncio.Queue[Guest] = asyncio.Queue()
        self.crowds = 0
        self.acceptor = Acceptor(self._judge, self._welcome, timeout, self._on_crowd)
        sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address = sock.getsockname()
        self.acceptor.open(sock)

    def _judge(self, data: bytes) -> bool | None:
        if not b"friend".startswith(data[:6]):
            return False
        return True if len(data) >= 6 else None

    def _welcome(self, been_here: float) -> Guest:
        guest = Guest(been_here)
        self.guests.put_nowait(guest)
        return guest

    def _on_crowd(self) -> None:
        self.crowds += 1


@asynccontextmanager
async def house(timeout: float = 10.0) -> AsyncIterator[House]:
    here = House(timeout)
    try:
        yield here
    finally:
        await here.acceptor.aclose()


async def until(what: Callable[[], bool]) -> None:
    """Wait until `what` returns true; the loop runs meanwhile."""
    while not what():  # noqa: ASYNC110 - sockets do not signal the awaited state
        await asyncio.sleep(0)


def test_the_purse_of_wake_ups_is_filled_by_time_and_by_workers() -> None:
    """It allows `most` wake-ups at once, then none until time has passed. Each admitted connection adds two."""
    pace = Pace(most=3, rate=10)
    assert [pace.spend(0.0, let_in=0) for _ in range(4)] == [True, True, False, False]
    assert not pace.may_wake(0.09)
    assert pace.may_wake(0.1)
    assert not pace.spend(0.1, let_in=0)
    assert pace.spend(0.1, let_in=1)
    assert all(pace.spend(0.1, let_in=1) for _ in range(100))
    assert pace.may_wake(1000.0)
    assert [pace.spend(1000.0, let_in=0) for _ in range(3)] == [True, True, False]


def test_a_friend_is_let_in_with_all_that_it_said(run: Run) -> None:
    """Its protocol receives the bytes that were inspected, and the bytes after them."""

    async def scenario() -> None:
        async with house() as here, stranger(here.address, b"friend and more"):
            guest = await here.guests.get()
            assert 0 <= guest.been_here < 10
            await until(lambda: bytes(guest.heard) == b"friend and more")
        await guest.lost.wait()

    run(scenario)


def test_a_greeting_in_pieces_is_waited_for(run: Run) -> None:
    """A greeting that arrives byte by byte is admitted like a whole one."""

    async def scenario() -> None:
        async with house() as here:
            reader, writer = await asyncio.open_connection(*here.address)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"friend":
                assert here.guests.empty()
                writer.write(bytes([byte]))
                await until(lambda: here.acceptor.waiting == 1 or not here.guests.empty())
            guest = await here.guests.get()
            writer.write(b"!")  # a single further byte is reported
            await until(lambda: bytes(guest.heard) == b"friend!")
            writer.close()
            await guest.lost.wait()
            await writer.wait_closed()
            assert await reader.read() == b""

    run(scenario)


@pytest.mark.parametrize("data", [b"foe", b"fr", b""], ids=["something else", "half a greeting", "nothing"])
def test_a_stranger_that_hangs_up_is_gone_at_once(run: Run, data: bytes) -> None:
    """It is closed before its time limit, and no protocol was made for it."""

    async def scenario() -> None:
        async with house(timeout=1e6) as here:
            async with stranger(here.address, data):
                await until(lambda: here.crowds == 1)
            await until(lambda: here.acceptor.waiting == 0)
            assert here.guests.empty()

    run(scenario)


def test_half_a_greeting_has_the_same_time_limit(run: Run) -> None:
    """A connection that sends part of a greeting and stops is closed like a silent one."""

    async def scenario() -> None:
        async with house(timeout=0.05) as here, stranger(here.address, b"fr") as reader:
            assert await answer(reader) == b""
            assert here.acceptor.waiting == 0

    run(scenario)


@linux
def test_half_a_greeting_at_the_unix_socket_is_none(run: Run) -> None:
    """It is rejected: the arrival of the rest would not be reported, and a worker's greeting arrives whole."""

    async def scenario() -> None:
        async with door() as here:
            reader, writer = await asyncio.open_unix_connection(sock=connected(f"\0{here.listener.socket[1:]}"))
            writer.write(client().start()[:51])
            assert await answer(reader) == b""
            writer.close()

    run(scenario)


def test_one_that_was_reset_before_it_was_accepted_is_passed_over(run: Run) -> None:
    """Nothing is reported, and the next connection is admitted."""

    async def scenario() -> None:
        async with house() as here:
            with socket.create_connection(here.address) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.send(b"friend")
            async with stranger(here.address, b"friend"):
                guest = await here.guests.get()
                await until(lambda: here.acceptor.waiting == 0)
            await guest.lost.wait()

    run(scenario)


def test_a_failed_accept_is_that_connections_own(run: Run) -> None:
    """An error of `accept` that concerns one connection (a firewall, a peer that left) does not end the listening."""

    class Wary(socket.socket):
        failures = deque([ConnectionAbortedError(), PermissionError(), OSError("the network is down")])

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                raise self.failures.popleft()
            return super().accept()

    async def scenario() -> None:
        async with house() as here:
            sock = Wary()
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            address = sock.getsockname()
            here.acceptor.open(sock)
            async with stranger(address, b"friend"):
                guest = await here.guests.get()
                assert not sock.failures
            await guest.lost.wait()

    run(scenario)


def test_descriptors_that_run_out_are_taken_from_strangers(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """One warning is logged, waiting connections are closed, and new ones are admitted when descriptors are free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        async with house() as here:
            silent = socket.create_connection(here.address)
            await until(lambda: here.acceptor.waiting == 1)
            late = [socket.socket() for _ in range(3)]
            # The kernel gives out the lowest free number. All numbers below the limit are taken now.
            taken = [os.dup(0)]
            limit = max(taken[0], *(sock.fileno() for sock in late)) + 1
            while taken[-1] < limit:
                taken.append(os.dup(0))
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                for sock in late:
                    sock.connect(here.address)
                    sock.send(b"friend")
                await until(lambda: here.acceptor.waiting == 0)
                silent.setblocking(False)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""
            guests = [await here.guests.get() for _ in late]
            for sock in (silent, *late):
                sock.close()
            for descriptor in taken:
                os.close(descriptor)
            for guest in guests:
                await guest.lost.wait()

    run(scenario)
    said = [record for record in caplog.records if "cannot accept connections for now" in record.getMessage()]
    assert len(said) == 1


def test_closing_while_many_come_leaves_nobody(run: Run) -> None:
    """Waiting connections, connections that are being admitted, and those not accepted yet are all closed."""

    async def scenario() -> None:
        async with door() as here:
            coming = [await asyncio.open_connection(*here.address) for _ in range(40)]
            for _, writer in coming[:20]:
                writer.write(client().start())
            await until(lambda: here.listener.pending > 0)
            await here.listener.aclose()
            assert here.listener.pending == 0
            for reader, writer in coming:
                assert await answer(reader) == b""
                writer.close()

    run(scenario)


class Once(list[tuple[str, int]]):
    """Routes that count how often they are iterated."""

    rounds = 0

    def __iter__(self) -> Any:
        self.rounds += 1
        return super().__iter__()


async def besiege(address: tuple[str, int], first: bytes, many: int) -> None:
    """Connect `many` times, as fast as possible, and send `first`; the latest 300 connections stay open."""
    kept: deque[socket.socket] = deque()
    try:
        for number in range(many):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(address)
            kept.append(sock)
            if first and number >= 10:
                with suppress(OSError):  # it was turned away
                    kept[-10].send(first)
            if len(kept) > 300:
                kept.popleft().close()
            if number % 20 == 0:
                await asyncio.sleep(0)
    finally:
        for sock in kept:
            sock.close()


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\n\r\n", b"LWK1", b"LWK1" + b"x" * 48])
def test_workers_get_in_through_a_siege(run: Run, first: bytes) -> None:
    """While 3,000 strangers connect as fast as they can, each worker that dials is admitted at its first try."""

    async def scenario() -> None:
        async with door() as here:
            siege = asyncio.create_task(besiege(here.address, first, 3000))
            came = 0
            while not siege.done() or not came:
                near, far = await let_in_at_once(here)
                came += 1
                await ended(far)
                await ended(near)
            await siege
            near, far = await let_in(here)
            await ended(far)
            await ended(near)

    run(scenario)


async def let_in_at_once(door: Door) -> tuple[Connection, Connection]:
    """Dial, and be admitted at the first try."""
    routes = Once([door.address])
    door.ticket = lambda *_, **__: Ticket(LAUNCH, SECRET, routes, 10.0, 10.0)  # type: ignore[method-assign]
    near, far = await let_in(door)
    assert routes.rounds == 1
    return near, far


def test_closing_may_be_repeated_and_opens_nothing(run: Run) -> None:
    """After it nothing is accepted, and no timer is left."""

    async def scenario() -> None:
        async with house() as here:
            async with stranger(here.address):
                await until(lambda: here.acceptor.waiting == 1)
                await here.acceptor.aclose()
                await here.acceptor.aclose()
            assert here.acceptor.waiting == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*here.address)

    run(scenario)
