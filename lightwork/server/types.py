"""Types of the HTTP API: the bodies of requests and responses, and the items of the feed.

The routes encode and validate with these types. The OpenAPI document is generated from them.
Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lightwork.components.cron import ScheduleView
from lightwork.link.reports import FrameInfo
from lightwork.status import Reason, Stage, WorkStatus

__all__ = [
    "Accepted",
    "AppDetail",
    "AppView",
    "Applied",
    "CallDetail",
    "CallRequest",
    "CallsPage",
    "CommandRequest",
    "CommandView",
    "CommandsPage",
    "ComponentState",
    "ComponentView",
    "ComponentsPage",
    "Edit",
    "Edits",
    "ErrorBody",
    "Failed",
    "Layout",
    "LayoutItem",
    "LayoutTab",
    "LogEntry",
    "LogsPage",
    "Parameter",
    "Raised",
    "RuntimeView",
    "RuntimesPage",
    "ScheduleView",
    "SchedulesPage",
    "StackView",
    "StopRequest",
    "TaskStack",
    "ThreadStack",
    "Timeline",
    "TimelineItem",
    "TriggerRequest",
    "UsagePage",
    "UsageTotal",
    "Value",
    "WorkAttempt",
    "WorkCounts",
    "WorkDetail",
    "WorkUsage",
    "WorkView",
    "WorksPage",
]

Value = Any
"""Any JSON. Values that JSON cannot express are written as in `lightwork.server.values`."""

_Count = Annotated[int, Meta(ge=0)]


# --- errors --------------------------------------------------------------------------------------


class Failed(msgspec.Struct, frozen=True):
    """Why a request failed.

    Attributes:
        code: Error code for programs. It stays the same when the wording of the message changes.
        message: Description for people.
        detail: More facts, by name.
    """

    code: str
    message: str
    detail: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every response with a status of 400 or more."""

    error: Failed


class Raised(msgspec.Struct, frozen=True):
    """An exception. `traceback` is the text of the traceback in the process that raised it."""

    type: str
    message: str
    traceback: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """The request was accepted, and the operation has begun."""

    accepted: bool = True


# --- the app -------------------------------------------------------------------------------------


class AppView(msgspec.Struct, frozen=True):
    """The app as a whole.

    Attributes:
        run: Id of this run. If it changes, everything that a client has stored of the app is outdated.
        root: Class of the root flow.
        file: File that defines the class, None if there is no file.
        url: URL of the HTTP server; empty if the API is mounted in another server.
        address: Address to which works connect.
        runtime: The default runtime profile of works.
        journal: File of the journal, None without a journal.
        error: The exception that has failed the app, None if it has not failed.
    """

    run: str
    name: str
    root: str
    file: str | None
    pid: int
    host: str
    started_at: float
    stage: Literal["running", "stopping"]
    version: str
    python: str
    url: str
    address: str
    runtime: str
    stop_message: str | None = None
    journal: str | None = None
    error: Raised | None = None


class ComponentView(msgspec.Struct, frozen=True):
    """A component and its place in the tree. `children` are full names."""

    name: str
    kind: Literal["flow", "work"]
    type: str
    children: list[str]


class ComponentsPage(msgspec.Struct, frozen=True):
    """All components, parents first."""

    items: list[ComponentView]
    total: int


class ComponentState(msgspec.Struct, frozen=True):
    """The ``state`` of a component, or the `value` at a `path` in its attributes."""

    component: str
    state: Value = None
    path: list[Any] | None = None
    value: Value = None


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One edit of a component's attributes: set `value` at `path`, or with `delete` remove the item at `path`.

    A path is the attribute's name, followed by keys and indices. An index one past the end of a list appends.
    """

    path: Annotated[list[Any], Meta(min_length=1, max_length=64)]
    value: Value = msgspec.UNSET
    delete: bool = False


class Edits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Edits that are made together and in order."""

    edits: Annotated[list[Edit], Meta(min_length=1, max_length=1000)]


class Applied(msgspec.Struct, frozen=True):
    """Number of edits that were made. If a worker owns the state, it has accepted them."""

    applied: int


class StopRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stops the app. `message` becomes its `stop_message`."""

    message: str | None = None


# --- calls ---------------------------------------------------------------------------------------


class CallDetail(msgspec.Struct, frozen=True):
    """One call.

    Attributes:
        attempt: Number of the attempt, from 1.
        submitted_at: Time at which it was queued.
        started_at: Time at which it started, None before.
        ended_at: Time at which it ended, None before.
        cached: Whether it was answered from the cache, without running.
        joined: How often the same call was requested again while it was in flight.
        args: Arguments by parameter name; None in lists that leave them out.
        result: Return value of ``run``.
        error: The exception that ``run`` raised.
    """

    id: int
    work: str
    hash: str
    stage: Stage
    reason: Reason | None = None
    message: str | None = None
    attempt: int = 1
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    cached: bool = False
    joined: int = 0
    args: Value = None
    result: Value = None
    error: Raised | None = None


class CallsPage(msgspec.Struct, frozen=True):
    """Calls, newest first."""

    items: list[CallDetail]
    total: int


class CallRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a call of ``run``."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class TimelineItem(msgspec.Struct, frozen=True):
    """When a call waited and ran."""

    call: int
    work: str
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    stage: Stage
    attempt: int


class Timeline(msgspec.Struct, frozen=True):
    """Calls that had not ended at `since`, newest first. `now` is the time of the scheduler's clock."""

    items: list[TimelineItem]
    now: float


