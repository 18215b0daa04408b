"""Conversion of users' values to JSON and back.

A value that JSON cannot express becomes an object whose first key begins with a dollar sign:

==============================  ==========================================================================
``{"$bytes": n, "preview"}``    `n` bytes; `preview` has the first of them in base64
``{"$set": [...]}``             a set
``{"$dict": [[k, v], ...]}``    a dict in which a key is not a string, or begins with a dollar sign
``{"$float": "nan"}``           ``nan``, ``inf`` or ``-inf``
``{"$int": "..."}``             an integer beyond 2**53, in decimal digits
``{"$cut": n, "preview"}``      a value of about `n` bytes that is too large; `preview` has its beginning as text
==============================  ==========================================================================

`from_json` accepts these objects, except ``$cut``, and ``$bytes`` if the preview does not have all bytes.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import math
from typing import Any

import msgspec

__all__ = ["MOST_SHOWN", "BadValue", "from_json", "to_json"]

MOST_SHOWN = 8 * 1024
"""Bytes of JSON up to which a value is shown whole."""

_PREVIEW = 1024
_DEEPEST = 100
_LONGEST_INT = 1 << 53

_encode = msgspec.json.Encoder().encode


class BadValue(ValueError):
    """The JSON does not represent a value of a state or an argument."""


def to_json(value: Any, most: int | None = None) -> Any:
    """Return a copy of a value that can be encoded as JSON.

    Args:
        value: A state, an argument or a result. A value of an unknown type becomes its ``repr``.
        most: Bytes of JSON beyond which the value is cut to a preview; None for no limit.
    """
    if type(value) in (bool, int, type(None)):
        return _scalar(value)
    shown = _shown(value, 0)
    if most is None:
        return shown
    size = len(_encode(shown))
    return shown if size <= most else {"$cut": size, "preview": _preview(shown)}


def _scalar(value: Any) -> Any:
    # JavaScript has doubles only: it would round a larger integer.
    return value if type(value) is not int or -_LONGEST_INT <= value <= _LONGEST_INT else {"$int": str(value)}


def _preview(shown: Any) -> str:
    text = shown if isinstance(shown, str) else _encode(shown)[: _PREVIEW * 4].decode(errors="replace")
    return text[:_PREVIEW]


def _shown(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else value.encode(errors="replace").decode()
    if kind is int or kind is bool or value is None:
        return _scalar(value)
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if depth >= _DEEPEST:
        return {"$cut": 0, "preview": "nested too deep"}
    if isinstance(value, dict):
        return _shown_dict(value, depth + 1)
    if isinstance(value, (list, tuple)):
        return [_shown(item, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        items = [_shown(item, depth + 1) for item in value]
        return {"$set": sorted(items, key=_encode)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return {"$bytes": len(data), "preview": base64.b64encode(data[: 3 * _PREVIEW // 4]).decode()}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str):
        return _shown(str.__str__(value), depth)
    try:
        return _shown(msgspec.to_builtins(value, str_keys=False), depth + 1)
    except (TypeError, ValueError, RecursionError):
        return repr(value)[:_PREVIEW]


def _shown_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str and key[:1] != "$" for key in value):
        return {_shown(key, depth): _shown(item, depth) for key, item in value.items()}
    return {"$dict": [[_shown(key, depth), _shown(item, depth)] for key, item in value.items()]}


def from_json(value: Any, depth: int = 0) -> Any:
    """Return the value that decoded JSON represents.

    Raises:
        BadValue: A ``$`` object is malformed or unknown, or represents a value that was cut.
    """
    if depth > _DEEPEST:
        raise BadValue("nested too deep")
    if isinstance(value, list):
        return [from_json(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    marker = next((key for key in value if key[:1] == "$"), None)
    if marker is None:
        return {key: from_json(item, depth + 1) for key, item in value.items()}
    maker = _MAKERS.get(marker)
    if maker is None or (len(value) != 1 and marker != "$bytes"):
        raise BadValue(f"an object with the key {marker!r:.40} does not represent a value")
    try:
        return maker(value, depth)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise BadValue(f"{marker} is malformed: {error}") from None


def _make_set(value: dict[str, Any], depth: int) -> Any:
    return {_hashable(from_json(item, depth + 1)) for item in value["$set"]}


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _make_dict(value: dict[str, Any], depth: int) -> Any:
    return {from_json(key, depth + 1): from_json(item, depth + 1) for key, item in value["$dict"]}


def _make_float(value: dict[str, Any], depth: int) -> Any:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["$float"]]


def _make_int(value: dict[str, Any], depth: int) -> Any:
    text = value["$int"]
    if not isinstance(text, str) or len(text) > 30:
        raise ValueError(f"must be a whole number in a string of at most 30 characters, got {text!r:.40}")
    return int(text)


def _make_bytes(value: dict[str, Any], depth: int) -> Any:
    try:
        data = base64.b64decode(value["preview"], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if len(data) != value["$bytes"]:
        raise ValueError("the preview does not have all bytes")
    return data


_MAKERS = {
    "$set": _make_set,
    "$dict": _make_dict,
    "$float": _make_float,
    "$int": _make_int,
    "$bytes": _make_bytes,
}
