"""Arbitrary bytes, fed to all code that reads bytes from outside. The result is a documented error or none.

Each property runs on inputs of `corpus/` that are changed at random, and on random inputs. Each input of the corpus is
also replayed unchanged.
"""

from __future__ import annotations

import ssl
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.engine.listener.certificate import make_certificate, server_context
from lightwork.engine.workers.replica import Replica
from lightwork.errors import ProtocolError, StateError
from lightwork.link import ClientHandshake, Connection, Peer, ServerHandshake, TlsLayer
from lightwork.link.messages import (
    HEADER,
    Ack,
    Cancel,
    Failure,
    FrameReader,
    FromWorker,
    ProposalResult,
    Stopped,
    decode_from_scheduler,
    decode_from_worker,
    encode,
    pack,
)
from lightwork.link.tls import client_context
from lightwork.remote_errors import rebuild_error
from lightwork.state.state import State
from tests.link.support import LAUNCH, SECRETS, FakeTransport, Log, ManualLoop, client, server

CORPUS = Path(__file__).parent / "corpus"
MAX_FRAME = 4096


def corpus(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((CORPUS / folder).iterdir())}


def replayed(folder: str) -> pytest.MarkDecorator:
    inputs = corpus(folder)
    return pytest.mark.parametrize("data", inputs.values(), ids=inputs.keys())


@st.composite
def changed(draw: st.DrawFn, folder: str) -> bytes:
    """Draw an input of the corpus with a few bytes changed, removed, inserted or doubled."""
    data = draw(st.sampled_from(list(corpus(folder).values())))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 16)))
        middle = draw(st.one_of(st.binary(max_size=8), st.just(data[start:stop] * 2)))
        data = data[:start] + middle + data[stop:]
    return data


def anything(folder: str) -> st.SearchStrategy[bytes]:
    return st.one_of(changed(folder), st.binary(max_size=300))


SIZES = st.lists(st.integers(1, 80), min_size=1, max_size=6)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut the data into pieces of these sizes, in rotation."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


# --- frames -------------------------------------------------------------------------------------


@given(data=anything("stream"), sizes=SIZES)
def test_the_frame_reader_holds_one_frame_at_most(data: bytes, sizes: list[int]) -> None:
    """It returns the sent frames in order, or raises that a frame is too long; its buffer is bounded."""
    reader, given_back = FrameReader(MAX_FRAME), b""
    with suppress(ProtocolError):
        for piece in cut(data, sizes):
            for number, body in reader.feed(piece):
                assert len(body) <= MAX_FRAME
                given_back += HEADER.pack(len(body), number) + body
            assert reader.buffered < MAX_FRAME + HEADER.size
    assert data.startswith(given_back)


