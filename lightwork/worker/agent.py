"""The worker's end: dials back, unpacks the work, takes calls, streams state and results, ends in order.

Everything here runs in the agent's event loop but for `Agent._edited`, which is called where the state is
edited, under the state's lock.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork import wire
from lightwork._version import __version__
from lightwork.errors import LightworkError, StateError
from lightwork.link.connection import Connection, Frames
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.ops import OpBuffer
from lightwork.remote import describe_error
from lightwork.state import unpacked
from lightwork.status import Reason
from lightwork.worker.dial import dial
from lightwork.worker.execute import EndOfCall, PlainThread, call_hook, run_coroutine
from lightwork.worker.service import ServiceWatch

if TYPE_CHECKING:
    from lightwork.work import Work

__all__ = ["Agent", "Refused"]

_FLUSH_EVERY = 0.001
"""Seconds between two deltas sent from within a busy coroutine; one that is alone leaves at once."""

_ON_EXIT_SHARE = 0.4
"""Part of the grace period that ``on_exit`` has at least; the rest is for the calls that are cancelled."""


class Refused(LightworkError):  # noqa: N818 -- named as its siblings in `lightwork.errors`
    """The scheduler does not want this worker, and says why."""


class Agent:
    """One worker.

    Args:
        ticket: What the launch gave.

    Attributes:
        work: The work, once it is unpacked.
        plain: The thread of a plain ``run``; None where it is ``async def``.
    """

    def __init__(self, ticket: wire.Ticket) -> None:
        self._ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.work: Work | None = None
        self.plain: PlainThread | None = None
        self._peer: Peer[wire.FromScheduler] = Peer(self._on_frame, wire.decode_from_scheduler, 1 << 30)
        self._peer.on_writable = self._flush
        self._welcome: wire.Welcome | None = None
        self._buffer = OpBuffer()
        self._flush_at = 0.0
        self._is_scheduled = False
        self._waiting: list[wire.FromScheduler] | None = []  # frames that came before the work was ready
        self._calls: dict[int, asyncio.Future[None]] = {}  # done when the frame that ends the call was sent
        self._group: asyncio.TaskGroup | None = None
        self._proposals: deque[wire.FlowDelta] = deque()
        self._is_deciding = False
        self._end: asyncio.Future[tuple[str, float]] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._has_said_goodbye = False
        self._service: ServiceWatch | None = None
        self.internal_ip = ""

    # --- coming up --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Dial, be welcomed, unpack the work.

        Raises:
            DialFailed, Refused: It did not come that far; nothing is open then.
            BaseException: The work could not be unpacked; the scheduler was told, `aclose` is still due.
        """
        async with asyncio.timeout(self._ticket.dial_within):
            welcome = await self._connect(self._ticket.dial_within)
        self._welcome = welcome
        self._peer.max_frame = welcome.max_frame
        self._peer.beat(welcome.heartbeat)
        try:
            work = self._unpack(welcome)
        except BaseException as error:
            self._peer.send(wire.Stopped(Reason.LAUNCH_FAILED, describe_error(error)))
            raise
        self.work = work
        if not work._signature.is_async:
            self.plain = PlainThread(work, self._plain_finished)

    async def _connect(self, timeout: float) -> wire.Welcome:
        """Make a connection and attach it."""
        connection = await dial(self._ticket, timeout=timeout)
        welcomed: asyncio.Future[wire.Welcome] = self._loop.create_future()

        def on_frames(frames: Frames) -> None:
            answer = wire.decode_from_scheduler(frames[0][1])
            if isinstance(answer, wire.Refuse):
                raise Refused(answer.message)
            if not isinstance(answer, wire.Welcome):
                raise Refused(f"the scheduler's first frame is {type(answer).__name__}, not a Welcome")
            connection.on_closed = lambda error: self._on_lost(connection)
            self._peer.attach(connection, answer.received)
            if not welcomed.done():
                welcomed.set_result(answer)
            if frames[1:]:
                self._peer.feed(frames[1:])

        def on_closed(error: Exception | None) -> None:
            if not welcomed.done():
                welcomed.set_exception(error or Refused("the scheduler closed the connection"))

        connection.on_frames = on_frames
        connection.on_closed = on_closed
        connection.send(wire.pack(wire.encode(self._hello())))
        self.internal_ip = connection.local_host
        try:
            return await welcomed
        except BaseException:
            connection.abort()
            raise

    def _hello(self) -> wire.Hello:
        return wire.Hello(
            wire.VERSION, __version__, platform.python_version(), os.getpid(), socket.gethostname(), self._peer.received
        )

    def _unpack(self, welcome: wire.Welcome) -> Work:
        """The work, as the flow had it. Trusted: the scheduler has proved the launch's secret."""
        import pickle

        for path in reversed(welcome.paths):
            if path not in sys.path:
                sys.path.insert(0, path)
        work: Work = pickle.loads(welcome.work)
        work.__dict__["_worker_name"] = welcome.name
        return work

    # --- life -------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Take calls until the end is asked for, or the scheduler is gone for good; then end in order."""
        work = self.work
        assert work is not None
        self._thread = threading.get_ident()
        self._service = ServiceWatch(work, self.internal_ip)
        work._state.sink = self._edited
        work._state.set("_internal_ip", self.internal_ip)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                helpers = [group.create_task(self._keep_connected()), group.create_task(self._service.serve())]
                starting = group.create_task(self._start(work))
                waits: set[asyncio.Future[Any]] = {starting, self._end}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                starting.cancel()
                reason, grace = await self._end
                await self._finish(work, reason, grace)
                for helper in helpers:
                    helper.cancel()
        finally:
            self._group = None
            work._state.sink = None

    async def aclose(self) -> None:
        """Let what was sent leave, then close the connection."""
        connection = self._peer.connection
        if connection is None:
            self._peer.close()
            return
        closed: asyncio.Future[None] = self._loop.create_future()
        connection.on_closed = lambda error: _settle(closed, None)
        self._peer.close()
        await closed

    def request_end(self, reason: str, grace: float | None = None) -> None:
        """Ask for the end. Safe in the callback of a signal handler, and repeatedly: the first counts."""
        if not self._end.done():
            assert self._welcome is not None
            self._end.set_result((reason, self._welcome.grace if grace is None else grace))

    async def _start(self, work: Work) -> None:
        """Call ``on_start`` and tell; ends the worker where that fails."""
        try:
            await self._hook(work.on_start)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._flush(force=True)
            self._peer.send(wire.Stopped(Reason.USER_EXCEPTION, describe_error(error)))
            self._has_said_goodbye = True
            self.request_end("", 0.0)
            return
        self._flush(force=True)
        self._peer.send(wire.Ready())
        waiting, self._waiting = self._waiting or [], None
        for frame in waiting:
            self._on_frame(frame)

    async def _hook(self, hook: Callable[[], Any]) -> None:
        """Call a hook where ``run`` runs."""
        if self.plain is None:
            await call_hook(hook)
            return
        over: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(_settle, over, error)

        self.plain.submit_hook(hook, done)
        await over

    async def _finish(self, work: Work, reason: str, grace: float) -> None:
        """Cancel what runs, call ``on_exit``, say goodbye; all within the grace period."""
        deadline = self._loop.time() + grace
        for call in list(self._calls):
            self._cancel(call)
        if self._calls:
            await asyncio.wait(list(self._calls.values()), timeout=grace * (1 - _ON_EXIT_SHARE))
        if self._has_said_goodbye:
            return
        try:
            async with asyncio.timeout_at(deadline):
                if self.plain is not None and not self.plain.is_idle:
                    # The thread of run does not come back, so the hook cannot wait for it.
                    await asyncio.to_thread(work.on_exit)
                else:
                    await self._hook(work.on_exit)
        except TimeoutError:
            _say(f"on_exit of {type(work).__name__} took longer than the grace period")
        except Exception as error:
            _say(f"on_exit of {type(work).__name__} raised:\n{describe_error(error).traceback}")
        self._flush(force=True)
        self._peer.send(wire.Stopped(reason))

    async def _keep_connected(self) -> None:
        """Whenever the connection is lost, make a new one; without one for too long, end."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._peer.connection is not None:
                continue
            try:
                async with asyncio.timeout(self._ticket.orphan_after):
                    await self._connect(self._ticket.orphan_after)
            except (LightworkError, OSError, TimeoutError) as error:
                _say(f"the scheduler is gone, and this worker ends: {error}")
                self.request_end(Reason.LOST)
                return

    def _on_lost(self, connection: Connection) -> None:
        self._peer.detach(connection)
        self._lost.set()

    # --- calls ------------------------------------------------------------------------------------

    def _on_frame(self, frame: wire.FromScheduler) -> None:
        if self._waiting is not None and not isinstance(frame, wire.Stop):
            self._waiting.append(frame)
            return
        match frame:
            case wire.Call():
                self._call(frame)
            case wire.Cancel():
                self._cancel(frame.call)
            case wire.FlowDelta():
                self._proposals.append(frame)
                self._decide()
            case wire.Stop():
                self.request_end(frame.reason, frame.grace)
            case _:
                raise LightworkError(f"{type(frame).__name__} is not expected here")

    def _call(self, frame: wire.Call) -> None:
        assert self._group is not None
        assert self._service is not None
        self._service.calls += 1
        # Lazily: a run that returns at once has it leave together with its result.
        self._peer.send(wire.Running(frame.id), lazy=True)
        if self.plain is not None:
            self._calls[frame.id] = self._loop.create_future()
            self.plain.submit(frame.id, frame.args)
            return
        task = self._group.create_task(self._run(frame))
        self._calls[frame.id] = task
        task.add_done_callback(lambda task: self._ended(frame.id, task))

    async def _run(self, frame: wire.Call) -> None:
        assert self.work is not None
        self._finished(await run_coroutine(self.work, frame.id, frame.args))

    def _ended(self, call: int, task: asyncio.Task[None]) -> None:
        if task.cancelled() and call in self._calls:
            # Cancelled before its first step: run_coroutine was never entered.
            self._finished(wire.Cancelled(call))

    def _cancel(self, call: int) -> None:
        future = self._calls.get(call)
        if future is None:
            return
        if self.plain is not None:
            self.plain.cancel(call)
        else:
            future.cancel()

    def _plain_finished(self, frame: EndOfCall) -> None:
        """Called in the thread of ``run``."""
        self._loop.call_soon_threadsafe(self._finished, frame)

    def _finished(self, frame: EndOfCall) -> None:
        """A call is over: the state as it left it goes first, then the frame."""
        assert self._service is not None
        self._service.calls -= 1
        self._flush(force=True)
        try:
            self._peer.send(frame)
        except FrameTooLarge as error:
            self._peer.send(_too_large(frame.call, error))
        future = self._calls.pop(frame.call, None)
        if self.plain is not None and future is not None and not future.done():
            future.set_result(None)

    # --- state ------------------------------------------------------------------------------------

    def _edited(self, op: wire.Op) -> None:
        """The sink of the state: called under its lock, in whatever thread edits it."""
        self._buffer.add(op)
        if op[1][0] == "_port" and self._service is not None:
            self._loop.call_soon_threadsafe(self._service.port_changed)
        if threading.get_ident() != self._thread:
            if not self._is_scheduled:
                self._is_scheduled = True
                self._loop.call_soon_threadsafe(self._flush)
        elif time.monotonic() >= self._flush_at:
            # In the loop's own thread the delta can leave now, also from a coroutine that never awaits.
            self._flush()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self, *, force: bool = False) -> None:
        """Send the edits that wait, if the other end keeps up, or must because something follows them."""
        work = self.work
        if work is None or self._peer.closed:
            return
        with work._state.lock:
            self._is_scheduled = False
            if not self._buffer:
                return
            if not force and not self._peer.writable:
                self._buffer.compact(work._state)
                return
            self._flush_at = time.monotonic() + _FLUSH_EVERY
            self._send_ops(self._buffer.take())

    def _send_ops(self, ops: list[wire.Op]) -> None:
        try:
            self._peer.send(wire.Delta(ops))
        except FrameTooLarge as error:
            if len(ops) == 1:
                raise StateError(f"{_spell(ops[0])} cannot be sent: {error}") from None
            middle = len(ops) // 2
            self._send_ops(ops[:middle])
            self._send_ops(ops[middle:])

    def _decide(self) -> None:
        """Let the work take or refuse what the flow proposes, one after the other."""
        assert self._group is not None
        while self._proposals and not self._is_deciding:
            frame = self._proposals.popleft()
            self._is_deciding = True
            outcome, error = None, None
            try:
                outcome = self._apply(frame)
            except Exception as raised:
                error = raised
            if asyncio.iscoroutine(outcome):
                self._group.create_task(self._decide_later(frame, outcome))
            else:
                self._answer(frame, error)

    def _apply(self, frame: wire.FlowDelta) -> Any:
        from lightwork.work import FlowDelta

        assert self.work is not None
        return self.work.apply_flow_delta(FlowDelta(frame.op, unpacked(frame.expected), frame.has_expected))

    async def _decide_later(self, frame: wire.FlowDelta, outcome: Coroutine[Any, Any, Any]) -> None:
        error = None
        try:
            await outcome
        except Exception as raised:
            error = raised
        self._answer(frame, error)
        self._decide()

    def _answer(self, frame: wire.FlowDelta, error: Exception | None) -> None:
        assert self.work is not None
        with self.work._state.lock:
            self._is_deciding = False
            ops = self._buffer.take()
            info = None if error is None else describe_error(error)
            self._peer.send(wire.Answer(frame.proposal, ops, info))


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _too_large(call: int, error: FrameTooLarge) -> wire.Failure:
    message = (
        f"the return value is too large: {error}. Write it to a file and return its path, or raise max_frame in the "
        "configuration"
    )
    info = msgspec.structs.replace(describe_error(error), message=message, traceback="")
    return wire.Failure(call, Reason.INVALID_RETURN_VALUE, info)


def _spell(op: wire.Op) -> str:
    return str(op[1][0]) + "".join(f"[{key!r}]" for key in op[1][1:])


def _say(text: str) -> None:
    """To the worker's output, which is all that is left when the scheduler is gone."""
    print(f"lightwork: {text}", file=sys.stderr, flush=True)
