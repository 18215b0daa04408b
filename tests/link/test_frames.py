from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.errors import ProtocolError
from lightwork.link import messages
from lightwork.link.messages import HEADER, FrameReader, decode_from_scheduler, decode_from_worker, encode, pack
from lightwork.remote_errors import ErrorInfo

ERROR = ErrorInfo(module="builtins", qualname="ValueError", message="bad", args=b"\x91\xa3bad")

FROM_WORKER: list[messages.FromWorker] = [
    messages.Hello(version=1, lightwork="0.1", python="3.11", pid=7, host="here", received=3),
    messages.Hello(
        2, "0.1", "3.11", 7, "here", 3, welcomed=True, sent=9, calls=[(1, "hash", 0), (2, "", 8)], proposal=4
    ),
    messages.Ready(),
    messages.Running(call=2**40),
    messages.Delta(ops=[(0, ["loss"], 0.5)]),
    messages.ProposalResult(proposal=1, ops=[], error=ERROR),
    messages.Result(call=1, value=msgspec.Raw(b"\x01")),
    messages.Failure(call=1, reason="user_exception", error=ERROR, swallowed=True),
    messages.Cancelled(call=1),
    messages.Stopped(reason="", error=None),
    messages.Bye(),
    messages.QueryReply(number=1, data=b"{}"),
    messages.Heartbeat(),
    messages.Ack(number=2**60),
]

FROM_SCHEDULER: list[messages.FromScheduler] = [
    messages.Welcome(
        received=0, work=b"pickle", name="root.a", paths=["."], heartbeat=20.0, grace=5.0, max_frame=1 << 26
    ),
    messages.Refuse(message="not wanted"),
    messages.Call(id=1, args=b"\x90", hash="0123"),
    messages.Cancel(call=1),
    messages.Propose(proposal=1, op=(0, ["lr"], 0.1), expected=None, has_expected=True),
    messages.Query(number=1, what="stack"),
    messages.Stop(grace=5.0, reason="stopped"),
    messages.Heartbeat(),
    messages.Ack(number=1),
]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def as_data(frame: object) -> object:
    return msgspec.msgpack.decode(encode(frame))


@pytest.mark.parametrize("frame", FROM_WORKER, ids=lambda frame: type(frame).__name__)
def test_frames_of_a_worker_survive_the_wire(frame: messages.FromWorker) -> None:
    """Each frame is decoded to the same type with the same values."""
    back = decode_from_worker(encode(frame))
    assert type(back) is type(frame)
    assert as_data(back) == as_data(frame)


@pytest.mark.parametrize("frame", FROM_SCHEDULER, ids=lambda frame: type(frame).__name__)
def test_frames_of_a_scheduler_survive_the_wire(frame: messages.FromScheduler) -> None:
    """Each frame is decoded to the same type with the same values."""
    back = decode_from_scheduler(encode(frame))
    assert type(back) is type(frame)
    assert as_data(back) == as_data(frame)


def test_every_frame_is_in_the_tables() -> None:
    """The tables above contain every frame."""
    assert {type(frame) for frame in FROM_WORKER} == set(messages.FromWorker.__args__)
    assert {type(frame) for frame in FROM_SCHEDULER} == set(messages.FromScheduler.__args__)


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91\xa4nope", b"\x92\xa3ack\xa1x", b"\x91" * 5000, encode(messages.Call(1, b""))]
)
def test_a_body_that_is_no_frame_is_the_workers_fault(body: bytes) -> None:
    """Garbage, unknown tags, wrong types, deep nesting and frames of the other direction are refused."""
    with pytest.raises(ProtocolError, match="a worker sent an invalid frame"):
        decode_from_worker(body)


def test_a_frame_of_the_other_direction_is_the_schedulers_fault() -> None:
    """A worker refuses a frame that only workers send."""
    with pytest.raises(ProtocolError, match="the scheduler sent an invalid frame"):
        decode_from_scheduler(encode(messages.Running(1)))


BODIES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=50)), max_size=8)


@given(bodies=BODIES, tail=st.binary(max_size=11), cuts=st.lists(st.integers(0, 1000), max_size=12))
def test_frames_are_cut_the_same_however_they_arrive(
    bodies: list[tuple[int, bytes]], tail: bytes, cuts: list[int]
) -> None:
    """The reader returns the packed frames for any cuts; an incomplete header stays in the buffer."""
    reader = FrameReader(50)
    data = b"".join(pack(body, number) for number, body in bodies) + tail
    out = [frame for piece in pieces(data, cuts) for frame in reader.feed(piece)]
    assert out == bodies
    assert all(type(body) is bytes for _, body in out)
    assert reader.buffered == len(tail)


@pytest.mark.parametrize("size", [None, 1, 5])
def test_a_frame_that_announces_too_much_is_refused(size: int | None) -> None:
    """A length above the limit is refused at its header, before the body arrives, and in every later call."""
    reader = FrameReader(10)
    data = pack(b"1234567890", 1) + HEADER.pack(11, 2)
    cut = [data] if size is None else [data[at : at + size] for at in range(0, len(data), size)]
    for piece in cut[:-1]:
        reader.feed(piece)
    with pytest.raises(ProtocolError, match=r"at most 10 bytes \(max_frame\), the other end sends 11"):
        reader.feed(cut[-1])
    with pytest.raises(ProtocolError):
        reader.feed(b"more")
    assert reader.buffered < 100


def test_the_limit_can_be_raised() -> None:
    """A limit that is raised between two reads applies to the next frame."""
    reader = FrameReader(1)
    assert reader.feed(pack(b"a")) == [(0, b"a")]
    reader.max_frame = 5
    assert reader.feed(pack(b"abcde")) == [(0, b"abcde")]


def test_a_large_frame_is_held_once() -> None:
    """A frame of many pieces is returned whole and leaves nothing in the buffer."""
    reader = FrameReader(1 << 24)
    body = bytes(range(256)) * (1 << 14)
    data = pack(body, 1) + pack(b"next", 2)
    out = [frame for at in range(0, len(data), 1 << 16) for frame in reader.feed(data[at : at + (1 << 16)])]
    assert out == [(1, body), (2, b"next")]
    assert reader.buffered == 0
