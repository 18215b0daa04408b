"""The flow's replica of a state against a worker's state, in memory: for every interleaving both end equal."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightwork import FlowDelta, Work
from lightwork.engine.workers.replica import Replica
from lightwork.errors import StateError
from lightwork.link import messages
from lightwork.state.ops import OpBuffer
from lightwork.state.state import State
from lightwork.state.values import packed, unpacked

pytestmark = pytest.mark.bare

_encode = msgspec.msgpack.encode


class Held(Work):
    """The worker's side."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0
        self.text: str | None = None
        self.items: list[Any] = [1, 2, 3]
        self.table: dict[str, Any] = {"a": {"b": [1]}}
        self.tags: set[str] = {"x"}

    def run(self) -> None: ...


class Pair:
    """A worker and its replica, with the frames between them in flight until they are delivered."""

    def __init__(self) -> None:
        self.work = Held()
        self.buffer = OpBuffer()
        self.to_flow: deque[bytes] = deque()
        self.to_work: deque[bytes] = deque()
        self.shown: list[Any] = []
        self.flow: Any = Held()
        self.watcher = State("watcher", {})
        for name, value in self.flow._state.snapshot().items():
            self.watcher.restore(name, value)
        self.work._state.sink = self.buffer.add
        self.replica = Replica(self.flow._state, lambda frame: self.to_work.append(messages.encode(frame)), self.tell)

    def tell(self, op: Any) -> None:
        self.watcher.apply([copy.deepcopy(op)])

    def flush(self) -> None:
        if ops := self.buffer.take():
            self.to_flow.append(messages.encode(messages.Delta(ops)))

    def deliver_to_flow(self) -> None:
        if not self.to_flow:
            return
        frame = messages.decode_from_worker(self.to_flow.popleft())
        if isinstance(frame, messages.Delta):
            shown = self.replica.apply(frame.ops)
        else:
            assert isinstance(frame, messages.ProposalResult)
            shown = self.replica.answer(frame.proposal, frame.ops)
        for op in shown:
            self.tell(op)

    def deliver_to_work(self) -> None:
        if not self.to_work:
            return
        frame = messages.decode_from_scheduler(self.to_work.popleft())
        assert isinstance(frame, messages.Propose)
        try:
            self.work.apply_flow_delta(FlowDelta(frame.op, unpacked(frame.expected), frame.has_expected))
        except Exception:
            self.refused = True
        self.to_flow.append(messages.encode(messages.ProposalResult(frame.proposal, self.buffer.take(), None)))

    def settle(self) -> None:
        while self.to_work or self.to_flow or self.buffer:
            self.flush()
            self.deliver_to_work()
            self.deliver_to_flow()


def _edit(work: Any, edit: str, value: int) -> None:
    exec(EDITS[edit], {"w": work, "v": value})


EDITS = {
    "set": "w.n = v",
    "add": "w.n += 1",
    "text": "w.text = None if v % 2 else str(v)",
    "append": "w.items.append(v)",
    "pop": "w.items.pop(v % len(w.items)) if w.items else None",
    "insert": "w.items.insert(v, [v])",
    "put": "w.items[0:1] = [v, v]",
    "inner": "w.items[:1] = [{'k': v}]; w.items[0]['k'] += 1",
    "replace": "w.items = [v]",
    "reverse": "w.items.reverse()",
    "key": "w.table[str(v % 3)] = v",
    "deep": "w.table.setdefault('a', {}).setdefault('b', []).append(v)",
    "del": "w.table.pop('a', None)",
    "clear": "w.table.clear()",
    "new": "w.table = {'a': {'b': [v]}}",
    "tag": "w.tags.add(str(v % 3))",
    "untag": "w.tags.discard(str(v % 3))",
    "tags": "w.tags = {str(v)}",
}

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["work", "flow"]), st.sampled_from(sorted(EDITS)), st.integers(0, 4)),
        st.tuples(st.sampled_from(["flush", "to_flow", "to_work"]), st.just(""), st.just(0)),
    ),
    max_size=40,
)


def _play(pair: Pair, script: list[tuple[str, str, int]]) -> None:
    for who, edit, value in script:
        match who:
            case "work" | "flow":
                _edit(getattr(pair, who), edit, value)
            case "flush":
                pair.flush()
            case "to_flow":
                pair.deliver_to_flow()
            case "to_work":
                pair.deliver_to_work()
        assert pair.watcher.snapshot() == pair.flow._state.snapshot()


def _same(one: State, other: State) -> bool:
    return _encode(packed(one.snapshot())) == _encode(packed(other.snapshot()))


