"""Real sockets on loopback, on asyncio's own event loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lightwork.engine.listener.listener import Listener
from lightwork.errors import ConfigError, LightworkError, ProtocolError
from lightwork.link import Connection, Peer
from lightwork.link.messages import (
    Call,
    FromScheduler,
    FromWorker,
    Heartbeat,
    Hello,
    Running,
    Ticket,
    decode_from_scheduler,
    decode_from_worker,
    encode,
    pack,
)
from lightwork.worker.dial import DialFailed, dial
from tests.engine.listener.listeners import HELLO, Run, answer, door, ended, leave, let_in, stranger
from tests.link.support import LAUNCH, SECRET, SECRETS, client

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Unix sockets without a file")


def connected(path: str) -> socket.socket:
    """Return a Unix socket that is connected to `path`. This does not block: the kernel accepts by itself."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class Mute(asyncio.Protocol):
    """Sends the same bytes to every client, and waits for the client to leave."""

    def __init__(self, answered: bytes) -> None:
        self.answered = answered
        self.heard = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self.answered)

    def data_received(self, data: bytes) -> None:
        self.heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Other:
    """A server of another program."""

    def __init__(self, answered: bytes) -> None:
        self.answered = answered
        self.address = ("", 0)
        self.connections: asyncio.Queue[Mute] = asyncio.Queue()

    def accept(self) -> Mute:
        mute = Mute(self.answered)
        self.connections.put_nowait(mute)
        return mute


@asynccontextmanager
async def other_server(answered: bytes = b"") -> AsyncIterator[Other]:
    other = Other(answered)
    server = await asyncio.get_running_loop().create_server(other.accept, "127.0.0.1", 0)
    other.address = server.sockets[0].getsockname()
    try:
        yield other
    finally:
        server.close()
        while not other.connections.empty():
            await other.connections.get_nowait().lost.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_worker_is_let_in_and_frames_pass(run: Run) -> None:
    """After dial, hello and hand-over, two peers exchange frames of all sizes in both directions."""

    async def scenario() -> None:
        async with door() as here:
            near, far = await let_in(here)
            assert here.listener.pending == 0
            done = asyncio.Event()
            taken: list[FromWorker] = []

            def at_scheduler(frame: FromWorker) -> None:
                taken.append(frame)
                if len(taken) == 1000:
                    done.set()

            def at_worker(frame: FromScheduler) -> None:
                assert isinstance(frame, Call)
                worker.send(Running(frame.id))

            scheduler: Peer[FromWorker] = Peer(at_scheduler, decode_from_worker, 1 << 20)
            worker: Peer[FromScheduler] = Peer(at_worker, decode_from_scheduler, 1 << 20)
            scheduler.attach(near, 0)
            worker.attach(far, 0)
            for number in range(1000):
                scheduler.send(Call(number, b"x" * (number % 10) * 1000))
            await done.wait()
            assert taken == [Running(number) for number in range(1000)]
            worker.close()
            scheduler.close()
            await ended(near)
            await ended(far)

    run(scenario)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 10_000, b"LWK1" + b"x" * 48])
def test_garbage_gets_no_answer(run: Run, data: bytes) -> None:
    """A client that is not one of our workers is closed without a byte, and a worker still gets in."""

    async def scenario() -> None:
        async with door() as here, stranger(here.address, data) as reader:
            assert await answer(reader) == b""
            near, far = await let_in(here)
            await ended(far)
            await ended(near)

    run(scenario)


@linux
def test_the_unix_socket_leads_to_the_listener(run: Run) -> None:
    """Handshake and hello work over it as over the address."""

    async def scenario() -> None:
        async with door() as here:
            far = await dial(here.ticket((here.listener.socket, 0)), timeout=10)
            assert far.local_host == "127.0.0.1"
            far.send(pack(encode(HELLO)))
            near, launch, hello = await here.arrived.get()
            assert (launch, hello) == (LAUNCH, HELLO)
            await ended(far)
            await ended(near)

    run(scenario)


@linux
def test_a_stranger_at_the_unix_socket_gets_no_answer(run: Run) -> None:
    """The same checks apply to the Unix socket, and it refuses connections once the listener is closed."""

    async def scenario() -> None:
        async with door() as here:
            path = f"\0{here.listener.socket[1:]}"
            reader, writer = await asyncio.open_unix_connection(sock=connected(path))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await answer(reader) == b""
            await leave(writer)
        with pytest.raises(ConnectionRefusedError):
            connected(path)

    run(scenario)


