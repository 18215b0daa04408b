from __future__ import annotations

import dataclasses
import datetime
import enum
import gc
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightwork.components.signature import RunSignature
from lightwork.errors import ArgumentsError, ComponentError

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: int = 0


@dataclasses.dataclass
class Options:
    lr: float
    path: Path | None = None


def of(run: Callable[..., Any]) -> RunSignature:
    return RunSignature.of(run, "Train")


def there(run: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that arrive in the worker."""
    return of(run).unbind(of(run).bind(args, kwargs)[0])


def hashed(run: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    return of(run).bind(args, kwargs)[1]


def refused(run: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ArgumentsError) as caught:
        of(run).bind(args, kwargs)
    return str(caught.value)


def simple(self: Any, x: int, y: float = 2, *, z: str = "z") -> None: ...


def anything(self: Any, x: Any, y=None): ...  # type: ignore[no-untyped-def]


def varied(self: Any, a: int, /, b: int, *rest: float, c: int = 3, **more: int) -> None: ...


unhurried = settings(deadline=None)  # how fast an example runs on a busy machine says nothing about it

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers(-(2**63), 2**64 - 1)
plain = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)


def shuffled(value: Any) -> Any:
    """Return an equal value whose dicts, also nested ones, were filled in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(inner)) for key, inner in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(item) for item in value] if isinstance(value, list) else value


# --- one call, however it is written -----------------------------------------------------------------


@unhurried
@given(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text())
def test_position_keyword_and_default_are_one_call(x: int, y: float, z: str) -> None:
    """The bytes and the hash are the same for positional, keyword and default arguments (pitfall 13)."""
    signature = of(simple)
    assert signature.bind((x, y), {"z": z}) == signature.bind((), {"z": z, "y": y, "x": x})
    assert signature.bind((x,), {}) == signature.bind((x, 2.0), {"z": "z"}) == signature.bind((), {"y": 2, "x": x})


@unhurried
@given(plain, plain)
def test_plain_values_arrive_equal(x: Any, y: Any) -> None:
    """Every type of msgpack arrives unchanged, and dicts keep their order."""
    (there_x, there_y), kwargs = there(anything, x, y=y)
    assert (there_x, there_y, kwargs) == (x, y, {})
    assert msgspec.msgpack.encode(there_x) == msgspec.msgpack.encode(x)


@unhurried
@given(plain)
def test_the_order_of_a_dict_does_not_change_the_hash(value: Any) -> None:
    """Equal values have one hash, for any order and any type of their dict keys."""
    assert hashed(anything, value) == hashed(anything, shuffled(value))


@unhurried
@given(plain, plain)
def test_other_values_have_another_hash(one: Any, other: Any) -> None:
    """Values that differ on the wire, apart from the order of dicts, have different hashes."""
    assert (hashed(anything, one) == hashed(anything, other)) == (typed(one) == typed(other))


def typed(value: Any) -> Any:
    """Return the value with the type of each part: 1, 1.0 and True are equal in Python but not on the wire."""
    if isinstance(value, dict):
        return {(type(key), key): typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), repr(value)


@unhurried
@given(st.sets(st.text() | st.integers(0, 9)))
def test_the_order_of_a_set_does_not_change_the_hash(value: set[Any]) -> None:
    """A set has one hash for any order of insertion, even if its items cannot be sorted."""
    items = list(value)
    items.reverse()
    assert hashed(anything, value) == hashed(anything, set(items)) == hashed(anything, frozenset(items))


def test_the_hash_is_128_bits_and_the_same_everywhere() -> None:
    """A hash is the same in every process (pitfall 13)."""
    assert hashed(simple, 1) == "d3bee9322d2e2174436adb039cf0d0a4"


@unhurried
@given(st.integers(), st.integers(), st.lists(st.floats(allow_nan=False)), st.dictionaries(st.text(), st.integers()))
def test_every_kind_of_parameter_arrives_where_it_belongs(
    a: int, b: int, rest: list[float], more: dict[str, int]
) -> None:
    """Positional-only, star and keyword parameters get the same arguments in the worker as in the call."""
    more = {f"k_{key}": value % 2**63 for key, value in more.items()}
    a, b = a % 2**63, b % 2**63
    args, kwargs = there(varied, a, b, *rest, **more)
    assert args == (a, b, *rest)
    assert kwargs == {"c": 3, **more}


