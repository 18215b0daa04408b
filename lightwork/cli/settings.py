"""``--set root.trials.0.lr=0.1``: state attributes that are given on the command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from lightwork.errors import LightworkError, UsageError

__all__ = ["SettingError", "apply_settings", "parse_setting", "parse_value"]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class SettingError(UsageError, ValueError):
    """A ``--set`` names nothing that is there, or its value does not fit."""


class _HasComponents(Protocol):
    """What is needed of an app here."""

    @property
    def root(self) -> Any: ...

    def get_component_by_name(self, name: str) -> Any: ...


def apply_settings(app: _HasComponents, settings: Iterable[str]) -> None:
    """Set each ``component.attribute=value`` in the app, which has not started yet.

    A value takes the type of the one that is there where that is a bool, an int, a float or a str; else it
    is what it means as JSON, or the text as it stands.

    Raises:
        SettingError: If one is malformed, names an unknown component or attribute, or has a value that the
            attribute cannot take. Those before it have been set.
    """
    for setting in settings:
        _apply(app, setting)


def parse_setting(setting: str) -> tuple[str, str, str]:
    """``(component, attribute, text of the value)`` of ``component.attribute=value``."""
    target, equals, text = setting.partition("=")
    component, dot, attribute = target.strip().rpartition(".")
    if not equals or not dot or not component or not attribute:
        raise SettingError(f"--set {setting}: it has to be COMPONENT.ATTRIBUTE=VALUE, as in root.lr=0.1")
    return component, attribute, text


def parse_value(text: str, present: Any) -> Any:
    """The value that `text` means in place of `present`.

    Raises:
        ValueError: If `present` is a bool, an int or a float and the text is none.
    """
    if isinstance(present, bool):
        return _parse_bool(text)
    if isinstance(present, int):
        return _parse_int(text)
    if isinstance(present, float):
        return float(text)
    value = _parse_json(text)
    if isinstance(present, str):
        return value if isinstance(value, str) else text
    return value


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"{text!r} is neither true nor false")


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # 1e6 is a whole number to whoever writes it
        if not number.is_integer():
            raise ValueError(f"{text!r} is not a whole number") from None
        return int(number)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _apply(app: _HasComponents, setting: str) -> None:
    name, attribute, text = parse_setting(setting)
    component = _find(app, name, setting)
    values = _public(component)
    if attribute not in values:
        hint = _near(attribute, values, f"{name} has no state attributes")
        raise SettingError(f"--set {setting}: {name} has no state attribute {attribute!r}; {hint}")
    present = values[attribute]
    try:
        setattr(component, attribute, parse_value(text, present))
    except LightworkError as error:
        raise SettingError(f"--set {setting}: {error}") from error
    except (ValueError, OverflowError):
        raise SettingError(
            f"--set {setting}: {name}.{attribute} is {present!r}, and {text!r} is no {type(present).__name__}"
        ) from None


def _find(app: _HasComponents, name: str, setting: str) -> Any:
    names = list(_component_names(app))
    try:
        component = app.get_component_by_name(name)
    except (LightworkError, LookupError, AttributeError):
        component = None
    if component is None or not hasattr(component, "state"):
        hint = _near(name, names, "the app has no components")
        raise SettingError(f"--set {setting}: there is no component {name!r}; {hint}")
    return component


def _component_names(app: _HasComponents) -> Iterator[str]:
    yield "root"
    yield from _names_below("root", app.root.state)


def _names_below(prefix: str, state: Mapping[str, Any]) -> Iterator[str]:
    for group in ("flows", "works", "structures"):
        for key, inner in state.get(group, {}).items():
            name = f"{prefix}.{key}"
            if group != "structures":
                yield name
            yield from _names_below(name, inner)


def _public(component: Any) -> dict[str, Any]:
    variables: Mapping[str, Any] = component.state["vars"]
    return {name: value for name, value in variables.items() if not name.startswith("_")}


def _near(name: str, known: Iterable[str], none: str) -> str:
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not choices:
        return none
    more = f" and {len(choices) - 12} more" if len(choices) > 12 else ""
    return f"there is {', '.join(choices[:12])}{more}"
