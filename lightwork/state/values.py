"""The values that a state can hold, and their form on the wire.

A state holds plain values: None, bool, int of 64 bits, float, str, bytes, list, dict (keys: str, int, bool, None), set,
frozenset, tuple and timezone-aware datetime. Tuples and sets contain immutable values only, so that none of their items
can change unseen. A datetime is kept in UTC, because msgpack carries UTC and both sides must hold the same value.

The packed form of a value is its form in msgpack. msgpack has no tuples and sets, only arrays. So a tuple or a set
becomes an `Ext` around the msgpack of its items.
"""

from __future__ import annotations

import datetime
import enum
import numbers
from collections.abc import Callable
from typing import Any, Final

import msgspec

from lightwork.errors import StateError

__all__ = [
    "ADVICE",
    "FROZENSET",
    "LEAST_INTEGER",
    "MAX_DEPTH",
    "MOST_INTEGER",
    "PLAIN",
    "SCALARS",
    "SET",
    "TUPLE",
    "Ext",
    "Refusal",
    "checked_key",
    "exact_bytes",
    "frozen",
    "leaf",
    "member",
    "most_bytes",
    "packed",
    "too_deep",
    "type_name",
    "unpacked",
]

MAX_DEPTH = 100
"""Deepest nesting of containers, the attribute's container included. Far below the recursion limits of msgspec and
Python."""

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**64 - 1
"""The integers that msgpack can carry: 64 bits, signed or unsigned."""

PLAIN: Final = frozenset({type(None), bool, float})
"""Types of which a state can hold every value unchanged."""

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types whose values need no packing."""

Ext = msgspec.msgpack.Ext
TUPLE, SET, FROZENSET = 1, 2, 3

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_UTC = datetime.UTC

ADVICE = (
    "Keep plain data in the state (for a dataclass, Struct or similar: msgspec.to_builtins(value)), "
    "or give the attribute a name with an underscore, {private}, which keeps it out of the state."
)


class Refusal(Exception):
    """A state cannot hold a value.

    Attributes:
        reason: The reason.
        advise: Whether the general advice helps.
        value: The value if its type is the reason; otherwise None.
        keys: The path to the value within the assigned value, innermost key first.
    """

    def __init__(self, reason: str, *, advise: bool = True, value: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advise = advise
        self.value = value
        self.keys: list[Any] = []


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module unless it is built in."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def too_deep() -> Refusal:
    """Return the refusal of a value that is nested deeper than `MAX_DEPTH`, or that contains itself."""
    return Refusal(f"containers are nested deeper than {MAX_DEPTH} levels, or one contains itself", advise=False)


def leaf(value: Any) -> Any:
    """Return the plain form of a value that is not a container.

    Raises:
        Refusal: If a state cannot hold the value.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is int:
        if LEAST_INTEGER <= value <= MOST_INTEGER:
            return value
        raise Refusal("an integer beyond 64 bits cannot be sent; keep it as text, str(value)", advise=False)
    if kind is str:
        if not value.isascii():
            _check_text(value)
        return value
    if kind is bytes:
        return value
    if kind is datetime.datetime:
        return _in_utc(value)
    return _converted(value)


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"the text cannot be written as UTF-8 ({error.reason} at {error.start})", advise=False) from None


def _in_utc(value: datetime.datetime) -> datetime.datetime:
    if value.tzinfo is _UTC:
        return value
    if value.utcoffset() is None:
        reason = "a datetime without a timezone is ambiguous; set its timezone, as in datetime.now(datetime.UTC)"
        raise Refusal(reason, advise=False)
    try:
        return value.astimezone(_UTC)
    except OverflowError:
        raise Refusal(f"{value} is out of range in UTC; use a later or earlier datetime", advise=False) from None


