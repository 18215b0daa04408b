"""`App`: runs a tree of components."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, cast, overload

from lightwork._common.public import export
from lightwork._logging import get_logger
from lightwork.changes import Change
from lightwork.components.component import Component
from lightwork.components.cron import ScheduleView
from lightwork.components.flow import Flow
from lightwork.components.structures import find
from lightwork.components.work import Work
from lightwork.config import LOG_DIR, AppSettings, Config, Settings, load_config
from lightwork.engine.changes import ChangeHub, ChangeStream
from lightwork.engine.engine import Engine
from lightwork.engine.flow.layouts import Layouts
from lightwork.engine.flow.passes import FlowEnded, Passes, in_pass
from lightwork.errors import AppEnded, ComponentError, ConfigError, FlowFailed, LightworkError, UsageError
from lightwork.runtime import Address, Runtime

if TYPE_CHECKING:
    from lightwork.server.api import Api
    from lightwork.server.http_server import HttpSide

__all__ = ["App", "LightningApp"]


class _RunWork(Flow):
    """The flow around a work that is the root of an app: one call, then the end."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    async def run(self) -> None:
        await self.work.submit()
        self.stop()


RootT_co = TypeVar("RootT_co", bound=Flow, covariant=True)


class App(Generic[RootT_co]):
    """Runs a flow and the works below it.

    ``await app.run()`` runs it to its end. ``async with app:`` runs it around a block. In the block any coroutine of
    the loop may call its works; leaving the block ends the app. Several apps may run in one loop.

    Args:
        root: The flow; or a work, and the app is then one call of it without arguments.
        config: The configuration; None loads it, see `load_config`.
        runtimes: Instances of runtimes by the name of their profile.
        journal: File in which the app records its events, so that it can continue after its process was killed; see
            ``docs/journal.md``. None leaves it to the configuration, whose default is no journal.
        resume: Whether to continue from the journal.
        settings: Values of the configuration that override `config`.

    Attributes:
        config: The configuration in force.
        stop_message: The message of ``stop`` or ``fail``; None before, and if there was no message.
        error: The error that fails the app, or that failed its latest run; None without an error.

    Raises:
        ComponentError: `root` is not a component, or is in an app already.
        ConfigError: The configuration is invalid; names the key and its origin.
    """

    @overload
    def __init__(
        self,
        root: RootT_co,
        *,
        config: Config | None = None,
        runtimes: Mapping[str, Runtime] | None = None,
        journal: str | os.PathLike[str] | None = None,
        resume: bool | None = None,
        **settings: Unpack[AppSettings],
    ) -> None: ...

    @overload
    def __init__(
        self: App[Flow],
        root: Work,
        *,
        config: Config | None = None,
        runtimes: Mapping[str, Runtime] | None = None,
        journal: str | os.PathLike[str] | None = None,
        resume: bool | None = None,
        **settings: Unpack[AppSettings],
    ) -> None: ...

    def __init__(
        self,
        root: Flow | Work,
        *,
        config: Config | None = None,
        runtimes: Mapping[str, Runtime] | None = None,
        journal: str | os.PathLike[str] | None = None,
        resume: bool | None = None,
        **settings: Unpack[AppSettings],
    ) -> None:
        if not isinstance(root, (Flow, Work)):
            raise ComponentError(f"App needs a Flow or a Work, not {root!r:.80}; pass an instance, App(MyFlow())")
        if root._key:
            raise ComponentError(f"{root._label()} has a place already and cannot be the root of an app")
        self._run: _AppRun | None = None
        self.config: Config = config or load_config()
        self.configure(**settings, journal=None if journal is None else os.fspath(journal), resume=resume)
        self.stop_message: str | None = None
        self.error: BaseException | None = None
        self._given = dict(runtimes or {})
        self._early: list[Callable[[Change], None]] = []
        self._is_mounted = False
        flow = root if isinstance(root, Flow) else _RunWork(root)
        self._root = cast("RootT_co", flow)
        object.__setattr__(flow, "_key", "root")

    @property
    def root(self) -> RootT_co:
        """The root flow."""
        return self._root

    def configure(self, **settings: Unpack[Settings]) -> None:
        """Replace values of the configuration. None leaves a value as it is.

        Raises:
            ConfigError: A key is unknown, or a value is invalid.
            UsageError: The app runs.
        """
        if self._run is not None:
            raise UsageError("the app runs already: its configuration cannot be changed")
        self.config = self.config.replaced(**settings)

    # --- running ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the flow calls ``stop``, or `stop` is called. Then end every work, and return.

        Cancelling it ends the app gracefully. It can be called again afterwards.

        Raises:
            FlowFailed: The flow called ``fail``.
            BaseException: The exception of the flow, or of a failed call that no task awaits.
        """
        async with self:
            await self.wait_stopped()

    async def __aenter__(self) -> Self:
        """Listen, start the works that start with the flow, run the flow.

        Raises:
            ConfigError: The address cannot be bound, or a runtime cannot be made.
            LayoutError: A ``configure_layout`` returns an invalid value, or a frontend does not start.
        """
        if self._run is not None:
            raise UsageError("this app runs already")
        self.stop_message = self.error = None
        self._run = _AppRun(self)
        try:
            await self._run.open()
        except BaseException:
            self._run = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """End everything: no task, process or socket is left. Raise the error that failed the app."""
        try:
            await self._running().close(error)
        finally:
            self._run = None
        return False

    def stop(self, message: str | None = None) -> None:
        """End the app gracefully, as a success. Do nothing if it is ending already."""
        self._running().end(message)

    def kill(self) -> None:
        """End the app now, without a grace period for works. May be called while it ends gracefully."""
        self._running().kill()

    def _running(self) -> _AppRun:
        if self._run is None:
            raise UsageError("the app does not run: use it inside of `async with app`, or while `app.run()` runs")
        return self._run

    @property
    def is_running(self) -> bool:
        """Whether the app runs, or is ending."""
        return self._run is not None

    @property
    def address(self) -> Address:
        """The address that works connect to, while the app runs."""
        return self._running().engine.address

    @property
    def url(self) -> str | None:
        """The URL of the app's own HTTP side, while the app runs; None without one."""
        http = self._running().http
        return http.url if http is not None and http.url else None

    @property
    def token(self) -> str | None:
        """The token that HTTP clients must send, while the app runs; None if none is required."""
        http = self._running().http
        return None if http is None else http.token

    def _mount(self) -> Callable[[], Api | None]:
        """Return a function that returns the API of the present run. From now on every run has one, from its start."""
        self._is_mounted = True
        return self._api

    def _api(self) -> Api | None:
        """Return the API that handles requests from a host's own server; None while the app does not run."""
        return None if self._run is None else self._run.api()

    @property
    def layout(self) -> dict[str, Any]:
        """The user interface of each component by name, while the app runs: a copy, as plain data.

        Each has a ``kind`` (``url``, ``frontend``, ``tabs`` or ``none``) and a ``target``, the address or None. The
        kind ``tabs`` also has ``tabs``, each with ``name``, ``content`` (a component's name, or None) and ``target``.
        Read it in the app's loop.

        Raises:
            LayoutError: A ``configure_layout`` returns an invalid value.
        """
        return self._running().layouts.snapshot()

    # --- observing --------------------------------------------------------------------------------

    async def wait_stopped(self) -> None:
        """Wait until the app begins to end, for any reason. The error that failed it is raised when the app is left."""
        await self._running().stopped.wait()

    async def wait_for(self, predicate: Callable[[], object]) -> None:
        """Wait until `predicate` returns a true value. It is called again after each change.

        Raises:
            AppEnded: The app ended first.
        """
        hub = self._running().hub
        while not predicate():
            if hub.closed or self._running().stopped.is_set():
                raise AppEnded("the app ended before the condition came true")
            await hub.wait_change(hub.version)

    def changes(self) -> ChangeStream:
        """Return an async iterator over every change of the app from now on, until it ends."""
        return self._running().hub.changes()

    def watch(self, watcher: Callable[[Change], None]) -> Callable[[], None]:
        """Call `watcher` with every change, in the loop. Return a function that unsubscribes it.

        It may be called before the app runs. The subscription holds for every run.
        """
        self._early.append(watcher)
        if self._run is not None:
            self._run.hub.watch(watcher)

        def end() -> None:
            if watcher in self._early:
                self._early.remove(watcher)
                if self._run is not None:
                    self._run.hub.unwatch(watcher)

        return end

    @property
    def schedules(self) -> list[ScheduleView]:
        """All schedules of the flows, the next one to fire first, while the app runs."""
        return self._running().engine.schedules.views()

    def trigger(self, flow: str, key: str) -> None:
        """Fire a schedule now, in addition to its pattern. `schedules` has the names.

        Raises:
            KeyError: The schedule is not found.
        """
        self._running().engine.schedules.trigger(flow, key)

    @property
    def works(self) -> list[Work]:
        """All works of the tree."""
        return self.root.works()

    def get_component_by_name(self, name: str) -> Component:
        """Return the component of that name, ``root.trials.0``.

        Raises:
            KeyError: It is not found; the message lists similar names.
        """
        return find(self.root, name)