def test_a_keyword_may_have_the_name_of_a_positional_only_parameter() -> None:
    """`**more` accepts a keyword named `more`, as in Python."""
    assert there(varied, 1, b=2, a=4, c=5) == ((1, 2), {"c": 5, "a": 4})


def test_nothing_is_a_call_too() -> None:
    """A run without parameters refuses arguments with an error."""

    def run(self: Any) -> None: ...

    assert there(run) == ((), {})
    assert "too many positional arguments" in refused(run, 1)


def test_later_changes_to_an_argument_change_nothing() -> None:
    """The arguments are copied when they are bound (pitfall 10)."""
    value = [1]
    data, _ = of(anything).bind((value,), {})
    value.append(2)
    assert of(anything).unbind(data)[0] == ([1], None)


# --- annotations -------------------------------------------------------------------------------------


def test_annotated_types_arrive_as_such() -> None:
    """Structs, dataclasses, enums, tuples, sets and dates have their own type in the worker."""

    def run(
        self: Any, p: Point, o: Options, c: Colour, t: tuple[int, str], s: set[int], d: datetime.date, m: Literal["a"]
    ) -> None: ...

    values = (Point(1), Options(0.1), Colour.RED, (1, "a"), {1, 2}, datetime.date(2024, 1, 2), "a")
    assert there(run, *values) == (values, {})


def test_a_dict_in_the_place_of_a_struct_is_converted() -> None:
    """A value that fits the annotation is converted to it, and makes the same call."""

    def run(self: Any, p: Point) -> None: ...

    assert hashed(run, {"x": 1}) == hashed(run, Point(1)) == hashed(run, p={"y": 0, "x": 1})


def test_an_int_is_a_float_where_a_float_is_wanted() -> None:
    """1 becomes 1.0 for a float annotation, and stays 1 without an annotation."""
    assert type(there(simple, 1, 5)[0][1]) is float
    assert type(there(anything, 5)[0][0]) is int
    assert hashed(anything, 1) != hashed(anything, 1.0)


def test_annotations_that_cannot_be_used_mean_anything() -> None:
    """A parameter accepts plain data if its annotation is unresolvable, a foreign class, or a union with one."""

    def run(self: Any, a: Unknown, b: np.ndarray[Any, Any], c: int | Path, d: list[Path], e: int) -> None: ...

    assert there(run, "a", [1], "p", ["q"], 5) == (("a", [1], "p", ["q"], 5), {})
    assert "argument 'e': expected `int`" in refused(run, 1, 2, 3, 4, "x")


def test_constraints_of_an_annotation_hold() -> None:
    """The constraints of msgspec are checked in the flow, before anything is sent."""

    def run(self: Any, n: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...

    assert "argument 'n': expected `int` >= 1" in refused(run, 0)


def test_a_default_of_none_makes_the_annotation_optional() -> None:
    """`x: int = None` takes None and ints, and nothing else."""

    def run(self: Any, x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 -- the case

    assert there(run) == ((None,), {})
    assert there(run, 3) == ((3,), {})
    assert "argument 'x'" in refused(run, "a")


def test_a_default_that_is_not_of_its_type_is_taken_at_its_word() -> None:
    """An annotation that the default violates is not enforced."""

    def run(self: Any, x: int = "auto") -> None: ...  # type: ignore[assignment]

    assert there(run) == (("auto",), {})
    assert there(run, 3.5) == ((3.5,), {})


def test_a_default_that_cannot_be_sent_is_put_in_by_the_worker() -> None:
    """A default that cannot be encoded does not break calls without that argument."""
    sentinel = object()

    def run(self: Any, x: Any = sentinel, *, y: Any = len) -> None: ...

    assert there(run) == ((sentinel,), {"y": len})
    assert there(run, 1) == ((1,), {"y": len})


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
        ((1,), {"q": 1}, "unexpected keyword argument 'q'"),
        (("a",), {}, "argument 'x': expected `int`, got `str`, the value 'a'"),
        ((1,), {"z": 3}, "argument 'z': expected `str`, got `int`, the value 3"),
        ((None,), {}, "argument 'x': expected `int`, got `None`"),
    ],
)
def test_arguments_that_do_not_fit_show_the_signature(args: Any, kwargs: Any, said: str) -> None:
    """The message names the class and the problem, and shows the signature without self."""
    message = refused(simple, *args, **kwargs)
    assert message.startswith("Train.run: ")
    assert said in message
    assert message.endswith("the signature is run(x: int, y: float = 2, *, z: str = 'z') -> None")