@linux
def test_a_unix_socket_that_is_not_there_is_passed_over(run: Run) -> None:
    """A worker tries the next route: the socket is missing in a container, or after a restart of the scheduler."""

    async def scenario() -> None:
        async with door() as here:
            far = await dial(here.ticket(("@lightwork-nobody", 0)), timeout=10)
            await ended(far)
            with pytest.raises(DialFailed, match="@lightwork-nobody: Connection refused"):
                await dial(Ticket(LAUNCH, SECRET, [("@lightwork-nobody", 0)], 1.0, 1.0), timeout=0.1)

    run(scenario)


def test_a_silent_stranger_is_dropped(run: Run) -> None:
    """A silent connection is closed after the handshake's time limit."""

    async def scenario() -> None:
        async with door(handshake_timeout=0.05) as here, stranger(here.address) as reader:
            assert await answer(reader) == b""

    run(scenario)


def test_a_worker_that_never_says_hello_is_dropped(run: Run) -> None:
    """A connection that has authenticated but sends no hello in time is closed."""

    async def scenario() -> None:
        async with door(handshake_timeout=0.05) as here:
            connection = await dial(here.ticket(), timeout=10)
            lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            connection.on_closed = lost.set_result
            await lost
            assert here.arrived.empty()

    run(scenario)


@pytest.mark.parametrize(
    "first", [pack(encode(Heartbeat())), pack(encode(HELLO), 1), pack(b"\xc1"), pack(b"x" * 5000)], ids=range(4)
)
def test_the_first_frame_is_a_hello(run: Run, first: bytes) -> None:
    """Another frame, a numbered hello, an invalid frame or a long one closes the connection."""

    async def scenario() -> None:
        async with door() as here:
            connection = await dial(here.ticket(), timeout=10)
            lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            connection.on_closed = lost.set_result
            connection.send(first)
            await lost
            assert here.arrived.empty()

    run(scenario)


def test_frames_behind_the_hello_reach_its_taker(run: Run) -> None:
    """Frames in the same read as the hello go to the callback that `on_hello` installed."""

    async def scenario() -> None:
        taken: asyncio.Queue[Any] = asyncio.Queue()
        kept: list[Connection] = []

        def on_hello(connection: Connection, launch: bytes, hello: Hello) -> None:
            kept.append(connection)
            connection.on_frames = taken.put_nowait

        listener = Listener(SECRETS.get, on_hello, 1 << 20)
        address = await listener.start("127.0.0.1", 0)
        far = await dial(Ticket(LAUNCH, SECRET, [address], 10.0, 10.0), timeout=10)
        far.send(pack(encode(HELLO)) + pack(b"more", 1))
        assert await taken.get() == [(1, b"more")]
        far.send(pack(b"x" * 100_000, 2))
        assert await taken.get() == [(2, b"x" * 100_000)]
        await listener.aclose()
        await ended(far)
        await ended(kept[0])

    run(scenario)


def test_an_exception_of_on_hello_does_not_vanish() -> None:
    """It goes to the loop's exception handler, and only that connection is closed."""
    reports: list[Any] = []

    def on_hello(connection: Connection, launch: bytes, hello: Hello) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        listener = Listener(SECRETS.get, on_hello, 1 << 20)
        address = await listener.start("127.0.0.1", 0)
        far = await dial(Ticket(LAUNCH, SECRET, [address], 10.0, 10.0), timeout=10)
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        far.on_closed = lost.set_result
        far.send(pack(encode(HELLO)))
        await lost
        await listener.aclose()

    asyncio.run(scenario())
    assert [str(error) for error in reports] == ["a bug"]


def test_many_strangers_do_not_stop_a_worker(run: Run) -> None:
    """Of 300 silent connections the oldest are dropped, the limit is kept, and a worker gets in."""

    async def scenario() -> None:
        async with door(max_unauthenticated=256) as here:
            crowd = [await asyncio.open_connection(*here.address) for _ in range(300)]
            near, far = await let_in(here)
            for reader, _ in crowd[:44]:
                assert await answer(reader) == b""
            assert here.listener.pending <= 256
            for _, writer in crowd:
                await leave(writer)
            await ended(far)
            await ended(near)

    run(scenario)


