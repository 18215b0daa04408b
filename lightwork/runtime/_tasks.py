"""What runtimes share whose launches are tasks of the scheduler's own process."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from lightwork.runtime._data import ABSENT, Address, Ref, Report, Spec
from lightwork.runtime._failures import Conflict, RuntimeFailure

__all__ = ["TaskRuntime"]


class _Launch(Protocol):
    spec: Spec
    report: Report


_LaunchT = TypeVar("_LaunchT", bound=_Launch)


class TaskRuntime(abc.ABC, Generic[_LaunchT]):
    """A `Runtime` whose launches are tasks: there is no output, and what is known of them is in memory.

    A subclass launches, waits and stops. It puts what it launches into ``_launches``, by name, where it stays until it
    is released; ``_known`` is the look before that.

    Attributes:
        name: Name of the profile.
    """

    is_remote: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._launches: dict[str, _LaunchT] = {}

    def _ask(self) -> None:
        """Raise where the platform does not answer now. A task always does."""
        return

    async def routes(self, listener: Address) -> Sequence[Address]:
        """The listener's Unix socket, then its own address; where it listens on every interface, the loopback's."""
        return listener.from_here

    def _known(self, spec: Spec) -> _LaunchT | None:
        """What was launched from this spec already, None if nothing was.

        Raises:
            Conflict: Something was launched under its name from another.
        """
        launch = self._launches.get(spec.name)
        if launch is not None and launch.spec != spec:
            raise Conflict(f"{spec.name}: launched already, from another spec; names are used once")
        return launch

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """What became of each."""
        return [self._report(ref) for ref in refs]

    def _report(self, ref: Ref) -> Report:
        """What became of one."""
        launch = self._launches.get(ref.name)
        return ABSENT if launch is None else launch.report

    @abc.abstractmethod
    async def wait(self, ref: Ref) -> Report:
        """See `Runtime.wait`."""

    @abc.abstractmethod
    async def stop(self, ref: Ref, grace: float) -> None:
        """See `Runtime.stop`."""

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Nothing: the output is the process's own. With `follow` it ends when the task does."""
        self._ask()
        if follow:
            await self.wait(ref)
        pieces: Sequence[tuple[int, bytes]] = ()
        for piece in pieces:
            yield piece

    async def release(self, ref: Ref) -> None:
        """Forget the launch; ends it first if it runs."""
        try:
            await self.stop(ref, 0)
        except RuntimeFailure as error:
            raise ExceptionGroup(f"{ref.name} could not be released", [error]) from None
        self._launches.pop(ref.name, None)

    async def find(self, owner: str) -> Sequence[Ref]:
        """Every launch of this owner that was not released."""
        self._ask()
        return [self._ref(name) for name, launch in self._launches.items() if launch.spec.owner == owner]

    def _ref(self, name: str) -> Ref:
        """The ref of a launch."""
        return Ref(self.name, name)
