"""``--set root.trials.0.lr=0.1``: sets state attributes from the command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from lightwork.errors import LightworkError, UsageError

__all__ = ["SettingError", "apply_settings", "parse_setting", "parse_value", "with_article"]

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class SettingError(UsageError, ValueError):
    """A ``--set`` is malformed, names an unknown component or attribute, or has a value of the wrong type."""


class _HasComponents(Protocol):
    """The part of an app that this module uses."""

    @property
    def root(self) -> Any: ...

    def get_component_by_name(self, name: str) -> Any: ...


def apply_settings(app: _HasComponents, settings: Iterable[str]) -> None:
    """Set each ``component.attribute=value`` in the app. The app must not have started yet.

    A value is parsed as the type of the present value if that is bool, int, float or str. Otherwise it is parsed as
    JSON, and kept as text if it is not valid JSON.

    Raises:
        SettingError: A setting is malformed, names an unknown component or attribute, or has a value that the
            attribute cannot take. The settings before it are applied.
    """
    for setting in settings:
        _apply(app, setting)


def parse_setting(setting: str) -> tuple[str, str, str]:
    """Split ``component.attribute=value`` into component, attribute and the text of the value.

    Raises:
        SettingError: The setting does not have this form.
    """
    target, equals, text = setting.partition("=")
    component, dot, attribute = target.strip().rpartition(".")
    if not equals or not dot or not component or not attribute:
        raise SettingError(f"--set {setting}: must be COMPONENT.ATTRIBUTE=VALUE, for example root.lr=0.1")
    return component, attribute, text


def parse_value(text: str, present: Any) -> Any:
    """Parse `text` as a value that replaces `present`.

    Raises:
        ValueError: `present` is a bool, an int or a float, and the text is not a valid value of that type.
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
    raise ValueError(f"must be true or false, got {text!r}")


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)  # a user who writes 1e6 means a whole number
        if not number.is_integer():
            raise ValueError(f"must be a whole number, got {text!r}") from None
        return int(number)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def with_article(type_name: str) -> str:
    """Return the name of a type with its article: ``an int``, ``a float``."""
    return f"an {type_name}" if type_name == "int" else f"a {type_name}"


def _apply(app: _HasComponents, setting: str) -> None:
    name, attribute, text = parse_setting(setting)
    component = _find(app, name, setting)
    values = _public(component)
    if attribute not in values:
        hint = _hint(attribute, values, "its attributes are", f"{name} has no state attributes")
        raise SettingError(f"--set {setting}: {name} has no state attribute {attribute!r}; {hint}")
    present = values[attribute]
    try:
        setattr(component, attribute, parse_value(text, present))
    except LightworkError as error:
        raise SettingError(f"--set {setting}: {error}") from error
    except (ValueError, OverflowError):
        raise SettingError(
            f"--set {setting}: {name}.{attribute} must be {with_article(type(present).__name__)} like {present!r}, "
            f"got {text!r}"
        ) from None


def _find(app: _HasComponents, name: str, setting: str) -> Any:
    names = list(_component_names(app))
    try:
        component = app.get_component_by_name(name)
    except (LightworkError, LookupError, AttributeError):
        component = None
    if component is None or not hasattr(component, "state"):
        hint = _hint(name, names, "the components are", "the app has no components")
        raise SettingError(f"--set {setting}: the app has no component {name!r}; {hint}")
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


def _hint(name: str, known: Iterable[str], introduction: str, none: str) -> str:
    """Return the nearest names, or else the first 12 names after `introduction`, or `none` if there are no names."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not choices:
        return none
    more = f" and {len(choices) - 12} more" if len(choices) > 12 else ""
    return f"{introduction}: {', '.join(choices[:12])}{more}"
