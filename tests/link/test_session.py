from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.errors import ProtocolError
from lightwork.link import Session
from lightwork.link.messages import HEADER, FrameReader


def accept(session: Session, number: int) -> bool:
    """Receive a frame if it is expected, as a peer does."""
    is_expected = session.expects(number)
    if is_expected and number:
        session.received = number
    return is_expected


def test_what_is_sent_is_kept_until_it_is_acknowledged() -> None:
    """Frames are numbered from 1 and kept, with their size, until the other end acknowledges them."""
    session = Session()
    sent = [session.send(body) for body in (b"a", b"bc", b"")]
    assert [HEADER.unpack(data[:12]) for data in sent] == [(1, 1), (2, 2), (0, 3)]
    assert (session.unacked, session.unacked_bytes) == (3, 39)
    session.acked(2)
    assert (session.unacked, session.unacked_bytes) == (1, 12)
    session.acked(1)
    assert session.unacked == 1
    session.acked(3)
    assert (session.unacked, session.unacked_bytes) == (0, 0)


def test_seen_is_dropped_and_a_gap_is_an_error() -> None:
    """The next number and 0 are expected, an earlier number is not, a later one is the other end's fault."""
    session = Session()
    assert accept(session, 1)
    assert accept(session, 0)
    assert not accept(session, 1)
    with pytest.raises(ProtocolError, match="expected frame 2, got frame 3: frames between are missing"):
        accept(session, 3)
    assert session.received == 1
    assert accept(session, 2)


def test_an_acknowledgement_of_what_was_never_sent_is_an_error() -> None:
    """The error changes nothing."""
    session = Session()
    session.send(b"a")
    with pytest.raises(ProtocolError, match="last one sent is 1"):
        session.acked(2)
    assert session.unacked == 1


def test_replay_gives_what_the_other_end_lacks() -> None:
    """The frames that the other end has are dropped. The rest is returned in order and stays kept."""
    session = Session()
    sent = [session.send(bytes([number])) for number in range(5)]
    assert session.replay(2) == sent[2:]
    assert session.replay(2) == sent[2:]
    assert session.unacked == 3


@pytest.mark.parametrize("received", [0, 1, 6])
def test_a_replay_from_where_it_cannot_be_is_an_error(received: int) -> None:
    """An end that lacks a frame it has acknowledged, or has one that was never sent, belongs to another session."""
    session = Session()
    for number in range(5):
        session.send(bytes([number]))
    session.acked(2)
    with pytest.raises(ProtocolError):
        session.replay(received)
    assert session.unacked == 3


def test_acknowledgements_are_due_after_so_many() -> None:
    """`ack` names the last received number, once; a frame that comes twice counts once."""
    session = Session()
    assert session.ack() == 0
    for number in (1, 2, 2, 3):
        accept(session, number)
    assert session.ack_due(every=3)
    assert not session.ack_due(every=4)
    assert session.ack() == 3
    assert not session.ack_due(every=1)
    assert session.ack() == 0


def test_acknowledgements_are_due_after_64_frames() -> None:
    """By default an acknowledgement is due after 64 frames."""
    session = Session()
    session.received = 63
    assert not session.ack_due()
    session.received = 64
    assert session.ack_due()


def test_acknowledgements_up_to_a_number() -> None:
    """Frames after the given number count neither for what is due nor for what is acknowledged."""
    session = Session()
    session.received = 9
    assert not session.ack_due(every=5, upto=4)
    assert session.ack_due(every=4, upto=4)
    assert session.ack(4) == 4
    assert session.ack(4) == 0
    assert session.ack(3) == 0
    assert session.ack(5) == 5
    assert session.ack() == 9


def test_a_session_continues_that_of_an_earlier_end() -> None:
    """Numbers go on in both directions; nothing is kept, and nothing is left to acknowledge."""
    session = Session()
    session.resume(5, 7)
    assert (session.unacked, session.ack()) == (0, 0)
    assert not session.ack_due(every=1)
    assert not session.expects(7)
    assert session.expects(8)
    assert HEADER.unpack(session.send(b"a")[:12]) == (1, 6)
    assert session.replay(5)[0][12:] == b"a"
    with pytest.raises(ProtocolError, match="frames from 5 are requested, but frames up to 5 were acknowledged"):
        session.replay(4)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 40)),
        st.tuples(st.just("carry"), st.integers(1, 60)),
        st.tuples(st.just("ack"), st.just(0)),
        st.tuples(st.just("reconnect"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_everything_arrives_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """So it is for any interleaving of sends, cuts at any byte, lost acknowledgements and reconnects."""
    here, there = Session(), Session()
    reader = FrameReader(1000)
    wire = b""
    sent: list[bytes] = []
    taken: list[bytes] = []

    def carry(data: bytes) -> None:
        taken.extend(body for number, body in reader.feed(data) if accept(there, number))

    def reconnect() -> bytes:
        nonlocal reader
        reader = FrameReader(1000)
        return b"".join(here.replay(there.received))

    for what, size in steps:
        match what:
            case "send":
                sent.append(bytes([len(sent) % 256]) * size)
                wire += here.send(sent[-1])
            case "carry":
                carry(wire[:size])
                wire = wire[size:]
            case "ack":
                here.acked(there.ack())
            case "reconnect":
                wire = reconnect()
        assert taken == sent[: len(taken)]
        assert here.unacked >= len(sent) - len(taken)
    carry(reconnect())
    assert taken == sent
    here.acked(there.received)
    assert (here.unacked, here.unacked_bytes) == (0, 0)
