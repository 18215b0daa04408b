"""Each edit of a tracked container makes the right op, and changes the container like the built-in type."""

from __future__ import annotations

import bisect
import copy
import json
import pickle
import random
from typing import Any

import cloudpickle
import msgspec
import pytest

from lightwork.errors import StateError
from lightwork.state.containers import TrackedDict, TrackedList, TrackedSet
from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE
from lightwork.state.state import State


def held(value: Any) -> tuple[State, Any, list[Any]]:
    """Return a state with ``x`` set to the value, the tracked value, and the list that collects the ops."""
    state = State("S", {})
    state.set("x", value)
    ops: list[Any] = []
    state.sink = ops.append
    return state, state.values["x"], ops


def iadd(items: Any) -> Any:
    def edit(target: Any) -> None:
        target += items

    return edit


def imul(times: int) -> Any:
    def edit(target: Any) -> None:
        target *= times

    return edit


X = ["x"]


@pytest.mark.parametrize(
    ("start", "edit", "expected"),
    [
        ([1, 2], lambda t: t.append(3), [(SPLICE, X, 2, 0, [3])]),
        ([1, 2], lambda t: t.append((3,)), [(SPLICE, X, 2, 0, [msgspec.msgpack.Ext(1, b"\x91\x03")])]),
        ([1, 2], lambda t: t.extend([3, 4]), [(SPLICE, X, 2, 0, [3, 4])]),
        ([1, 2], lambda t: t.extend([]), []),
        ([1, 2], iadd([3]), [(SPLICE, X, 2, 0, [3])]),
        ([1, 2], imul(2), [(SPLICE, X, 2, 0, [1, 2])]),
        ([1, 2], imul(1), []),
        ([1, 2], imul(0), [(SPLICE, X, 0, 2, [])]),
        ([1, 2], lambda t: t.insert(-1, 9), [(SPLICE, X, 1, 0, [9])]),
        ([1, 2], lambda t: t.insert(99, 9), [(SPLICE, X, 2, 0, [9])]),
        ([1, 2], lambda t: t.pop(), [(SPLICE, X, 1, 1, [])]),
        ([1, 2], lambda t: t.pop(0), [(SPLICE, X, 0, 1, [])]),
        ([1, 2], lambda t: t.remove(2), [(SPLICE, X, 1, 1, [])]),
        ([1, 2], lambda t: t.clear(), [(SPLICE, X, 0, 2, [])]),
        ([], lambda t: t.clear(), []),
        ([1, 2, 3], lambda t: t.reverse(), [(SPLICE, X, 0, 3, [3, 2, 1])]),
        ([1, 3, 2, 4], lambda t: t.sort(), [(SPLICE, X, 1, 2, [2, 3])]),
        ([1, 2], lambda t: t.sort(), []),
        ([1, 2], lambda t: t.__setitem__(-1, 5), [(SET, ["x", 1], 5)]),
        ([1, 2], lambda t: t.__setitem__(1, 2), []),
        ([1, 2], lambda t: t.__setitem__(1, 2.0), [(SET, ["x", 1], 2.0)]),
        ([0.0], lambda t: t.__setitem__(0, -0.0), [(SET, ["x", 0], -0.0)]),
        ([1, 2, 3], lambda t: t.__setitem__(slice(1, 2), [7, 8]), [(SPLICE, X, 1, 1, [7, 8])]),
        ([1, 2, 3], lambda t: t.__setitem__(slice(None, None, 2), [7, 3]), [(SET, ["x", 0], 7)]),
        ([1, 2, 3], lambda t: t.__delitem__(0), [(SPLICE, X, 0, 1, [])]),
        ([1, 2, 3, 4], lambda t: t.__delitem__(slice(1, 3)), [(SPLICE, X, 1, 2, [])]),
        ([1, 2, 3, 4, 5], lambda t: t.__delitem__(slice(1, 4, 2)), [(SPLICE, X, 1, 3, [3])]),
        ({"a": 1}, lambda t: t.__setitem__("b", 2), [(SET, ["x", "b"], 2)]),
        ({"a": 1}, lambda t: t.__setitem__("a", 1), []),
        ({"a": 1}, lambda t: t.__setitem__("a", True), [(SET, ["x", "a"], True)]),
        ({"a": 1}, lambda t: t.__delitem__("a"), [(DELETE, ["x", "a"])]),
        ({1: 1}, lambda t: t.pop(1.0), [(DELETE, ["x", 1.0])]),
        ({"a": 1}, lambda t: t.pop("b", None), []),
        ({"a": 1, "b": 2}, lambda t: t.popitem(), [(DELETE, ["x", "b"])]),
        ({"a": 1}, lambda t: t.clear(), [(SET, X, {})]),
        ({}, lambda t: t.clear(), []),
        ({"a": 1}, lambda t: t.setdefault("a", 5), []),
        ({"a": 1}, lambda t: t.setdefault("b"), [(SET, ["x", "b"], None)]),
        ({"a": 1}, lambda t: t.update({"a": 1}, b=2), [(SET, ["x", "b"], 2)]),
        ({"a": 1}, lambda t: t.__ior__([("c", 3)]), [(SET, ["x", "c"], 3)]),
        ({1}, lambda t: t.add(2), [(UPDATE, X, [2], [])]),
        ({1}, lambda t: t.add(True), []),
        ({1}, lambda t: t.remove(1), [(UPDATE, X, [], [1])]),
        ({frozenset({1})}, lambda t: t.remove({1}), [(UPDATE, X, [], [msgspec.msgpack.Ext(3, b"\x91\x01")])]),
        ({1}, lambda t: t.discard(2), []),
        ({1}, lambda t: t.pop(), [(UPDATE, X, [], [1])]),
        ({1}, lambda t: t.clear(), [(UPDATE, X, [], [1])]),
        ({1}, lambda t: t.update([1, 2], [2, 3]), [(UPDATE, X, [2, 3], [])]),
        ({1, 2}, lambda t: t.__isub__({2, 3}), [(UPDATE, X, [], [2])]),
        ({1, 2}, lambda t: t.__iand__({2, 3}), [(UPDATE, X, [], [1])]),
        ({1, 2}, lambda t: t.__ixor__({2, 3}), [(UPDATE, X, [3], [2])]),
    ],
)
def test_an_edit_is_the_smallest_op(start: Any, edit: Any, expected: list[Any]) -> None:
    """Pitfall 7: an in-place edit makes at once the op of the changed part only, and no op if nothing changes."""
    state, tracked, ops = held(start)
    model = copy.deepcopy(start)
    edit(tracked)
    edit(model)
    assert [(type(op[0]), *op) for op in ops] == [(int, *op) for op in expected]
    assert tracked == model
    assert state.values["x"] is tracked
    far = State("Far", {})
    far.set("x", start)
    far.apply(ops)
    assert repr(far.snapshot()) == repr(state.snapshot())


