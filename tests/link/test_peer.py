from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.errors import ProtocolError
from lightwork.link import FrameTooLarge, Peer, PeerClosed
from lightwork.link.messages import (
    Ack,
    Call,
    Cancel,
    Cancelled,
    Delta,
    Frame,
    Heartbeat,
    Running,
    decode_from_worker,
    encode,
    pack,
)
from tests.link.support import ManualLoop, Pair


def test_frames_pass_in_both_directions() -> None:
    """Each end receives the frames of the other end, in order."""
    pair = Pair()
    pair.connect()
    pair.scheduler.send(Call(1, b"\x90"))
    pair.worker.send(Running(1))
    pair.worker.post(Cancelled(1))
    pair.pump()
    assert pair.at_worker == [Call(1, b"\x90")]
    assert pair.at_scheduler == [Running(1), Cancelled(1)]


def test_what_is_sent_without_a_connection_waits() -> None:
    """Numbered frames wait for the next connection; posted frames are lost."""
    pair = Pair()
    pair.worker.send(Running(1))
    pair.worker.post(Running(2))
    assert not pair.worker.writable
    pair.connect()
    pair.worker.send(Running(3))
    pair.pump()
    assert pair.at_scheduler == [Running(1), Running(3)]


def test_a_reconnect_replays_what_was_lost() -> None:
    """Frames that a cut connection lost are sent again; frames that arrived are not delivered twice."""
    pair = Pair()
    pair.connect()
    pair.worker.send(Running(1))
    pair.pump()
    pair.worker.send(Running(2))
    pair.worker.send(Running(3))
    assert pair.ends is not None
    pair.ends[1].deliver(20)
    pair.cut()
    assert pair.worker.connection is None
    assert pair.scheduler.connection is None
    assert [type(error) for error in pair.losses] == [ConnectionResetError, type(None)]
    pair.connect()
    pair.pump()
    assert pair.at_scheduler == [Running(1), Running(2), Running(3)]


def test_acknowledgements_are_lazy() -> None:
    """One is sent 200 ms after the first received frame, not earlier, and covers every frame received by then."""
    pair = Pair()
    pair.connect()
    for number in range(10):
        pair.worker.send(Running(number))
        pair.pump()
    assert pair.worker.statistics().unacked == 10
    assert pair.loop.timers == 1
    pair.loop.advance(0.2)
    pair.pump()
    assert pair.worker.statistics().unacked == 0
    assert pair.worker.statistics().unacked_bytes == 0
    assert pair.loop.timers == 0


def test_acknowledgements_do_not_wait_for_many() -> None:
    """After 64 frames, an acknowledgement is sent at once."""
    pair = Pair()
    pair.connect()
    for number in range(130):
        pair.worker.send(Running(number))
        pair.pump()
    assert pair.worker.statistics().unacked == 2


def test_acknowledgements_do_not_wait_for_large_frames() -> None:
    """After a megabyte, an acknowledgement is sent at once, so that large frames are not kept long."""
    pair = Pair(max_frame=1 << 21)
    left, _ = pair.connect()
    left.max_frame = 1 << 21
    pair.worker.send(Delta([(0, ["blob"], b"x" * (1 << 20))]))
    pair.pump()
    assert pair.worker.statistics().unacked == 0


def test_withheld_acknowledgements_fill_the_window() -> None:
    """While one end withholds acknowledgements, the other end's window fills; `release` acknowledges at once."""
    window = 1 << 20
    pair = Pair(window=window)
    pair.connect()
    assert pair.scheduler.withhold()
    assert not pair.scheduler.withhold()
    while pair.worker.writable:
        pair.worker.send(Delta([(0, ["log"], "x" * (1 << 16))]))
        pair.pump()
    assert pair.worker.acked == 0
    assert window <= pair.worker.statistics().unacked_bytes < window + (1 << 17)
    pair.worker.send(Running(1))
    pair.pump()
    assert pair.at_scheduler[-1] == Running(1)
    pair.scheduler.release()
    pair.pump()
    assert pair.worker.statistics().unacked == 0


