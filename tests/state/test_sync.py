"""Any edits of one side, sent as ops, make the other side equal: hypothesis searches for counterexamples."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lightwork.link import messages
from lightwork.state.ops import OpBuffer
from lightwork.state.state import State
from lightwork.state.tracking import Tracked, locate, plain
from lightwork.state.values import packed, unpacked

NAMES = ["a", "b", "c"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, float("inf")]),
    st.text(max_size=3),
    st.binary(max_size=3),
    # Fixed offsets: in the repeated hour of a zone, a time does not equal itself in UTC (PEP 495).
    st.builds(
        datetime.datetime.replace,
        st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1)),
        tzinfo=st.integers(-720, 720).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))),
    ),
)
immutables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=4
)
keys = st.one_of(st.text(max_size=2), st.integers(-1, 2), st.booleans(), st.none())
values = st.recursive(
    immutables | st.sets(immutables, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
indexes = st.integers(-5, 5)
slices = st.builds(
    slice, st.none() | indexes, st.none() | indexes, st.none() | st.integers(-2, 3).filter(lambda step: step != 0)
)

Edit = Callable[[Any], Any]


def _do(method: str, *args: Any) -> Edit:
    return lambda container: getattr(container, method)(*args)


list_edits: st.SearchStrategy[Edit] = st.one_of(
    st.builds(_do, st.just("append"), values),
    st.builds(_do, st.just("append"), scalars),
    st.builds(_do, st.just("extend"), st.lists(values, max_size=3)),
    st.builds(_do, st.just("insert"), indexes, values),
    st.builds(_do, st.just("pop")),
    st.builds(_do, st.just("pop"), indexes),
    st.builds(_do, st.just("remove"), scalars),
    st.builds(_do, st.just("clear")),
    st.builds(_do, st.just("reverse")),
    st.just(lambda items: items.sort(key=lambda item: str(type(item).__mro__[-2]))),  # the built-in type
    st.builds(_do, st.just("__setitem__"), indexes, values),
    st.builds(_do, st.just("__setitem__"), indexes, scalars),
    st.builds(_do, st.just("__setitem__"), slices, st.lists(values, max_size=3)),
    st.builds(_do, st.just("__delitem__"), indexes | slices),
    st.builds(_do, st.just("__iadd__"), st.lists(values, max_size=2)),
    st.builds(_do, st.just("__imul__"), st.integers(-1, 3)),
)
dict_edits: st.SearchStrategy[Edit] = st.one_of(
    st.builds(_do, st.just("__setitem__"), keys, values),
    st.builds(_do, st.just("__setitem__"), keys, scalars),
    st.builds(_do, st.just("__delitem__"), keys),
    st.builds(_do, st.just("pop"), keys),
    st.builds(_do, st.just("pop"), keys, scalars),
    st.builds(_do, st.just("popitem")),
    st.builds(_do, st.just("clear")),
    st.builds(_do, st.just("setdefault"), keys, values),
    st.builds(_do, st.just("update"), st.dictionaries(keys, values, max_size=3)),
    st.builds(_do, st.just("__ior__"), st.dictionaries(keys, values, max_size=3)),
)
members = st.sets(immutables, max_size=3)
set_edits: st.SearchStrategy[Edit] = st.one_of(
    st.builds(_do, st.sampled_from(["add", "discard", "remove"]), immutables),
    st.builds(_do, st.just("clear")),
    st.builds(
        _do,
        st.sampled_from(
            [
                "update",
                "difference_update",
                "intersection_update",
                "symmetric_difference_update",
                "__ior__",
                "__isub__",
                "__iand__",
                "__ixor__",
            ]
        ),
        members,
    ),
)


def containers(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return the paths of all containers in a value, including the value itself."""
    if isinstance(value, list):
        children: Any = enumerate(value)
    elif isinstance(value, dict):
        children = value.items()
    else:
        return [path] if isinstance(value, set) else []
    return [path, *(deeper for key, item in children for deeper in containers(item, (*path, key)))]


def outcome(edit: Edit, container: Any) -> Any:
    """Return the result of an edit, or the type of its exception."""
    try:
        result = edit(container)
    except (IndexError, KeyError, ValueError) as error:
        return type(error)
    # In-place operators return the container itself, which is compared anyway.
    return "itself" if result is container else plain(result)


def refill(replica: Any, fresh: Any) -> None:
    """Give a container new contents, with a separate copy for each place, like the state."""
    replica.clear()
    if isinstance(replica, list):
        replica.extend(copy.deepcopy(item) for item in fresh)
    elif isinstance(replica, dict):
        replica.update((key, copy.deepcopy(item)) for key, item in fresh.items())
    else:
        replica.update(fresh)


def exact(value: Any) -> bytes:
    """Return bytes that are equal only if types, signs of zero and the order of keys are equal too."""
    return messages.encode(packed(value))


class Synced(RuleBasedStateMachine):
    """Two states and a plain model of the first state. The model gets the same edits."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = State("Near", {}), State("Far", {})
        self.buffer = OpBuffer(limit=6)
        self.near.sink = self.buffer.add
        self.model: dict[str, Any] = {}

    @rule(name=st.sampled_from(NAMES), value=values)
    def assign(self, name: str, value: Any) -> None:
        self.near.set(name, value)
        self.model[name] = copy.deepcopy(value)

    @rule(name=st.sampled_from(NAMES), value=scalars)
    def assign_scalar(self, name: str, value: Any) -> None:
        self.near.set(name, value)
        self.model[name] = value

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.near.delete(name)
        del self.model[name]

    @precondition(lambda self: any(isinstance(value, list | dict | set) for value in self.model.values()))
    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        places = [path for name, value in self.model.items() for path in containers(value, (name,))]
        path = data.draw(st.sampled_from(places))
        replica: Any = self.model
        for key in path:
            replica = replica[key]
        tracked = self.near.at(path)
        kinds: dict[type, st.SearchStrategy[Edit]] = {list: list_edits, dict: dict_edits, set: set_edits}
        edit = data.draw(kinds[type(replica)])
        happened = outcome(edit, tracked)
        fresh = copy.deepcopy(replica)
        assert happened == outcome(edit, fresh)
        refill(replica, fresh)

    @rule()
    def deliver(self) -> None:
        with self.near.lock:
            ops = self.buffer.take()
        frame = messages.decode_from_worker(messages.encode(messages.Delta(ops)))
        assert isinstance(frame, messages.Delta)
        self.far.apply(frame.ops)
        near, far = self.near.snapshot(), self.far.snapshot()
        assert near == far
        for name in near:
            assert exact(near[name]) == exact(far[name])

    @rule()
    def compact(self) -> None:
        with self.near.lock:
            self.buffer.compact(self.near.names, self.near.values)

    @invariant()
    def is_what_plain_containers_would_be(self) -> None:
        assert self.near.snapshot() == self.model

    @invariant()
    def containers_know_where_they_are(self) -> None:
        for state in (self.near, self.far):
            for name in state.names:
                for path in containers(state.values[name], (name,)):
                    node = state.at(path)
                    assert isinstance(node, Tracked)
                    assert locate(node) == list(path)

    def teardown(self) -> None:
        self.deliver()


TestSynced = Synced.TestCase
TestSynced.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@settings(deadline=None)
@given(values)
def test_packed_values_come_back(value: Any) -> None:
    """A packed value that went through msgpack is equal and has the same types."""
    state = State("S", {})
    state.set("x", value)
    back = unpacked(msgspec.msgpack.decode(messages.encode(packed(state.values["x"]))))
    assert back == state.snapshot()["x"] == value
    assert exact(back) == exact(state.values["x"])
