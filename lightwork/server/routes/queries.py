"""Routes that read the app, its component tree, its works and their calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from lightwork.engine.history import CallRecord
from lightwork.server.lookup import find_call, find_component, find_work
from lightwork.server.types import (
    AppDetail,
    CallDetail,
    CallsPage,
    ComponentsPage,
    ComponentState,
    Layout,
    RuntimesPage,
    SchedulesPage,
    Timeline,
    TimelineItem,
    WorkDetail,
    WorksPage,
    WorkView,
)
from lightwork.server.values import to_json
from lightwork.server.views import MOST_STATE
from lightwork.server.web import Problem, Request, Route, parse_query
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["ROUTES", "page", "parse_path", "walk"]

T = TypeVar("T")

_Limit = Annotated[int, Meta(ge=1, le=1000)]
_Offset = Annotated[int, Meta(ge=0, le=2**53)]
_Depth = Annotated[int, Meta(ge=0, le=100)]
_MOST_DEEP = 64


class _StateQuery(msgspec.Struct, frozen=True):
    """Which component, and how many levels below it."""

    component: str = "root"
    depth: _Depth | None = None


class _PathQuery(msgspec.Struct, frozen=True):
    """Path in the attributes: ``a.b.0``, or a JSON list of keys."""

    path: str | None = None


class _WorksQuery(msgspec.Struct, frozen=True):
    """Which works, and in which order. A minus before the sort key means descending."""

    stage: Stage | None = None
    match: Annotated[str, Meta(max_length=1000)] | None = None
    runtime: str | None = None
    sort: Literal["name", "-name", "stage", "-stage", "since", "-since", "type", "-type"] | None = None
    limit: _Limit = 100
    offset: _Offset = 0


class _CallsQuery(msgspec.Struct, frozen=True):
    """Which calls."""

    stage: Stage | None = None
    work: str | None = None
    limit: _Limit = 100
    offset: _Offset = 0


class _TimelineQuery(msgspec.Struct, frozen=True):
    """Calls that had not ended at the time `since`, at most `limit`."""

    since: float | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


def parse_path(text: str) -> list[Any]:
    """Split ``a.b.0``, or decode a JSON list of keys. Raises `Problem` if the JSON is invalid."""
    if not text.startswith("["):
        return [int(part) if part.isascii() and part.isdigit() else part for part in text.split(".")][:_MOST_DEEP]
    try:
        found: list[Any] = msgspec.json.decode(text, type=list[str | int | bool | None])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem("bad_request", f"a path that begins with [ must be a JSON list of keys: {error}") from None
    return found[:_MOST_DEEP]


def walk(values: dict[str, Any], path: list[Any]) -> Any:
    """Return the value at a path of plain attributes.

    A dotted path does not tell whether ``0`` is a number or text: if a dict has no key 0, the key "0" is tried.

    Raises:
        KeyError: The path does not exist. The argument is the key that was not found.
    """
    node: Any = values
    for key in path:
        if isinstance(node, (list, tuple)) and type(key) is int and 0 <= key < len(node):
            node = node[key]
        elif isinstance(node, dict) and (found := _key_of(node, key)) is not None:
            node = node[found[0]]
        else:
            raise KeyError(key)
    return node


def _key_of(node: dict[Any, Any], key: Any) -> tuple[Any] | None:
    if type(key) not in (str, int, bool, type(None)):
        return None
    if key in node:
        return (key,)
    return (str(key),) if type(key) is int and str(key) in node else None


def page(found: list[T], limit: int, offset: int) -> list[T]:
    """Return one page of a list."""
    return found[offset : offset + limit]


# --- the app and its component tree --------------------------------------------------------------


async def _get_app(api: Api, request: Request) -> AppDetail:
    """Return the app, with an overview of its works."""
    app = msgspec.structs.asdict(api.views.app())
    return AppDetail(
        **app,
        counts=api.views.counts(),
        failures=api.views.failures(),
        load=api.load(),
        unclaimed=api.engine.unclaimed,
    )


async def _get_components(api: Api, request: Request) -> ComponentsPage:
    """Return all components, parents first."""
    found = api.views.components()
    return ComponentsPage(found, len(found))


async def _get_state(api: Api, request: Request) -> ComponentState:
    """Return the state of a component and of the components below it."""
    query = parse_query(request, _StateQuery)
    component = find_component(api, query.component)
    return ComponentState(query.component, state=api.views.state(component, query.depth))


async def _get_state_at(api: Api, request: Request) -> ComponentState:
    """Return the state of a component, or the value at a path in its attributes."""
    name, text = request.params["component"], parse_query(request, _PathQuery).path
    component = find_component(api, name)
    if text is None:
        return ComponentState(name, state=api.views.state(component))
    path = parse_path(text)
    try:
        value = walk(component._state.snapshot(), path)
    except KeyError as error:
        raise Problem(
            "unknown_path",
            f"the state of {name} has no path {text!r:.200}: the key {error.args[0]!r:.80} does not exist",
        ) from None
    return ComponentState(name, path=path, value=to_json(value, MOST_STATE))


async def _get_layout(api: Api, request: Request) -> Layout:
    """Return the user interfaces of the components."""
    return Layout(api.views.layout())


async def _get_schedules(api: Api, request: Request) -> SchedulesPage:
    """Return all schedules, the next to fire first."""
    return SchedulesPage(api.views.schedules())


async def _get_runtimes(api: Api, request: Request) -> RuntimesPage:
    """Return the runtime profiles that are configured or in use."""
    return RuntimesPage(api.views.runtimes())


# --- works and calls -----------------------------------------------------------------------------

_SORTS: dict[str, Callable[[WorkView], Any]] = {
    "name": lambda view: view.name,
    "stage": lambda view: (view.stage, view.name),
    "since": lambda view: (view.since, view.name),
    "type": lambda view: (view.type, view.name),
}


async def _get_works(api: Api, request: Request) -> WorksPage:
    """Return works, filtered and sorted."""
    query = parse_query(request, _WorksQuery)
    works = [work for work in api.root.works() if query.match is None or fnmatchcase(work.name, query.match)]
    if query.stage is not None:
        works = [work for work in works if work.status.stage is query.stage]
    if query.runtime is not None:
        config = api.config
        works = [work for work in works if config.runtime_for(work.name, work._runtime) == query.runtime]
    if query.sort is None:
        return WorksPage([api.views.work(work) for work in page(works, query.limit, query.offset)], len(works))
    views = [api.views.work(work) for work in works]
    views.sort(key=_SORTS[query.sort.lstrip("-")], reverse=query.sort.startswith("-"))
    return WorksPage(page(views, query.limit, query.offset), len(views))


async def _get_work(api: Api, request: Request) -> WorkDetail:
    """Return all details of a work."""
    return api.views.work_detail(find_work(api, request.params["name"]))


async def _get_work_calls(api: Api, request: Request) -> CallsPage:
    """Return the calls of one work, newest first."""
    name = request.params["name"]
    find_work(api, name)
    return _calls(api, msgspec.structs.replace(parse_query(request, _CallsQuery), work=name))


async def _get_calls(api: Api, request: Request) -> CallsPage:
    """Return the calls of all works, newest first."""
    return _calls(api, parse_query(request, _CallsQuery))


def _calls(api: Api, query: _CallsQuery) -> CallsPage:
    found = [
        record
        for record in api.history.newest()
        if (query.work is None or record.work == query.work)
        and (query.stage is None or record.status.stage is query.stage)
    ]
    return CallsPage([api.views.call(record) for record in page(found, query.limit, query.offset)], len(found))


async def _get_call(api: Api, request: Request) -> CallDetail:
    """Return one call with its arguments, result and error."""
    return api.views.call(find_call(api, request.params["id"]))


async def _get_timeline(api: Api, request: Request) -> Timeline:
    """Return the times at which calls waited and ran."""
    query = parse_query(request, _TimelineQuery)
    since = query.since or 0.0
    records: Iterable[CallRecord] = (
        record for record in api.history.newest() if record.ended_at is None or record.ended_at >= since
    )
    items = [
        TimelineItem(
            record.id,
            record.work,
            record.submitted_at,
            record.started_at,
            record.ended_at,
            record.status.stage,
            record.status.attempt,
        )
        for record in islice(records, query.limit)
    ]
    return Timeline(items, time.time())


ROUTES = [
    Route("GET", "/app", _get_app, answer=AppDetail, tag="app"),
    Route("GET", "/components", _get_components, answer=ComponentsPage, tag="app"),
    Route(
        "GET", "/state", _get_state, query=_StateQuery, answer=ComponentState, errors=["unknown_component"], tag="state"
    ),
    Route(
        "GET", "/state/{component}", _get_state_at,
        query=_PathQuery, answer=ComponentState, errors=["unknown_component", "unknown_path"], tag="state",
    ),
    Route("GET", "/layout", _get_layout, answer=Layout, tag="app"),
    Route("GET", "/schedules", _get_schedules, answer=SchedulesPage, tag="app"),
    Route("GET", "/runtimes", _get_runtimes, answer=RuntimesPage, tag="app"),
    Route("GET", "/works", _get_works, query=_WorksQuery, answer=WorksPage, tag="works"),
    Route("GET", "/works/{name}", _get_work, answer=WorkDetail, errors=["unknown_work"], tag="works"),
    Route(
        "GET", "/works/{name}/calls", _get_work_calls,
        query=_CallsQuery, answer=CallsPage, errors=["unknown_work"], tag="calls",
    ),
    Route("GET", "/calls", _get_calls, query=_CallsQuery, answer=CallsPage, tag="calls"),
    Route("GET", "/calls/{id}", _get_call, answer=CallDetail, errors=["unknown_call"], tag="calls"),
    Route("GET", "/timeline", _get_timeline, query=_TimelineQuery, answer=Timeline, tag="calls"),
]  # fmt: skip
