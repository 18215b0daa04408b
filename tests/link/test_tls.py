"""TLS below a connection: over in-memory streams in pieces of any size, then over real sockets."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from lightwork.engine.listener.certificate import Certificate, make_certificate, server_context
from lightwork.engine.listener.listener import Listener
from lightwork.errors import ConfigError, ProtocolError
from lightwork.link import ClientHandshake, ServerHandshake, TlsLayer
from lightwork.link.messages import Ticket, encode, pack
from lightwork.link.tls import client_context, knows_fingerprint
from lightwork.worker.dial import DialFailed, dial
from tests.engine.listener.listeners import HELLO, Run, answer, door, ended, let_in, stranger
from tests.link.support import (
    LAUNCH,
    SECRET,
    SECRETS,
    FakeTransport,
    Log,
    ManualLoop,
    client,
    join,
    pump,
    server,
)

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return make_certificate()


class Channel:
    """Two connections over TLS over a pair of fake transports. The listening end is on the left."""

    def __init__(self, certificate: Certificate, pinned: Certificate | None = None) -> None:
        expected = (pinned or certificate).fingerprint
        self.loop = ManualLoop()
        self.near, self.far = Log(), Log()
        self.left = self.near.connection(self.loop, server(binding=certificate.fingerprint))
        self.right = self.far.connection(self.loop, client(binding=expected))
        self.lower_left = TlsLayer(self.left, server_context(certificate))
        self.lower_right = TlsLayer(self.right, client_context(), expected)
        self.ends = join(self.loop, self.lower_left, self.lower_right)

    def pump(self, size: int | None = None) -> None:
        pump(self.loop, self.ends, size)


@pytest.mark.parametrize("size", [None, 1, 7, 1000])
def test_frames_pass_in_pieces_of_any_size(certificate: Certificate, size: int | None) -> None:
    """Both handshakes and the frames of both directions arrive, for any cuts of the bytes."""
    channel = Channel(certificate)
    channel.pump(size)
    assert channel.near.opened == [channel.left]
    assert channel.far.opened == [channel.right]
    for number in range(1, 4):
        channel.right.send(pack(b"up" * number, number))
        channel.left.send(pack(b"down" * number, number))
    channel.pump(size)
    assert channel.near.frames == [(number, b"up" * number) for number in range(1, 4)]
    assert channel.far.frames == [(number, b"down" * number) for number in range(1, 4)]
    channel.right.close()
    channel.pump(size)
    assert channel.near.closed == channel.far.closed == [None]
    assert channel.loop.errors == []


def test_a_long_frame_passes(certificate: Certificate) -> None:
    """A frame of many TLS records and several pieces arrives whole."""
    channel = Channel(certificate)
    channel.pump()
    body = os.urandom(1_000_003)
    channel.right.send(pack(body, 1))
    channel.pump(70_000)
    assert channel.near.frames == [(1, body)]


def test_nothing_travels_in_the_clear(certificate: Certificate) -> None:
    """The transmitted bytes contain neither the launch's id nor a frame."""
    channel = Channel(certificate)
    seen = bytearray()
    for end in channel.ends:
        deliver, pending = end.deliver, end

        def spy(size: int | None = None, *, deliver: Any = deliver, pending: FakeTransport = pending) -> int:
            seen.extend(pending.pending[:size])
            return int(deliver(size))

        end.deliver = spy  # type: ignore[method-assign]
    channel.pump()
    channel.right.send(pack(b"a frame that is long enough to be found", 1))
    channel.pump()
    assert channel.near.frames == [(1, b"a frame that is long enough to be found")]
    assert LAUNCH not in seen
    assert b"long enough" not in seen


def test_another_certificate_is_told_nothing(certificate: Certificate) -> None:
    """A worker whose ticket names another certificate leaves before it has sent a byte inside the channel."""
    other = make_certificate()
    channel = Channel(certificate, pinned=other)
    inside: list[bytes] = []
    channel.left.data_received = inside.append  # type: ignore[method-assign, assignment]
    channel.pump()
    assert [str(error) for error in channel.far.closed] == [
        f"the listener's certificate is not the ticket's: expected the fingerprint {other.fingerprint.hex()}, got "
        f"{certificate.fingerprint.hex()}"
    ]
    assert inside == []
    assert len(channel.near.closed) == 1


