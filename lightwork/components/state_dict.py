"""The state of a tree of components as plain dictionaries, and back.

An incoming state is matched with the tree and checked as a whole first: an error leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lightwork.components.component import Component, Node
from lightwork.errors import StateError

__all__ = ["children_as", "load"]

_GROUPS = ("flows", "works", "structures")

_Found = list[tuple[Component, dict[str, Any], Callable[[], None]]]


def children_as(parent: Node, convert: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
    """Return the children of a flow, each as `convert` returns it, by group and key."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for child in parent._child_nodes():
        groups[child._group][child._key] = _converted(child, convert)
    return groups


def _converted(node: Node, convert: Callable[[Any], Any]) -> Any:
    if isinstance(node, Component):
        return convert(node)
    return {child._key: _converted(child, convert) for child in node._child_nodes()}


def load(component: Component, state: Any, *, strict: bool) -> None:
    """Take back the attributes in a ``state`` or ``state_dict`` of a component and of all below it.

    Raises:
        StateError: `state` is not such a dictionary, or the state cannot hold one of its values; or `strict` is set
            and it belongs to another tree. Names the keys. Nothing was changed.
    """
    found: _Found = []
    problems = list(_match(component, state, "", found))
    if strict and problems:
        raise StateError(
            f"the state does not fit {component._label()}: {'; '.join(problems)}. Pass strict=False to take what fits"
        )
    checked = [(one._state, one._state.checked(values), take_calls) for one, values, take_calls in found]
    for target, values, take_calls in checked:
        target.load(values)
        take_calls()


def _match(node: Node, state: Any, where: str, found: _Found) -> Iterator[str]:
    """Collect what fits. Yield a problem for each key that does not fit."""
    if not isinstance(state, dict):
        place = where.rstrip(".") or "it"
        raise StateError(f"{place} must be a dict as state_dict() returns it, got a {type(state).__name__}")
    if not isinstance(node, Component):
        yield from _match_children({child._key: child for child in node._child_nodes()}, state, where, found)
        return
    yield from _match_vars(node, state, where, found)
    for group in _GROUPS:
        children = {child._key: child for child in node._child_nodes() if child._group == group}
        yield from _match_children(children, state.get(group, {}), where, found)


def _match_vars(component: Component, state: dict[str, Any], where: str, found: _Found) -> Iterator[str]:
    values = state.get("vars")
    if not isinstance(values, dict):
        raise StateError(f"the state has no dict under {where + 'vars'!r}; it must be one that state_dict() returned")
    names = component._state.names
    # Attributes that describe a worker (its port, its address) are not restored: that worker is gone.
    internal = component._INTERNAL_STATE_VARS
    fits = {name: value for name, value in values.items() if name in names and name not in internal}
    found.append((component, fits, component._load_calls(state.get("calls", {}))))
    yield from (
        f"it has {where}{name}, which the tree lacks" for name in values if name not in names and name not in internal
    )
    yield from (f"it lacks {where}{name}" for name in names if name not in values and name not in internal)


def _match_children(children: dict[str, Node], state: Any, where: str, found: _Found) -> Iterator[str]:
    if not isinstance(state, dict):
        raise StateError(f"the state holds a {type(state).__name__} where the children of {where or 'it'} must be")
    yield from (f"it has {where}{key}, which the tree lacks" for key in state if key not in children)
    for key, child in children.items():
        if key in state:
            yield from _match(child, state[key], f"{where}{key}.", found)
        else:
            yield f"it lacks {where}{key}"