def _converted(value: Any) -> Any:
    """Convert a number or text of another type (numpy's types, enums) to the equal plain value."""
    if isinstance(value, enum.Enum) and not isinstance(value, int | str | float):
        raise Refusal(f"{value!r} is an enum member; use its value, or a StrEnum or IntEnum", advise=False)
    if isinstance(value, str):
        return leaf(str.__str__(value))
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, numbers.Integral):
        return leaf(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    # numpy does not register its bool with a number class, and the framework does not import numpy.
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise Refusal(f"a value of type {type_name(value)} cannot be kept in the state", value=value)


def frozen(value: Any, depth: int) -> Any:
    """Return the plain form of a value that is immutable at every level. `depth` is the number of containers around it.

    Raises:
        Refusal: If a state cannot hold the value, or if something in it is mutable.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is not tuple and kind is not frozenset:
        if kind in (list, dict, set) or isinstance(value, list | dict | set):
            raise Refusal(f"a {type_name(value)} inside a tuple or set could change unseen; use a tuple or frozenset")
        return leaf(value)
    if depth >= MAX_DEPTH:
        raise too_deep()
    if kind is frozenset:
        return frozenset(member(item, depth + 1) for item in value)
    items: list[Any] = []
    try:
        for item in value:
            items.append(frozen(item, depth + 1))
    except Refusal as refusal:
        refusal.keys.append(len(items))
        raise
    return tuple(items)


def member(value: Any, depth: int) -> Any:
    """Return the plain form of an item of a set.

    Raises:
        Refusal: As `frozen`, and for a NaN: a NaN equals nothing, so the other side could never find it again.
    """
    item = frozen(value, depth)
    if _holds_nan(item):
        raise Refusal("NaN in a set equals nothing, not even itself; use None", advise=False)
    return item


def _holds_nan(item: Any) -> bool:
    if type(item) is tuple:
        return any(map(_holds_nan, item))
    return type(item) is float and item != item


def checked_key(key: Any) -> Any:
    """Return the plain form of a key of a dict.

    Raises:
        Refusal: If the key is not a str, int, bool or None, and cannot be converted to one.
    """
    kind = type(key)
    if kind is str or kind is int or key is None or kind is bool:
        return leaf(key)
    plain = None if isinstance(key, float | bytes | bytearray) else _converted_key(key)
    if type(plain) in (str, int, bool):
        return plain
    raise Refusal(f"a key of type {type_name(key)} cannot be kept in the state; keys are str, int, bool or None")


def _converted_key(key: Any) -> Any:
    try:
        return _converted(key)
    except Refusal as refusal:
        if refusal.advise:
            return None
        raise


# --- the packed form ----------------------------------------------------------------------------


def packed(value: Any) -> Any:
    """Return a copy of a value that msgpack can carry. The copy shares no mutable object with the value.

    Args:
        value: A value that a state can hold, in tracked or plain containers.

    Raises:
        StateError: If it contains a value that a state cannot hold.
    """
    if type(value) in SCALARS:
        return value
    if isinstance(value, list):
        return [item if type(item) in SCALARS else packed(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in SCALARS else packed(item) for key, item in value.items()}
    if type(value) is tuple:
        return Ext(TUPLE, _encode([packed(item) for item in value]))
    if isinstance(value, set):
        return Ext(SET, _sorted_items(value))
    if type(value) is frozenset:
        return Ext(FROZENSET, _sorted_items(value))
    if type(value) is datetime.datetime:
        return value
    raise StateError(f"a value of type {type_name(value)} cannot be kept in the state")


def _sorted_items(items: Any) -> bytes:
    # Sorted by their bytes, because items of different types have no order. Equal sets must have equal bytes.
    return _encode([msgspec.Raw(data) for data in sorted(_encode(packed(item)) for item in items)])


def unpacked(value: Any, depth: int = 0) -> Any:
    """Return the plain value of a packed value, in new containers. The inverse of `packed`.

    Raises:
        StateError: If the value is nested too deep, or if it contains an unknown extension.
    """
    kind = type(value)
    if kind in SCALARS:
        return value
    if depth > MAX_DEPTH:
        raise StateError("diverged: a packed value is nested too deep")
    if kind is list:
        return [item if type(item) in SCALARS else unpacked(item, depth + 1) for item in value]
    if kind is dict:
        return {key: item if type(item) in SCALARS else unpacked(item, depth + 1) for key, item in value.items()}
    if kind is Ext:
        return _unpacked_extension(value, depth)
    return value


_FIXED: Final = {type(None): 1, bool: 1, int: 9, float: 9}


def most_bytes(value: Any) -> int:
    """Estimate the length in bytes of a value when it is packed and encoded, as an upper bound, without packing it.

    Accepts a packed value, too.
    """
    kind = type(value)
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind is Ext:
        return 6 + len(value.data)
    if kind is str:
        return 5 + (len(value) if value.isascii() else len(value.encode()))
    if kind is bytes:
        return 5 + len(value)
    get = _FIXED.get
    if isinstance(value, dict):
        keys = sum([5 + 4 * len(key) if type(key) is str else 9 for key in value])
        return 5 + keys + sum([get(type(item)) or most_bytes(item) for item in value.values()])
    if isinstance(value, list | tuple | set | frozenset):
        return 12 + sum([get(type(item)) or most_bytes(item) for item in value])
    return 15


def exact_bytes(value: Any) -> int:
    """Return the length in bytes of a value when it is packed and encoded."""
    return len(_encode(packed(value)))


_MAKERS: dict[int, Callable[[list[Any]], Any]] = {TUPLE: tuple, SET: set, FROZENSET: frozenset}


def _unpacked_extension(value: msgspec.msgpack.Ext, depth: int) -> Any:
    maker = _MAKERS.get(value.code)
    if maker is None:
        raise StateError(f"diverged: an extension must have the code 1, 2 or 3, got {value.code}")
    try:
        items = _decode(value.data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateError(f"diverged: an extension is not valid msgpack: {error}") from None
    if type(items) is not list:
        raise StateError(f"diverged: an extension must contain an array, got a {type(items).__name__}")
    plain = [unpacked(item, depth + 1) for item in items]
    if any(isinstance(item, list | dict | set) for item in plain):
        raise StateError("diverged: a tuple or set contains a mutable value")
    return maker(plain)
