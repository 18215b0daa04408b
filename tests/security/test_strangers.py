"""Attacks on a running app: a client that cannot prove the secret learns nothing, changes nothing and costs little."""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lightwork._version import __version__
from lightwork.engine.listener.certificate import Certificate
from lightwork.engine.workers.worker import Worker
from lightwork.link import Connection, Frames
from lightwork.link.messages import (
    HEADER,
    VERSION,
    FromScheduler,
    Hello,
    Ticket,
    Welcome,
    decode_from_scheduler,
    encode,
    pack,
)
from lightwork.runtime import Spec
from lightwork.worker.dial import DialFailed, dial
from tests.link.support import FakeTransport, Log, ManualLoop, server
from tests.security.support import Live, Taped, knock, live
from tests.security.test_fuzz import corpus

HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
STREAMS = {name: data for folder in ("stream", "tls", "handshake") for name, data in corpus(folder).items()}


def hello(received: int = 0) -> bytes:
    return pack(encode(Hello(VERSION, __version__, "3", 1, "elsewhere", received)))


async def lost(connection: Connection) -> Exception | None:
    future: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    connection.on_closed = future.set_result
    return await future


# --- without the secret -------------------------------------------------------------------------


@HOSTS
async def test_garbage(host: str) -> None:
    """Every stream of the corpus, one by one and all at once, gets at most a TLS handshake, and the work continues."""
    async with live(host=host) as here:
        for data in STREAMS.values():
            assert len(await knock(here.route, data)) < 2000  # with TLS, the listener's half of the handshake
        await asyncio.gather(*(knock(here.route, data) for data in STREAMS.values()))
        await here.check()


async def test_plain_strangers_get_no_byte() -> None:
    """On loopback, a client that knows no launch gets no byte."""
    async with live() as here:
        for data in STREAMS.values():
            assert await knock(here.route, data) == b""


def test_slow_strangers_have_one_time_limit() -> None:
    """A slow trickle of bytes does not extend the time limit: the connection is closed 10 s after the connect."""
    loop, log = ManualLoop(), Log()
    connection = log.connection(loop, server())
    connection.connection_made(FakeTransport(loop, connection))
    for byte in b"LWK1" + bytes(5):
        connection.data_received(bytes([byte]))
        loop.advance(1.0)
        assert log.closed == []
    loop.advance(1.1)
    assert [str(error) for error in log.closed] == ["the other end did not complete the handshake within 10 s"]


@HOSTS
async def test_the_right_launch_with_a_wrong_secret(host: str) -> None:
    """A client that has only a launch's public id is refused, and the worker keeps its connection."""
    async with live(host=host) as here:
        connection = here.worker.peer and here.worker.peer.connection
        with pytest.raises(DialFailed, match="does not know this launch's secret"):
            await dial(here.ticket(secret=b"w" * 32), timeout=0.1)
        assert here.worker.peer is not None
        assert here.worker.peer.connection is connection


async def test_a_guessed_proof() -> None:
    """A client that answers the listener's challenge with a wrong proof is closed without another byte."""
    async with live() as here:
        challenge, rest = await converse(here.route, b"LWK1" + here.worker.launch + bytes(32), bytes(32))
        assert rest == b""
        assert here.worker.secret not in challenge


async def test_replayed_handshakes() -> None:
    """A replay of a worker's handshake gets another challenge and then nothing."""
    runtime = Taped()
    try:
        async with live("inprocess", runtimes={"inprocess": runtime}) as here:
            ((up, down),) = runtime.tape.said
            assert up.startswith(b"LWK1" + here.worker.launch)
            challenge, rest = await converse(here.route, bytes(up[:52]), bytes(up[52:]))
            assert challenge != bytes(down[:64])
            assert rest == b""
            # The other direction: a replay of the scheduler's handshake is not accepted as a scheduler.
            impostor = await asyncio.start_server(_parrot(bytes(down)), "127.0.0.1", 0)
            ticket = here.ticket()
            ticket.routes[:] = [impostor.sockets[0].getsockname()]
            with pytest.raises(DialFailed, match="not our scheduler"):
                await dial(ticket, timeout=0.1)
            impostor.close()
    finally:
        await runtime.tape.aclose()


