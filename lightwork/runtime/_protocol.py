"""What every runtime implements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import ClassVar, Protocol, Self, runtime_checkable

import msgspec

from lightwork.runtime._data import Address, Ref, Report, Spec

__all__ = ["Runtime"]


@runtime_checkable
class Runtime(Protocol):
    """What a place to run works implements. Every method may be called concurrently with every other.

    Constructed as ``cls(name, options)``: the profile's name and an instance of `Options`. Entering the
    context acquires clients and helpers; leaving it releases those and leaves the workers alone.

    A runtime that takes long to accept a launch, since machines have to be made first, says so in an attribute
    ``launch_within``: seconds that are added to what a worker has until it is ready. One whose leftovers cost
    something implements `Inventory` too, and one that keeps what it made for later launches `Caching`.

    Attributes:
        Options: Struct of the profile's keys, validated when the configuration is read.
        is_remote: Whether works run on other machines than the scheduler's: they then get
            `cloud_build_config`, else `local_build_config`.
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
        """Addresses at which workers launched here can reach the listener, best first.

        The scheduler gives a `Door`, so that a runtime which carries connections itself need not dial the listener.
        """
        ...

    async def launch(self, spec: Spec) -> Ref:
        """Bring the spec to life; returns when the platform has accepted it.

        Launching the same spec again gives the same ref and starts nothing. After an error or a
        cancellation, whatever was made is found by `find` and can be released.

        Raises:
            Rejected, NoCapacity, Conflict, Unreachable: As their classes say.
        """
        ...

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """What became of each, in order. Never raises for a single one: that one is `Standing.UNKNOWN`."""
        ...

    async def wait(self, ref: Ref) -> Report:
        """Return once it is over (`Standing.is_over`). Cancelling leaves everything as it was."""
        ...

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the whole process tree: ask (SIGTERM), and force after `grace` seconds. 0 forces at once.

        Valid while it is pending; something absent is a success; may be repeated, and a repetition with
        a shorter grace shortens it. Returns when it is over.
        """
        ...

    def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Its output, standard and error in one stream, as ``(offset, bytes)`` from byte `start` on.

        With `follow` it goes on until the worker is over and everything has been given. The output stays
        readable after the exit, until `release`. A ref that is not known has no output.
        """
        ...

    async def release(self, ref: Ref) -> None:
        """Give back everything that the launch made; ends it first if it still runs. Idempotent.

        Raises:
            ExceptionGroup: Of what could not be given back, after everything was tried.
        """
        ...

    async def find(self, owner: str) -> Sequence[Ref]:
        """Every ref of this owner that was not released, in every standing; all of them, or an error."""
        ...
