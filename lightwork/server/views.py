"""Reads a running app and returns the types of `lightwork.server.types`. Nothing here changes the app."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lightwork._logging import get_logger
from lightwork._version import __version__
from lightwork.components.component import Component as AnyComponent
from lightwork.components.flow import Flow
from lightwork.components.state_dict import children_as
from lightwork.components.work import Work
from lightwork.engine.history import CallRecord, History
from lightwork.errors import LayoutError
from lightwork.remote_errors import ErrorInfo, describe_error
from lightwork.server.types import (
    AppView,
    CallDetail,
    ComponentView,
    LayoutItem,
    Parameter,
    Raised,
    RuntimeView,
    WorkAttempt,
    WorkCounts,
    WorkDetail,
    WorkView,
)
from lightwork.server.values import MOST_SHOWN, to_json
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.components.cron import ScheduleView
    from lightwork.config import Config
    from lightwork.engine.engine import Engine
    from lightwork.engine.workers.entries import WorkEntry

__all__ = ["MOST_STATE", "AppLike", "Views", "describe"]

MOST_STATE = 64 * 1024
"""Maximum bytes of JSON of one state attribute. A larger value is cut to a preview."""

_log = get_logger("lightwork.server")


class AppLike(Protocol):
    """The part of `lightwork.App` that the server uses."""

    @property
    def root(self) -> Flow:
        """The root flow."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def stop_message(self) -> str | None:
        """The message with which the flow stopped."""

    @property
    def error(self) -> BaseException | None:
        """The exception that has failed the app."""

    @property
    def schedules(self) -> list[ScheduleView]:
        """All schedules."""

    @property
    def layout(self) -> dict[str, Any]:
        """The user interface of each component."""

    def stop(self, message: str | None = None) -> None:
        """Stop the app gracefully."""

    def trigger(self, flow: str, key: str) -> None:
        """Fire a schedule now."""


