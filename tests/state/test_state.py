"""The state as a whole: set, guard, apply, load, restore, and edits from several threads."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from lightwork.changes import StateChanged
from lightwork.errors import StateError
from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE, OpBuffer, op_change
from lightwork.state.state import State
from lightwork.state.tracking import MISSING
from lightwork.state.values import packed


def told(**values: Any) -> tuple[State, list[Any]]:
    """Return a state with these attributes, and the list that collects the ops."""
    state = State("Train", {"_private": 1, "run": 2})
    for name, value in values.items():
        state.set(name, value)
    ops: list[Any] = []
    state.sink = ops.append
    return state, ops


def test_attributes_live_in_the_mapping() -> None:
    """Attributes are entries of the given mapping; its other entries are not part of the state and do not change."""
    state, ops = told(a=1)
    state.set("b", [1])
    state.delete("a")
    assert state.values == {"_private": 1, "run": 2, "b": [1]}
    assert list(state.names) == ["b"]
    assert state.snapshot() == {"b": [1]}
    assert ops == [(SET, ["b"], [1]), (DELETE, ["a"])]


def test_deleting_an_attribute_that_is_not_there_is_an_error() -> None:
    """Pitfall 7: a deletion is an edit; the deletion of an unknown attribute raises and names the attribute."""
    state, ops = told()
    with pytest.raises(AttributeError, match="Train has no state attribute '_private'"):
        state.delete("_private")
    assert ops == []


@pytest.mark.parametrize(
    ("old", "new", "edits"),
    [
        (1, 1, 0),
        ("a", "".join(["a"]), 0),
        (0.5, 0.25 * 2, 0),
        (None, None, 0),
        (1, True, 1),
        (1, 1.0, 1),
        (0.0, -0.0, 1),
        ((0.0,), (-0.0,), 1),
        ([1], [1], 1),
    ],
)
def test_setting_an_equal_scalar_is_no_edit(old: Any, new: Any, edits: int) -> None:
    """Only a scalar of the same type and value counts as unchanged; containers are never compared (pitfall 12)."""
    state, ops = told(x=old)
    state.set("x", new)
    assert len(ops) == edits
    assert repr(state.values["x"]) == repr(new)


def test_nothing_around_an_edit_is_touched() -> None:
    """Pitfall 12: an edit in a large state neither compares nor copies the values around it."""
    steps = 0
    state, ops = told(big=[{"i": i, "t": (i,)} for i in range(5_000)], loss=0.0)
    rows = state.values["big"]

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(profile)
    try:
        rows[4_000]["i"] = -1
        state.set("loss", 0.5)
        rows.append({"i": 1})
    finally:
        sys.setprofile(None)
    assert steps < 200  # calls, including calls of C functions
    assert [op[1] for op in ops] == [["big", 4_000, "i"], ["loss"], ["big"]]


def test_the_guard_is_asked_before_the_edit() -> None:
    """The guard gets the path of each edit before the edit, and may prevent it."""
    state, ops = told(x={"a": [1], "s": {1}}, n=1)
    seen: list[Any] = []

    def guard(path: list[Any]) -> None:
        seen.append((list(path), state.snapshot()["n"], len(ops)))
        if path == ["x", "a"]:
            raise ValueError("not now")

    state.guard = guard
    state.set("n", 2)
    state.values["x"]["b"] = 1
    state.values["x"]["s"].add(2)
    with pytest.raises(ValueError, match="not now"):
        state.values["x"]["a"].append(2)
    del state.values["x"]["b"]
    state.delete("n")
    state.apply([(SET, ["x"], None)])
    state.restore("x", [1])
    assert [path for path, _, _ in seen] == [["n"], ["x", "b"], ["x", "s"], ["x", "a"], ["x", "b"], ["n"]]
    assert seen[0] == (["n"], 1, 0)
    assert len(ops) == 5


def test_without_a_sink_edits_are_just_made() -> None:
    """A state without a sink is edited like any other state."""
    state, _ = told(x=[])
    state.sink = None
    state.values["x"].append({"a": {1}})
    state.values["x"][0]["a"].add(2)
    assert state.snapshot() == {"x": [{"a": {1, 2}}]}


# --- apply --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op",
    [
        (SET, ["nothing", "a"], 1),
        (SET, ["d", "no", "a"], 1),
        (SET, ["l", 2], 1),
        (SET, ["l", -1], 1),
        (SET, ["l", True], 1),
        (SET, ["l", "a"], 1),
        (SET, ["n", "a"], 1),
        (SET, ["s", 1], 1),
        (SET, ["d", 0.5], 1),
        (SET, ["_private"], 1),
        (SET, ["__class__"], 1),
        (SET, ["run"], 1),
        (SET, ["not a name"], 1),
        (SET, [5], 1),
        (SET, [["l"]], 1),
        (SET, [], 1),
        (SET, ["d"]),
        (SET, ["d"], 1, 2),
        (SET, None, 1),
        (SET, ["d", "a"], object()),
        (DELETE, ["nothing"]),
        (DELETE, ["_private"]),
        (DELETE, ["d", "no"]),
        (DELETE, ["d", []]),
        (DELETE, ["l", 0]),
        (DELETE, []),
        (SPLICE, ["d"], 0, 0, []),
        (SPLICE, ["l"], 3, 0, [1]),
        (SPLICE, ["l"], 0, 3, []),
        (SPLICE, ["l"], -1, 0, []),
        (SPLICE, ["l"], 1, -1, []),
        (SPLICE, ["l"], 0.0, 1, []),
        (SPLICE, ["l"], 0, 0, "ab"),
        (SPLICE, ["l"], 0, 1, [object()]),
        (UPDATE, ["l"], [1], []),
        (UPDATE, ["s"], [1], []),
        (UPDATE, ["s"], [], [7]),
        (UPDATE, ["s"], [[7]], []),
        (UPDATE, ["s"], {7: 7}, []),
        (4, ["d"], 1),
        ("set", ["d"], 1),
        (),
        None,
    ],
    ids=repr,
)
def test_an_op_that_does_not_fit_is_refused(op: Any) -> None:
    """An op that does not fit the state raises `StateError` and changes nothing; the ops before it stay applied."""
    state, ops = told(d={"a": 1}, l=[1, 2], s={1}, n=1)
    before = dict(state.values)
    with pytest.raises(StateError, match=r"^diverged"):
        state.apply([(SET, ["n"], 2), op, (SET, ["n"], 3)])
    assert state.values == before | {"n": 2}
    assert ops == []


def test_apply_replaces_and_detaches() -> None:
    """A container that an op of the other side replaces is detached; an edited container stays the same object."""
    state, ops = told(d={"a": {"b": 1}}, l=[[1], [2]])
    replaced, kept, gone = state.values["d"]["a"], state.values["d"], state.values["l"][0]
    lists: list[Any] = [[SET, ["d", "a"], {"b": 2}], [SPLICE, ["l"], 0, 1, []], [SET, ["d", 1], packed((1, 2))]]
    state.apply(lists)
    replaced["b"] = 5
    gone.append(5)
    assert state.values["d"] is kept
    assert state.snapshot() == {"d": {"a": {"b": 2}, 1: (1, 2)}, "l": [[2]]}
    assert ops == []
    state.values["l"][0].append(3)
    assert ops == [(SPLICE, ["l", 0], 1, 0, [3])]


# --- at, load, restore --------------------------------------------------------------------------


def test_at_gives_the_live_value() -> None:
    """`State.at` returns the value at a path, not a copy, and raises `StateError` if there is none."""
    state, _ = told(d={"a": [1, {"b": 2}]})
    assert state.at(["d", "a"]) is state.values["d"]["a"]
    assert state.at(("d", "a", 1, "b")) == 2
    for path in ([], ["x"], ["d", "b"], ["d", "a", 2], ["d", "a", -1], ["d", "a", 0, 0], ["d", []]):
        with pytest.raises(StateError):
            state.at(path)


def test_load_tells_only_what_differs() -> None:
    """`load` sets only the attributes that differ in type or value, and sets all of them or none."""
    state, ops = told(a=1, b=[1, {"c": (1,)}], c={"k": 1}, d="x")
    kept = state.values["b"]
    state.load({"a": 1.0, "b": [1, {"c": (1,)}], "c": {"k": 2}})
    assert ops == [(SET, ["a"], 1.0), (SET, ["c"], {"k": 2})]
    assert state.values["b"] is kept
    with pytest.raises(StateError, match=r"Train\.c\[0\]"):
        state.load({"a": 5, "c": [object()]})
    assert state.snapshot() == {"a": 1.0, "b": [1, {"c": (1,)}], "c": {"k": 2}, "d": "x"}


def test_restore_keeps_the_containers() -> None:
    """`restore` changes a container in place: other references see the new contents, and it stays tracked."""
    start = {"rows": [{"n": 1}, [2], 3], "s": {1}, "t": (1,)}
    state, ops = told(x=start)
    x = state.values["x"]
    rows, first, second, members = x["rows"], x["rows"][0], x["rows"][1], x["s"]
    rows.insert(0, "new")
    first["n"] = 5
    first["m"] = {}
    members |= {2, 3}
    del x["t"]
    rows.append([])
    before = {"rows": [{"n": 7}, {"was": "a list"}, 3], "t": (1,), "s": {9}}
    del ops[:]
    state.restore("x", before)
    assert ops == []
    assert state.snapshot() == {"x": before}
    assert list(x) == list(before)
    assert state.values["x"] is x
    assert x["rows"] is rows
    assert x["s"] is members
    assert rows[1] is first
    second.append(1)
    assert ops == []
    rows[0]["n"] = 8
    first["was"] = 9
    assert ops == [(SET, ["x", "rows", 0, "n"], 8), (SET, ["x", "rows", 1, "was"], 9)]


def test_restore_of_same_shapes_keeps_items() -> None:
    """Items of a list or dict that have the same type before and after a restore stay the same objects."""
    state, ops = told(x=[{"a": [1]}, [1, 2, 3]])
    table, inner, items = state.values["x"][0], state.values["x"][0]["a"], state.values["x"][1]
    state.restore("x", [{"a": [5], "b": []}, [1], {"more": 1}])
    assert state.values["x"][0] is table
    assert table["a"] is inner
    assert state.values["x"][1] is items
    inner.append(1)
    table["b"].append(2)
    state.values["x"][2]["more"] = 2
    assert [op[1] for op in ops] == [["x", 0, "a"], ["x", 0, "b"], ["x", 2, "more"]]
    state.values["x"].insert(0, 0)
    state.values["x"][3]["more"] = 3
    table["b"].append(3)
    assert [op[1] for op in ops[-2:]] == [["x", 3, "more"], ["x", 1, "b"]]


def test_restore_adds_and_removes() -> None:
    """`restore` with `MISSING` removes an added attribute; `restore` with a value brings back a deleted attribute."""
    state, ops = told(x=[1])
    held = state.values["x"]
    state.restore("y", {"a": 1})
    state.restore("x", MISSING)
    state.restore("never", MISSING)
    held.append(2)
    assert state.snapshot() == {"y": {"a": 1}}
    assert "x" not in state.values
    state.restore("y", 5)
    assert state.snapshot() == {"y": 5}
    assert ops == []


# --- threads ------------------------------------------------------------------------------------


def run_all(*targets: Any) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def eager_switching() -> Any:
    """Let the interpreter switch threads as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switching")