@asynccontextmanager
async def tunnel(listener: Listener) -> AsyncIterator[tuple[str, int]]:
    """An address whose connections reach the listener without its own sockets, as through an SSH tunnel."""
    server = await asyncio.get_running_loop().create_server(listener.accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


def test_a_crowd_is_turned_away_at_the_door(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tunnelled connections beyond `max_crowd` are closed and not counted as pending."""
    monkeypatch.setattr("lightwork.engine.listener.listener._RATE", 0.0)

    async def scenario() -> None:
        async with door(max_crowd=8) as here, tunnel(here.listener) as address:
            crowd = [await asyncio.open_connection(*address) for _ in range(50)]
            for reader, _ in crowd[8:]:
                assert await answer(reader) == b""
            assert here.listener.pending == 8
            for _, writer in crowd:
                await leave(writer)

    run(scenario)


def test_workers_are_no_crowd(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that names its launch makes room for the next one."""
    monkeypatch.setattr("lightwork.engine.listener.listener._RATE", 0.0)

    async def scenario() -> None:
        async with door(max_crowd=1) as here:
            for _ in range(20):
                near, far = await let_in(here)
                await ended(far)
                await ended(near)

    run(scenario)


def test_a_crowd_disperses(run: Run) -> None:
    """The crowd limit recovers with time: a worker that was turned away gets in."""

    async def scenario() -> None:
        async with door(max_crowd=8) as here, tunnel(here.listener) as address:
            crowd = [await asyncio.open_connection(*address) for _ in range(50)]
            here.address = address
            near, far = await let_in(here)
            for _, writer in crowd:
                await leave(writer)
            await ended(far)
            await ended(near)

    run(scenario)


def test_workers_are_not_strangers(run: Run) -> None:
    """Many more workers than `max_unauthenticated` may dial at once, and all get in."""

    async def scenario() -> None:
        secrets = {number.to_bytes(16, "big"): SECRET for number in range(150)}
        listener = Listener(secrets.get, lambda *_: None, 1 << 20, max_unauthenticated=4)
        address = await listener.start("127.0.0.1", 0)
        tickets = [Ticket(launch, SECRET, [address], 10.0, 10.0) for launch in secrets]
        ends = await asyncio.gather(*(dial(ticket, timeout=20) for ticket in tickets))
        assert all(connection.is_open for connection in ends)
        await listener.aclose()
        for connection in ends:
            await ended(connection)

    run(scenario)


def test_one_launch_has_few_connections(run: Run) -> None:
    """A client that overhears a launch's id cannot fill the listener: with five connections the oldest is closed."""

    async def scenario() -> None:
        async with door() as here:
            first = client().start()
            crowd = []
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*here.address)
                writer.write(first)
                assert len(await reader.readexactly(64)) == 64
                crowd.append((reader, writer))
            assert await answer(crowd[0][0]) == b""
            assert here.listener.pending == 4
            for _, writer in crowd:
                await leave(writer)

    run(scenario)


def test_a_busy_port_is_explained(run: Run) -> None:
    """The error names the host, the port and the fix."""

    async def scenario() -> None:
        async with door() as here:
            host, port = here.address
            other = Listener(SECRETS.get, lambda *_: None, 1 << 20)
            with pytest.raises(ConfigError, match=rf"{host}.*{port}.*taken; set port = 0"):
                await other.start(host, port)
            await other.aclose()

    run(scenario)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("203.0.113.77", 0, "203.0.113.77.*set host to an address of this machine"),
        ("a..b", 0, "'a..b'.*set host to an address of this machine"),
        ("127.0.0.1", 65536, "port must be from 0 to 65535, got 65536"),
    ],
)
def test_an_address_that_is_none_is_explained(run: Run, host: str, port: int, message: str) -> None:
    """A foreign address, an invalid name and an invalid port are configuration errors."""

    async def scenario() -> None:
        listener = Listener(SECRETS.get, lambda *_: None, 1 << 20)
        with pytest.raises(ConfigError, match=message):
            await listener.start(host, port)
        await listener.aclose()

    run(scenario)


def test_a_name_is_bound_to_one_address(run: Run) -> None:
    """A name becomes one numeric address and one port, so workers dial the address that is bound."""

    async def scenario() -> None:
        async with door("localhost") as here:
            assert here.address[0] in ("127.0.0.1", "::1")
            near, far = await let_in(here)
            await ended(far)
            await ended(near)

    run(scenario)


