"""The buffer of unsent edits: which edits it merges and drops, and that it keeps the order where it matters."""

from __future__ import annotations

from typing import Any

import msgspec

from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE, OpBuffer
from lightwork.state.state import State
from lightwork.state.values import packed

encode = msgspec.msgpack.encode


def filled(*ops: Any) -> OpBuffer:
    buffer = OpBuffer()
    for op in ops:
        buffer.add(op)
    return buffer


def test_take_empties_the_buffer() -> None:
    """Taken ops are not returned again, and later ops are not merged into them."""
    buffer = filled((SET, ["a"], 1), (SPLICE, ["l"], 0, 0, [1]))
    assert len(buffer) == 2
    taken = buffer.take()
    buffer.add((SPLICE, ["l"], 1, 0, [2]))
    buffer.add((SET, ["a"], 2))
    assert taken == [(SET, ["a"], 1), (SPLICE, ["l"], 0, 0, [1])]
    assert buffer.take() == [(SPLICE, ["l"], 1, 0, [2]), (SET, ["a"], 2)]
    assert len(buffer) == 0


def test_scalar_sets_of_one_path_coalesce() -> None:
    """Sets of scalars to one path become one op, with the newest value, at the position of the first."""
    buffer = filled(
        (SET, ["a"], 1), (SET, ["d", "k"], 1), (SET, ["b"], 1), (SET, ["a"], "two"), (SET, ["d", "k"], None)
    )
    assert buffer.take() == [(SET, ["a"], "two"), (SET, ["d", "k"], None), (SET, ["b"], 1)]


def test_scalar_sets_do_not_coalesce_over_another_edit() -> None:
    """Any edit other than a set of a scalar ends the merging, because the meaning of a path may have changed."""
    ops = [
        (SET, ["l", 0], 1),
        (SPLICE, ["l"], 0, 0, [9]),
        (SET, ["l", 0], 2),
        (DELETE, ["d", "k"]),
        (SET, ["l", 0], 3),
        (UPDATE, ["s"], [1], []),
        (SET, ["l", 0], 4),
        (SET, ["l", 1], []),
        (SET, ["l", 0], 5),
    ]
    assert filled(*ops).take() == ops


def test_keys_that_are_equal_keep_the_first_form() -> None:
    """1 and True are the same key; a dict keeps the form it got first, and so do merged sets."""
    near, far = State("Near", {}), State("Far", {})
    buffer = OpBuffer()
    near.sink = buffer.add
    near.set("d", {})
    near.values["d"][1] = "a"
    near.values["d"][True] = "b"
    far.apply(buffer.take())
    assert repr(far.snapshot()) == repr(near.snapshot()) == "{'d': {1: 'b'}}"


def test_appends_in_a_row_are_one_splice() -> None:
    """Insertions that continue each other become one op; an op with other references is not changed by that."""
    first: Any = (SPLICE, ["l"], 2, 1, ["a"])
    buffer = filled(first, (SPLICE, ["l"], 3, 0, ["b"]), (SPLICE, ["l"], 4, 0, ["c", "d"]))
    buffer.add((SPLICE, ["m"], 6, 0, ["x"]))
    buffer.add((SPLICE, ["m"], 6, 0, ["y"]))
    buffer.add((SPLICE, ["m"], 7, 1, ["z"]))
    assert first == (SPLICE, ["l"], 2, 1, ["a"])
    assert buffer.take() == [
        (SPLICE, ["l"], 2, 1, ["a", "b", "c", "d"]),
        (SPLICE, ["m"], 6, 0, ["x"]),
        (SPLICE, ["m"], 6, 0, ["y"]),
        (SPLICE, ["m"], 7, 1, ["z"]),
    ]


