"""What the HTTP side says and takes, as types: the bodies of requests and answers, and what the feed sends.

The routes encode and check with these, and the OpenAPI document is made from them. Times are seconds since the epoch.
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
    "StackFrame",
    "StackView",
    "StopRequest",
    "TaskStack",
    "ThreadStack",
    "Timeline",
    "TimelineItem",
    "TriggerRequest",
    "Usage",
    "UsagePage",
    "UsageTotal",
    "Value",
    "WorkAttempt",
    "WorkCounts",
    "WorkDetail",
    "WorkView",
    "WorksPage",
]

Value = Any
"""Any JSON. What JSON has no form for is written as in `lightwork.server.values`."""

StackFrame = FrameInfo
"""One frame of a stack, as the worker reports it."""

_Count = Annotated[int, Meta(ge=0)]


# --- errors --------------------------------------------------------------------------------------


class Failed(msgspec.Struct, frozen=True):
    """Why a request was not answered.

    Attributes:
        code: For programs; it does not change with the wording.
        message: For people.
        detail: What else is known, by name.
    """

    code: str
    message: str
    detail: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer whose status is 400 or more."""

    error: Failed


class Raised(msgspec.Struct, frozen=True):
    """What was raised. `traceback` is that of the process in which it was, as text."""

    type: str
    message: str
    traceback: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """It was asked for, and is under way."""

    accepted: bool = True


# --- the app -------------------------------------------------------------------------------------


class AppView(msgspec.Struct, frozen=True):
    """The app as a whole.

    Attributes:
        run: Id of this run: another one means that everything known of the app is void.
        root: Class of the root.
        file: Where that is defined, None where there is no file.
        url: Of the HTTP side; empty where it is mounted in another server.
        address: Where works dial in.
        runtime: Profile of the works for which nothing else is said.
        journal: Its file, None without one.
        error: What fails it, where it ends for that; None while nothing has.
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
    """A component's place in the tree. `children` are full names."""

    name: str
    kind: Literal["flow", "work"]
    type: str
    children: list[str]


class ComponentsPage(msgspec.Struct, frozen=True):
    """Every component, parents first."""

    items: list[ComponentView]
    total: int


class ComponentState(msgspec.Struct, frozen=True):
    """The ``state`` of a component, or with `path` the part of its attributes that stands there."""

    component: str
    state: Value = None
    path: list[Any] | None = None
    value: Value = None


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One edit of a component's attributes: `value` is set at `path`, or with `delete` what stands there goes.

    A path is the attribute's name, then keys and indices. One past the end of a list appends.
    """

    path: Annotated[list[Any], Meta(min_length=1, max_length=64)]
    value: Value = msgspec.UNSET
    delete: bool = False


class Edits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Edits that are made together, in order."""

    edits: Annotated[list[Edit], Meta(min_length=1, max_length=1000)]


class Applied(msgspec.Struct, frozen=True):
    """How many edits were made; where a worker owns the state, it has taken them."""

    applied: int


class StopRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ends the app. `message` becomes its `stop_message`."""

    message: str | None = None


# --- calls ---------------------------------------------------------------------------------------


class CallDetail(msgspec.Struct, frozen=True):
    """One call.

    Attributes:
        attempt: Which try it is, from 1.
        submitted_at, started_at, ended_at: None while that has not happened.
        cached: Whether it was answered without running.
        joined: How often the same call was asked for while it was in flight.
        args: By the names of the parameters; None where it was left out.
        result: What ``run`` returned.
        error: What was raised.
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
    """The arguments of a call, as ``run`` takes them."""

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
    """Calls that were not over at `since`, newest first; `now` is the scheduler's clock."""

    items: list[TimelineItem]
    now: float


# --- works ---------------------------------------------------------------------------------------


