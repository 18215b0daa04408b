"""Rolls back the changes of state that some code made before it raised.

While the code runs, a guard on each state remembers the value of an attribute before its first change in the context of
that code. Changes that other code makes at the same time stay, unless both changed the same attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lightwork._logging import get_logger
from lightwork.components.component import Component, Node
from lightwork.errors import LightworkError
from lightwork.state.state import State
from lightwork.state.tracking import MISSING, plain

__all__ = ["Rollback", "remember"]

_log = get_logger("lightwork.rollback")

_Before = dict[tuple[int, str], tuple[State, str, Any]]

_remembering: ContextVar[_Before | None] = ContextVar("lightwork_undo", default=None)


def remember(state: State, path: list[Any]) -> None:
    """Remember the value at `path` before an edit. A component that sets its own guard on a state calls this in it."""
    before = _remembering.get()
    if before is not None and (id(state), path[0]) not in before:
        name = path[0]
        value = plain(state.values[name]) if name in state.names else MISSING
        before[id(state), name] = state, name, value


class _Guard:
    """The guard of a state that has no other guard."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __call__(self, path: list[Any]) -> None:
        remember(self._state, path)


class Rollback:
    """Rolls back changes on an error. Belongs to the loop's thread; the guarded code may run in any thread.

    Args:
        root: The node at the top of the tree.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._running = 0
        self._guarded: dict[int, State] = {}

    @contextmanager
    def on_error(self) -> Iterator[None]:
        """Guard a block: if it raises, each attribute that it changed gets its previous value.

        For a running work both the change and its rollback are proposals. The work may refuse the rollback; that is
        logged.
        """
        before: _Before = {}
        self._running += 1
        for node in self._root._walk():
            if isinstance(node, Component) and node._state.guard is None:
                node._state.guard = _Guard(node._state)
                self._guarded[id(node._state)] = node._state
        token = _remembering.set(before)
        try:
            yield
        except BaseException:
            _remembering.set(None)
            _roll_back(before)
            raise
        finally:
            _remembering.reset(token)
            self._running -= 1
            if not self._running:
                self._unguard()

    def _unguard(self) -> None:
        for state in self._guarded.values():
            if isinstance(state.guard, _Guard):
                state.guard = None
        self._guarded.clear()


def _roll_back(before: _Before) -> None:
    for state, name, value in reversed(before.values()):
        try:
            if value is not MISSING:
                state.set(name, value)
            elif name in state.names:
                state.delete(name)
        except LightworkError as error:
            _log.error("a change could not be taken back", owner=state.owner, attribute=name, error=str(error))