def test_posted_frames_need_no_acknowledgement() -> None:
    """Frames without a number start no timer."""
    pair = Pair()
    pair.connect()
    pair.worker.post(Running(1))
    pair.pump()
    assert pair.loop.timers == 0


def test_an_idle_pair_has_no_timer() -> None:
    """Two silent ends without heartbeats have no timers."""
    pair = Pair()
    pair.connect()
    pair.pump()
    assert pair.loop.timers == 0


def test_a_frame_over_the_limit_changes_nothing() -> None:
    """After a `FrameTooLarge`, nothing was numbered, kept or sent."""
    pair = Pair(max_frame=100)
    pair.connect()
    with pytest.raises(FrameTooLarge, match=r"must be at most 100 bytes \(max_frame\), got \d+") as caught:
        pair.worker.send(Delta([(0, ["blob"], b"x" * 100)]))
    assert caught.value.limit == 100
    assert caught.value.size > 100
    assert pair.worker.statistics().sent == 0
    pair.worker.send(Running(1))
    pair.pump()
    assert pair.at_scheduler == [Running(1)]


def test_a_value_that_cannot_be_encoded_changes_nothing() -> None:
    """An error of the encoder does not change the number of sent frames."""
    pair = Pair()
    with pytest.raises(TypeError):
        pair.worker.send(Delta([(0, ["x"], object())]))
    with pytest.raises(OverflowError):
        pair.worker.send(Delta([(0, ["x"], 2**64)]))
    assert pair.worker.statistics().sent == 0


def test_a_seen_frame_is_not_decoded() -> None:
    """The number is checked before the body is decoded."""
    loop = ManualLoop()
    decoded: list[bytes] = []

    def decode(body: bytes) -> Frame:
        decoded.append(body)
        return decode_from_worker(body)

    taken: list[Frame] = []
    peer: Peer[Frame] = Peer(taken.append, decode, 1000, loop=loop)
    body = encode(Running(1))
    peer.feed([(1, body), (1, b"garbage"), (2, body)])
    assert taken == [Running(1), Running(1)]
    assert decoded == [body, body]


def test_a_frame_that_cannot_be_decoded_does_not_count() -> None:
    """It ends the connection and is requested again after a reconnect: no frame is skipped silently."""
    loop = ManualLoop()
    taken: list[Frame] = []
    peer: Peer[Frame] = Peer(taken.append, decode_from_worker, 1000, loop=loop)
    with pytest.raises(ProtocolError):
        peer.feed([(1, encode(Running(1))), (2, b"\xc1"), (3, encode(Running(3)))])
    assert taken == [Running(1)]
    assert peer.received == 1


@pytest.mark.parametrize("frames", [[(2, Running(1))], [(0, Ack(1))]])
def test_nonsense_from_the_other_end_costs_the_connection(frames: list[tuple[int, Frame]]) -> None:
    """A gap, or an acknowledgement of a number that was never sent, closes the connection with a `ProtocolError`."""
    pair = Pair()
    pair.connect()
    assert pair.scheduler.connection is not None
    assert pair.ends is not None
    for number, frame in frames:
        pair.ends[1].write(pack(encode(frame), number))
    pair.pump()
    assert isinstance(pair.losses[0], ProtocolError)
    assert pair.scheduler.connection is None


def test_a_peer_of_another_exchange_is_refused() -> None:
    """An end that claims more frames than were sent to it cannot be attached; the current connection stays."""
    pair = Pair()
    left, _ = pair.connect()
    with pytest.raises(ProtocolError):
        pair.scheduler.attach(left, 5)
    assert pair.scheduler.connection is left
    pair.worker.send(Running(1))
    pair.pump()
    assert pair.at_scheduler == [Running(1)]