def test_a_relay_with_a_certificate_of_its_own_gets_no_further(certificate: Certificate) -> None:
    """A relay that joins two channels fails twice: at the pinned fingerprint, and at the channel binding."""
    other = make_certificate()
    one = ClientHandshake(LAUNCH, SECRET, b"c" * 32, other.fingerprint)
    two = ServerHandshake(SECRETS.get, b"n" * 32, certificate.fingerprint)
    with pytest.raises(ProtocolError, match="not our scheduler"):
        one.feed(two.feed(one.start()))


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"LWK1" + b"x" * 48, b"\x16\x03\x01\xff\xff" + b"\x00" * 400]
)
def test_garbage_is_the_other_ends_fault(certificate: Certificate, data: bytes) -> None:
    """Data that is not TLS closes the connection with a `ProtocolError`; the loop's exception handler is not called."""
    loop, log = ManualLoop(), Log()
    layer = TlsLayer(log.connection(loop, server()), server_context(certificate))
    transport = FakeTransport(loop, layer)
    layer.connection_made(transport)
    layer.data_received(data)
    layer.data_received(b"more of it")
    loop.advance()
    assert [type(error) for error in log.closed] == [ProtocolError]
    assert "TLS 1.3" in str(log.closed[0])
    assert loop.errors == []