@settings(max_examples=400, deadline=None)
@given(steps)
def test_both_sides_end_equal(script: list[tuple[str, str, int]]) -> None:
    """Pitfall 9: for every order of edits on both sides they end equal, and a watcher saw the same as the flow."""
    pair = Pair()
    _play(pair, script)
    pair.settle()
    assert pair.replica.num_pending == 0
    assert _same(pair.flow._state, pair.work._state)
    assert pair.watcher.snapshot() == pair.flow._state.snapshot()


@settings(max_examples=150, deadline=None)
@given(steps)
def test_worker_dies_at_any_moment(script: list[tuple[str, str, int]]) -> None:
    """After the death of a worker the flow owns the state: edits work, and the watcher sees the same."""
    pair = Pair()
    _play(pair, script)
    pair.replica.close(pair.tell)
    assert pair.watcher.snapshot() == pair.flow._state.snapshot()
    assert pair.flow._state.guard is None
    pair.flow.items.append("after")
    assert pair.watcher.values["items"][-1] == "after"


def test_proposal_shows_at_once() -> None:
    """The flow sees its own edit at once, and still sees it while the worker edits the same attribute."""
    pair = Pair()
    pair.flow.n = 5
    pair.work.text = "busy"
    pair.flush()
    pair.deliver_to_flow()
    assert (pair.flow.n, pair.flow.text) == (5, "busy")


def test_containers_keep_their_identity() -> None:
    """A container object of the flow shows the result of the edit."""
    pair = Pair()
    items = pair.flow.items
    items.append(4)
    pair.work.items.append(5)
    pair.settle()
    assert items is pair.flow.items
    assert items == [1, 2, 3, 5, 4]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("w.n = 5", "w.n = 6"),
        ("w.items = []", "w.items.append(9)"),
        ("w.items.pop(0)", "w.items.pop(0)"),
        ("w.table['a'] = 1", "w.table['a']['b'].append(2)"),
        ("w.table['z'] = 1", "w.table['z'] = 2"),
        ("del w.table['a']", "w.table['a']['c'] = 1"),
        ("w.items[0] = 7", "w.items = 3"),
        ("w.items.append(7)", "w.items = 3"),
    ],
)
def test_conflict(ours: str, theirs: str) -> None:
    """Pitfall 9: of two writes to one place at the same time the flow's is refused, and the work's stays."""
    pair = Pair()
    exec(ours, {"w": pair.flow})
    exec(theirs, {"w": pair.work})
    wanted = pair.work._state.snapshot()
    pair.settle()
    assert pair.refused
    assert pair.flow._state.snapshot() == pair.work._state.snapshot() == wanted


def test_appends_of_both_are_kept() -> None:
    """Simultaneous appends, and additions to a set, of both sides are all kept."""
    pair = Pair()
    pair.flow.items.append("flow")
    pair.flow.tags.add("flow")
    pair.work.items.append("work")
    pair.work.tags.add("work")
    pair.settle()
    assert pair.flow.items == pair.work.items == [1, 2, 3, "work", "flow"]
    assert pair.flow.tags == {"x", "flow", "work"}


def test_frames_after_the_work_has_left() -> None:
    """Pitfall 17: frames in flight when a work leaves the tree change nothing, and do not affect its next worker."""
    pair = Pair()
    pair.flow.n = 5
    pair.work.text = "late"
    pair.flow._bound(None)
    new = Replica(pair.flow._state, lambda frame: None, lambda op: None)
    pair.settle()
    pair.replica.close(lambda op: None)
    assert pair.flow.text is None
    assert new.is_tied


def test_diverged() -> None:
    """An edit that does not fit, and a reply without a proposal, are errors."""
    pair = Pair()
    with pytest.raises(StateError, match="diverged"):
        pair.replica.apply([(2, ["items"], 9, 0, [1])])
    with pytest.raises(StateError, match="answers proposal 7, which was never made"):
        pair.replica.answer(7, [])


def test_what_waits_for_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many proposals pending the next edit is refused and changes nothing; replies make room for others."""
    monkeypatch.setattr("lightwork.engine.workers.replica.MOST_UNANSWERED", 10_000)
    pair = Pair()
    with pytest.raises(StateError, match=r"^Held\.items cannot be changed now: .* await work\.wait_confirmed\(\)"):
        _append_many(pair.flow.items)
    made = len(pair.flow.items) - 3
    assert 10 < made < 20
    pair.deliver_to_work()
    pair.deliver_to_flow()
    pair.flow.items.append("y")
    pair.settle()
    pair.flow.text = "z" * 20_000  # a single edit may have any size
    pair.settle()
    assert pair.flow.items == pair.work.items == [1, 2, 3, *["x" * 100] * made, "y"]
    assert _same(pair.flow._state, pair.work._state)


def _append_many(items: list[Any]) -> None:
    for _ in range(1000):
        items.append("x" * 100)