def test_a_new_connection_replaces_the_old_one() -> None:
    """The old connection is aborted, its late end detaches nothing, and its undelivered frames are sent again."""
    pair = Pair()
    old, _ = pair.connect()
    pair.worker.send(Running(1))
    new, _ = pair.connect()
    pair.loop.advance()
    assert pair.scheduler.connection is new
    assert not old.is_open
    old.data_received(pack(encode(Running(9)), 1))
    assert pair.at_scheduler == []
    pair.pump()
    assert pair.at_scheduler == [Running(1)]


def test_heartbeats_fill_silence_only() -> None:
    """A heartbeat is sent after each interval without a send; a send postpones it; none is sent while disconnected."""
    pair = Pair()
    pair.worker.beat(10.0)
    assert pair.loop.timers == 0
    pair.connect()
    start = pair.loop.now
    pair.loop.advance(9.0)
    pair.worker.post(Running(1))
    pair.pump()
    assert pair.scheduler.last_heard == start + 9.0
    pair.loop.advance(9.0)
    pair.pump()
    assert pair.scheduler.last_heard == start + 9.0
    pair.loop.advance(1.0)
    pair.pump()
    assert pair.scheduler.last_heard == start + 19.0
    assert pair.at_scheduler == [Running(1)]
    pair.cut()
    assert pair.loop.timers == 0
    pair.connect()
    assert pair.loop.timers == 1
    pair.worker.beat(None)
    assert pair.loop.timers == 0


def test_heartbeats_need_no_answer() -> None:
    """A heartbeat does not cause a heartbeat of the other end."""
    pair = Pair()
    pair.connect()
    pair.worker.post(Heartbeat())
    pair.pump()
    assert pair.ends is not None
    assert not pair.ends[0].pending
    assert pair.loop.timers == 0
    assert pair.at_scheduler == []


def test_a_connection_that_falls_silent_is_given_up() -> None:
    """An end with heartbeats aborts the connection after four silent intervals, even while it continues to send."""
    for gap in (10.0, 0.5):
        pair = Pair()
        pair.worker.beat(1.0)
        pair.connect()
        sent = 0.0
        while not pair.losses and sent < 20:
            pair.loop.advance(gap)
            sent += gap
            if not pair.losses and gap < 1:
                pair.worker.send(Running(1))
        assert [type(error) for error in pair.losses][:1] == [TimeoutError]
        assert sent <= 10.0
        assert pair.worker.connection is None
        pair.connect()
        pair.pump()
        assert pair.at_scheduler == [Running(1)] * (pair.worker.statistics().sent)


def test_an_end_that_was_held_up_does_not_blame_the_other() -> None:
    """After a long pause of this end, it reads the data that arrived meanwhile before it counts the silence."""
    pair = Pair()
    pair.worker.beat(1.0)
    pair.connect()
    for _ in range(20):
        pair.scheduler.post(Heartbeat())
        pair.loop.now += 30.0  # the loop is blocked
        pair.loop.advance()
        pair.pump()
    assert pair.losses == []


def test_the_hook_of_what_is_settled() -> None:
    """`on_settled` is called when every frame is acknowledged: by a requested acknowledgement or a new connection."""
    pair = Pair()
    pair.connect()
    calls: list[int] = []
    pair.worker.on_settled = lambda: calls.append(pair.worker.statistics().unacked)
    pair.worker.send(Running(1))
    pair.pump()
    assert calls == []
    pair.scheduler.acknowledge()
    pair.pump()
    assert calls == [0]
    pair.worker.send(Running(2))
    pair.pump()
    pair.cut()
    pair.connect()
    assert calls == [0, 0]


