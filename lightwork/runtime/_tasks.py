"""The base class of runtimes whose launches are tasks of the scheduler's process."""

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
    """A `Runtime` whose launches are tasks. Launches have no output and are kept in memory only.

    A subclass implements ``launch``, ``wait`` and ``stop``. It checks ``_known`` before a launch and puts the launch
    into ``_launches``, by name. The launch stays there until it is released.

    Attributes:
        name: Name of the profile.
    """

    is_remote: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._launches: dict[str, _LaunchT] = {}

    def _ask(self) -> None:
        """Raise if the platform does not answer now. Tasks always answer."""
        return

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the listener's Unix socket, then its address: the loopback if it listens on every interface."""
        return listener.from_here

    def _known(self, spec: Spec) -> _LaunchT | None:
        """Return the launch of this spec, None if it was not launched yet.

        Raises:
            Conflict: Another spec was launched under the same name.
        """
        launch = self._launches.get(spec.name)
        if launch is not None and launch.spec != spec:
            raise Conflict(f"{spec.name} was launched already, from another spec; use each name once")
        return launch

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return a report for each ref, in order."""
        return [self._report(ref) for ref in refs]

    def _report(self, ref: Ref) -> Report:
        """Return the report for one ref."""
        launch = self._launches.get(ref.name)
        return ABSENT if launch is None else launch.report

    @abc.abstractmethod
    async def wait(self, ref: Ref) -> Report:
        """See `Runtime.wait`."""

    @abc.abstractmethod
    async def stop(self, ref: Ref, grace: float) -> None:
        """See `Runtime.stop`."""

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Yield nothing: the output goes to the process's own streams. With `follow`, end when the task does."""
        self._ask()
        if follow:
            await self.wait(ref)
        pieces: Sequence[tuple[int, bytes]] = ()
        for piece in pieces:
            yield piece

    async def release(self, ref: Ref) -> None:
        """Forget the launch; end it first if it runs."""
        try:
            await self.stop(ref, 0)
        except RuntimeFailure as error:
            raise ExceptionGroup(f"{ref.name} could not be released", [error]) from None
        self._launches.pop(ref.name, None)

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return the ref of every launch of this owner that was not released."""
        self._ask()
        return [self._ref(name) for name, launch in self._launches.items() if launch.spec.owner == owner]

    def _ref(self, name: str) -> Ref:
        """Return the ref of a launch."""
        return Ref(self.name, name)
