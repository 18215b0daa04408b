"""Looks up the work, the component or the call that a request names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightwork.components.work import Work
from lightwork.engine.history import CallRecord
from lightwork.server.web import Problem

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["find_call", "find_component", "find_work"]


def find_work(api: Api, name: str) -> Work:
    """Return the work of this name. Raises `Problem` ``unknown_work`` if it does not exist."""
    found = api.views.find(name)
    if not isinstance(found, Work):
        raise Problem("unknown_work", f"there is no work {name!r:.200}", near=api.near(name, works=True))
    return found


def find_component(api: Api, name: str) -> Any:
    """Return the component of this name. Raises `Problem` ``unknown_component`` if it does not exist."""
    found = api.views.find(name)
    if found is None:
        raise Problem("unknown_component", f"there is no component {name!r:.200}", near=api.near(name))
    return found


def find_call(api: Api, number: str) -> CallRecord:
    """Return the call with this number. Raises `Problem` ``unknown_call`` if it is not in the history."""
    found = api.history.call(int(number)) if number.isascii() and number.isdigit() and len(number) < 20 else None
    if found is None:
        raise Problem("unknown_call", f"there is no call {number!r:.40}, or it is too old to be remembered")
    return found
