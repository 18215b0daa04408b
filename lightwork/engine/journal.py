"""`Journal`, which records what enters an engine, and `NoJournal`, which records nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.listener.certificate import Certificate
from lightwork.engine.rules.events import Event, Outcome
from lightwork.link.peer import Peer
from lightwork.runtime import Ref
from lightwork.state.ops import Op

__all__ = ["BoundListener", "Journal", "NoJournal"]


class BoundListener(msgspec.Struct, frozen=True):
    """The address that workers dial, and the certificate that they expect there.

    Attributes:
        host, port: As bound.
        socket: Name of the Unix socket, empty without one.
        certificate: None where the link is plain.
    """

    host: str
    port: int
    socket: str
    certificate: Certificate | None


class Journal(Protocol):
    """Records what enters an engine, so that another engine can continue after this one was killed.

    `edited` may be called in any thread, everything else in the loop's thread. Methods that are named by a fact record
    that fact.
    """

    @property
    def is_kept(self) -> bool:
        """Whether anything is recorded. Then a worker keeps what it has sent until that is on disk."""
        ...

    @property
    def owner(self) -> str:
        """Id of the scheduler, which its runtimes know."""
        ...

    @property
    def generation(self) -> int:
        """Number of the schedulers that have written to this journal, this one included. 0 where nothing is kept."""
        ...

    @property
    def address(self) -> BoundListener | None:
        """Where the workers of the killed scheduler dial; None without one."""
        ...

    def begin(self, listener: BoundListener) -> None:
        """Record from now on, beginning with a snapshot of this moment.

        Raises:
            JournalError: The journal cannot be written.
        """
        ...

    async def aclose(self, *, is_over: bool) -> None:
        """Record what is left and close the file. `is_over`: the app has ended gracefully, and no worker is left.

        Raises:
            JournalError: Not everything could be written.
        """
        ...

    def release(self) -> None:
        """Close the file as it is."""
        ...

    # --- numbers and moments ----------------------------------------------------------------------

    def next_call(self) -> int:
        """Return a number that no call of this app has had."""
        ...

    def when_committed(self, act: Callable[[], None]) -> None:
        """Call `act` in the loop once everything that was recorded so far is on disk."""
        ...

    async def committed(self) -> None:
        """Return once everything that was recorded so far is on disk."""
        ...

    # --- the machine and the states ---------------------------------------------------------------

    def happened(self, event: Event, now: float) -> None:
        """The machine was given this event at this time."""
        ...

    def frame_received(
        self, work: int, attempt: int, number: int, now: float, body: bytes, peer: Peer[Any] | None
    ) -> None:
        """A numbered frame of a worker was taken in. Its peer acknowledges it once the record is on disk."""
        ...

    def edited(self, name: str, op: Op) -> None:
        """The state of a component was edited on this side. Call it under the state's lock."""
        ...

    def component_added(self, component: Flow | Work, number: int, *, is_static: bool) -> None:
        """A component came into the tree. `number` is that of a work, 0 for a flow."""
        ...

    def component_removed(self, name: str, component: Flow | Work | None = None) -> None:
        """A component left the tree. `component` is None if the resumed flow has not made it again."""
        ...

    # --- workers ----------------------------------------------------------------------------------

    def launch_begun(self, work: int, attempt: int, name: str, launch: bytes, secret: bytes, profile: str) -> None:
        """A worker is about to be launched."""
        ...

    def placed(self, work: int, attempt: int, ref: Ref) -> None:
        """A worker was launched and is here."""
        ...

    def welcomed(self, work: int, attempt: int, *, picks_port: bool) -> None:
        """A worker is given its work with the state as it is now."""
        ...

    def output_read(self, work: int, attempt: int, offset: int) -> None:
        """The output of a worker was published up to this byte."""
        ...

    # --- calls of works that cache nothing ----------------------------------------------------------

    def call_made(self, work: int, call: int, hash: str) -> None:
        """The flow's code has made a call of a work that caches nothing."""
        ...

    def call_recovered(self, work: int, call: int, hash: str) -> None:
        """A worker has a call that the killed scheduler had sent and not recorded."""
        ...

    def call_joined(self, call: int) -> None:
        """The repeated run has joined a call in flight: its outcome answers no other call."""
        ...

    def call_settled(self, call: int, outcome: Outcome) -> None:
        """A call has ended."""
        ...

    def recall(self, work: int, hash: str) -> tuple[int, Outcome] | None:
        """Return the number and the outcome of a call that answers one of the repeated run; None to make it again."""
        ...

    def run_ended(self) -> None:
        """The flow's code has come to its end."""
        ...


class NoJournal:
    """Records nothing.

    Args:
        owner: See `Journal.owner`.
    """

    is_kept = False
    generation = 0
    address = None

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._call_numbers = itertools.count(1)

    def begin(self, listener: BoundListener) -> None:
        """See `Journal`, as all that follows."""

    async def aclose(self, *, is_over: bool) -> None: ...
    def release(self) -> None: ...

    def next_call(self) -> int:
        return next(self._call_numbers)

    def when_committed(self, act: Callable[[], None]) -> None:
        act()

    async def committed(self) -> None: ...
    def happened(self, event: Event, now: float) -> None: ...
    def frame_received(
        self, work: int, attempt: int, number: int, now: float, body: bytes, peer: Peer[Any] | None
    ) -> None:
        """See `Journal`."""

    def edited(self, name: str, op: Op) -> None: ...
    def component_added(self, component: Flow | Work, number: int, *, is_static: bool) -> None: ...
    def component_removed(self, name: str, component: Flow | Work | None = None) -> None: ...
    def launch_begun(self, work: int, attempt: int, name: str, launch: bytes, secret: bytes, profile: str) -> None: ...
    def placed(self, work: int, attempt: int, ref: Ref) -> None: ...
    def welcomed(self, work: int, attempt: int, *, picks_port: bool) -> None: ...
    def output_read(self, work: int, attempt: int, offset: int) -> None: ...
    def call_made(self, work: int, call: int, hash: str) -> None: ...
    def call_recovered(self, work: int, call: int, hash: str) -> None: ...
    def call_joined(self, call: int) -> None: ...
    def call_settled(self, call: int, outcome: Outcome) -> None: ...
    def recall(self, work: int, hash: str) -> tuple[int, Outcome] | None:
        return None

    def run_ended(self) -> None: ...