def test_writable_is_false_until_the_other_end_keeps_up() -> None:
    """Above the window of kept bytes a peer is not writable; the acknowledgement that frees it calls `on_writable`."""
    pair = Pair(window=1000)
    calls: list[bool] = []
    pair.worker.on_writable = lambda: calls.append(pair.worker.writable)
    pair.connect()
    assert calls == [True]
    while pair.worker.writable:
        pair.worker.send(Running(1))
    assert pair.worker.statistics().unacked_bytes >= 1000
    pair.pump()
    pair.loop.advance(0.2)
    pair.pump()
    assert calls == [True, True]
    assert pair.worker.writable


def test_a_drained_connection_calls_the_hook() -> None:
    """A full connection that has drained makes the peer writable again."""
    pair = Pair(window=1 << 30)
    pair.connect()
    calls: list[bool] = []
    pair.worker.on_writable = lambda: calls.append(pair.worker.writable)
    while pair.worker.writable:
        pair.worker.send(Delta([(0, ["x"], b"x" * 10_000)]))
    pair.pump()
    assert calls == [True]


def test_close_is_final_and_repeatable() -> None:
    """`close` flushes written data and drops kept frames; after it, nothing can be sent."""
    pair = Pair()
    pair.connect()
    pair.worker.beat(1.0)
    pair.worker.send(Running(1))
    pair.worker.close()
    pair.worker.close()
    assert pair.worker.closed
    assert pair.worker.statistics().unacked == 0
    pair.pump()
    assert pair.at_scheduler == [Running(1)]
    with pytest.raises(PeerClosed):
        pair.worker.send(Running(2))
    with pytest.raises(PeerClosed):
        pair.worker.post(Running(2))
    pair.loop.advance(100)
    assert pair.loop.timers == 0


def test_a_peer_closed_by_a_frame_takes_no_more() -> None:
    """A peer that is closed inside `on_frame` ignores the later frames of the same read."""
    loop = ManualLoop()
    taken: list[Frame] = []

    def on_frame(frame: Frame) -> None:
        taken.append(frame)
        peer.close()

    peer: Peer[Frame] = Peer(on_frame, decode_from_worker, 1000, loop=loop)
    peer.feed([(1, encode(Running(1))), (2, encode(Running(2)))])
    assert taken == [Running(1)]
    assert peer.received == 1


def test_statistics_are_a_snapshot() -> None:
    """Statistics do not change when the peer changes."""
    pair = Pair()
    pair.connect()
    before = pair.worker.statistics()
    pair.worker.send(Running(1))
    after = pair.worker.statistics()
    assert (before.sent, before.unacked, before.attached) == (0, 0, True)
    assert (after.sent, after.unacked) == (1, 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["worker", "scheduler"]), st.just(0)),
        st.tuples(st.sampled_from(["up", "down"]), st.integers(1, 80)),
        st.tuples(st.sampled_from(["cut", "connect", "wait"]), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_both_directions_arrive_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    """This holds for any interleaving of sends, partial deliveries, cuts, reconnects over a live link, and timers."""
    pair = Pair()
    up: list[Frame] = []
    down: list[Frame] = []
    for what, size in steps:
        match what:
            case "worker":
                up.append(Running(len(up)))
                pair.worker.send(up[-1])
            case "scheduler":
                down.append(Cancel(len(down)))
                pair.scheduler.send(down[-1])
            case "up" if pair.ends is not None:
                pair.ends[1].deliver(size)
            case "down" if pair.ends is not None:
                pair.ends[0].deliver(size)
            case "cut":
                pair.cut()
            case "connect":
                pair.connect()
            case "wait":
                pair.loop.advance(0.2)
        assert pair.at_scheduler == up[: len(pair.at_scheduler)]
        assert pair.at_worker == down[: len(pair.at_worker)]
    pair.connect()
    pair.pump()
    assert pair.at_scheduler == up
    assert pair.at_worker == down
    pair.loop.advance(0.2)
    pair.pump()
    assert pair.worker.statistics().unacked == 0
    assert pair.scheduler.statistics().unacked == 0
    assert pair.loop.errors == []
    assert not any(isinstance(error, ProtocolError) for error in pair.losses)
