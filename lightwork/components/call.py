"""`Call`, what a call of a work gives its caller, and `Operation`, what a start or a stop gives."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lightwork.status import FINAL, Reason, Stage, WorkStatus

if TYPE_CHECKING:
    from lightwork.components.driver import Driver

__all__ = ["Call", "Operation", "Queued"]

_NOT_STARTED = WorkStatus(Stage.NOT_STARTED, 0.0)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Generic[T_co]):
    """One call of a work: await it for what ``run`` returned.

    Any number of tasks may await it. Awaiting raises what ``run`` raised (see `Work` for
    ``raise_exception``), a child of `WorkError` where the call failed for another reason, or
    `asyncio.CancelledError` where it was cancelled.

    Cancelling a task that awaits leaves a call of a parallel work running. A call of another work is
    cancelled when the last one interested in it is; the awaiting task then goes on when the worker has
    ended the run (at most the grace period). What the run raised instead of being cancelled is raised there.

    Attributes:
        id: Number of the call, unique in the app.
        work: Name of the work.
        hash: Hash of the arguments, 32 hexadecimal digits; equal for equal arguments.
        status: The call's latest status.
        cached: Whether it was answered without running.
        cache_reason: Why it was, or was not.
    """

    __slots__ = (
        "__weakref__",
        "_driver",
        "_error",
        "_interest",
        "_loop",
        "_parallel",
        "_retrieved",
        "_value",
        "_waiters",
        "_work_id",
        "cache_reason",
        "cached",
        "hash",
        "id",
        "status",
        "work",
    )

    def __init__(
        self,
        driver: Driver,
        loop: asyncio.AbstractEventLoop,
        id: int,
        work_id: int,
        work: str,
        hash: str,
        parallel: bool,
    ) -> None:
        self._driver = driver
        self._loop = loop
        self._parallel = parallel
        self._work_id = work_id
        self._interest = 1
        self._waiters: list[asyncio.Future[None]] = []
        self._value: Any = None
        self._error: BaseException | None = None
        self._retrieved = False
        self.id: int = id
        self.work: str = work
        self.hash: str = hash
        self.status: WorkStatus = _NOT_STARTED
        self.cached: bool = False
        self.cache_reason: str = ""

    @property
    def done(self) -> bool:
        """Whether the call is over, however it ended."""
        return self.status.stage in FINAL

    def cancel(self) -> bool:
        """Ask the worker to cancel the run; await the call to know when it has.

        Returns:
            False where the call is over already.
        """
        if self.done:
            return False
        self._driver.cancel(self)
        return True

    def result(self) -> T_co:
        """What ``run`` returned, or raises what awaiting would raise.

        Raises:
            asyncio.InvalidStateError: The call is not over.
        """
        if self.status.stage not in FINAL:
            raise asyncio.InvalidStateError(f"call {self.id} of {self.work} is {self.status.stage.value}")
        self._retrieved = True
        if self._error is not None:
            if isinstance(self._error, asyncio.CancelledError):
                raise asyncio.CancelledError(*self._error.args)
            raise self._error
        value: T_co = self._value
        return value

    def exception(self) -> BaseException | None:
        """What awaiting raises, None where it gives a value. Raises `asyncio.InvalidStateError` before the end."""
        if not self.done:
            raise asyncio.InvalidStateError(f"call {self.id} of {self.work} is {self.status.stage.value}")
        self._retrieved = True
        return self._error

    def __await__(self) -> Generator[Any, None, T_co]:
        while self.status.stage not in FINAL:
            waiter = self._wait()
            try:
                yield from waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                self._retrieved = True
                if self._give_up():
                    # Like any coroutine, be over only when what it runs is: the worker has at most its
                    # grace period. A second cancellation gives up waiting.
                    yield from self._wait()
                    if self.status.reason is Reason.USER_EXCEPTION and self._error is not None:
                        raise self._error from self._error.__cause__  # what the run made of its cancellation
                raise
        return self.result()

    def _give_up(self) -> bool:
        """A waiting task was cancelled: cancel the call if nobody else wants it; says whether that was done."""
        self._interest -= 1
        return not self._parallel and self._interest <= 0 and not self._waiters and self.cancel()

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.work}: {self.status.stage.value}>"

    def __del__(self) -> None:
        # A call that was stopped or cancelled is what somebody asked for; only a failure must not go unseen.
        if self._error is not None and not self._retrieved and self.status.stage is Stage.FAILED:
            self._driver.unretrieved(self)

    def _wait(self) -> asyncio.Future[None]:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def _join(self) -> None:
        self._interest += 1
        self._retrieved = False

    def _settle(self, status: WorkStatus, value: Any = None, error: BaseException | None = None) -> None:
        self._value = value
        self._error = error
        self.status = status
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Queued(Generic[T]):
    """What ``run(...)`` of a parallel work gives: the call is queued; awaiting gives the `Call` at once."""

    __slots__ = ("call",)

    def __init__(self, call: Call[T]) -> None:
        self.call: Call[T] = call

    def __await__(self) -> Generator[Any, None, Call[T]]:
        yield from ()  # an __await__ must be a generator
        return self.call


class Operation:
    """Something that has been asked for already (a start, a stop); await it to know when it is done.

    Awaiting raises what went wrong. Not awaiting it is fine. Cancelling the task that awaits takes
    nothing back.
    """

    __slots__ = ("_error", "_loop", "_over", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._over = loop is None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._over

    def __await__(self) -> Generator[Any, None, None]:
        while not self._over:
            assert self._loop is not None
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            yield from waiter
        if self._error is not None:
            raise self._error

    def finish(self, error: BaseException | None = None) -> None:
        """End it; the first outcome stays."""
        if self._over:
            return
        self._over, self._error = True, error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it now."""
        return any(not waiter.done() for waiter in self._waiters)
