"""`Driver`, what an attached component talks to. The engine is one; a component without one runs in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from lightwork.components.call import Call, Operation
    from lightwork.components.component import Component, Node
    from lightwork.components.flow import Flow
    from lightwork.components.work import Work
    from lightwork.state.ops import Op

__all__ = ["Driver", "PassEnded"]


class PassEnded(BaseException):
    """Ends the present pass of a plain ``def run`` flow: a call that it needs has not succeeded yet.

    It is no `Exception`, so that a flow's ``except Exception`` does not stop it.
    """


class Driver(Protocol):
    """What runs a tree of components. A component without one runs in place."""

    def submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """Bind the arguments, queue the call, and give it; it may be joined to one in flight or already answered."""
        ...

    def run(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What ``work.run(...)`` gives: an awaitable, or in a pass of a plain ``def run`` flow the result."""
        ...

    def cancel(self, call: Call[Any]) -> None:
        """Ask for the call's cancellation. A call that is over is left alone."""
        ...

    def unretrieved(self, call: Call[Any]) -> None:
        """A failed call is gone and nobody ever asked for its outcome."""
        ...

    def start(self, work: Work) -> Operation:
        """Have the work's process up; done when it is, and an error where it never is."""
        ...

    def stop(self, work: Work, *, delete: bool) -> Operation:
        """Have no process of the work; done when it is gone. `delete` gives back what the runtime keeps for it."""
        ...

    def wait_confirmed(self, work: Work) -> Operation:
        """Done when the work has answered every proposal; an error where it refused one."""
        ...

    def edited(self, component: Component, op: Op) -> None:
        """A component's own state was edited on this side."""
        ...

    def added(self, node: Node) -> None:
        """A node, with all below it, came into the tree."""
        ...

    def removed(self, node: Node) -> None:
        """A node, with all below it, left the tree."""
        ...

    def schedule(self, flow: Flow, key: str, pattern: str, start: datetime | None) -> bool:
        """Whether a schedule of the flow is true in the present pass; see `Flow.schedule`. In any thread."""
        ...

    def in_pass(self) -> bool:
        """Whether the calling code is (in a task or thread of) the flow's present pass."""
        ...

    def request_stop(self, message: str | None) -> None:
        """End the app as a success; within a pass this does not return."""
        ...

    def request_fail(self, message: str | None) -> None:
        """End the app as a failure; within a pass this does not return."""
        ...
