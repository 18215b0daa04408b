"""Enters ``run`` and says what came of it, as the frame to send.

A coroutine runs as a task of the agent's loop. A plain ``run`` has a thread for itself: the main thread where
the worker has a process of its own, so that what wants the main thread (signals, many GUI and CUDA
libraries) works; the agent's loop then runs in a second one.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import signal
import threading
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
"""Interrupts the main thread. Ignored by default and used by nothing else in Python, so nobody's handler is lost."""

SWITCH_INTERVAL = 0.0005
"""Seconds after which a computing thread lets the agent's have the interpreter: the delay of a state change."""


def enter(work: Work, args: bytes) -> Any:
    """Call the work's ``run`` through its executor; gives a coroutine where it is ``async def``."""
    positional, named = work._signature.unbind(args)
    executor = work._run_executor_cls
    if executor is WorkRunExecutor:  # which would do no more than this
        return work.run(*positional, **named)
    return executor(work, work.run)(*positional, **named)


async def call_hook(hook: Callable[..., Any], *args: Any) -> Any:
    """Call a hook that may be ``async def`` or plain, in the loop."""
    outcome = hook(*args)
    return await outcome if asyncio.iscoroutine(outcome) else outcome


async def run_coroutine(work: Work, call: int, args: bytes) -> EndOfCall:
    """Run an ``async def run``; gives the frame that says what came of it, and never raises."""
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
    """Like `run_coroutine`, for a plain ``run`` in its own thread."""
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
    """The frame for a returned value: a `Result`, or a `Failure` where the value cannot be encoded."""
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
    """Runs plain ``run`` calls one after the other in the thread that calls `serve`.

    Args:
        work: The work.
        done: Called in that thread with the frame that ends each call.
    """

    def __init__(self, work: Work, done: Callable[[EndOfCall], None]) -> None:
        self._work = work
        self._done = done
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = 0
        self._is_main = False
        self._current: int | None = None
        self._cancelled: set[int] = set()
        self._due: int | None = None  # the present call, while it is to be interrupted by a signal and was not yet
        self._lock = threading.Lock()  # held while a call is interrupted from another thread, and while it is left
        self._is_interrupted = False  # whether the present call was interrupted from another thread
        self._left = 0  # jobs that are not done

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs in the thread."""
        return self._left == 0

    def submit(self, call: int, args: bytes) -> None:
        """Run a call after those submitted before."""
        self._cancelled.discard(call)  # a cancellation that came too late for an earlier try of it
        self._submit(lambda: self._run(call, args))

    def submit_hook(self, hook: Callable[[], Any], done: Callable[[BaseException | None], None]) -> None:
        """Call a plain hook in the thread; `done` gets what it raised, in that thread."""

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
        """Let `serve` return after what was submitted."""
        self._jobs.put(None)

    def cancel(self, call: int) -> None:
        """Raise `asyncio.CancelledError` where the call runs; one that has not begun does not begin.

        See `is_cancelling` for what is due after it.
        """
        self._cancelled.add(call)
        if self._is_main and _INTERRUPT is not None:
            # A signal interrupts sleeps and system calls too; the handler runs in the main thread.
            if self._current == call:
                self._due = call
                signal.pthread_kill(self._thread, _INTERRUPT)
            return
        # Under the state's lock no edit is half made; one that waits for the lock is interrupted before it begins.
        with self._lock, self._work._state.lock:
            if self._current == call:
                self._is_interrupted = True
                _raise_in(self._thread, asyncio.CancelledError)

    def is_cancelling(self, call: int) -> bool:
        """Whether a call that was cancelled has not noticed; it is interrupted again then. Ask until it has.

        A signal is lost on a thread that is about to block, and it comes too early to one in the middle of an edit.
        """
        if self._due is None or self._due != call or self._current != call:
            return False
        assert _INTERRUPT is not None
        signal.pthread_kill(self._thread, _INTERRUPT)
        return True

    def serve(self) -> None:
        """Run what is submitted until `close`."""
        self._thread = threading.get_ident()
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main and _INTERRUPT is not None:
            signal.signal(_INTERRUPT, self._on_interrupt)
        while (job := self._next()) is not None:
            try:
                job()
            except asyncio.CancelledError:
                continue  # an interruption that came too late for the call that it was meant for
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
        if self._work._state.lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks it
            # In the middle of an edit: raised here, it would be made and not told, and the two sides would differ.
            return
        self._due = None
        raise asyncio.CancelledError

    def _run(self, call: int, args: bytes) -> None:
        frame: EndOfCall = messages.Cancelled(call)
        try:
            self._current = call
            if call not in self._cancelled:
                frame = _run_plain(self._work, call, args)
            self._leave()
        except asyncio.CancelledError:
            self._leave()  # interrupted between the lines of this function: the frame says what had come of it
        self._cancelled.discard(call)
        self._done(frame)

    def _leave(self) -> None:
        """From here on nothing interrupts the thread any more."""
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
    """Leave no interruption of this thread, the present one, on its way.

    Nobody can tell whether the one that was sent has been raised. Another takes its place, and is awaited here. (To
    take one back with NULL would leave CPython's flag set that one is on its way: every thread of the process would
    look for it from then on, and under a tracer or profiler they would do nothing else.)
    """
    try:
        _raise_in(thread, asyncio.CancelledError)
        while True:
            pass
    except asyncio.CancelledError:
        return


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Have a thread raise this at its next line."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