def test_ipv6(run: Run) -> None:
    """The link works over IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")

    async def scenario() -> None:
        async with door("::1") as here:
            assert here.address[0] == "::1"
            near, far = await let_in(here)
            await ended(far)
            await ended(near)

    run(scenario)


def test_closing_leaves_the_workers_alone(run: Run) -> None:
    """`aclose` closes the port and pending connections, but not those of workers; it may be repeated."""

    async def scenario() -> None:
        async with door() as here, stranger(here.address) as silent:
            near, far = await let_in(here)
            await here.listener.aclose()
            await here.listener.aclose()
            assert here.listener.pending == 0
            assert await answer(silent) == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*here.address)
            taken: asyncio.Queue[Any] = asyncio.Queue()
            near.on_frames = taken.put_nowait
            far.send(pack(b"still here", 1))
            assert await taken.get() == [(1, b"still here")]
            await ended(far)
            await ended(near)

    run(scenario)


def test_dial_passes_over_somebody_else(run: Run) -> None:
    """A refused port and a listener that does not know the secret are skipped for the route that does."""

    async def scenario() -> None:
        async with other_server(b"x" * 100) as other, door() as here:
            connection = await dial(here.ticket(("127.0.0.1", free_port()), other.address), timeout=10)
            assert connection.is_open
            await ended(connection)

    run(scenario)


def test_dial_tries_again(run: Run) -> None:
    """A scheduler that starts to listen a moment later is reached."""

    async def scenario() -> None:
        port = free_port()
        refused = asyncio.Event()

        class Routes(list[tuple[str, int]]):
            """Sets `refused` when the routes are iterated for the second time."""

            rounds = 0

            def __iter__(self) -> Any:
                self.rounds += 1
                if self.rounds == 2:
                    refused.set()
                return super().__iter__()

        ticket = Ticket(LAUNCH, SECRET, Routes([("127.0.0.1", port)]), 10.0, 10.0)
        dialling = asyncio.ensure_future(dial(ticket, timeout=10))
        await refused.wait()
        listener = Listener(SECRETS.get, lambda *_: None, 1 << 20)
        await listener.start("127.0.0.1", port)
        connection = await dialling
        await listener.aclose()
        await ended(connection)

    run(scenario)


def test_dial_says_what_happened_on_each_route(run: Run) -> None:
    """The error is a `ConnectionError` and names each route with its last outcome."""

    async def scenario() -> None:
        dead = free_port()
        async with other_server() as silent, other_server(b"x" * 100) as other:
            mute, wrong = silent.address, other.address
            ticket = Ticket(LAUNCH, SECRET, [("127.0.0.1", dead), mute, wrong], 10.0, 10.0)
            with pytest.raises(DialFailed) as caught:
                await dial(ticket, timeout=0.4, route_timeout=0.1)
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value, LightworkError)
        message = str(caught.value)
        assert f"127.0.0.1:{dead}: Connection refused" in message
        assert f"127.0.0.1:{mute[1]}: no answer within" in message
        assert f"127.0.0.1:{wrong[1]}: the listener does not know this launch's secret" in message

    run(scenario)


def test_dial_without_routes_fails_at_once(run: Run) -> None:
    """Without a route there is nothing to wait for."""

    async def scenario() -> None:
        with pytest.raises(DialFailed, match="names no route"):
            await dial(Ticket(LAUNCH, SECRET, [], 10.0, 10.0), timeout=1000)

    run(scenario)


def test_a_wrong_secret_does_not_get_in(run: Run) -> None:
    """The dialling end notices first, because the listener does not prove the dialer's secret."""

    async def scenario() -> None:
        async with door() as here:
            with pytest.raises(DialFailed, match="does not know this launch's secret"):
                await dial(here.ticket(secret=b"w" * 32), timeout=0.1)
            assert here.arrived.empty()

    run(scenario)


def test_cancelling_dial_closes_its_connection(run: Run) -> None:
    """The other end sees the connection close."""

    async def scenario() -> None:
        async with other_server() as other:
            ticket = Ticket(LAUNCH, SECRET, [other.address], 10.0, 10.0)
            dialling = asyncio.ensure_future(dial(ticket, timeout=10))
            connection = await other.connections.get()
            await connection.heard.wait()
            dialling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dialling
            await connection.lost.wait()

    run(scenario)


def test_a_vanished_host_would_be_noticed(run: Run) -> None:
    """The kernel probes idle connections and sends small frames at once, at both ends."""

    async def scenario() -> None:
        async with door() as here:
            near, far = await let_in(here)
            for connection in (near, far):
                assert connection._transport is not None
                sock = connection._transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
            await ended(far)
            await ended(near)

    run(scenario)


def test_a_launch_that_was_revoked_does_not_get_in(run: Run) -> None:
    """A launch whose secret is gone gets no answer."""

    async def scenario() -> None:
        secrets = dict(SECRETS)
        listener = Listener(secrets.get, lambda *_: None, 1 << 20)
        address = await listener.start("127.0.0.1", 0)
        ticket = Ticket(LAUNCH, SECRET, [address], 10.0, 10.0)
        await ended(await dial(ticket, timeout=10))
        del secrets[LAUNCH]
        with pytest.raises(DialFailed, match="closed the connection during the handshake"):
            await dial(ticket, timeout=0.1)
        await listener.aclose()

    run(scenario)


def test_a_reset_is_given_to_the_owner(run: Run) -> None:
    """`on_closed` receives the error with which the connection was aborted."""

    async def scenario() -> None:
        async with door() as here:
            near, far = await let_in(here)
            lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            near.on_closed = lost.set_result
            near.abort(ProtocolError("not wanted"))
            assert str(await lost) == "not wanted"
            await ended(far)

    run(scenario)
