"""The protocol that every runtime implements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import ClassVar, Protocol, Self, runtime_checkable

import msgspec

from lightwork.runtime._data import Address, Ref, Report, Spec

__all__ = ["Runtime"]


@runtime_checkable
class Runtime(Protocol):
    """A place where works run. Every method may be called concurrently with every other.

    Constructed as ``cls(name, options)``: the profile's name and an instance of `Options`. Entering the context
    acquires clients and helpers. Leaving it releases them and does not touch the workers.

    A runtime that needs long to accept a launch, for example because it makes machines first, has an attribute
    ``launch_within``: seconds that are added to the time that a worker has until it is ready. A runtime whose
    leftovers cost money also implements `Inventory`; a runtime that keeps what it made for later launches also
    implements `Caching`.

    Attributes:
        Options: Struct of the profile's keys, validated when the configuration is read.
        is_remote: Whether works run on other machines than the scheduler. If so, they get `cloud_build_config`,
            otherwise `local_build_config`.
        name: Name of the profile.
    """

    Options: ClassVar[type[msgspec.Struct]]
    is_remote: ClassVar[bool]
    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the addresses at which workers launched here can reach the listener, best first.

        The scheduler passes a `ListenerAddress`. With its ``accept``, a runtime that carries connections itself need
        not dial the listener.
        """
        ...

    async def launch(self, spec: Spec) -> Ref:
        """Launch the spec. Return when the platform has accepted it; the worker need not run yet.

        Launching the same spec again returns the same ref and starts nothing. After an error or a cancellation,
        `find` returns everything that was made, and it can be released.

        Raises:
            Rejected, NoCapacity, Conflict, Unreachable: See their classes.
        """
        ...

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return a report for each ref, in order. A ref that fails is `Standing.UNKNOWN` and raises nothing."""
        ...

    async def wait(self, ref: Ref) -> Report:
        """Return when the launch has ended (`Standing.is_over`). Cancelling leaves everything as it was."""
        ...

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the whole process tree: send SIGTERM, and SIGKILL after `grace` seconds. 0 kills at once.

        Return when the launch has ended. Valid also while the launch is pending; succeeds at once if it is absent.
        May be repeated: a call with a shorter grace shortens it.
        """
        ...

    def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Yield the output as ``(offset, bytes)`` from byte `start` on: standard output and error in one stream.

        With `follow` it goes on until the worker has ended and all output has been yielded. The output stays readable
        after the exit, until `release`. An unknown ref has no output.
        """
        ...

    async def release(self, ref: Ref) -> None:
        """Free everything that the launch made; end it first if it still runs. Idempotent.

        Raises:
            ExceptionGroup: Everything was tried; one exception for each thing that could not be freed.
        """
        ...

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return every ref of this owner that was not released, in any standing.

        Raise an error if the list would be incomplete.
        """
        ...
