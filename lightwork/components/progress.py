"""The progress of a flow's schedules and iterations, which last longer than one pass.

Progress is part of the flow's state, as plain data: a restored flow continues where it was. The key of a schedule or an
iteration is the place of the call in the code, counted from the start of the function, or a key that the user gives.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from lightwork.components.cron import Schedule
from lightwork.errors import StateError, UsageError

__all__ = ["Iteration", "Progress", "call_site"]

T = TypeVar("T")

_enclosing: contextvars.ContextVar[str] = contextvars.ContextVar("lightwork_enclosing", default="")
"""The iterations around the running code, each with its item: an inner one starts again for each outer item."""


class Iteration(msgspec.Struct):
    """The progress of one iteration.

    Attributes:
        position: Index of the present item.
        is_finished: Whether it has passed the last item.
    """

    position: int = 0
    is_finished: bool = False


class Progress(msgspec.Struct, omit_defaults=True):
    """The data that a flow keeps from one pass to the next, besides its attributes.

    Attributes:
        schedules: By key.
        iterations: By key.
    """

    schedules: dict[str, Schedule] = {}
    iterations: dict[str, Iteration] = {}

    def snapshot(self) -> dict[str, Any]:
        """Return a plain copy; an empty dict if there is no progress."""
        # The dicts are copied first, in one step: the thread of a pass may add to them meanwhile.
        plain: dict[str, Any] = msgspec.to_builtins(Progress(dict(self.schedules), dict(self.iterations)))
        return plain

    @staticmethod
    def checked(data: Any) -> Progress:
        """Return the progress that a `snapshot` describes.

        Raises:
            StateError: `data` is not a snapshot.
        """
        try:
            return msgspec.convert(data, Progress)
        except msgspec.ValidationError as error:
            raise StateError(f"the calls in the state of a flow do not fit: {error}") from None

    def iterate(self, items: Iterable[T], key: str, *, is_once: bool) -> Iterator[T]:
        """Yield the items from the iteration's position on; see `Flow.iterate`.

        Raises:
            UsageError: `items` cannot be iterated over.
        """
        if not isinstance(items, Iterable):
            raise UsageError(f"iterate needs something to iterate over, not {items!r:.80}, a {type(items).__name__}")
        return self._iterate(items, key, is_once)

    def _iterate(self, items: Iterable[T], key: str, is_once: bool) -> Iterator[T]:
        outer = _enclosing.get()
        key = f"{outer}{key}"
        iteration = self.iterations.setdefault(key, Iteration())
        if iteration.is_finished:
            if is_once:
                return
            iteration.position, iteration.is_finished = 0, False
        first = iteration.position
        try:
            for position, item in enumerate(items):
                if position < first:
                    continue
                iteration.position = position
                inner = f"{key}[{position}]>"
                _enclosing.set(inner)
                yield item
                self._drop_inside(inner)
            iteration.position, iteration.is_finished = 0, True
        finally:
            _enclosing.set(outer)

    def _drop_inside(self, outer: str) -> None:
        """Forget the iterations inside an item that is done."""
        for key in [key for key in self.iterations if key.startswith(outer)]:
            del self.iterations[key]


def call_site(depth: int) -> str:
    """Return the place of the caller `depth` frames up: its function, and the line relative to the function."""
    frame = sys._getframe(depth + 1)
    code = frame.f_code
    return f"{code.co_qualname}+{frame.f_lineno - code.co_firstlineno}"
