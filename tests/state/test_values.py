"""The values that a state accepts, how it converts them, and how it refuses other values."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import re
import zoneinfo
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import msgspec
import numpy as np
import pytest

from lightwork.errors import StateError
from lightwork.state.state import State
from lightwork.state.values import packed, unpacked

Point = namedtuple("Point", "x y")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Bare(enum.Enum):
    ONE = 1


@dataclasses.dataclass
class Row:
    x: int


def train() -> State:
    return State("Train", {})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (bytearray(b"ab"), b"ab"),
        ((np.int64(1), (Level.HIGH,)), (1, (3,))),
        (frozenset({np.float64(0.5)}), frozenset({0.5})),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
    ],
)
def test_numbers_and_texts_become_plain(given: Any, kept: Any) -> None:
    """A number or text of another type is converted to the equal plain value."""
    state = train()
    state.set("x", given)
    state.set("nested", {"a": [given]})
    assert type(state.values["x"]) is type(kept)
    assert repr(state.values["x"]) == repr(kept)
    assert repr(state.snapshot()["nested"]) == repr({"a": [kept]})


def test_a_mean_of_comparisons_is_a_float() -> None:
    """The result of ``(a == b).mean()``, a usual accuracy, can be assigned."""
    state = train()
    state.set("accuracy", (np.arange(4) == np.array([0, 1, 2, 9])).mean())
    assert type(state.values["accuracy"]) is float


def test_keys_become_plain() -> None:
    """Keys of a dict that can be converted to a str or int are converted, in assignments and in edits."""
    state = train()
    state.set("x", {np.int64(1): "a", Colour.RED: "b"})
    state.values["x"][np.int64(2)] = "c"
    assert [type(key) for key in state.values["x"]] == [int, str, int]


def test_datetimes_are_kept_in_utc() -> None:
    """A datetime keeps its moment but not its zone, even in the repeated hour of a zone."""
    state = train()
    second_half_past_two = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)
    state.set("at", second_half_past_two)
    assert state.values["at"] == datetime.datetime(2026, 10, 25, 1, 30, tzinfo=datetime.UTC)


class Config:
    pass


LOOP: list[Any] = []
LOOP.append({"again": LOOP})
DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]

ADVICE = "msgspec.to_builtins(value)"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Config(), ["Train.table: a value of type", "test_values.Config", ADVICE, "_table"]),
        ([1, {"a": Config()}], ["Train.table[1]['a']:", "Config"]),
        ({"a": {1: (0, Config())}}, ["Train.table['a'][1][1]:", "Config"]),
        (Row(1), ["Row", ADVICE]),
        (Point(1, 2), ["Point", ADVICE]),
        (OrderedDict(a=1), ["OrderedDict"]),
        (defaultdict(int), ["defaultdict"]),
        (np.zeros(3), ["numpy.ndarray", ADVICE]),
        (fractions.Fraction(1, 2), ["Fraction"]),
        (decimal.Decimal(1), ["Decimal"]),
        (1j, ["complex"]),
        (datetime.date(2026, 1, 1), ["date"]),
        (Bare.ONE, ["Bare.ONE", "its value"]),
        (2**64, ["beyond 64 bits", "str(value)"]),
        ([-(2**63) - 1], ["Train.table[0]:", "beyond 64 bits"]),
        (np.float64, ["a value of type type"]),
        ("\ud800", ["UTF-8"]),
        ({"\ud800": 1}, ["UTF-8"]),
        (datetime.datetime(2026, 1, 1), ["timezone"]),
        (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5))), ["out of range"]),
        ({1.5: 1}, ["a key of type float", "str, int, bool or None"]),
        ({(1, 2): 1}, ["a key of type tuple"]),
        ({b"a": 1}, ["a key of type bytes"]),
        ({2**64: 1}, ["beyond 64 bits"]),
        (([1],), ["Train.table[0]:", "a list inside a tuple or set", "tuple or frozenset"]),
        ((1, {"a": 1}), ["Train.table[1]:", "a dict inside"]),
        ({float("nan")}, ["NaN in a set"]),
        ({(1, float("nan"))}, ["NaN in a set"]),
        (LOOP, ["contains itself", "['again'][0]"]),
        (DEEP, ["deeper than 100 levels"]),
    ],
)
def test_the_rest_is_refused_by_name(value: Any, says: list[str]) -> None:
    """A value that cannot be kept raises a `StateError` with its place, its type and the remedy; nothing changes."""
    state = train()
    ops: list[Any] = []
    state.sink = ops.append
    with pytest.raises(StateError) as caught:
        state.set("table", value)
    for part in says:
        assert part in str(caught.value)
    assert state.values == {}
    assert state.names == {}
    assert ops == []


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda t: t["a"].append(Config()), "Train.table['a'][1]:"),
        (lambda t: t["a"].insert(0, Config()), "Train.table['a'][0]:"),
        (lambda t: t["a"].extend([1, 2, Config()]), "Train.table['a'][3]:"),
        (lambda t: t["a"].__setitem__(0, [Config()]), "Train.table['a'][0][0]:"),
        (lambda t: t["a"][0].update(x=1, y={"z": Config()}), "Train.table['a'][0]['y']['z']:"),
        (lambda t: t["a"][0].setdefault("new", Config()), "Train.table['a'][0]['new']:"),
        (lambda t: t["s"].add(Config()), "Train.table['s']:"),
        (lambda t: t["s"].update([5, (1, Config())]), "Train.table['s'][1]:"),
        (lambda t: t["s"].add(float("nan")), "Train.table['s']:"),
        (lambda t: t.__setitem__(0.5, 1), "Train.table:"),
    ],
)
def test_an_edit_names_the_whole_path(edit: Any, place: str) -> None:
    """The error of an invalid deep edit names the whole path from the owner to the value; nothing changes."""
    state = train()
    state.set("table", {"a": [{"k": 1}], "s": {1}})
    before = state.snapshot()
    ops: list[Any] = []
    state.sink = ops.append
    with pytest.raises(StateError, match=re.escape(place)):
        edit(state.values["table"])
    assert state.snapshot() == before
    assert ops == []


def test_depth_is_counted_from_the_attribute() -> None:
    """Containers cannot be nested deeper than the limit, even in small steps."""
    state = train()
    state.set("x", [])
    inner = state.values["x"]
    for _ in range(99):
        inner.append([])
        inner = inner[0]
    with pytest.raises(StateError, match="deeper than 100"):
        inner.append([])
    inner.append(1)
    far = State("Far", {})
    far.apply([(0, ["x"], packed(state.values["x"]))])
    assert far.snapshot() == state.snapshot()


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.msgpack.Ext(9, b"\x90"),
        msgspec.msgpack.Ext(1, b""),
        msgspec.msgpack.Ext(1, b"\x01"),
        msgspec.msgpack.Ext(2, msgspec.msgpack.encode([[1]])),
        msgspec.msgpack.Ext(1, b"\x91" * 5000 + b"\x90"),
        [msgspec.msgpack.Ext(1, msgspec.msgpack.encode([{}]))],
    ],
)
def test_a_foreign_extension_is_refused(bad: Any) -> None:
    """An extension that `packed` never makes raises `StateError`."""
    with pytest.raises(StateError, match="diverged"):
        unpacked(bad)


def test_tuples_within_tuples_without_end_are_refused() -> None:
    """The nesting of extensions is bounded, even if each extension is shallow."""
    value = msgspec.msgpack.Ext(1, b"\x90")
    for _ in range(150):
        value = msgspec.msgpack.Ext(1, msgspec.msgpack.encode([value]))
    with pytest.raises(StateError, match="too deep"):
        unpacked(value)


def test_equal_sets_are_equal_bytes() -> None:
    """Sets are packed in a fixed order, which does not depend on their hashes."""
    one, other = {"a", 1, None, (2, "b")}, {(2, "b"), None, 1, "a"}
    assert msgspec.msgpack.encode(packed(one)) == msgspec.msgpack.encode(packed(other))


def test_only_values_of_a_state_are_packed() -> None:
    """`packed` refuses a value that no state can hold."""
    with pytest.raises(StateError, match="Config"):
        packed([Config()])