class _AppRun:
    """One run of an app: all objects that exist only while it runs.

    Attributes:
        id: Unique id of the run.
        stopped: Set when the app begins to end.
        http: The HTTP side; None if there is none.
    """

    def __init__(self, app: App[Any]) -> None:
        self._app = app
        self.id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"  # sorts by time
        self.http: HttpSide | None = None
        self.hub = ChangeHub(asyncio.get_running_loop())
        for watcher in app._early:
            self.hub.watch(watcher)
        self.stopped = asyncio.Event()
        self.engine = Engine(
            app.config,
            self.hub,
            app._given,
            fail=self.fail,
            request_stop=self._request_stop,
            request_fail=self._request_fail,
            reshaped=self._reshaped,
        )
        self.layouts = Layouts(
            app.root,
            self.hub,
            fail=self.fail,
            is_held=lambda: self.engine.is_held,
            start_within=app.config.launch_timeout,
            stop_within=app.config.grace,
        )
        self._group = asyncio.TaskGroup()
        self._body: asyncio.Task[Any] | None = None
        self._has_cancelled_body = False
        self._is_leaving = False
        # Not in the group: the app must end even if the flow ignores its cancellation.
        self._passes: asyncio.Task[None] | None = None

    async def open(self) -> None:
        root = self._app.root
        self._body = asyncio.current_task()
        await self._group.__aenter__()
        try:
            await self.engine.open(self._group, root)
            for work in root.works():
                self.engine.check_runtime(work)
            await self._keep_output()
            if self._app.config.http or self._app._is_mounted:
                self.api()
            root._bind(self.engine)
            self.engine.added(root)
            await self.layouts.open(self._group)
            if self._app.config.http and self.http is not None:
                await self.http.listen()
            await self.engine.begin()
        except BaseException:
            if self.http is not None:
                await self.http.aclose()
            await self.layouts.aclose()
            await self.engine.aclose()
            await self._close_output()
            root._bind(None)
            await self._group.__aexit__(None, None, None)
            raise
        self._passes = asyncio.create_task(self._run_passes(), name="lightwork flow")

    async def _keep_output(self) -> None:
        """Write the output of works to disk from now on, if the configuration wants it."""
        config, output = self._app.config, self.engine.output
        wanted = config.log_dir
        if wanted is None:
            wanted = LOG_DIR if config.http else ""
        if not wanted:
            return
        from lightwork.logfiles import LogWriter, begin_run

        try:
            folder = await asyncio.to_thread(begin_run, Path(wanted), self.id)
            output.writer = LogWriter(folder, config.log_max_bytes)
        except OSError as error:
            if config.log_dir is not None:
                raise ConfigError(f"log_dir = {wanted!r}: the output of works cannot be kept there: {error}") from error
            get_logger("lightwork").warning("the output of works is not kept", folder=wanted, error=str(error))

    async def _close_output(self) -> None:
        writer, self.engine.output.writer = self.engine.output.writer, None
        if writer is not None:
            await writer.aclose()

    def api(self) -> Api:
        """Return the API, made on first use. It has the calls since then."""
        if self.http is None:
            from lightwork.server.http_server import HttpSide  # loaded where it is used

            self.http = HttpSide(self._app, self.engine, self.hub, self.id)
        return self.http.api

    def _reshaped(self) -> None:
        self.layouts.reshaped()

    async def _run_passes(self) -> None:
        root = self._app.root
        try:
            # After a killed scheduler the works that ran still run; a call starts the others.
            first = [] if self.engine.is_resumed else [work for work in root.works() if work._start_with_flow]
            for start in [work.start() for work in first]:
                try:
                    await start
                except LightworkError:
                    continue  # the work's status says so, and the flow's first call starts it again
            await Passes(root, self.engine, self.hub, self.layouts.refresh).serve()
        except asyncio.CancelledError:
            if not self.stopped.is_set():
                self.fail(UsageError("the flow ended with CancelledError: it awaited something that was cancelled"))
        except BaseException as error:
            self.fail(error)

    # --- ending -----------------------------------------------------------------------------------

    def _request_stop(self, message: str | None) -> None:
        self.engine.in_loop_soon(lambda: self.end(message))
        if in_pass.get() is self.engine:
            raise FlowEnded(is_success=True)

    def _request_fail(self, message: str | None) -> None:
        error = FlowFailed(message or "the flow has failed")
        self.engine.in_loop_soon(lambda: self.fail(error, message))
        if in_pass.get() is self.engine:
            raise FlowEnded(is_success=False)

    def end(self, message: str | None = None) -> None:
        """Begin to end the app as a success. Do nothing if it is ending already."""
        if self.stopped.is_set():
            return
        self._app.stop_message = message
        self.stopped.set()
        self.hub.changed()
        if self.http is not None:
            self.http.stopping()
        if self._passes is not None and self._passes is not asyncio.current_task():
            self._passes.cancel()

    def fail(self, error: BaseException, message: str | None = None) -> None:
        """Begin to end the app as a failure. Only the first error counts, and none after the end has begun."""
        if self.stopped.is_set():
            return
        self._app.error = error
        self.end(message)
        if self._body is not None and not self._is_leaving:
            self._has_cancelled_body = True
            self._body.cancel()

    def kill(self) -> None:
        """End the app now."""
        self.end()
        self.engine.kill()

    async def close(self, error: BaseException | None) -> None:
        """End everything. Then raise the error that failed the app, if there is one."""
        self._is_leaving = True
        self.end()
        body, is_own = self._body, False
        if self._has_cancelled_body and body is not None:
            body.uncancel()
            # A body that was cancelled outside an await receives the cancellation in the first await below.
            is_own = not isinstance(error, asyncio.CancelledError)
        closing = asyncio.create_task(self._shut_down(), name="lightwork end")
        cancelled = False
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                if is_own and body is not None and not body.cancelling():
                    is_own = False
                    continue
                # A second cancellation means: end now.
                cancelled = not closing.done()
                self.engine.kill()
        await self._group.__aexit__(None, None, None)
        closing.result()
        failure = self._app.error
        if failure is not None:
            if error is None or _follows(error):
                context = failure.__context__
                try:
                    raise failure
                finally:
                    # Raising sets the context to the cancellation of the body, which we caused ourselves.
                    failure.__context__ = context
            error.add_note(f"the app had failed before, with {type(failure).__name__}: {failure}")
        if cancelled:
            raise asyncio.CancelledError

    async def _shut_down(self) -> None:
        assert self._passes is not None
        self._passes.cancel()
        await asyncio.wait({self._passes}, timeout=self._app.config.grace)
        if not self._passes.done():
            get_logger("lightwork").error("the flow ignores its cancellation, and is left behind")
        try:
            await asyncio.gather(self.engine.aclose(), self.layouts.aclose())
        finally:
            self.hub.close()
            # The output first: its readers read the rest when the HTTP side has ended.
            await self._close_output()
            if self.http is not None:
                await self.http.aclose()
            self._app.root._bind(None)


def _follows(error: BaseException) -> bool:
    """Return whether an exception of the body only reports that the app has ended."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_follows, error.exceptions))
    return isinstance(error, (asyncio.CancelledError, AppEnded))


LightningApp = App

export("lightwork", App, AppSettings)
