"""Edits of a state by HTTP clients. All edits are checked first, then made in the same way as edits by a flow."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgspec

from lightwork.components.component import Component
from lightwork.errors import StateError
from lightwork.server.types import Edit
from lightwork.server.values import BadValue, from_json
from lightwork.server.web import Problem

__all__ = ["PreparedEdit", "make", "prepare"]

_KEYS = (str, int, bool, type(None))


class PreparedEdit(msgspec.Struct, frozen=True):
    """A checked edit. `value` is converted from JSON to a value of the state."""

    path: list[Any]
    value: Any
    is_delete: bool


def prepare(component: Component, edits: Sequence[Edit]) -> list[PreparedEdit]:
    """Make edits one after the other on a copy of the state, to check that all of them are possible.

    Raises:
        Problem: An edit is not possible: ``unknown_path``, or ``bad_request`` if a state cannot hold its value. The
            detail ``edit`` is the index of the edit.
    """
    values = component._state.snapshot()
    prepared = []
    for number, edit in enumerate(edits):
        try:
            prepared.append(_prepare(component, values, edit))
        except Problem as problem:
            problem.detail = {**(problem.detail or {}), "edit": number}
            raise
    return prepared


def _prepare(component: Component, values: dict[str, Any], edit: Edit) -> PreparedEdit:
    path = list(edit.path)
    if edit.delete == (edit.value is not msgspec.UNSET):
        raise Problem("bad_request", "an edit must have either a value or delete = true")
    for key in path:
        if type(key) not in _KEYS:
            raise Problem("bad_request", f"a path must consist of names and indices, got {key!r:.80}")
    if path[0] not in component._state.names or not component._is_state_attribute(str(path[0])):
        raise Problem("unknown_path", f"{component.name} has no state attribute {path[0]!r:.80}")
    value = None
    if not edit.delete:
        try:
            value = component._state.checked({path[0]: from_json(edit.value)})[path[0]]
        except BadValue as error:
            raise Problem("bad_request", f"invalid value: {error}") from None
        except StateError as error:
            raise Problem("bad_request", f"a state cannot hold the value: {error}") from None
    prepared = PreparedEdit(path, value, edit.delete)
    parent: Any = values
    for key in path[:-1]:
        parent = _step(component, parent, key)
    # A copy, because the following edits must not change the prepared value.
    _edit(component, parent, msgspec.structs.replace(prepared, value=deepcopy(value)), path[-1])
    return prepared


def _step(component: Component, node: Any, key: Any) -> Any:
    if isinstance(node, dict) and key in node:
        return node[key]
    if isinstance(node, list) and type(key) is int and 0 <= key < len(node):
        return node[key]
    raise Problem("unknown_path", f"the state of {component.name} has no item {key!r:.80}")


def _edit(component: Component, parent: Any, edit: PreparedEdit, key: Any) -> None:
    """Make one edit in a container, which belongs to a copy or to the state itself."""
    if isinstance(parent, dict):
        if edit.is_delete:
            _step(component, parent, key)
            del parent[key]
        else:
            parent[key] = edit.value
    elif isinstance(parent, list) and type(key) is int and 0 <= key <= len(parent):
        if key == len(parent):
            if edit.is_delete:
                raise Problem("unknown_path", f"the state of {component.name} has no item {key!r:.80}")
            parent.append(edit.value)
        elif edit.is_delete:
            del parent[key]
        else:
            parent[key] = edit.value
    else:
        raise Problem("unknown_path", f"the state of {component.name} has no editable item {key!r:.80}")


def make(component: Component, edits: Sequence[PreparedEdit]) -> None:
    """Make prepared edits in the state itself. Call it right after `prepare`.

    Raises:
        StateError: An edit is not possible after all. The edits before it were made.
    """
    for edit in edits:
        *inner, key = edit.path
        if not inner:
            if edit.is_delete:
                delattr(component, key)
            else:
                setattr(component, key, edit.value)
            continue
        _edit(component, component._state.at(inner), edit, key)