# --- works ---------------------------------------------------------------------------------------


class WorkCounts(msgspec.Struct, frozen=True):
    """Number of calls of a work in each stage. Ended calls are counted since the app started."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0


class WorkView(msgspec.Struct, frozen=True):
    """One work.

    Attributes:
        since: Time of its latest status.
        runtime: The runtime profile that it uses.
        pid: Process id of its worker, None without a process.
        hostname: Host of its worker, None without a process.
        worker_attempt: Number of processes that it has had.
        current: Id of a call that is running, None without one.
    """

    name: str
    type: str
    stage: Stage
    reason: Reason | None = None
    message: str | None = None
    since: float = 0.0
    runtime: str = ""
    pid: int | None = None
    hostname: str | None = None
    url: str = ""
    parallel: bool = False
    concurrency: int = 1
    port: int | None = None
    calls: WorkCounts = WorkCounts()
    num_timeouts: int = 0
    worker_attempt: int = 0
    current: int | None = None


class WorksPage(msgspec.Struct, frozen=True):
    """Works, in the order of the tree unless sorted."""

    items: list[WorkView]
    total: int


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a ``run``, a command or a route."""

    name: str
    type: str
    required: bool
    default: Value = None


class WorkAttempt(msgspec.Struct, frozen=True):
    """One process of a work."""

    attempt: int
    pid: int | None = None
    host: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    message: str | None = None


class WorkDetail(WorkView, frozen=True):
    """A work with all details. `resources` are those that were requested from its runtime."""

    statuses: list[WorkStatus] = []
    signature: str = ""
    parameters: list[Parameter] = []
    attempts: list[WorkAttempt] = []
    state: Value = None
    resources: Value = None


class ThreadStack(msgspec.Struct, frozen=True):
    """The stack of a thread, outermost frame first."""

    name: str
    frames: list[FrameInfo]


class TaskStack(msgspec.Struct, frozen=True):
    """The stack of an asyncio task, outermost frame first."""

    name: str
    frames: list[FrameInfo]


class StackView(msgspec.Struct, frozen=True):
    """The stacks of all threads and tasks of a work's process at one moment."""

    work: str
    time: float
    threads: list[ThreadStack]
    tasks: list[TaskStack]


class WorkUsage(msgspec.Struct, frozen=True):
    """Usage of a work's processes. `cpu` is in percent of one core, `memory` in bytes."""

    work: str
    time: float
    cpu: float
    memory: int
    processes: int


class UsagePage(msgspec.Struct, frozen=True):
    """Usage of every work whose process has replied."""

    items: list[WorkUsage]


class UsageTotal(msgspec.Struct, frozen=True):
    """Total usage of all works."""

    cpu: float
    memory: int
    processes: int


class AppDetail(AppView, frozen=True):
    """The app with an overview of its works.

    Attributes:
        counts: Number of works by stage.
        failures: The latest failed calls, newest first, without arguments.
        load: Total usage of all works in the latest sample; None if there is no recent sample.
        unclaimed: Works of a killed scheduler that are still running and that the flow has not created again. No other
            list has them. Stopping such a work by its name ends it.
    """

    counts: dict[str, int] = {}
    failures: list[CallDetail] = []
    load: UsageTotal | None = None
    unclaimed: list[str] = []


# --- output --------------------------------------------------------------------------------------


class LogEntry(msgspec.Struct, frozen=True):
    """A line that a work wrote. `seq` increases over all works of the run."""

    seq: int
    work: str
    time: float
    text: str


class LogsPage(msgspec.Struct, frozen=True):
    """Lines in order of their numbers.

    Attributes:
        first: Number of the first line that was searched, 0 if there are no lines.
        last: Number of the last line that was searched, 0 if there are no lines.
        more: Whether there are more lines in the requested direction.
    """

    items: list[LogEntry]
    first: int
    last: int
    more: bool


# --- the rest ------------------------------------------------------------------------------------


class LayoutTab(msgspec.Struct, frozen=True):
    """A tab: the user interface of a component, or of a URL."""

    name: str
    content: str | None
    target: str | None


class LayoutItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The user interface of a component."""

    kind: Literal["url", "frontend", "tabs", "none"]
    target: str | None = None
    tabs: list[LayoutTab] = []


class Layout(msgspec.Struct, frozen=True):
    """The user interfaces of the tree, by component name."""

    items: dict[str, LayoutItem]


class SchedulesPage(msgspec.Struct, frozen=True):
    """Schedules, the next to fire first."""

    items: list[ScheduleView]


class TriggerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fires a schedule now."""

    flow: str
    key: str


class RuntimeView(msgspec.Struct, frozen=True):
    """A runtime profile, and the number of works that use it."""

    profile: str
    kind: str
    works: int
    note: str = ""


class RuntimesPage(msgspec.Struct, frozen=True):
    """The runtime profiles that are configured or in use."""

    items: list[RuntimeView]


class CommandView(msgspec.Struct, frozen=True):
    """A command that the app defines."""

    name: str
    help: str
    parameters: list[Parameter]


class CommandsPage(msgspec.Struct, frozen=True):
    """The commands that the app defines."""

    items: list[CommandView]


class CommandRequest(msgspec.Struct, frozen=True):
    """The arguments of a command, by name."""

    kwargs: dict[str, Any] = {}