@pytest.mark.parametrize(
    ("start", "edit", "error"),
    [
        ([1], lambda t: t.pop(3), IndexError),
        ([], lambda t: t.pop(), IndexError),
        ([1], lambda t: t.remove(5), ValueError),
        ([1], lambda t: t.__setitem__(4, 1), IndexError),
        ([1], lambda t: t.__setitem__("a", 1), TypeError),
        ([1], lambda t: t.__delitem__(4), IndexError),
        ([1, 2, 3], lambda t: t.__setitem__(slice(None, None, 2), [1]), ValueError),
        ([1, "a"], lambda t: t.sort(), TypeError),
        ([1], lambda t: t.extend(5), TypeError),
        ([1], lambda t: t.__imul__("a"), TypeError),
        ([1], lambda t: t.append(object()), StateError),
        ([1], lambda t: t.extend([2, object()]), StateError),
        ([1, 2], lambda t: t.__setitem__(slice(None, None, 1), [5, object()]), StateError),
        ({"a": 1}, lambda t: t.pop("b"), KeyError),
        ({"a": 1}, lambda t: t.pop("b", 1, 2), TypeError),
        ({"a": 1}, lambda t: t.__delitem__("b"), KeyError),
        ({}, lambda t: t.popitem(), KeyError),
        ({"a": 1}, lambda t: t.update(a=2, b=object()), StateError),
        ({"a": 1}, lambda t: t.update(5), TypeError),
        ({"a": 1}, lambda t: t.__setitem__([], 5), TypeError),
        ({1}, lambda t: t.remove(2), KeyError),
        (set(), lambda t: t.pop(), KeyError),
        ({1}, lambda t: t.add([]), TypeError),
        ({1}, lambda t: t.update([2, object()]), StateError),
        ({1}, iadd([1]), TypeError),
    ],
)
def test_an_edit_that_fails_changes_nothing(start: Any, edit: Any, error: type[Exception]) -> None:
    """An edit that raises makes no op, does not call the guard, and leaves the value unchanged."""
    state, tracked, ops = held(start)
    state.guard = ops.append
    with pytest.raises(error):
        edit(tracked)
    assert tracked == start
    assert ops == []


