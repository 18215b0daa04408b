"""Asks components for their user interfaces while an app runs, and serves the frontends among them.

Nothing here polls. A component that does not override ``configure_layout`` is asked only when the layout is read, so
1,000 works without a user interface cost a pass of the flow nothing. A component that overrides it is asked when the
app starts, after each pass in which something has changed, and when the layout is read.

Each frontend has a separate task in the app's group, which starts its server and stops it.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import inspect
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from lightwork._logging import get_logger
from lightwork.components.component import Component
from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.flow.layout import Layout, Served, arrange, has_own_layout, resolve_layout
from lightwork.errors import LayoutError, LightworkError
from lightwork.frontend import Frontend

__all__ = ["Layouts"]

_ATTEMPTS = 5
"""Ports tried for one frontend: another program may take a free port before the frontend binds it."""

_CANCEL_GRACE = 1.0
"""Seconds that a cancelled hook has to end. After that it is left behind, and an error says so."""

_log = get_logger(__name__)


class _Hosted:
    """A frontend that is served.

    Attributes:
        ready: Done when the frontend is up, or has failed to start.
        release: Set when the frontend must stop.
        is_up: Whether ``start_server`` has returned.
        url: The URL of the frontend; None before it is up and after it has stopped.
    """

    def __init__(self, owner: Component, frontend: Frontend) -> None:
        self.owner = owner
        self.label = owner._label()
        self.frontend = frontend
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.release = asyncio.Event()
        self.is_up = False
        self.url: str | None = None
        self.task: asyncio.Task[None] | None = None


class Layouts:
    """The user interfaces of one tree. Belongs to the loop's thread.

    Args:
        root: The root flow.
        hub: Counts the changes; notified when a frontend that was added later is up.
        fail: Called with a `LayoutError` that has no other receiver; it fails the app.
        is_held: Returns whether a plain pass is running in its thread; no component is asked meanwhile.
        host: Address at which frontends are served.
        start_within: Seconds that ``start_server`` may take.
        stop_within: Seconds that ``stop_server`` may take.
    """

    def __init__(
        self,
        root: Flow,
        hub: ChangeHub,
        *,
        fail: Callable[[BaseException], None],
        is_held: Callable[[], bool] = lambda: False,
        host: str = "127.0.0.1",
        start_within: float = 60.0,
        stop_within: float = 5.0,
    ) -> None:
        self._root = root
        self._hub = hub
        self._fail = fail
        self._is_held = is_held
        self._host = host
        self._start_within = start_within
        self._stop_within = stop_within
        self._group: asyncio.TaskGroup | None = None
        # The first pass that sees a frontend must not own the frontend's tasks.
        self._context = contextvars.copy_context()
        self._answers: dict[Work | Flow, Layout] = {}
        self._hosted: dict[Component, _Hosted] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._taken: set[int] = set()
        self._latest: dict[str, Layout] = {}
        self._owners: dict[str, Component] = {}
        self._asked_at = -1
        self._is_reshaped = True
        self._is_closed = False

    # --- life -------------------------------------------------------------------------------------

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Ask every component for its layout and start all frontends concurrently; return when all are up.

        Raises:
            LayoutError: A component returned an invalid layout, or a frontend did not start. `aclose` stops the others.
        """
        self._group = group
        self.snapshot()
        await asyncio.gather(*(asyncio.shield(hosted.ready) for hosted in self._hosted.values()))

    async def aclose(self) -> None:
        """Stop every frontend. Log a frontend that does not stop in time, and leave it behind. May be repeated."""
        self._is_closed = True
        for hosted in list(self._hosted.values()):
            self._end(hosted)
        self._hosted.clear()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def reshaped(self) -> None:
        """Handle a change of the tree: a component was added or removed."""
        self._is_reshaped = True

    def refresh(self) -> None:
        """Ask the components again if anything has changed. An invalid layout fails the app."""
        if self._is_closed or self._is_held():
            return
        try:
            self._ask_all()
        except LayoutError as error:
            self._fail(error)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return a copy of the user interfaces by component name, see `lightwork.engine.flow.layout.arrange`.

        While a plain pass runs, and after `aclose`, this is the result of the last read.

        Raises:
            LayoutError: A component returns an invalid layout.
        """
        if not self._is_closed and not self._is_held():
            self._ask_all()
            nodes = [node for node in self._root._walk() if isinstance(node, (Work, Flow))]
            self._latest = {
                node.name: self._answers[node] if node in self._answers else resolve_layout(node) for node in nodes
            }
            self._owners = {node.name: node for node in nodes}
        return arrange(self._latest, self._url_of)

    def _url_of(self, name: str) -> str | None:
        hosted = self._hosted.get(self._owners[name])
        return None if hosted is None else hosted.url

    # --- asking -----------------------------------------------------------------------------------

    def _ask_all(self) -> None:
        """Ask the components that override ``configure_layout``, unless nothing has changed since the last time."""
        if self._asked_at == self._hub.version and not self._is_reshaped:
            return
        if self._is_reshaped:
            self._take_stock()
        for component in self._answers:
            self._answers[component] = self._ask(component)
        self._asked_at = self._hub.version

    def _take_stock(self) -> None:
        """Find the components that override ``configure_layout``, and stop the frontends of those that have left."""
        found = [node for node in self._root._walk() if isinstance(node, (Work, Flow)) and has_own_layout(node)]
        here = set(found)
        for component in [component for component in self._hosted if component not in here]:
            self._end(self._hosted.pop(component))
        known = self._answers
        self._answers = {component: known.get(component, _UNASKED) for component in found}
        self._is_reshaped = False

    def _ask(self, component: Work | Flow) -> Layout:
        version = self._hub.version
        layout = resolve_layout(component)
        if self._hub.version != version:
            raise LayoutError(
                f"configure_layout of {component._label()} changes the state: it is called again after each change, so "
                "the app would never become idle. Change the state in run, and only read it in configure_layout"
            )
        if isinstance(layout, Served):
            self._take_frontend(component, layout.frontend)
        return layout

    def _take_frontend(self, component: Work | Flow, frontend: Frontend) -> None:
        hosted = self._hosted.get(component)
        where = f"configure_layout of {component._label()}"
        if hosted is not None:
            if not _is_same(hosted.frontend, frontend):
                raise LayoutError(
                    f"{where} returned {hosted.frontend!r:.80} when the app was created and returns {frontend!r:.80} "
                    "now, but the server of the first one runs. Always return the same Frontend; only a URL may change"
                )
        elif self._answers[component] is not _UNASKED:
            raise LayoutError(
                f"{where} returns {frontend!r:.80} now, but returned no Frontend when the app was created: a Frontend "
                "must be given at creation, when its server is started. Return it then, or return a URL, which may "
                "change"
            )
        else:
            self._serve(component, frontend)

    # --- serving ----------------------------------------------------------------------------------

    def _serve(self, component: Component, frontend: Frontend) -> None:
        for other in self._hosted.values():
            if other.frontend is frontend:
                raise LayoutError(
                    f"configure_layout of {component._label()} and of {other.label} return the same {frontend!r:.80}: "
                    "make a separate Frontend for each"
                )
        assert self._group is not None
        hosted = self._hosted[component] = _Hosted(component, frontend)
        is_late = self._asked_at >= 0
        name = f"lightwork frontend {component.name}"
        hosted.task = self._group.create_task(self._run(hosted, is_late), name=name, context=self._context)
        self._tasks.add(hosted.task)
        hosted.task.add_done_callback(self._tasks.discard)

    def _end(self, hosted: _Hosted) -> None:
        hosted.release.set()
        if not hosted.ready.done() and hosted.task is not None:
            hosted.task.cancel()

    async def _run(self, hosted: _Hosted, is_late: bool) -> None:
        try:
            hosted.url = await self._start(hosted)
            hosted.ready.set_result(None)
            if is_late:
                self._hub.changed()
            await hosted.release.wait()
        except LayoutError as error:
            hosted.ready.set_exception(error)
            hosted.ready.exception()  # `open` gets it; without `open`, asyncio must not report it as never retrieved
            if is_late:
                self._fail(error)
        finally:
            hosted.ready.cancel()  # does nothing if it is done
            hosted.url = None
            # It may be up although its start was cancelled or timed out, if both happened in one iteration of the loop.
            if hosted.is_up:
                await self._stop(hosted)

    async def _start(self, hosted: _Hosted) -> str:
        frontend = hosted.frontend
        prefix = frontend.root_path or ""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                port = self._free_port()
                await _within(self._start_within, "start_server", self._begin(hosted, port, prefix))
            except Exception as error:
                if isinstance(error, OSError) and error.errno == errno.EADDRINUSE and attempt < _ATTEMPTS:
                    continue
                raise LayoutError(f"the frontend of {hosted.label} did not start: {_said(error)}") from error
            host = f"[{self._host}]" if ":" in self._host else self._host
            return f"http://{host}:{port}{prefix}/"
        raise AssertionError("the last attempt returns or raises")

    async def _begin(self, hosted: _Hosted, port: int, prefix: str) -> None:
        await _call(hosted.frontend.start_server, self._host, port, *([prefix] if prefix else []))
        hosted.is_up = True

    def _free_port(self) -> int:
        """Return a free port that no other frontend of this app has received."""
        while True:
            with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as probe:
                probe.bind((self._host, 0))
                port: int = probe.getsockname()[1]
            if port not in self._taken:
                self._taken.add(port)
                return port

    async def _stop(self, hosted: _Hosted) -> None:
        # The app has done its job by now, so a server that does not stop is logged and does not fail the app.
        try:
            await _within(self._stop_within, "stop_server", _call(hosted.frontend.stop_server))
        except Exception as error:
            _log.error("a frontend did not stop", component=hosted.label, error=_said(error), exc_info=error)


_UNASKED: Layout = object()  # type: ignore[assignment]
"""Marks a component that was never asked."""


def _is_same(one: Frontend, other: Frontend) -> bool:
    """Return whether both are one user interface: ``configure_layout`` may make an equal object at each call."""
    if one is other:
        return True
    return type(one) is type(other) and (type(one).__eq__ is object.__eq__ or one == other)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _within(seconds: float, name: str, hook: Coroutine[Any, Any, None]) -> None:
    """Await a hook of a frontend.

    Raises:
        TimeoutError: It took longer and was cancelled. A hook that ignores its cancellation is left behind.
    """
    # The task is in no group: a hook that ignores its cancellation must not keep the app from ending.
    task = asyncio.ensure_future(hook)
    try:
        await asyncio.wait({task}, timeout=seconds)
        is_over = task.done()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_GRACE)
    if not task.done():
        raise TimeoutError(f"{name} took longer than {seconds:g} s and ignores its cancellation; it is left behind")
    error = None if task.cancelled() else task.exception()
    if not is_over:
        raise TimeoutError(f"{name} took longer than {seconds:g} s") from error
    if task.cancelled():
        raise LightworkError(f"{name} ended with CancelledError: it awaited something that was cancelled")
    if error is not None:
        raise error


async def _call(fn: Callable[..., Any], *args: Any) -> None:
    """Call a hook, plain or ``async def``."""
    if inspect.iscoroutinefunction(fn):
        await fn(*args)
        return
    outcome = await _in_thread(fn, *args)
    if inspect.isawaitable(outcome):
        await outcome


async def _in_thread(fn: Callable[..., Any], *args: Any) -> Any:
    """Call `fn` in a daemon thread, which does not keep the interpreter alive; a pool's threads do."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def work() -> None:
        value, error = None, None
        try:
            value = fn(*args)
        except Exception as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name=f"lightwork {fn.__name__}", daemon=True).start()
    return await future
