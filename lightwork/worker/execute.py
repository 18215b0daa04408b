"""Calls ``run`` and returns its outcome as the frame to send.

An ``async def run`` is a task of the agent's loop. A plain ``run`` has a separate thread. If the worker has the process
to itself, that is the main thread, because signals and many GUI and CUDA libraries need the main thread; the agent's
loop then runs in a second thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork.components.executor import WorkRunExecutor
from lightwork.link import messages
from lightwork.remote_errors import describe_error
from lightwork.status import Reason

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["SWITCH_INTERVAL", "EndOfCall", "PlainThread", "call_hook", "end_call", "enter", "run_coroutine"]

EndOfCall = messages.Result | messages.Failure | messages.Cancelled
"""The frames that end a call."""

_encode = msgspec.msgpack.Encoder().encode
_INTERRUPT = getattr(signal, "SIGURG", None)
"""Signal that interrupts the main thread. It is ignored by default and Python does not use it: no handler is lost."""

_USE_UP_PAUSE = 0.001
"""Seconds between two checks for an interruption that a thread has sent to itself."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which a computing thread gives the interpreter to the agent's thread: the delay of a state change."""


def enter(work: Work, args: bytes) -> Any:
    """Call the work's ``run`` through its executor; return a coroutine for an ``async def run``."""
    positional, named = work._signature.unbind(args)
    executor = work._run_executor_cls
    if executor is WorkRunExecutor:  # a shortcut with the same effect
        return work.run(*positional, **named)
    return executor(work, work.run)(*positional, **named)


async def call_hook(hook: Callable[..., Any], *args: Any) -> Any:
    """Call a hook that may be ``async def`` or plain, in the loop."""
    outcome = hook(*args)
    return await outcome if asyncio.iscoroutine(outcome) else outcome


async def run_coroutine(work: Work, call: int, args: bytes) -> EndOfCall:
    """Run an ``async def run``; return the frame of its outcome. Never raises."""
    try:
        return end_call(work, call, await enter(work, args))
    except asyncio.CancelledError:
        return messages.Cancelled(call)
    except BaseException as error:
        try:
            await call_hook(work.on_exception, error)
        except asyncio.CancelledError:
            return messages.Cancelled(call)
        except BaseException as raised:
            return _failure(call, raised)
        return _failure(call, error, swallowed=True)


def _run_plain(work: Work, call: int, args: bytes) -> EndOfCall:
    """Run a plain ``run`` in its thread; otherwise like `run_coroutine`."""
    try:
        return end_call(work, call, enter(work, args))
    except asyncio.CancelledError:
        return messages.Cancelled(call)
    except BaseException as error:
        try:
            outcome = work.on_exception(error)
            if asyncio.iscoroutine(outcome):
                asyncio.run(outcome)
        except asyncio.CancelledError:
            return messages.Cancelled(call)
        except BaseException as raised:
            return _failure(call, raised)
        return _failure(call, error, swallowed=True)