@replayed("body")
def test_bodies_of_the_corpus(data: bytes) -> None:
    """Each body is a frame or a `ProtocolError` at both ends; no length in it makes the decoder allocate memory."""
    tracemalloc.start()
    try:
        _decode(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20


@given(data=anything("body"))
def test_bodies_are_frames_or_protocol_errors(data: bytes) -> None:
    """No body raises another error; an exception is rebuilt from a body without running code."""
    _decode(data)


def _decode(data: bytes) -> None:
    for decode in (decode_from_worker, decode_from_scheduler):
        try:
            frame = decode(data)
        except ProtocolError:
            continue
        info = frame.error if isinstance(frame, Failure | Stopped | ProposalResult) else None
        if info is not None:
            error = rebuild_error(info, work="root.work")
            assert isinstance(error, Exception)
            assert isinstance(str(error), str)
        encode(frame)


# --- handshakes ---------------------------------------------------------------------------------


def _shake(handshake: ClientHandshake | ServerHandshake, pieces: list[bytes]) -> int:
    """Feed the handshake; return the number of bytes in its answers."""
    answered = 0
    try:
        for piece in pieces:
            answered += len(handshake.feed(piece))
    except ProtocolError:
        return answered
    return answered


@replayed("handshake")
def test_handshakes_of_the_corpus(data: bytes) -> None:
    """Each input is incomplete or refused."""
    _check_handshakes([data])
    _check_handshakes([data[at : at + 1] for at in range(len(data))])


@given(data=anything("handshake"), sizes=SIZES)
def test_nobody_gets_through_a_handshake_by_chance(data: bytes, sizes: list[int]) -> None:
    """Neither end is ever done, and the listening end answers at most one message."""
    _check_handshakes(cut(data, sizes))


def _check_handshakes(pieces: list[bytes]) -> None:
    # No input of the corpus was recorded with these nonces: an input that succeeds has guessed a proof.
    listening, dialling = server(nonce=b"m" * 32), client(nonce=b"d" * 32)
    assert _shake(listening, pieces) <= 64
    assert _shake(dialling, pieces) == 0
    assert not listening.done
    assert not dialling.done
    assert len(listening.rest + dialling.rest) == 0


# --- connections --------------------------------------------------------------------------------


class Door:
    """A connection of the listening end, with the handshake that the inputs of the corpus were recorded with."""

    def __init__(self) -> None:
        self.loop, self.log = ManualLoop(), Log()
        handshake = ServerHandshake(SECRETS.get, b"n" * 32)
        self.connection: Connection = self.log.connection(self.loop, handshake, max_frame=MAX_FRAME)
        self.transport = FakeTransport(self.loop, self.connection)
        self.connection.connection_made(self.transport)

    def feed(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if self.transport.is_closing():
                break
            self.connection.data_received(piece)
        self.loop.advance()


@replayed("stream")
def test_streams_of_the_corpus(data: bytes) -> None:
    """Each stream opens the connection, or ends it with a `ProtocolError`, at the time limit at the latest."""
    _check_stream([data])
    _check_stream([data[at : at + 1] for at in range(len(data))])


@given(data=anything("stream"), sizes=SIZES)
def test_a_stream_ends_in_order(data: bytes, sizes: list[int]) -> None:
    """No stream raises in the event loop, and an unauthenticated connection is closed at the time limit."""
    _check_stream(cut(data, sizes))


def _check_stream(pieces: list[bytes]) -> None:
    door = Door()
    door.feed(pieces)
    door.loop.advance(60.0)
    assert door.loop.errors == []
    assert all(isinstance(error, ProtocolError) for error in door.log.closed)
    assert bool(door.log.closed) or door.connection.is_open
    if door.log.frames:
        assert door.log.opened


def test_the_recorded_stream_opens_the_door() -> None:
    """The corpus has a stream with a valid handshake, so that its changed copies reach the code after the handshake."""
    door = Door()
    door.feed([corpus("stream")["worker"]])
    assert door.connection.is_open
    assert door.connection.handshake.launch == LAUNCH
    assert len(door.log.frames) == 3


# --- the numbered exchange ----------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(0, 8), st.just(2**64 - 1))
NUMBERED = st.lists(
    st.tuples(NUMBERS, st.one_of(changed("body"), st.builds(encode, st.builds(Ack, NUMBERS)))), max_size=8
)


@given(reads=st.lists(NUMBERED, max_size=4), welcomed=NUMBERS, keeps=st.booleans())
def test_an_exchange_takes_no_harm(reads: list[list[tuple[int, bytes]]], welcomed: int, keeps: bool) -> None:
    """For any numbers and acknowledgements, frames are delivered once and in order, or `ProtocolError` is raised."""
    loop, taken = ManualLoop(), list[int]()
    peer: Peer[FromWorker] = Peer(
        lambda frame: taken.append(peer.number), decode_from_worker, MAX_FRAME, loop=loop, keeps=keeps
    )
    for call in range(3):
        peer.send(Cancel(call))
    log = Log()
    with suppress(ProtocolError):
        peer.attach(log.connection(loop, server()), welcomed)
        assert welcomed <= 3
    for frames in reads:
        with suppress(ProtocolError):
            peer.feed(frames)
        statistics = peer.statistics()
        assert statistics.sent == 3
        assert 0 <= statistics.unacked <= 3
        assert (statistics.unacked_bytes == 0) == (statistics.unacked == 0)
        numbered = [number for number in taken if number]
        assert numbered == list(range(1, len(numbered) + 1))
        assert statistics.received <= 8
    assert loop.errors == []


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, bytes]:
    pytest.importorskip("cryptography")
    certificate = make_certificate()
    return server_context(certificate), certificate.fingerprint


@replayed("tls")
def test_tls_of_the_corpus(tls: tuple[ssl.SSLContext, bytes], data: bytes) -> None:
    """Each input ends the connection with a `ProtocolError`, at the time limit at the latest."""
    _check_tls(tls, [data])
    _check_tls(tls, [data[at : at + 1] for at in range(len(data))])


@given(data=anything("tls"), sizes=SIZES)
def test_tls_ends_in_order(tls: tuple[ssl.SSLContext, bytes], data: bytes, sizes: list[int]) -> None:
    """No input at either end raises in the event loop or opens a connection."""
    _check_tls(tls, cut(data, sizes))


def _check_tls(tls: tuple[ssl.SSLContext, bytes], pieces: list[bytes]) -> None:
    context, fingerprint = tls
    for handshake, own in ((server(), context), (client(), client_context())):
        loop, log = ManualLoop(), Log()
        layer = TlsLayer(log.connection(loop, handshake), own, b"" if own is context else fingerprint)
        transport = FakeTransport(loop, layer)
        layer.connection_made(transport)
        for piece in pieces:
            if transport.is_closing():
                break
            layer.data_received(piece)
        loop.advance(60.0)
        assert loop.errors == []
        assert log.opened == []
        assert [type(error) for error in log.closed] == [ProtocolError]


# --- the state ----------------------------------------------------------------------------------

KEYS = st.one_of(
    st.sampled_from(["n", "table", "items", "seen", "a", "b", "_secret", "__class__", "kept", "fresh"]),
    st.integers(-2, 4),
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(max_size=3),
    st.lists(st.integers(-9, 9), max_size=2),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 9)), inner, max_size=3),
        st.builds(msgspec.msgpack.Ext, st.integers(0, 4), st.lists(st.integers(0, 9)).map(msgspec.msgpack.encode)),
    ),
    max_leaves=6,
)
PATHS = st.one_of(st.lists(KEYS, max_size=4), KEYS)
KINDS = st.integers(0, 4)
NEARLY_OPS = st.one_of(
    st.tuples(KINDS, PATHS),
    st.tuples(KINDS, PATHS, VALUES),
    st.tuples(KINDS, PATHS, VALUES, VALUES),
    st.tuples(KINDS, PATHS, VALUES, VALUES, VALUES),
    VALUES,
)
OPS = st.lists(NEARLY_OPS, max_size=4)