@pytest.mark.parametrize("operator", ["__ior__", "__isub__", "__iand__", "__ixor__"])
def test_set_operators_take_sets_only(operator: str) -> None:
    """In-place operators of a set accept only sets: other operands raise `TypeError`."""
    _, tracked, ops = held({1})
    assert getattr(tracked, operator)([1]) is NotImplemented
    assert ops == []


def test_augmented_assignment_of_an_attribute_is_one_op() -> None:
    """``self.x += [1]`` edits in place and then sets the attribute to itself, which is not another edit."""
    state, tracked, ops = held([1])
    tracked += [2]
    state.set("x", tracked)
    assert state.values["x"] is tracked
    state.set("y", {"k": tracked})
    inner = state.values["y"]["k"]
    inner += [3]
    state.values["y"]["k"] = inner
    assert ops == [
        (SPLICE, ["x"], 1, 0, [2]),
        (SET, ["y"], {"k": [1, 2]}),
        (SPLICE, ["y", "k"], 2, 0, [3]),
    ]


def test_paths_follow_what_moves() -> None:
    """An edit has the current index of a list's item, however far the item moved since its last edit."""
    state, rows, ops = held([{"id": i} for i in range(300)])
    first, middle, last = rows[0], rows[150], rows[299]
    rows.insert(0, {"id": -1})
    first["n"] = 1
    rows.reverse()
    last["n"] = 2
    middle["n"] = 3
    del rows[:100]
    first["n"] = 4
    rows.sort(key=lambda row: row["id"])
    first["n"] = 5
    paths = [op[1] for op in ops if op[0] == SET]
    assert paths == [["x", 1, "n"], ["x", 0, "n"], ["x", 149, "n"], ["x", 199, "n"], ["x", 1, "n"]]
    far = State("Far", {})
    far.set("x", [{"id": i} for i in range(300)])
    far.apply(ops)
    assert far.snapshot() == state.snapshot()


def test_a_removed_container_is_detached() -> None:
    """A removed container can still be used, and its edits make no ops."""
    state, x, ops = held({"a": [1, [2]], "b": {"c": {}}, "s": {1}})
    listed, inner = x["a"], x["a"][1]
    popped, members = x.pop("b"), x["s"]
    del x["a"]
    x["s"] = None
    state.delete("x")
    del ops[:]
    listed.append(object())
    listed[0] = 5
    inner.append(3)
    popped["c"]["d"] = 1
    popped.update(e=object())
    members.add(object())
    members.discard(1)
    listed.sort(key=repr)
    popped.clear()
    assert ops == []
    assert inner == [2, 3]
    assert popped == {}
    assert len(members) == 1


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: x.pop(0),
        lambda x: x.remove({"k": 1}),
        lambda x: x.clear(),
        lambda x: x.__setitem__(0, None),
        lambda x: x.__setitem__(slice(None), [{"k": 1}]),
        lambda x: x.__delitem__(slice(None, None, 2)),
        lambda x: x.__imul__(0),
    ],
)
def test_every_way_out_of_a_list_detaches(leave: Any) -> None:
    """Every operation that removes an item from a list detaches the item."""
    _, x, ops = held([{"k": 1}, 2, 3])
    item = x[0]
    leave(x)
    del ops[:]
    item["k"] = 2
    assert ops == []


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: x.pop("a"),
        lambda x: x.popitem(),
        lambda x: x.clear(),
        lambda x: x.__setitem__("a", None),
        lambda x: x.__setitem__("a", {"k": 1}),
        lambda x: x.__delitem__("a"),
        lambda x: x.update(a=[]),
    ],
)
def test_every_way_out_of_a_dict_detaches(leave: Any) -> None:
    """Every operation that removes or replaces a value of a dict detaches the value."""
    _, x, ops = held({"a": {"k": 1}})
    item = x["a"]
    leave(x)
    del ops[:]
    item["k"] = 2
    assert ops == []


def test_a_replaced_attribute_is_detached() -> None:
    """The container that an attribute had before is detached."""
    state, x, ops = held([1])
    state.set("x", [1])
    del ops[:]
    x.append(2)
    assert ops == []
    state.apply([(SET, ["x"], [3])])
    assert state.snapshot() == {"x": [3]}