def test_older_tls_is_refused(certificate: Certificate) -> None:
    """A client that supports at most TLS 1.2 is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    loop, near, far = ManualLoop(), Log(), Log()
    left = TlsLayer(near.connection(loop, server()), server_context(certificate))
    right = TlsLayer(far.connection(loop, client()), context, certificate.fingerprint)
    pump(loop, join(loop, left, right))
    assert near.opened == far.opened == []
    assert isinstance(near.closed[0], ProtocolError)


def test_the_time_limit_covers_both_handshakes(certificate: Certificate) -> None:
    """A client that stops in the middle of the TLS handshake is dropped at the single time limit."""
    loop, log = ManualLoop(), Log()
    layer = TlsLayer(log.connection(loop, server(), handshake_timeout=10.0), server_context(certificate))
    layer.connection_made(FakeTransport(loop, layer))
    layer.data_received(b"\x16\x03\x01")
    loop.advance(9.9)
    assert log.closed == []
    loop.advance(0.2)
    assert [str(error) for error in log.closed] == ["the other end did not complete the handshake within 10 s"]


def test_a_changed_byte_ends_the_channel(certificate: Certificate) -> None:
    """A changed byte is detected, and the frame is not delivered."""
    channel = Channel(certificate)
    channel.pump()
    channel.right.send(pack(b"pay 10", 1))
    channel.ends[1].pending[-1] ^= 1
    channel.pump()
    assert channel.near.frames == []
    assert isinstance(channel.near.closed[0], ProtocolError)


def test_a_channel_that_is_cut_is_told_from_one_that_ended(certificate: Certificate) -> None:
    """If the socket ends without the end of the channel, `on_closed` gets a `ConnectionResetError`."""
    channel = Channel(certificate)
    channel.pump()
    channel.lower_left.eof_received()
    channel.ends[0].lose(None)
    channel.loop.advance()
    assert isinstance(channel.near.closed[0], ConnectionResetError)


def test_a_slow_other_end_is_felt_above(certificate: Certificate) -> None:
    """`Connection.writable` follows the transport below."""
    channel = Channel(certificate)
    channel.pump()
    channel.left.send(pack(b"x" * 300_000, 1))
    before = channel.left.writable
    channel.pump()
    assert (before, channel.left.writable) == (False, True)
    assert channel.near.writable == 1


def test_a_fingerprint_has_its_size(certificate: Certificate) -> None:
    """A dialling end without a fingerprint is refused: it would trust any listener."""
    with pytest.raises(ValueError, match="32 bytes"):
        TlsLayer(asyncio.Protocol(), client_context())


# --- the certificate ----------------------------------------------------------------------------


def test_each_run_has_a_key_of_its_own(certificate: Certificate) -> None:
    """Two certificates differ in key and fingerprint; a repr shows only the fingerprint."""
    other = make_certificate()
    assert other.key != certificate.key
    assert other.fingerprint != certificate.fingerprint
    assert repr(certificate) == f"Certificate(fingerprint={certificate.fingerprint.hex()})"


def test_the_key_is_on_no_disk(certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that `ssl` loads is readable only by the user, has no unencrypted key, and is deleted afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[int, bytes]] = []
    unlink = os.unlink

    def look(path: str) -> None:
        seen.append((os.stat(path).st_mode & 0o777, Path(path).read_bytes()))
        unlink(path)

    monkeypatch.setattr("lightwork.engine.listener.certificate.os.unlink", look)
    server_context(certificate)
    ((mode, content),) = seen
    assert mode == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert certificate.key.splitlines()[1] not in content
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off loopback without cryptography, the error names the extra and the alternative, and nothing listens."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)

    async def scenario() -> None:
        listener = Listener(SECRETS.get, lambda *_: None, 1 << 20)
        with pytest.raises(ConfigError, match=r"lightwork\[tls\].*127\.0\.0\.1"):
            await listener.start("0.0.0.0", 0)
        await listener.aclose()

    run(scenario)


# --- on real sockets ----------------------------------------------------------------------------


def tls_ticket(address: tuple[str, int], fingerprint: bytes, secret: bytes = SECRET) -> Ticket:
    return Ticket(LAUNCH, secret, [address], 10.0, 10.0, fingerprint)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_is_tls_for_everybody(run: Run, host: str) -> None:
    """A listener on all addresses has one mode: a client that dials over loopback must use TLS, too."""
    loopback = "127.0.0.1" if host == "0.0.0.0" else "::1"

    async def scenario() -> None:
        async with door(host) as here:
            assert len(here.listener.fingerprint) == 32
            address = (loopback, here.address[1])
            far = await dial(tls_ticket(address, here.listener.fingerprint), timeout=10)
            far.send(pack(encode(HELLO)))
            near, launch, hello = await here.arrived.get()
            assert (launch, hello) == (LAUNCH, HELLO)
            taken: asyncio.Queue[Any] = asyncio.Queue()
            near.on_frames = taken.put_nowait
            far.send(pack(b"x" * 1_000_000, 1))
            assert await taken.get() == [(1, b"x" * 1_000_000)]
            with pytest.raises(DialFailed):
                await dial(tls_ticket(address, b""), timeout=0.1)
            await ended(far)
            await ended(near)

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_plain(run: Run, host: str) -> None:
    """A listener on loopback has no certificate, and its tickets have no fingerprint."""

    async def scenario() -> None:
        async with door(host) as here:
            assert here.listener.fingerprint == b""
            near, far = await let_in(here)
            assert near._transport is not None
            assert near._transport.get_extra_info("ssl_object") is None
            await ended(far)
            await ended(near)

    run(scenario)


def test_dial_is_pinned(run: Run, certificate: Certificate) -> None:
    """A listener with another certificate is skipped, is named in the error, and gets no byte inside the channel."""

    async def scenario() -> None:
        inside: list[bytes] = []

        class Impostor(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                inside.append(data)

        context = server_context(make_certificate())
        loop = asyncio.get_running_loop()
        impostor = await loop.create_server(lambda: TlsLayer(Impostor(), context), "127.0.0.1", 0)
        wrong = impostor.sockets[0].getsockname()
        async with door(certificate=certificate) as here:
            with pytest.raises(DialFailed, match=rf"{wrong[1]}: the listener's certificate is not the ticket's"):
                await dial(tls_ticket(wrong, certificate.fingerprint), timeout=0.2)
            ticket = Ticket(LAUNCH, SECRET, [wrong, here.address], 10.0, 10.0, certificate.fingerprint)
            far = await dial(ticket, timeout=10)
            assert far.is_open
            await ended(far)
        impostor.close()
        assert inside == []

    run(scenario)


def test_the_secret_is_asked_for_inside_of_the_channel(run: Run, certificate: Certificate) -> None:
    """A client that knows the certificate completes TLS, but is refused without the secret."""

    async def scenario() -> None:
        async with door(certificate=certificate) as here:
            with pytest.raises(DialFailed, match="does not know this launch's secret"):
                await dial(tls_ticket(here.address, certificate.fingerprint, b"w" * 32), timeout=0.1)
            assert here.arrived.empty()

    run(scenario)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"LWK1" + b"x" * 48])
def test_strangers_to_tls_are_dropped(run: Run, certificate: Certificate, data: bytes) -> None:
    """Silence, half a TLS hello and another protocol are closed without a byte and without a log line."""

    async def scenario() -> None:
        async with (
            door(certificate=certificate, handshake_timeout=0.1) as here,
            stranger(here.address, data) as reader,
        ):
            assert await answer(reader) == b""

    run(scenario)


def test_connections_in_the_tls_handshake_are_counted(run: Run, certificate: Certificate) -> None:
    """Of 40 connections that stop in the TLS handshake, the oldest are dropped at once; a worker still gets in."""

    async def scenario() -> None:
        async with door(certificate=certificate, max_unauthenticated=8) as here:
            crowd = []
            for _ in range(40):
                reader, writer = await asyncio.open_connection(*here.address)
                writer.write(b"\x16\x03\x01")
                crowd.append((reader, writer))
            for reader, _ in crowd[:32]:
                assert await answer(reader) == b""
            assert here.listener.pending <= 8
            near, far = await let_in(here)
            for _, writer in crowd:
                writer.close()
            await ended(far)
            await ended(near)

    run(scenario)


def test_a_stranger_that_speaks_tls_is_dropped(run: Run, certificate: Certificate) -> None:
    """A browser or a scanner gets no byte, and so does not see the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="example.org").do_handshake()
    greeting = hello.read()

    async def scenario() -> None:
        async with door(certificate=certificate) as here, stranger(here.address, greeting) as reader:
            assert await answer(reader) == b""

    run(scenario)