class Views:
    """Reads one running app. Use it in the loop's thread only.

    Args:
        app: The app.
        engine: The engine of the app.
        history: The history of its calls.
        run: Id of the run.
        started_at: Time at which the run began.

    Attributes:
        url: URL of the HTTP server; empty if the API is mounted in another server.
        is_stopping: Whether the app is stopping.
    """

    def __init__(self, app: AppLike, engine: Engine, history: History, run: str, started_at: float) -> None:
        self._app = app
        self._engine = engine
        self._history = history
        self._run = run
        self._started_at = started_at
        self._layout: dict[str, LayoutItem] = {}
        self._named: dict[str, Work | Flow] = {}
        self.url = ""
        self.is_stopping = False

    # --- the app ----------------------------------------------------------------------------------

    def app(self) -> AppView:
        """Return the view of the app."""
        root, config, address, error = self._app.root, self._app.config, self._engine.address, self._app.error
        file = _file_of(root)
        host = f"[{address.host}]" if ":" in address.host else address.host
        return AppView(
            run=self._run,
            name=_name_of(file, root),
            root=type(root).__name__,
            file=file,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=self._started_at,
            stage="stopping" if self.is_stopping else "running",
            version=__version__,
            python=platform.python_version(),
            url=self.url,
            address=f"{host}:{address.port}",
            runtime=config.runtime,
            stop_message=self._app.stop_message,
            journal=getattr(config, "journal", None),
            error=None if error is None else _raised(describe_error(error)),
        )

    def counts(self) -> dict[str, int]:
        """Return the number of works by stage."""
        counts: dict[str, int] = {}
        for work in self._app.root.works():
            stage = work.status.stage.value
            counts[stage] = counts.get(stage, 0) + 1
        return counts

    def failures(self) -> list[CallDetail]:
        """Return the latest failed calls, newest first."""
        return [self.call(record, with_args=False) for record in reversed(self._history.failures)]

    def find(self, name: str) -> Work | Flow | None:
        """Return the component of this name, None if it does not exist."""
        found = self._named.get(name)
        if found is None or found._driver is None or found.name != name:
            self._named = {node.name: node for node in self._app.root._walk() if isinstance(node, (Work, Flow))}
            found = self._named.get(name)
        return found

    def components(self) -> list[ComponentView]:
        """Return all components, parents first."""
        return [
            ComponentView(
                node.name,
                "work" if isinstance(node, Work) else "flow",
                type(node).__name__,
                [child.name for child in _children(node)],
            )
            for node in self._app.root._walk()
            if isinstance(node, (Work, Flow))
        ]

    def layout(self) -> dict[str, LayoutItem]:
        """Return the user interfaces by component; if the layout is invalid now, return the latest valid one."""
        try:
            self._layout = msgspec.convert(self._app.layout, dict[str, LayoutItem])
        except LayoutError as error:
            _log.warning("invalid layout", error=str(error))  # the next pass raises this error and fails the app
        return self._layout

    def schedules(self) -> list[ScheduleView]:
        """Return all schedules, the next to fire first."""
        return self._app.schedules

    # --- state ------------------------------------------------------------------------------------

    def state(self, component: AnyComponent, depth: int | None = None) -> dict[str, Any]:
        """Return ``component.state`` as JSON values. Attributes larger than `MOST_STATE` are cut.

        Args:
            component: The component.
            depth: Levels of children to include; None for all.
        """
        if isinstance(component, Work):
            calls = component.state["calls"]
            return {"vars": _attributes(component), "calls": calls, "changes": {}}
        assert isinstance(component, Flow)
        below = None if depth is None else depth - 1
        shown = {"vars": _attributes(component), "calls": to_json(component._progress.snapshot(), MOST_STATE)}
        if below is not None and below < 0:
            return {**shown, "changes": {}, "flows": {}, "works": {}, "structures": {}}
        return {**shown, "changes": {}, **children_as(component, lambda one: self.state(one, below))}

    # --- works ------------------------------------------------------------------------------------

    def entry(self, work: Work) -> WorkEntry | None:
        """Return the engine's entry of a work, None if it has none or has removed it."""
        return self._engine.entries.by_work.get(work)

    def work(self, work: Work) -> WorkView:
        """Return the view of a work."""
        return WorkView(**self._work_fields(work))

    def _work_fields(self, work: Work) -> dict[str, Any]:
        status, entry = work.status, self.entry(work)
        counts, current, attempt = WorkCounts(), None, 0
        hello = None
        if entry is not None:
            past = self._history.work(entry)
            counts = WorkCounts(*(past.counts.get(stage, 0) for stage in _COUNTED))
            current = next(iter(past.running), None)
            attempt = past.attempts[-1].attempt if past.attempts else 0
            if entry.worker is not None:  # it may be older than the history: adopted, or started before the API was
                attempt, hello = entry.worker.attempt, entry.worker.hello
        return {
            "name": work.name,
            "type": type(work).__name__,
            "stage": status.stage,
            "reason": status.reason,
            "message": status.message,
            "since": status.timestamp,
            "runtime": self._app.config.runtime_for(work.name, work._runtime),
            "pid": hello.pid if hello is not None else None,
            "hostname": hello.host if hello is not None else None,
            "url": work.url,
            "parallel": work.parallel,
            "concurrency": work._concurrency,
            "port": work._state.values["_port"],
            "calls": counts,
            "num_timeouts": work.num_timeouts,
            "worker_attempt": attempt,
            "current": current,
        }

    def work_detail(self, work: Work) -> WorkDetail:
        """Return all details of a work."""
        entry, signature = self.entry(work), work._signature
        attempts = self._history.work(entry).attempts if entry is not None else ()
        return WorkDetail(
            **self._work_fields(work),
            statuses=work.statuses,
            signature=signature.text,
            parameters=describe(signature.described),
            attempts=[
                WorkAttempt(one.attempt, one.pid, one.host, one.started_at, one.ended_at, one.message)
                for one in attempts
            ],
            state=self.state(work),
            resources=to_json(msgspec.to_builtins(work.cloud_compute, enc_hook=repr), MOST_SHOWN),
        )

    def call(self, record: CallRecord, *, with_args: bool = True) -> CallDetail:
        """Return the details of a call. Without `with_args`, leave out arguments, result and traceback."""
        status, error = record.status, None
        if record.error is not None:
            error = _raised(record.error, with_traceback=with_args)
        return CallDetail(
            id=record.id,
            work=record.work,
            hash=record.hash,
            stage=status.stage,
            reason=status.reason,
            message=status.message,
            attempt=status.attempt,
            submitted_at=record.submitted_at,
            started_at=record.started_at,
            ended_at=record.ended_at,
            cached=record.cached,
            joined=record.joined,
            args={name: to_json(value, MOST_SHOWN) for name, value in record.args.items()} if with_args else None,
            result=to_json(record.result, MOST_SHOWN) if with_args else None,
            error=error,
        )

    def runtimes(self) -> list[RuntimeView]:
        """Return the runtime profiles that are configured or in use."""
        config = self._app.config
        used: dict[str, int] = {config.runtime: 0, **dict.fromkeys(config.runtimes, 0)}
        for work in self._app.root.works():
            profile = config.runtime_for(work.name, work._runtime)
            used[profile] = used.get(profile, 0) + 1
        return [RuntimeView(name, config.profile(name)[0], count) for name, count in used.items()]


_COUNTED = (Stage.PENDING, Stage.RUNNING, Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED)


def _raised(info: ErrorInfo, *, with_traceback: bool = True) -> Raised:
    return Raised(info.qualname, info.message, info.traceback if with_traceback else "")


def describe(parameters: Iterable[tuple[str, str, bool, Any]]) -> list[Parameter]:
    """Convert parameters from `lightwork.components.signature.describe_parameters` to `Parameter`."""
    return [
        Parameter(name, annotation, required, to_json(default, MOST_SHOWN))
        for name, annotation, required, default in parameters
    ]


def _attributes(component: AnyComponent) -> dict[str, Any]:
    return {name: to_json(value, MOST_STATE) for name, value in component._state.snapshot().items()}


def _children(node: AnyComponent) -> list[AnyComponent]:
    if not isinstance(node, Flow):
        return []
    return [child for child in node._walk_own() if isinstance(child, AnyComponent)]


def _file_of(root: Flow) -> str | None:
    shown: Any = root
    if type(root).__module__ == "lightwork.app":  # the flow that `App(work)` puts around a single work
        shown = root.works()[0]
    module = sys.modules.get(type(shown).__module__)
    return getattr(module, "__file__", None)


def _name_of(file: str | None, root: Flow) -> str:
    if file is None:
        return type(root).__name__
    path = Path(file)
    return path.parent.name if path.stem in ("app", "main", "__main__", "__init__") and path.parent.name else path.stem