def _state() -> State:
    values: dict[str, Any] = {"kept": object()}
    state = State("Work", values)
    state.set("n", 0)
    state.set("table", {"a": {"b": 1}})
    state.set("items", [1, [2], {"c": 3}])
    state.set("seen", {1, 2})
    return state


def _through_wire(data: bytes) -> list[Any] | None:
    """Decode ops as they arrive from a worker; None if the decoder refuses them."""
    try:
        return msgspec.msgpack.decode(data, type=list[Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _check_apply(state: State, apply: Callable[[Any], object], ops: list[Any]) -> None:
    """Check that the ops apply or raise `StateError`, and that the state stays valid and the rest is unchanged."""
    private = state.values["kept"]
    with suppress(StateError):
        apply(ops)
    assert state.values["kept"] is private
    assert set(state.values) == {*state.names, "kept"}
    assert all(name.isidentifier() and not name.startswith("_") for name in state.names)
    again = State("Work", {})
    again.load(state.snapshot())


@replayed("ops")
def test_ops_of_the_corpus(data: bytes) -> None:
    """A state applies or refuses each input."""
    ops = _through_wire(data)
    assert ops is not None
    state = _state()
    _check_apply(state, state.apply, ops)


@given(data=changed("ops"))
def test_a_state_takes_no_harm_from_changed_ops(data: bytes) -> None:
    """Encoded ops that are changed at random leave a valid state."""
    state = _state()
    _check_apply(state, state.apply, _through_wire(data) or [])


@given(ops=OPS)
def test_a_state_takes_no_harm_from_ops(ops: list[Any]) -> None:
    """Ops of the right shape, or nearly the right shape, leave a valid state."""
    state = _state()
    _check_apply(state, state.apply, _through_wire(msgspec.msgpack.encode(ops)) or [])


@given(ops=OPS, data=changed("ops"))
def test_the_flows_copy_takes_no_harm(ops: list[Any], data: bytes) -> None:
    """Ops in a worker's frame leave a valid replica while an edit of the flow is unanswered."""
    for arrived in (ops, _through_wire(data) or []):
        try:
            frame = decode_from_worker(msgspec.msgpack.encode(["delta", arrived]))
        except ProtocolError:
            continue
        state = _state()
        replica = Replica(state, lambda proposal: None, lambda op: None)
        state.set("n", 7)
        _check_apply(state, replica.apply, frame.ops)  # type: ignore[union-attr]


def test_a_pickle_is_no_frame() -> None:
    """A pickle, which was code execution elsewhere (CVE-2024-5452), is a `ProtocolError` here."""
    for name, data in corpus("body").items():
        if name.startswith("pickle"):
            with pytest.raises(ProtocolError):
                decode_from_worker(data)
            (frame,) = FrameReader(MAX_FRAME).feed(pack(data))
            assert frame == (0, data)