def test_the_place_inside_an_argument_is_named() -> None:
    """The error for an invalid item names the argument and the place in it, also in star arguments."""

    def run(self: Any, table: dict[str, list[int]]) -> None: ...

    assert "argument 'table': expected `int`, got `str` at [...][1];" in refused(run, {"a": [1, "x"]})
    assert "argument 'rest': expected `float`, got `str` at [1];" in refused(varied, 1, 2, 1.0, "x")
    assert "argument 'more': expected `int`, got `str` at [...];" in refused(varied, 1, 2, k="x")


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2**64, "argument 'y' of type int cannot be sent to the work: it holds an integer beyond 64 bits"),
        ([-(2**63) - 1], "argument 'y' of type list cannot be sent to the work: it holds an integer beyond 64 bits"),
        (object(), "argument 'y' of type object"),
        ({"a": [len]}, "argument 'y' of type dict"),
        (np.float64(1), "a NumPy scalar has .item()"),
        (endless(), "nested too deeply, or holds itself"),
        ("\ud800", "argument 'y' of type str"),
        (Path("a"), "argument 'y' of type PosixPath"),
    ],
)
def test_a_value_that_cannot_be_encoded_is_named(value: Any, said: str) -> None:
    """The message names the argument, its type, and the reason why it cannot be sent."""
    assert said in refused(anything, 1, value)


def test_an_unencodable_value_is_named_where_a_type_is_wanted() -> None:
    """An integer beyond 64 bits is refused because of its size, although the annotation is int."""
    assert "argument 'x' of type int cannot be sent to the work: it holds an integer" in refused(simple, 2**70)


def test_data_of_another_signature_are_refused() -> None:
    """A worker with different code raises an error and does not call run with wrong arguments."""
    with pytest.raises(ArgumentsError, match=r"Train\.run\(x: int.* cannot take the arguments"):
        of(simple).unbind(msgspec.msgpack.encode([1]))


def test_a_run_that_cannot_be_called_is_refused() -> None:
    """A generator and a function without self are errors of the class."""

    def generator(self: Any) -> Any:
        yield 1

    async def agenerator(self: Any) -> Any:
        yield 1

    def selfless() -> None: ...

    for run in (generator, agenerator):
        with pytest.raises(ComponentError, match=r"Train\.run is a generator"):
            of(run)
    with pytest.raises(ComponentError, match="does not take self"):
        of(selfless)


# --- results and the cache ---------------------------------------------------------------------------


def test_a_result_has_the_annotated_type_where_it_fits() -> None:
    """The return value arrives in the annotated type; plain if it does not fit or has no annotation (pitfall 14)."""

    def run(self: Any) -> Point: ...  # type: ignore[empty-body]

    def unknown(self: Any) -> Unknown: ...

    raw = msgspec.msgpack.encode(Point(1))
    assert of(run).result(raw) == Point(1)
    assert of(run).result(msgspec.Raw(raw)) == Point(1)
    assert of(run).result(msgspec.msgpack.encode([1])) == [1]
    assert of(unknown).result(raw) == of(anything).result(raw) == {"x": 1, "y": 0}
    assert of(simple).result(msgspec.msgpack.encode(3)) == 3


async def test_async_is_seen() -> None:
    """is_async is true for coroutine functions only."""

    async def run(self: Any) -> int:
        return 1

    assert of(run).is_async
    assert not of(simple).is_async
    assert of(run).result(msgspec.msgpack.encode(await run(None))) == 1


def test_a_signature_is_worked_out_once_and_not_kept_for_ever() -> None:
    """A function and an owner have one signature, and the cache does not keep the function alive."""

    def run(self: Any) -> None: ...

    assert of(run) is of(run)
    assert RunSignature.of(run, "Other").name == "Other.run"
    kept = weakref.ref(run)
    del run
    gc.collect()
    assert kept() is None


def test_a_default_that_cannot_be_encoded_is_put_in_by_the_worker() -> None:
    """An unencodable default also works if every parameter is positional."""
    marker = object()

    def run(self: object, x: int, what: Any = marker) -> None: ...

    assert there(run, 1) == ((1, marker), {})
    assert there(run, 1, what="given") == ((1, "given"), {})