def test_ops_of_several_threads_are_in_the_order_of_the_edits() -> None:
    """If several threads edit one state, its ops, applied in order, give the same final value."""
    state, _ = told(x=[[0]], d={"n": 0}, n=0)
    buffer = OpBuffer()
    state.sink = buffer.add
    far = State("Far", {})
    far.load(state.snapshot())

    def work(me: int) -> Any:
        def edit() -> None:
            x, d = state.values["x"], state.values["d"]
            for i in range(300):
                x.append([me, i])
                x[-1].append(i)
                x.insert(0, me)
                d[me] = i
                x.pop(0)
                state.set("n", me * 1000 + i)

        return edit

    def deliver() -> None:
        for _ in range(100):
            with state.lock:
                ops = buffer.take()
            far.apply(ops)

    run_all(work(1), work(2), work(3), deliver)
    far.apply(buffer.take())
    assert far.snapshot() == state.snapshot()
    assert len(state.values["x"]) == 901


@pytest.mark.usefixtures("eager_switching")
def test_a_snapshot_is_of_one_moment() -> None:
    """Pitfall 10: a snapshot, an op or a copy that is made while another thread edits is always consistent."""
    state, ops = told(rows=[], pair={"a": 0, "b": 0})
    done = threading.Event()

    def edit() -> None:
        for i in range(1, 1_500):
            with state.lock:
                state.values["pair"]["a"] = i
                state.values["pair"]["b"] = i
            state.set("rows", [i] * (i % 50))
        done.set()

    torn: list[Any] = []

    def look() -> None:
        other = State("Other", {})
        while not done.is_set():
            seen = state.snapshot()
            other.set("copy", state.values["pair"])
            copied = other.values["copy"]
            if seen["pair"]["a"] != seen["pair"]["b"] or len(set(seen["rows"])) > 1 or copied["a"] != copied["b"]:
                torn.append(seen)

    run_all(edit, look)
    assert torn == []
    for op in ops:
        if op[1] == ["rows"]:
            assert len(set(op[2])) <= 1


# --- changes ------------------------------------------------------------------------------------


def test_ops_as_changes_are_plain() -> None:
    """Each op is converted to a `StateChanged` with plain values."""
    state, ops = told(x=[1], d={"s": {1}})
    state.set("x", [(1, 2)])
    state.values["x"].append((3,))
    state.values["d"]["s"].add((4,))
    state.values["d"].pop("s")
    assert [op_change("root.a", op) for op in ops] == [
        StateChanged("root.a", ("x",), "set", [(1, 2)]),
        StateChanged("root.a", ("x",), "splice", (1, 0, [(3,)])),
        StateChanged("root.a", ("d", "s"), "update", ([(4,)], [])),
        StateChanged("root.a", ("d", "s"), "delete", None),
    ]
