"""`FlowDelta`, a change that a flow proposes to a running work, and the default decision of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lightwork.errors import ProposalRefused, StateError
from lightwork.state.ops import DELETE, SET, SPLICE, UPDATE
from lightwork.state.values import unpacked

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["FlowDelta"]


class FlowDelta(msgspec.Struct, frozen=True):
    """A change of a running work's state that the flow proposes; `Work.apply_flow_delta` takes or refuses it.

    Attributes:
        op: The edit, as `lightwork.state.ops` describes it.
        expected: The plain value that the flow saw at the path. If items of a list are removed: these items.
        has_expected: Whether the flow saw a value. None if a change by the work cannot be detected: for additions to
            a list or set, values above 64 KiB, and edits on top of edits that are not answered yet.
    """

    op: Any
    expected: Any = None
    has_expected: bool | None = None

    @property
    def path(self) -> tuple[Any, ...]:
        """The attribute, then keys and indices into it."""
        return tuple(self.op[1])

    @property
    def name(self) -> str:
        """The name of the attribute."""
        return str(self.op[1][0])

    @property
    def value(self) -> Any:
        """The value to assign; None if the edit is not an assignment."""
        return unpacked(self.op[2]) if self.op[0] == SET else None

    def conflict(self, work: Work) -> str | None:
        """Return how the work has changed the place since the flow saw it. None if there is no conflict."""
        if self.has_expected is None:
            return None
        exists, present = self._present(work)
        if exists == self.has_expected and (not exists or present == self.expected):
            return None
        seen = repr(self.expected) if self.has_expected else "nothing"
        found = repr(present) if exists else "nothing"
        return f"the flow saw {seen:.80} there, and the work has {found:.80} by now"

    def _present(self, work: Work) -> tuple[bool, Any]:
        try:
            present = work._state.at(self.op[1])
        except StateError:
            return False, None
        if self.op[0] == SPLICE and isinstance(present, list):
            start, removed = self.op[2:4]
            return True, present[start : start + removed]
        return True, present

    def decide(self, work: Work) -> None:
        """Make the edit unless the work has changed the same place meanwhile.

        Raises:
            ProposalRefused: The work has changed it, or the path no longer exists. Nothing was changed.
        """
        owner, name = type(work).__name__, self.name
        if name not in work._state.names:
            raise ProposalRefused(f"{owner} has no state attribute {name!r}")
        if self.op[0] == DELETE and len(self.path) == 1:
            raise ProposalRefused(f"a flow cannot delete the attribute {name!r} of a running {owner}")
        where = f"{owner}.{name}" + "".join(f"[{key!r}]" for key in self.path[1:])
        with work._state.lock:  # a plain run edits in another thread
            if conflict := self.conflict(work):
                raise ProposalRefused(
                    f"{where} was changed by the work and the flow at the same time: {conflict}. "
                    "Let one side own the attribute, or merge the two in apply_flow_delta"
                )
            try:
                self.apply(work)
            except (LookupError, TypeError, AttributeError) as error:
                raise ProposalRefused(
                    f"{where} is not there any more in the form that the flow edited: {error}"
                ) from error

    def apply(self, work: Work) -> None:
        """Make the edit in the work's state.

        Raises:
            StateError, LookupError, TypeError, AttributeError: The path no longer exists. Nothing was changed.
        """
        kind, path, *rest = self.op
        state = work._state
        if kind == SPLICE:
            start, removed, items = rest
            edited = state.at(path)
            start = len(edited) if start < 0 else start
            if start + removed > len(edited):
                raise IndexError(f"there are {len(edited)} items, not {start + removed}")
            edited[start : start + removed] = unpacked(items)
        elif kind == UPDATE:
            edited = state.at(path)
            edited -= set(unpacked(rest[1]))
            edited |= set(unpacked(rest[0]))
        elif len(path) == 1:
            state.delete(path[0]) if kind == DELETE else state.set(path[0], unpacked(rest[0]))
        elif kind == DELETE:
            del state.at(path[:-1])[path[-1]]
        else:
            state.at(path[:-1])[path[-1]] = unpacked(rest[0])