def test_whoever_knows_the_certificate_gets_no_further(run: Run, certificate: Certificate) -> None:
    """A client that knows the fingerprint gets the certificate, but nothing inside the channel."""

    class Browser(asyncio.Protocol):
        def __init__(self) -> None:
            self.inside: list[bytes] = []
            self.lost = asyncio.Event()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).write(b"GET / HTTP/1.1\r\n\r\n")

        def data_received(self, data: bytes) -> None:
            self.inside.append(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set()

    async def scenario() -> None:
        async with door(certificate=certificate) as here:
            browser = Browser()
            layer = TlsLayer(browser, client_context(), certificate.fingerprint)
            await asyncio.get_running_loop().create_connection(lambda: layer, *here.address)
            await browser.lost.wait()
            assert layer.get_extra_info("ssl_object").getpeercert(binary_form=True) == certificate.certificate
            assert browser.inside == []

    run(scenario)


def greeting(certificate: Certificate) -> bytes:
    """Return the first bytes of a dialling end."""
    said: list[bytes] = []

    class Below(FakeTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            said.append(bytes(data))

    loop = ManualLoop()
    layer = TlsLayer(asyncio.Protocol(), client_context(), certificate.fingerprint)
    layer.connection_made(Below(loop, layer))
    return b"".join(said)


def test_a_greeting_is_known_by_its_beginning(certificate: Certificate) -> None:
    """For any cut, an incomplete greeting of a worker is waited for, and never refused."""
    whole = greeting(certificate)
    verdicts = [knows_fingerprint(whole[:size], certificate.fingerprint) for size in range(1, len(whole) + 1)]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict is True)
    assert set(verdicts) == {None, True}


def test_a_greeting_to_somebody_else_is_refused(certificate: Certificate) -> None:
    """A greeting is refused if it was changed, or if it does not contain the HMAC of the certificate's fingerprint."""
    whole = greeting(certificate)
    assert knows_fingerprint(whole, bytes(32)) is False
    name = whole.index(b"lw")
    for place in (name + 5, name + 40):
        changed = b"1" if whole[place] == ord("0") else b"0"
        assert not knows_fingerprint(whole[:place] + changed + whole[place + 1 :], certificate.fingerprint)
    assert knows_fingerprint(whole.replace(b"lw", b"xx"), certificate.fingerprint) is False
    assert knows_fingerprint(b"\x16\x03\x01\xff\xff" + bytes(3000), certificate.fingerprint) is False


def test_a_connection_outlives_its_listener(run: Run, certificate: Certificate) -> None:
    """`aclose` drops the connections in a handshake; the workers keep their channels."""

    async def scenario() -> None:
        async with door(certificate=certificate) as here, stranger(here.address, b"\x16\x03") as silent:
            near, far = await let_in(here)
            await here.listener.aclose()
            assert await answer(silent) == b""
            taken: asyncio.Queue[Any] = asyncio.Queue()
            near.on_frames = taken.put_nowait
            far.send(pack(b"still here", 1))
            assert await taken.get() == [(1, b"still here")]
            assert await ended(far) is None
            await ended(near)

    run(scenario)


def test_a_cut_is_seen_by_the_other_end(run: Run, certificate: Certificate) -> None:
    """A killed worker ends its socket without the end of its channel; the scheduler gets a `ConnectionError`."""

    async def scenario() -> None:
        async with door(certificate=certificate) as here:
            near, far = await let_in(here)
            lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
            near.on_closed = lost.set_result
            far.abort()
            assert isinstance(await lost, ConnectionError)

    run(scenario)