class WorkCounts(msgspec.Struct, frozen=True):
    """How many calls of a work there are in each stage; of those that are over, since the app started."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0


class WorkView(msgspec.Struct, frozen=True):
    """One work.

    Attributes:
        since: Time of its latest status.
        runtime: The profile that it uses.
        pid, hostname: Of its process, None while there is none.
        worker_attempt: How many processes it has had.
        current: A call that runs now.
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
    """A work with everything that is known of it. `resources`: what its runtime was asked for."""

    statuses: list[WorkStatus] = []
    signature: str = ""
    parameters: list[Parameter] = []
    attempts: list[WorkAttempt] = []
    state: Value = None
    resources: Value = None


class ThreadStack(msgspec.Struct, frozen=True):
    """Where a thread is, outermost frame first."""

    name: str
    frames: list[StackFrame]


class TaskStack(msgspec.Struct, frozen=True):
    """Where an asyncio task waits, outermost frame first."""

    name: str
    frames: list[StackFrame]


class StackView(msgspec.Struct, frozen=True):
    """What a work's process does at this moment."""

    work: str
    time: float
    threads: list[ThreadStack]
    tasks: list[TaskStack]


class Usage(msgspec.Struct, frozen=True):
    """What a work's processes use. `cpu` is in percent of one core, `memory` in bytes."""

    work: str
    time: float
    cpu: float
    memory: int
    processes: int


class UsagePage(msgspec.Struct, frozen=True):
    """Usage of every work that has a process and has answered."""

    items: list[Usage]


class UsageTotal(msgspec.Struct, frozen=True):
    """Usage of all works together."""

    cpu: float
    memory: int
    processes: int


class AppDetail(AppView, frozen=True):
    """The app with an overview of its works.

    Attributes:
        counts: Works by stage.
        failures: The latest failed calls, newest first, without arguments.
        load: What all works use, as last sampled; None where nobody has asked lately.
        unclaimed: Works of a killed scheduler that run and that the flow has not made again. They are in no other
            list; stopping one by its name ends it.
    """

    counts: dict[str, int] = {}
    failures: list[CallDetail] = []
    load: UsageTotal | None = None
    unclaimed: list[str] = []


# --- output --------------------------------------------------------------------------------------


class LogEntry(msgspec.Struct, frozen=True):
    """A line that a work wrote. `seq` grows over all works of the run."""

    seq: int
    work: str
    time: float
    text: str


class LogsPage(msgspec.Struct, frozen=True):
    """Lines in order.

    Attributes:
        first, last: The lines looked at are those from `first` to `last`; 0 where there are none.
        more: Whether there are lines beyond, in the direction that was asked for.
    """

    items: list[LogEntry]
    first: int
    last: int
    more: bool


# --- the rest ------------------------------------------------------------------------------------


class LayoutTab(msgspec.Struct, frozen=True):
    """A tab: the user interface of a component, or an address."""

    name: str
    content: str | None
    target: str | None


class LayoutItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The user interface of a component."""

    kind: Literal["url", "frontend", "tabs", "none"]
    target: str | None = None
    tabs: list[LayoutTab] = []


class Layout(msgspec.Struct, frozen=True):
    """The user interfaces of the tree, by the names of the components."""

    items: dict[str, LayoutItem]


class SchedulesPage(msgspec.Struct, frozen=True):
    """Schedules, the next to fire first."""

    items: list[ScheduleView]


class TriggerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lets a schedule fire now."""

    flow: str
    key: str


class RuntimeView(msgspec.Struct, frozen=True):
    """A runtime profile in use, and how many works use it."""

    profile: str
    kind: str
    works: int
    note: str = ""


class RuntimesPage(msgspec.Struct, frozen=True):
    """The runtime profiles that are configured or in use."""

    items: list[RuntimeView]


class CommandView(msgspec.Struct, frozen=True):
    """A command of the app's own."""

    name: str
    help: str
    parameters: list[Parameter]


class CommandsPage(msgspec.Struct, frozen=True):
    """The app's own commands."""

    items: list[CommandView]


class CommandRequest(msgspec.Struct, frozen=True):
    """The arguments of a command, by name."""

    kwargs: dict[str, Any] = {}