def end_call(work: Work, call: int, value: Any) -> EndOfCall:
    """Return the frame for a returned value: a `Result`, or a `Failure` if the value cannot be encoded."""
    try:
        return messages.Result(call, msgspec.Raw(_encode(value)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = (
            f"{type(work).__name__}.run returned a {type(value).__name__} that cannot be encoded: {error}. "
            "Return plain data, a dataclass or a msgspec.Struct; write large results to a file and return its path"
        )
        info = msgspec.structs.replace(describe_error(error), message=message, traceback="")
        return messages.Failure(call, Reason.INVALID_RETURN_VALUE, info)


def _failure(call: int, error: BaseException, *, swallowed: bool = False) -> messages.Failure:
    return messages.Failure(call, Reason.USER_EXCEPTION, describe_error(error), swallowed)


class PlainThread:
    """Runs the calls of a plain ``run``, one after the other, in the thread that calls `serve`.

    Args:
        work: The work.
        done: Called in this thread with the frame that ends each call.
    """

    def __init__(self, work: Work, done: Callable[[EndOfCall], None]) -> None:
        self._work = work
        self._done = done
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = 0
        self._is_main = False
        self._current: int | None = None
        self._cancelled: set[int] = set()
        # A thread uses only one of `_due` and `_is_interrupted`: the main thread, which signals interrupt, the first;
        # any other thread the second. They are two facts, not one enum: `_due` names its call, so that a late signal
        # does not interrupt the next call; `_is_interrupted` must outlast its call, until `_leave` has read it.
        self._due: int | None = None  # the call that a signal must interrupt, until its handler has done so
        self._is_interrupted = False  # whether the agent's thread has set an exception in this thread
        self._edits = threading.Condition(work._state.lock)  # only to ask whether this thread is in an edit
        self._lock = threading.Lock()  # held while another thread interrupts a call, and while a call is left
        self._left = 0  # number of unfinished jobs

    @property
    def is_idle(self) -> bool:
        """Whether the thread has no unfinished job."""
        return self._left == 0

    def submit(self, call: int, args: bytes) -> None:
        """Run a call after the calls that were submitted before."""
        self._cancelled.discard(call)  # from a cancellation that came too late for an earlier attempt
        self._submit(lambda: self._run(call, args))

    def submit_hook(self, hook: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Call a hook in the thread; `done` gets its exception or None, in the same thread."""

        def job() -> None:
            error: BaseException | None = None
            try:
                outcome = hook()
                if asyncio.iscoroutine(outcome):
                    asyncio.run(outcome)
            except BaseException as raised:
                error = raised
            done(error)

        self._submit(job)

    def _submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._left += 1
        self._jobs.put(job)

    def close(self) -> None:
        """Let `serve` return after the submitted jobs."""
        self._jobs.put(None)

    def cancel(self, call: int) -> None:
        """Raise `asyncio.CancelledError` in a running call; keep a waiting call from being entered.

        The caller must call `is_cancelling` afterwards.
        """
        self._cancelled.add(call)
        if self._is_main and _INTERRUPT is not None:
            # A signal also interrupts sleeps and system calls; its handler runs in the main thread.
            if self._current == call:
                self._due = call
                signal.pthread_kill(self._thread, _INTERRUPT)
            return
        # While this thread holds the state's lock, no edit is half done. An edit that waits for the lock is interrupted
        # before it begins.
        with self._lock, self._work._state.lock:
            if self._current == call:
                self._is_interrupted = True
                _raise_in(self._thread, asyncio.CancelledError)

    def is_cancelling(self, call: int) -> bool:
        """Return whether a cancelled call still runs uninterrupted; if so, interrupt it again. Call this until false.

        A signal has no effect on a thread that is about to block, or on a thread in the middle of an edit.
        """
        if self._due is None or self._due != call or self._current != call:
            return False
        assert _INTERRUPT is not None
        signal.pthread_kill(self._thread, _INTERRUPT)
        return True

    def serve(self) -> None:
        """Run the submitted jobs until `close`."""
        self._thread = threading.get_ident()
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main and _INTERRUPT is not None:
            signal.signal(_INTERRUPT, self._on_interrupt)
        while (job := self._next()) is not None:
            try:
                job()
            except asyncio.CancelledError:
                continue  # an interruption that came too late for its call
            finally:
                with self._lock:
                    self._left -= 1

    def _next(self) -> Callable[[], None] | None:
        while True:
            try:
                return self._jobs.get()
            except asyncio.CancelledError:
                continue  # as above

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self._due is None or self._due != self._current:
            return
        if self._is_editing():
            # An exception here could leave an edit made but not sent, and the two sides would differ. The agent asks
            # `is_cancelling`, which interrupts again.
            return
        self._due = None
        raise asyncio.CancelledError

    def _is_editing(self) -> bool:
        """Return whether this thread is in an edit: whether it holds the state's lock.

        An RLock has no public method for this, but `Condition.notify` raises if this thread does not hold the lock.
        Nothing waits on the condition, so `notify` has no other effect.
        """
        try:
            self._edits.notify()
        except RuntimeError:
            return False
        return True

    def _run(self, call: int, args: bytes) -> None:
        frame: EndOfCall = messages.Cancelled(call)
        try:
            self._current = call
            if call not in self._cancelled:
                frame = _run_plain(self._work, call, args)
            self._leave()
        except asyncio.CancelledError:
            self._leave()  # interrupted within this function: the frame has the call's outcome so far
        self._cancelled.discard(call)
        self._done(frame)

    def _leave(self) -> None:
        """Leave the current call: after this, nothing interrupts the thread."""
        while True:
            try:
                with self._lock:
                    self._current = self._due = None
                break
            except asyncio.CancelledError:
                continue
        if self._is_interrupted:
            _use_up(self._thread)
            self._is_interrupted = False


def _use_up(thread: int) -> None:
    """Make sure that no interruption of this thread, the current one, is pending.

    There is no way to tell whether the last interruption was raised already. So this function sends another one, which
    replaces a pending one, and waits for it. (Revoking a pending one with NULL would leave CPython's flag for a pending
    exception set. Every thread of the process would then check for it all the time, and under a tracer or profiler the
    threads would do nothing else.)
    """
    try:
        _raise_in(thread, asyncio.CancelledError)
        # The interpreter raises it at its next check, in practice before the first sleep.
        while True:
            time.sleep(_USE_UP_PAUSE)
    except asyncio.CancelledError:
        return


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Make a thread raise an exception at its next bytecode instruction."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
