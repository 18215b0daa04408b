"""The agent of a worker: it dials back, unpacks the work, takes calls, streams state and results, and ends gracefully.

Everything here runs in the agent's event loop. `lightwork.worker.stream` exchanges the state with the flow.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork._version import __version__
from lightwork.errors import LightworkError
from lightwork.link import messages
from lightwork.link.connection import Connection
from lightwork.link.peer import FrameTooLarge, Peer
from lightwork.remote_errors import describe_error
from lightwork.status import Reason
from lightwork.worker.connect import connect
from lightwork.worker.eager_task import start_task
from lightwork.worker.execute import EndOfCall, PlainThread, call_hook, run_coroutine
from lightwork.worker.orphan import OrphanGuard
from lightwork.worker.service import ServiceWatch
from lightwork.worker.stream import StateStream

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["Agent", "paths_here"]

_QUICK = 0.001
"""Longest duration of a quick run, in seconds. After a quick run, the next run is expected to be quick, too."""

_ON_EXIT_SHARE = 0.4
"""Share of the grace period that ``on_exit`` has at least; the cancelled calls have the rest."""

_END_MARGIN = 1.0
"""Seconds beyond the grace period after which the guard no longer waits for a graceful end."""


_AGAIN = 0.001
"""Seconds after which a plain run that has missed an interruption is interrupted again. The delay doubles each time."""

_AGAIN_AT_MOST = 0.1
"""Longest delay between two interruptions, in seconds."""

_MOST_TOLD = 10_000
"""Largest number of calls in a hello."""

_ANSWERED = 256
"""Number of answered calls at which the agent drops those whose outcome the scheduler has acknowledged."""

_PARTING = 0.8
"""Seconds that the scheduler has at least to acknowledge the last frame. It is less than the time that the scheduler
gives the process beyond its grace period."""


class Agent:
    """One worker.

    Args:
        ticket: The ticket of the launch.
        guard: The guard of the connection, if the worker has the process to itself.

    Attributes:
        work: The work, once it is unpacked.
        plain: The thread of a plain ``run``; None for an ``async def run``.
        exit_code: Exit code of the process after a graceful end.
    """

    def __init__(self, ticket: messages.Ticket, guard: OrphanGuard | None = None) -> None:
        self._ticket = ticket
        self._guard = guard
        if guard is not None:
            guard.on_urgent = self._write_stack
        self._loop = asyncio.get_running_loop()
        self.work: Work | None = None
        self.plain: PlainThread | None = None
        self.exit_code: int = 0
        self._peer: Peer[messages.FromScheduler] = Peer(
            self._on_frame, messages.decode_from_scheduler, 1 << 30, ack_delay=None
        )
        self._welcome: messages.Welcome | None = None
        self._stream: StateStream | None = None  # set while the agent serves
        self._waiting: list[messages.FromScheduler] | None = []  # frames received before the work was ready; then None
        self._is_quick = False  # whether the latest run returned at once
        self._unsaid: set[int] = set()  # running calls whose `Running` was not sent yet
        self._calls: dict[int, asyncio.Future[None]] = {}  # done when the frame that ends the call was sent
        self._hashes: dict[int, str] = {}  # argument hashes of the same calls
        # Ended calls whose last frame may not be acknowledged: number, hash, number of that frame. See `Hello.calls`.
        self._answered: deque[tuple[int, str, int]] = deque()
        self._group: asyncio.TaskGroup | None = None
        self._end: asyncio.Future[tuple[str, float]] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._start_failed = False  # `on_start` raised: `Stopped` is sent, and `on_exit` is not due
        self._service: ServiceWatch | None = None
        self.internal_ip: str = ""

    # --- start --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Dial, wait for the welcome, and unpack the work.

        Raises:
            DialFailed, RefusedByScheduler: The scheduler did not welcome the worker. Nothing is open.
            BaseException: The work could not be unpacked. The scheduler was notified. The caller must call `aclose`.
        """
        welcome = await self._connect(self._ticket.dial_within)
        self._welcome = welcome
        self._peer.max_frame = welcome.max_frame
        self._peer.beat(welcome.heartbeat)
        try:
            work = self._unpack(welcome)
        except BaseException as error:
            self._peer.send(messages.Stopped(Reason.LAUNCH_FAILED, describe_error(error)))
            raise
        self.work = work
        if not work._signature.is_async:
            self.plain = PlainThread(work, self._plain_finished)

    async def _connect(self, timeout: float) -> messages.Welcome:
        """Make a connection and attach it."""
        return await connect(self._ticket, self._hello, self._take_over, timeout=timeout)

    def _take_over(self, connection: Connection, welcome: messages.Welcome) -> None:
        self._peer.attach(connection, welcome.received)
        connection.on_closed = lambda error: self._on_lost(connection)
        # A runtime that knows the machine's addresses sets LW_INTERNAL_IP: behind a tunnel, this end's address is the
        # loopback address.
        self.internal_ip = os.environ.get("LW_INTERNAL_IP") or connection.local_host
        if self._guard is not None:
            patience = self._ticket.orphan_after + welcome.grace + _END_MARGIN
            self._guard.connected(connection.fileno, patience)

    def _hello(self) -> messages.Hello:
        here = messages.VERSION, __version__, platform.python_version(), os.getpid(), socket.gethostname()
        peer, waiting = self._peer, self._waiting or ()
        calls = [(call, self._hashes[call], 0) for call in self._calls]
        calls += [(frame.id, frame.hash, 0) for frame in waiting if isinstance(frame, messages.Call)]
        self._drop_acked()
        proposals = [frame.proposal for frame in waiting if isinstance(frame, messages.Propose)]
        if self._stream is not None:
            proposals.append(self._stream.latest_proposal)
        return messages.Hello(
            *here,
            received=peer.received,
            welcomed=self._welcome is not None,
            sent=peer.sent,
            calls=[*self._answered, *calls][-_MOST_TOLD:],
            proposal=max(proposals, default=0),
        )

    def _drop_acked(self) -> None:
        """Forget the calls whose outcome the scheduler has acknowledged."""
        acked = self._peer.acked
        while self._answered and self._answered[0][2] <= acked:
            self._answered.popleft()

    def _unpack(self, welcome: messages.Welcome) -> Work:
        """Unpickle the work. This is safe: the scheduler has proved that it knows the launch's secret."""
        import pickle

        for path in reversed(paths_here(welcome.paths, os.environ)):
            if path not in sys.path:
                sys.path.insert(0, path)
        work: Work = pickle.loads(welcome.work)
        work.__dict__["_worker_name"] = welcome.name
        return work

    # --- serving ------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Take calls until an end is requested or the scheduler is lost; then end gracefully."""
        work = self.work
        assert work is not None
        self._service = ServiceWatch(work, self.internal_ip)
        self._stream = StateStream(work, self._peer, self._service.port_changed, self._say_all_running)
        assert self._welcome is not None
        work._state.max_bytes = messages.max_value(self._welcome.max_frame)
        work._state.sink = self._stream.edited
        work._state.set("_internal_ip", self.internal_ip)
        work._state.set("_public_ip", os.environ.get("LW_PUBLIC_IP", ""))
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                connected = group.create_task(self._keep_connected())
                helpers = [connected, group.create_task(self._service.serve())]
                starting = group.create_task(self._start(work))
                waits: set[asyncio.Future[Any]] = {starting, self._end}
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    starting.cancel()
                    reason, grace = await self._end
                except asyncio.CancelledError:
                    self._fall_silent()
                    raise
                deadline = self._loop.time() + grace
                self.exit_code = messages.LOST_CODE if reason == Reason.LOST else 0
                await self._finish(work, reason, grace)
                if reason != Reason.LOST:
                    await self._part(connected, deadline)
                for helper in helpers:
                    helper.cancel()
        finally:
            self._group = None
            work._state.sink = None

    def _fall_silent(self) -> None:
        """Send nothing more, like a killed process: the runtime reports why the worker ended."""
        connection = self._peer.connection
        if connection is not None:
            self._peer.detach(connection)
            connection.on_closed = lambda error: None
            connection.abort()

    async def aclose(self) -> None:
        """Flush the sent frames, then close the connection."""
        connection = self._peer.connection
        if connection is None:
            self._peer.close()
            return
        closed: asyncio.Future[None] = self._loop.create_future()
        connection.on_closed = lambda error: _settle(closed, None)
        self._peer.close()
        await closed

    def request_end(self, reason: str, grace: float | None = None) -> None:
        """Request the end. Safe in the callback of a signal handler. May be called twice: the first request counts."""
        if not self._end.done():
            assert self._welcome is not None
            self._end.set_result((reason, self._welcome.grace if grace is None else grace))

    async def _start(self, work: Work) -> None:
        """Call ``on_start`` and send `Ready`; if ``on_start`` raises, end the worker."""
        try:
            await self._hook(work.on_start)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._stream_out()
            self._peer.send(messages.Stopped(Reason.USER_EXCEPTION, describe_error(error)))
            self._start_failed = True
            self.request_end("", 0.0)
            return
        self._stream_out()
        self._peer.send(messages.Ready())
        waiting, self._waiting = self._waiting or [], None
        for frame in waiting:
            self._on_frame(frame)

    async def _hook(self, hook: Callable[[], Any]) -> None:
        """Call a hook in the thread of ``run``."""
        if self.plain is None:
            await call_hook(hook)
            return
        over: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(_settle, over, error)

        self.plain.submit_hook(hook, done)
        await over

    async def _finish(self, work: Work, reason: str, grace: float) -> None:
        """Send `Stopped`, cancel the running calls and call ``on_exit``, within the grace period."""
        deadline = self._loop.time() + grace
        if not self._start_failed:
            self._peer.send(messages.Stopped(reason))
        for call in list(self._calls):
            self._cancel(call)
        if self._calls:
            await asyncio.wait(list(self._calls.values()), timeout=grace * (1 - _ON_EXIT_SHARE))
        if self._start_failed:
            return
        try:
            async with asyncio.timeout_at(deadline):
                if self.plain is not None and not self.plain.is_idle:
                    # The thread of run is still busy, so the hook cannot wait for it.
                    await asyncio.to_thread(work.on_exit)
                else:
                    await self._hook(work.on_exit)
        except TimeoutError:
            _say(f"on_exit of {type(work).__name__} took longer than the grace period; the worker ends without it")
        except Exception as error:
            _say(f"on_exit of {type(work).__name__} raised:\n{describe_error(error).traceback}")
        self._stream_out()

    async def _part(self, connected: asyncio.Task[None], deadline: float) -> None:
        """Wait until the scheduler has acknowledged every frame, over any number of connections.

        The wait ends with the grace period. The scheduler may be disconnected, or may have been killed and restarted.
        """
        settled: asyncio.Future[None] = self._loop.create_future()
        self._peer.on_settled = lambda: _settle(settled, None)
        self._peer.send(messages.Bye())
        left = max(_PARTING, deadline - self._loop.time())
        await asyncio.wait({settled, connected}, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _keep_connected(self) -> None:
        """Reconnect after each loss of the connection; end the worker if that takes too long."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._peer.connection is not None:
                continue
            try:
                await self._connect(self._ticket.orphan_after)
            except (LightworkError, OSError) as error:
                _say(f"the scheduler is lost, so this worker ends: {error}")
                self.request_end(Reason.LOST)
                return

    def _on_lost(self, connection: Connection) -> None:
        self._peer.detach(connection)
        if self._guard is not None:
            self._guard.lost()
        self._lost.set()

    # --- calls ------------------------------------------------------------------------------------

    def _on_frame(self, frame: messages.FromScheduler) -> None:
        # The most frequent frame first, by its exact type: a `match` calls isinstance for each case.
        if type(frame) is messages.Call and self._waiting is None:
            if not self._end.done():  # otherwise the call crossed with `Stopped`, and ends with the worker
                self._call(frame)
            return
        if isinstance(frame, messages.Query):
            self._tell(frame)
            return
        if self._waiting is not None and not isinstance(frame, messages.Stop):
            self._waiting.append(frame)
            return
        match frame:
            case messages.Cancel():
                self._cancel(frame.call)
            case messages.Propose():
                assert self._stream is not None
                assert self._group is not None
                self._stream.propose(frame, self._group)
            case messages.Stop():
                self.request_end(frame.reason, frame.grace)
            case _:
                raise LightworkError(f"expected a Cancel, Propose or Stop frame, got {type(frame).__name__}")

    def _tell(self, frame: messages.Query) -> None:
        """Reply at once with the stacks or the resource usage of the process."""
        from lightwork.worker import inspection  # imported by the first query

        data = inspection.stack_bytes(self._loop) if frame.what == "stack" else inspection.usage_bytes()
        if not self._peer.closed:
            self._peer.post(messages.QueryReply(frame.number, data))

    def _write_stack(self) -> None:
        """Write the stacks of a process with a blocked loop. Called in the guard's thread."""
        from lightwork.worker import inspection  # imported by the first query

        inspection.write_stack(self._loop)

    def _call(self, frame: messages.Call) -> None:
        assert self._group is not None
        assert self._service is not None
        self._hashes[frame.id] = frame.hash
        if self.plain is not None:
            self._peer.send(messages.Running(frame.id))
            self._calls[frame.id] = self._loop.create_future()
            self._service.calls = len(self._calls)
            self.plain.submit(frame.id, frame.args)
            return
        if self._is_quick:
            # `Running` waits for the task's first step. If the run ends in that step, its result is enough.
            self._unsaid.add(frame.id)
        else:
            self._peer.send(messages.Running(frame.id))
        task = start_task(self._loop, self._run(frame), "run")
        if not task.done():
            self._calls[frame.id] = task
            self._service.calls = len(self._calls)
            self._say_running(frame.id)
        elif not task.cancelled() and task.exception() is None:
            return  # the task has ended: no group needs to wait for it, which would take an iteration of the loop
        self._group.create_task(self._follow(frame.id, task))

    def _say_running(self, call: int) -> None:
        if call in self._unsaid and not self._peer.closed:
            self._unsaid.discard(call)
            self._peer.send(messages.Running(call))

    def _say_all_running(self) -> None:
        """Send `Running` before an edit of the state: the flow sees it even if the run then kills the process."""
        if self._unsaid:
            for call in list(self._unsaid):
                self._say_running(call)

    async def _run(self, frame: messages.Call) -> None:
        assert self.work is not None
        begun = time.monotonic()
        outcome = await run_coroutine(self.work, frame.id, frame.args)
        # Only after a quick run: otherwise a run that blocks the loop would not be shown as running.
        self._is_quick = time.monotonic() - begun < _QUICK
        self._finished(outcome)

    async def _follow(self, call: int, task: asyncio.Task[None]) -> None:
        """Own the task of a call in the group: the group cancels the task, and gets its exception."""
        try:
            await task
        except asyncio.CancelledError:
            if call in self._calls:  # cancelled before its first step: run_coroutine was never entered
                self._finished(messages.Cancelled(call))
            raise

    def _cancel(self, call: int) -> None:
        future = self._calls.get(call)
        if future is None:
            return
        if self.plain is not None:
            self.plain.cancel(call)
            self._loop.call_later(_AGAIN, self._cancel_again, call, _AGAIN)
        else:
            future.cancel()

    def _plain_finished(self, frame: EndOfCall) -> None:
        """Hand the end of a call to the loop. Called in the thread of ``run``."""
        if not self._peer.closed:  # otherwise the run ignored its cancellation, and the agent has ended
            self._loop.call_soon_threadsafe(self._finished, frame)

    def _cancel_again(self, call: int, waited: float) -> None:
        assert self.plain is not None
        if not self._peer.closed and self.plain.is_cancelling(call):
            wait = min(2 * waited, _AGAIN_AT_MOST)
            self._loop.call_later(wait, self._cancel_again, call, wait)

    def _finished(self, frame: EndOfCall) -> None:
        """Send the end of a call: first the state as the call left it, then the frame."""
        if self._peer.closed:
            return
        assert self._service is not None
        self._unsaid.discard(frame.call)
        self._stream_out()
        try:
            number = self._peer.send(frame)
        except FrameTooLarge as error:
            number = self._peer.send(_too_large(frame.call, error))
        self._answered.append((frame.call, self._hashes.pop(frame.call), number))
        if len(self._answered) >= _ANSWERED:
            self._drop_acked()
        future = self._calls.pop(frame.call, None)
        self._service.calls = len(self._calls)
        if self.plain is not None and future is not None and not future.done():
            future.set_result(None)

    def _stream_out(self) -> None:
        """Send all edits made so far, because another frame must follow them."""
        assert self._stream is not None
        self._stream.flush(force=True)


def paths_here(paths: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the scheduler's import folders, as paths on this machine.

    A runtime that has sent the code to another machine sets ``LW_PATHS``: a JSON object that maps the scheduler's
    folders to folders here. A folder outside of the map was not sent. It is left out, because a folder of the same name
    here has unrelated contents.
    """
    text = environ.get("LW_PATHS")
    if text is None:
        return list(paths)
    moved = msgspec.json.decode(text, type=dict[str, str])
    found = []
    for path in paths:
        for there, here in moved.items():
            if path == there or path.startswith(there.rstrip("/") + "/"):
                found.append(here + path[len(there) :])
                break
    return found


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _too_large(call: int, error: FrameTooLarge) -> messages.Failure:
    message = (
        f"the return value is too large: {error}. Write it to a file and return its path, or raise max_frame in the "
        "configuration"
    )
    info = msgspec.structs.replace(describe_error(error), message=message, traceback="")
    return messages.Failure(call, Reason.INVALID_RETURN_VALUE, info)


def _say(text: str) -> None:
    """Print to the worker's output: it still works when the scheduler is lost."""
    print(f"lightwork: {text}", file=sys.stderr, flush=True)