async def converse(route: tuple[str, int], first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """Send `first`, wait for the challenge, send `second`; return the challenge and the bytes after it."""
    reader, writer = await asyncio.open_connection(*route)
    try:
        writer.write(first)
        challenge = await reader.readexactly(64)
        writer.write(second)
        with suppress(ConnectionError):
            return challenge, await reader.read()
        return challenge, b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _parrot(data: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await reader.read()
        writer.close()

    return serve


@HOSTS
async def test_a_flood(host: str) -> None:
    """While 300 connections are opened and kept open, every call is answered, and the limit is kept."""
    async with live(host=host, max_unauthenticated=64) as here:
        crowd: list[asyncio.StreamWriter] = []

        async def flood() -> None:
            for number in range(300):
                _, writer = await asyncio.open_connection(*here.route)
                crowd.append(writer)
                writer.write([b"", b"L", b"\x16\x03\x01", b"LWK1" + bytes(20)][number % 4])

        flooding = asyncio.create_task(flood())
        calls = 0
        while not flooding.done() or calls < 50:
            assert await here.work.run(calls) == calls + 1
            calls += 1
            assert here.listener.pending <= 4 * 64 + 4
        await flooding
        while here.listener.pending > 64:
            await here.work.run(0)  # the listener restores the bound a moment later
        for writer in crowd:
            writer.transport.abort()


# --- with the secret ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [HEADER.pack(2**32 - 1, 0), HEADER.pack(2**32 - 1, 2**64 - 1), pack(b"\xc1"), pack(b"\xdd\xff\xff\xff\xff", 1)],
    ids=["4 GB", "4 GB, numbered", "no frame", "an array of 4 billion"],
)
async def test_a_first_frame_that_is_none(data: bytes) -> None:
    """A connection that has proved the secret and then sends an invalid frame is closed; the worker keeps its own."""
    async with live() as here:
        connection = await dial(here.ticket(), timeout=5)
        connection.send(data)
        await lost(connection)


@HOSTS
async def test_pickles_are_not_opened(host: str, tmp_path: Path) -> None:
    """A pickle that would create a file is not opened: as first bytes, as a hello, or as a frame after a hello."""
    proof = tmp_path / "opened"

    class Opens:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Opens(), protocol)
        async with live(host=host) as here:
            await knock(here.route, data)
            await knock(here.route, pack(data, 1))
            connection = await dial(here.ticket(), timeout=5)
            connection.send(pack(data))
            await lost(connection)
            connection = await _take_over(here.ticket(), hello(_seen(here)))
            connection.send(pack(data, 1 << 30))
            await lost(connection)
        assert not proof.exists()
    pickle.loads(data)
    assert proof.exists()  # the pickle works when it is opened


async def _take_over(ticket: Ticket, first: bytes) -> Connection:
    connection = await dial(ticket, timeout=5)
    welcomed: asyncio.Future[FromScheduler] = asyncio.get_running_loop().create_future()

    def take(frames: Frames) -> None:
        if not welcomed.done():
            welcomed.set_result(decode_from_scheduler(frames[0][1]))

    connection.on_frames = take
    connection.send(first)
    welcome = await welcomed
    assert isinstance(welcome, Welcome)
    assert welcome.work == b""  # the work is sent once, to the first connection
    return connection


def _seen(here: Live) -> int:
    """Return the number of frames that the worker would report as received."""
    assert here.worker.peer is not None
    return here.worker.peer.statistics().sent


async def test_whoever_has_the_secret_is_the_worker() -> None:
    """A second connection with the secret replaces the first, as after a cut; then the worker reconnects.

    The secret is a worker's only credential. A client that has it gets the worker's later frames, and nothing else.
    """
    async with live() as here:
        peer = here.worker.peer
        assert peer is not None
        own = peer.connection
        second = await _take_over(here.ticket(), hello(_seen(here)))
        assert peer.connection is not own
        second.abort()
        await here.check()


