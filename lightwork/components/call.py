"""`Call`, which a call of a work returns, and `Operation`, which a start or a stop returns."""

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

    Cancelling a task that awaits a call of a parallel work leaves the call running. A call of another work is
    cancelled when the last task that awaits it is cancelled. That task continues when the worker has ended the run,
    at most after the grace period. If the run raised another exception instead, the task gets that exception.

    Attributes:
        id: Number of the call, unique in the app.
        work: Name of the work.
        hash: Hash of the arguments, 32 hexadecimal digits; equal for equal arguments.
        status: The call's latest status.
        cached: Whether the result came from the cache, without a run.
        cache_reason: Why the result came from the cache, or why not.
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
        """Whether the call has ended, in success or not."""
        return self.status.stage in FINAL

    def cancel(self) -> bool:
        """Ask the worker to cancel the run. Await the call to wait until it has ended.

        Returns:
            False if the call has ended already.
        """
        if self.done:
            return False
        self._driver.cancel(self)
        return True

    def result(self) -> T_co:
        """Return what ``run`` returned, or raise what awaiting would raise.

        Raises:
            asyncio.InvalidStateError: The call has not ended.
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
        """Return what awaiting raises; None if it returns a value. Raise `asyncio.InvalidStateError` before the end."""
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
                    # Like any coroutine, end only when the run has ended: the worker has at most its
                    # grace period. A second cancellation stops this wait.
                    yield from self._wait()
                    if self.status.reason is Reason.USER_EXCEPTION and self._error is not None:
                        raise self._error from self._error.__cause__  # the run answered its cancellation with this
                raise
        return self.result()

    def _give_up(self) -> bool:
        """Handle the cancellation of a waiting task: cancel the call if no other task waits. Return whether it was."""
        self._interest -= 1
        return not self._parallel and self._interest <= 0 and not self._waiters and self.cancel()

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.work}: {self.status.stage.value}>"

    def __del__(self) -> None:
        # Someone stopped or cancelled the call on purpose; only a failure must not go unseen.
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
    """What ``run(...)`` of a parallel work returns: the call is queued; awaiting it returns the `Call` at once."""

    __slots__ = ("call",)

    def __init__(self, call: Call[T]) -> None:
        self.call: Call[T] = call

    def __await__(self) -> Generator[Any, None, Call[T]]:
        yield from ()  # an __await__ must be a generator
        return self.call


class Operation:
    """A start or a stop that was requested already. Await it to wait until it is done.

    Awaiting raises the error if it failed. Not awaiting is fine. Cancelling the task that awaits undoes nothing.
    """

    __slots__ = ("_error", "_loop", "_over", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._over = loop is None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def done(self) -> bool:
        """Whether it has ended."""
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
        """End it. Only the first outcome counts."""
        if self._over:
            return
        self._over, self._error = True, error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def is_awaited(self) -> bool:
        """Whether a task awaits it now."""
        return any(not waiter.done() for waiter in self._waiters)