def test_a_whole_attribute_voids_what_waits_for_it() -> None:
    """Repeated sets of containers to one attribute do not accumulate, nor do the edits between them."""
    buffer = filled((SET, ["t", "k"], 0), (SET, ["n"], 1))
    for i in range(50):
        buffer.add((SET, ["t"], {"big": i}))
        buffer.add((SET, ["t", "k"], i))
        buffer.add((SPLICE, ["t", "l"], 0, 0, [i]))
        buffer.add((SET, ["n"], i))
    assert len(buffer) == 2 + 50 + 3
    taken = buffer.take()
    assert taken[:3] == [(SET, ["t", "k"], 0), (SET, ["n"], 1), (SET, ["n"], 0)]
    assert taken[-4:] == [
        (SET, ["t"], {"big": 49}),
        (SET, ["t", "k"], 49),
        (SPLICE, ["t", "l"], 0, 0, [49]),
        (SET, ["n"], 49),
    ]
    assert filled((SET, ["t"], []), (SPLICE, ["t"], 0, 0, [1]), (SET, ["t"], None)).take() == [(SET, ["t"], None)]


def test_a_deleted_attribute_is_deleted_on_the_other_side_too() -> None:
    """An attribute that is set, deleted and set again before it is sent arrives with its current value."""
    near, far = State("Near", {}), State("Far", {})
    buffer = OpBuffer()
    near.sink = buffer.add
    near.set("t", {})
    near.delete("t")
    far.apply(buffer.take())
    assert far.snapshot() == {}
    near.set("t", {})
    near.delete("t")
    near.set("t", [1])
    far.apply(buffer.take())
    assert far.snapshot() == {"t": [1]}


def test_a_backlog_becomes_the_attributes_it_touches() -> None:
    """Above the limit, the buffered ops are replaced by the current values, and lead to the same state."""
    near, far = State("Near", {}), State("Far", {})
    for state in (near, far):
        state.load({"d": {"k": [0]}, "l": [], "n": 0, "untouched": 1, "old": 1})
    buffer = OpBuffer(limit=10)
    near.sink = buffer.add
    near.values["l"].append(1)
    buffer.compact(near.names, near.values)
    assert buffer.take() == [(SPLICE, ["l"], 0, 0, [1])]
    far.apply([(SPLICE, ["l"], 0, 0, [1])])
    for i in range(8):
        near.values["l"].insert(0, i)
        near.values["d"]["k"][0] = i
    near.set("n", 5)
    near.set("brief", 1)
    near.delete("brief")
    near.delete("old")
    buffer.compact(near.names, near.values)
    assert len(buffer) == 7
    near.values["l"].append(9)
    ops = buffer.take()
    assert [op[1] for op in ops if op[0] == SET] == [["l"], ["d"], ["n"], ["brief"], ["old"]]
    far.apply(ops)
    assert far.snapshot() == near.snapshot()


def test_a_backlog_is_bounded_in_bytes_too() -> None:
    """For any number of edits while nothing is sent, the backlog takes at most twice the state plus the limit."""
    near, far = State("Near", {}), State("Far", {})
    for state in (near, far):
        state.load({"d": {}, "l": [], "s": set()})
    limit = 10_000
    buffer = OpBuffer(limit_bytes=limit)
    near.sink = buffer.add
    compactions = 0
    for i in range(3000):
        match i % 5:
            case 0:
                near.values["d"]["k"] = ["x" * 50] * (i % 7)  # a container each time: it is merged with nothing
            case 1:
                near.values["l"].append("y" * 200)
            case 2:
                near.values["l"].pop(0)
            case 3:
                near.values["s"].add((str(i), "z" * 100))
            case _:
                near.values["s"].pop()
        before = len(buffer)
        buffer.compact(near.names, near.values)
        compactions += len(buffer) < before
        waiting = len(encode(buffer._ops))
        assert waiting <= 2 * len(encode(packed(dict(near.values)))) + limit + 1000
    assert 20 <= compactions <= 150
    far.apply(buffer.take())
    assert far.snapshot() == near.snapshot()


def test_a_large_state_is_not_packed_again_at_each_edit() -> None:
    """A backlog that is the whole state is packed again when it has doubled, not whenever it is above the limit."""
    near = State("Near", {})
    near.load({"l": ["x" * 100] * 1000, "d": {}})
    buffer = OpBuffer(limit_bytes=1000)
    near.sink = buffer.add
    shrunk = 0
    for i in range(2000):
        near.values["l"][i % 1000] = [str(i)]
        before = len(buffer)
        buffer.compact(near.names, near.values)
        shrunk += len(buffer) < before
    assert 1 <= shrunk <= 10