async def test_a_launch_that_is_over_is_a_stranger() -> None:
    """The secret of a stopped worker is no longer accepted."""
    async with live() as here:
        ticket = here.ticket()
        await here.work.stop()
        with pytest.raises(DialFailed, match="closed the connection during the handshake"):
            await dial(ticket, timeout=0.1)
        assert await here.work.run(1) == 2
        assert here.worker.launch != ticket.launch


# --- the secrets themselves ---------------------------------------------------------------------


def forms(secret: bytes) -> list[bytes]:
    """Return the forms in which a secret could appear in text."""
    # The last characters of base64 depend on the bytes that follow.
    encoded = [base64.b64encode(secret)[:40], base64.urlsafe_b64encode(secret)[:40]]
    return [secret, secret.hex().encode(), repr(secret)[2:-1].encode(), *encoded]


def outside(here: Live) -> dict[str, bytes]:
    """Return the texts that other programs of this user can read: of each process, and of the launch's folder."""
    found: dict[str, bytes] = {}
    processes = psutil.Process().children(recursive=True)
    assert len(processes) >= 2, "a launcher and a worker"
    for process in processes:
        found[f"arguments of {process.pid}"] = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        found[f"environment of {process.pid}"] = Path(f"/proc/{process.pid}/environ").read_bytes()
    runtime: Any = here.worker.runtime
    files = [file for file in Path(runtime._home).rglob(f"{here.worker.name}/*") if file.is_file()]
    assert {"record", "log"} <= {file.name for file in files}
    found |= {str(file): file.read_bytes() for file in files}
    for file in Path(tempfile.gettempdir()).glob("lightwork-*"):
        if file.is_file():
            found[str(file)] = file.read_bytes()
    return found


def shown(here: Live) -> dict[str, bytes]:
    """Return the texts that a traceback or a log line could show of objects that hold a secret."""
    peer, listener = here.worker.peer, here.listener
    ones: list[Any] = [here.worker, here.ticket(), peer, here.worker.ref, here.worker.runtime, here.app, here.work]
    connection = peer and peer.connection
    ones += [listener, listener.certificate, connection, connection and connection.handshake, asyncio.all_tasks()]
    return {f"repr of {type(one).__name__}": f"{one!r} {one!s}".encode() for one in ones}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
@HOSTS
async def test_secrets_are_nowhere(host: str, caplog: pytest.LogCaptureFixture) -> None:
    """No secret is in arguments, environments, launch folders, temporary files, logs, outputs, reprs or errors."""
    caplog.set_level("DEBUG")
    async with live(host=host, log_level="debug") as here:
        secrets = forms(here.worker.secret)
        if here.listener.certificate is not None:
            secrets.append(here.listener.certificate.key.splitlines()[1])
        assert len(secrets) == (5 if host == "127.0.0.1" else 6)
        found = outside(here) | shown(here)
        with pytest.raises(DialFailed) as failure:
            await dial(here.ticket(b"w" * 32), timeout=0.1)
        found["error"] = repr(failure.value).encode()
    found["logs"] = caplog.text.encode()
    assert [place for place, text in found.items() if any(secret in text for secret in secrets)] == []


def test_a_repr_shows_no_secret() -> None:
    """The repr of an object that carries a ticket shows no secret."""
    secret = os.urandom(32)
    ticket = Ticket(bytes(16), secret, [("127.0.0.1", 1)], 1.0, 1.0)
    worker = Worker(1, 1, "name", "local")
    worker.secret = secret
    for one in (
        ticket,
        Spec("n", "o", "e", encode(ticket)),
        worker,
        Certificate(b"c", secret),
        [ticket],
        {"t": ticket},
    ):
        assert not any(form in f"{one!r}".encode() for form in forms(secret))
