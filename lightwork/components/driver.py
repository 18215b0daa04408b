"""`Driver`, the interface between an attached component and the engine. A component without one runs in place."""

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

    It is not an `Exception`: the ``except Exception`` of a flow must not catch it.
    """


class Driver(Protocol):
    """Runs a tree of components. A component without a driver runs in place."""

    def submit(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Any]:
        """Bind the arguments, queue the call and return it. It may join a call in flight, or come from the cache."""
        ...

    def run(self, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the value of ``work.run(...)``: an awaitable, or in a pass of a plain ``def run`` flow the result."""
        ...

    def cancel(self, call: Call[Any]) -> None:
        """Request the cancellation of the call. Do nothing if the call has ended."""
        ...

    def unretrieved(self, call: Call[Any]) -> None:
        """Report a failed call that was garbage-collected before its outcome was retrieved."""
        ...

    def start(self, work: Work) -> Operation:
        """Start the work's process. The operation ends when the process is up, or with an error if it never is."""
        ...

    def stop(self, work: Work, *, delete: bool) -> Operation:
        """End the work's process. The operation ends when it is gone. `delete` also releases what the runtime keeps."""
        ...

    def wait_confirmed(self, work: Work) -> Operation:
        """Wait until the work has answered every proposal. The operation fails if the work refused one."""
        ...

    def edited(self, component: Component, op: Op) -> None:
        """Handle an edit of a component's own state on this side."""
        ...

    def added(self, node: Node) -> None:
        """Handle a node that was added to the tree, with all below it."""
        ...

    def removed(self, node: Node) -> None:
        """Handle a node that was removed from the tree, with all below it."""
        ...

    def schedule(self, flow: Flow, key: str, pattern: str, start: datetime | None) -> bool:
        """Return whether a schedule of the flow is true in the present pass; see `Flow.schedule`. Thread-safe."""
        ...

    def in_pass(self) -> bool:
        """Return whether the calling code runs in the flow's present pass, or in a task or thread of it."""
        ...

    def request_stop(self, message: str | None) -> None:
        """End the app as a success. Within a pass this does not return."""
        ...

    def request_fail(self, message: str | None) -> None:
        """End the app as a failure. Within a pass this does not return."""
        ...