def test_an_assigned_container_is_a_copy() -> None:
    """The state never shares a container with the code that assigned it, and has no container twice."""
    state, x, ops = held({})
    mine = [1]
    x["mine"] = mine
    mine.append(2)
    x["again"] = x["mine"]
    x["again"].append(3)
    assert state.snapshot() == {"x": {"mine": [1], "again": [1, 3]}}
    assert ops[-1] == (SPLICE, ["x", "again"], 1, 0, [3])


def test_swapped_items_are_tracked() -> None:
    """Items that swap places, as in a shuffle, are tracked at their new places."""
    state, x, ops = held([[i] for i in range(10)])
    random.Random(7).shuffle(x)
    for i, item in enumerate(list(x)):
        item.append(i)
    far = State("Far", {})
    far.set("x", [[i] for i in range(10)])
    far.apply(ops)
    assert far.snapshot() == state.snapshot()
    assert sorted(item[0] for item in x) == list(range(10))


def test_insort_is_seen() -> None:
    """`bisect.insort` calls the methods of the list, so its edit is tracked."""
    _, x, ops = held([1, 3])
    bisect.insort(x, 2)
    assert ops == [(SPLICE, ["x"], 1, 0, [2])]


def test_an_op_is_a_snapshot() -> None:
    """Pitfall 10: an op keeps the value that was set, even if the value is edited before the op is sent."""
    _, x, ops = held({})
    x["rows"] = [{"n": 1}]
    x["rows"][0]["n"] = 2
    x["rows"].append(3)
    assert ops[0] == (SET, ["x", "rows"], [{"n": 1}])


@pytest.mark.parametrize(
    ("start", "kind"), [([1, [2]], list), ({"a": {"b": [1]}}, dict), ({1, 2}, set)], ids=["list", "dict", "set"]
)
def test_copies_are_plain(start: Any, kind: type) -> None:
    """Copying, deep-copying and pickling a tracked container return built-in containers."""
    _, x, ops = held(start)
    deep = [copy.deepcopy(x), pickle.loads(pickle.dumps(x)), cloudpickle.loads(cloudpickle.dumps(x))]
    for made in [copy.copy(x), x.copy(), *deep]:
        assert type(made) is kind
        assert made == start
    for made in deep:
        assert "Tracked" not in repr([type(item) for item in (made.values() if kind is dict else made)])
    assert ops == []


def test_a_container_that_holds_itself_can_be_deep_copied() -> None:
    """A detached container may contain itself, like a built-in container, and can then be deep-copied."""
    state, x, _ = held([1])
    state.delete("x")
    x.append(x)
    made = copy.deepcopy(x)
    assert made[1] is made


def test_readers_see_the_built_in_types() -> None:
    """Comparison, json and msgspec treat tracked containers as built-in; operators return built-in containers."""
    _, x, _ = held({"a": [1, {2}], "b": {}})
    assert x == {"a": [1, {2}], "b": {}}
    assert isinstance(x, dict)
    assert repr(x) == "{'a': [1, {2}], 'b': {}}"
    assert json.dumps(x["a"][:1]) == "[1]"
    assert msgspec.json.decode(msgspec.json.encode(x)) == {"a": [1, [2]], "b": {}}
    assert type(x | {}) is dict
    assert type(x["a"] + []) is list
    assert type(x["a"][1] | {3}) is set


def test_containers_made_outside_any_state_are_plain() -> None:
    """A tracked container that was constructed directly behaves like a built-in container until it is assigned."""
    items, table, members = TrackedList([1]), TrackedDict(a=1), TrackedSet([1])
    items.append([2])
    table["b"] = object()
    members.add(2)
    assert items == [1, [2]]
    assert members == {1, 2}
    assert TrackedDict.fromkeys(["a"]) == {"a": None}
    state = State("S", {})
    state.set("x", items)
    items.append(3)
    assert state.snapshot() == {"x": [1, [2]]}


def test_heapq_on_a_tracked_list_is_found_out() -> None:
    """After C code has moved items unseen, the next edit raises an error that says so; no wrong path is used."""
    _, x, _ = held([[1], [2]])
    item = x[0]
    list.clear(x)  # as C code may
    with pytest.raises(StateError, match="heapq"):
        item.append(1)
