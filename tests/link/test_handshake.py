from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.errors import ProtocolError
from lightwork.link import ClientHandshake, ServerHandshake
from tests.link.support import LAUNCH, SECRET, client, server

CUTS = st.lists(st.integers(0, 180), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def feed(handshake: ClientHandshake | ServerHandshake, parts: list[bytes]) -> bytes:
    return b"".join([handshake.feed(part) for part in parts])


@pytest.mark.parametrize("size", [None, 1, 7])
def test_both_ends_prove_themselves(size: int | None) -> None:
    """Two ends with the same secret are done after three messages, in pieces of any size."""
    one, two = client(binding=b"f" * 32), server(binding=b"f" * 32)

    def cut(data: bytes) -> list[bytes]:
        return [data] if size is None else [data[at : at + size] for at in range(0, len(data), size)]

    hello = one.start()
    reply = feed(two, cut(hello))
    proof = feed(one, cut(reply))
    assert (one.done, two.done) == (True, False)
    assert feed(two, cut(proof)) == b""
    assert (one.done, two.done) == (True, True)
    assert two.launch == one.launch == LAUNCH
    assert (len(hello), len(reply), len(proof)) == (52, 64, 32)
    assert SECRET not in hello + reply + proof


@given(rest=st.binary(max_size=60), cuts=CUTS)
def test_what_follows_is_handed_on(rest: bytes, cuts: list[int]) -> None:
    """Bytes after the handshake are in `rest`, complete and in order, at both ends and for any cuts."""
    one, two = client(), server()
    reply = two.feed(one.start())
    proof = feed(one, pieces(reply + rest, cuts))
    assert one.rest == rest
    assert feed(two, pieces(proof + rest, cuts)) == b""
    assert two.rest == rest
    assert one.done
    assert two.done


def test_a_server_without_the_secret_is_refused() -> None:
    """A client sends no proof to a listener that does not know the secret."""
    one = client()
    impostor = ServerHandshake({LAUNCH: b"x" * 32}.get, b"n" * 32)
    with pytest.raises(ProtocolError, match="not our scheduler"):
        one.feed(impostor.feed(one.start()))
    assert not one.done


def test_a_client_without_the_secret_is_refused() -> None:
    """A client that cannot prove the secret of the launch it names is refused."""
    two = server()
    two.feed(client().start())
    with pytest.raises(ProtocolError, match="does not know the secret"):
        two.feed(b"x" * 32)
    assert not two.done


@pytest.mark.parametrize("first", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"LWK2", b"LWX", b"\x16\x03\x01"])
def test_a_wrong_magic_is_refused_at_its_first_byte(first: bytes) -> None:
    """A client of another protocol is refused before it has sent a whole message, and learns nothing."""
    with pytest.raises(ProtocolError, match="must be those of a lightwork worker, b'LWK1', got b'"):
        server().feed(first)


@pytest.mark.parametrize("secret", [None, b""])
def test_an_unknown_launch_gets_no_answer(secret: bytes | None) -> None:
    """A launch without a secret is refused before a byte is sent."""
    two = ServerHandshake(lambda launch: secret, b"n" * 32)
    with pytest.raises(ProtocolError, match=r"names launch 000102.*, which is unknown or revoked"):
        two.feed(client().start())


def test_a_launch_revoked_during_the_handshake_is_refused() -> None:
    """The secret is looked up again for the proof, so a revocation also applies to a handshake in progress."""
    secrets = {LAUNCH: SECRET}
    one, two = client(), ServerHandshake(secrets.get, b"n" * 32)
    proof = one.feed(two.feed(one.start()))
    del secrets[LAUNCH]
    with pytest.raises(ProtocolError, match=r"names launch 000102.*, which is unknown or revoked"):
        two.feed(proof)


def test_a_recorded_handshake_cannot_be_played_again() -> None:
    """A client's messages fail at a server with another nonce; a server's messages fail at another client."""
    one, two = client(), server()
    hello = one.start()
    reply = two.feed(hello)
    proof = one.feed(reply)
    again = server(nonce=b"m" * 32)
    again.feed(hello)
    with pytest.raises(ProtocolError):
        again.feed(proof)
    with pytest.raises(ProtocolError):
        client(nonce=b"d" * 32).feed(reply)


def test_a_proof_cannot_be_reflected() -> None:
    """A client that sends the server's proof back is refused."""
    two = server()
    reply = two.feed(client().start())
    with pytest.raises(ProtocolError):
        two.feed(reply[32:])


def test_another_channel_is_refused() -> None:
    """A handshake that is relayed from one TLS channel into another fails: the fingerprints differ."""
    one, two = client(binding=b"a" * 32), server(binding=b"b" * 32)
    with pytest.raises(ProtocolError):
        one.feed(two.feed(one.start()))


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    """One changed byte in any of the three messages makes the handshake fail at one end."""
    which = data.draw(st.integers(0, 2))

    def spoil(message: bytes) -> bytes:
        at = data.draw(st.integers(0, len(message) - 1))
        return message[:at] + bytes([message[at] ^ data.draw(st.integers(1, 255))]) + message[at + 1 :]

    one, two = client(), server()
    messages = iter(range(3))

    def carry(message: bytes) -> bytes:
        return spoil(message) if next(messages) == which else message

    with pytest.raises(ProtocolError):
        two.feed(carry(one.feed(carry(two.feed(carry(one.start()))))))
    assert not two.done


@given(cut=st.integers(0, 51))
def test_a_truncated_message_is_waited_for(cut: int) -> None:
    """Part of a message has no effect: no end sends anything, and no end is done."""
    two = server()
    assert two.feed(client().start()[:cut]) == b""
    one = client()
    assert one.feed(b"r" * cut) == b""
    assert not one.done
    assert not two.done


def test_a_refused_handshake_stays_refused() -> None:
    """More bytes after a failure do not complete a handshake."""
    one, two = client(), server()
    reply = two.feed(one.start())
    with pytest.raises(ProtocolError):
        two.feed(b"x" * 32)
    with pytest.raises(ProtocolError):
        two.feed(one.feed(reply))
    assert not two.done


@pytest.mark.parametrize(
    ("launch", "secret", "nonce"), [(b"short", SECRET, b"c" * 32), (LAUNCH, b"", b"c" * 32), (LAUNCH, SECRET, b"c")]
)
def test_sizes_are_checked(launch: bytes, secret: bytes, nonce: bytes) -> None:
    """A launch, a secret or a nonce of the wrong size raises `ValueError`."""
    with pytest.raises(ValueError, match=r"must have \d+ bytes, got \d|must not be empty"):
        ClientHandshake(launch, secret, nonce)
