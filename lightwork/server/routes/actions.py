"""Routes that act on the state, works, calls, schedules and the app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from lightwork.components.call import Call, Operation
from lightwork.components.work import Work
from lightwork.errors import ArgumentsError, LaunchFailed, LightworkError, ProposalRefused, StateError, UsageError
from lightwork.server import state_edits as state_edits
from lightwork.server.lookup import find_call, find_component, find_work
from lightwork.server.types import (
    Accepted,
    Applied,
    CallDetail,
    CallRequest,
    Edits,
    StopRequest,
    TriggerRequest,
    WorkView,
)
from lightwork.server.values import BadValue, from_json
from lightwork.server.web import Problem, Request, Response, Route, json_response, parse_body, parse_query

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["ROUTES"]

_CONFIRM_WITHIN = 30.0
"""Seconds within which a work must answer an edit of its state."""


class _WaitQuery(msgspec.Struct, frozen=True):
    """Whether to wait until the operation is done."""

    wait: bool = False


class _CallQuery(msgspec.Struct, frozen=True):
    """Seconds to wait for the end of the call."""

    wait: Annotated[float, Meta(ge=0, le=3600)] | None = None


# --- the app -------------------------------------------------------------------------------------


async def _stop_app(api: Api, request: Request) -> Accepted:
    """Stop the app gracefully."""
    message = parse_body(request, StopRequest).message
    api.app.stop(message)
    return Accepted()


async def _trigger(api: Api, request: Request) -> Accepted:
    """Fire a schedule now."""
    body = parse_body(request, TriggerRequest)
    try:
        api.app.trigger(body.flow, body.key)
    except KeyError as error:
        raise Problem("not_found", str(error.args[0])) from None
    return Accepted()


# --- state ---------------------------------------------------------------------------------------


async def _patch_state(api: Api, request: Request) -> Applied:
    """Edit the state of a component. A running work may refuse edits of its state."""
    component = find_component(api, request.params["component"])
    wanted = parse_body(request, Edits).edits
    answered: asyncio.Future[Operation | None] = asyncio.get_running_loop().create_future()

    def make() -> None:
        # Runs after the current plain pass, if there is one: a pass must see one state throughout.
        try:
            prepared = state_edits.prepare(component, wanted)
            if isinstance(component, Work):
                operation = api.engine.propose(component, lambda: state_edits.make(component, prepared))
            else:
                state_edits.make(component, prepared)
                operation = None
        except BaseException as error:
            if not answered.done():
                answered.set_exception(error)
        else:
            if not answered.done():
                answered.set_result(operation)

    api.engine.core.external(make)
    try:
        operation = await answered
        if operation is not None:
            async with asyncio.timeout(_CONFIRM_WITHIN):
                await operation
    except ProposalRefused as error:
        raise Problem("refused", str(error)) from None
    except StateError as error:
        raise Problem("conflict", str(error)) from None
    except TimeoutError:
        raise Problem(
            "timeout", f"{component.name} did not answer the edit within {_CONFIRM_WITHIN:g} s; it may still accept it"
        ) from None
    return Applied(len(wanted))


# --- works ---------------------------------------------------------------------------------------


async def _start_work(api: Api, request: Request) -> Response:
    """Start a work's process before its first call."""
    work = find_work(api, request.params["name"])
    return await _operate(api, request, work, work.start)


async def _stop_work(api: Api, request: Request) -> Response:
    """Stop a work's process. Its calls end as stopped.

    A work that the flow has not created again after ``--resume`` is abandoned. The request does not wait for its end.
    """
    name = request.params["name"]
    if api.views.find(name) is None and api.engine.give_up(name):
        return json_response(Accepted(), 202)
    work = find_work(api, name)
    return await _operate(api, request, work, work.stop)


async def _operate(api: Api, request: Request, work: Work, act: Any) -> Response:
    is_waiting = parse_query(request, _WaitQuery).wait
    try:
        operation: Operation = act()
        if not is_waiting:
            return json_response(Accepted(), 202)
        await operation
    except UsageError as error:
        raise Problem("conflict", str(error)) from None
    except LaunchFailed as error:
        raise Problem("conflict", str(error)) from None
    return json_response(api.views.work(work))


# --- calls ---------------------------------------------------------------------------------------


async def _call_work(api: Api, request: Request) -> Response:
    """Call a work with the arguments in the body."""
    work = find_work(api, request.params["name"])
    body = parse_body(request, CallRequest)
    try:
        args = tuple(from_json(value) for value in body.args)
        kwargs = {name: from_json(value) for name, value in body.kwargs.items()}
    except BadValue as error:
        raise Problem("bad_request", f"invalid argument: {error}") from None
    return await _submit(api, request, work, args, kwargs)


async def _retry_call(api: Api, request: Request) -> Response:
    """Call the same work again with the same arguments."""
    record = find_call(api, request.params["id"])
    work = find_work(api, record.work)
    args, kwargs = record.signature.unbind(record.data)
    return await _submit(api, request, work, args, kwargs)


async def _submit(api: Api, request: Request, work: Work, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
    seconds = parse_query(request, _CallQuery).wait
    try:
        call = work.submit(*args, **kwargs)
    except ArgumentsError as error:
        raise Problem("bad_request", str(error)) from None
    except UsageError as error:
        raise Problem("conflict", str(error)) from None
    except LightworkError as error:
        raise Problem("refused", str(error)) from None
    if call._interest == 1:
        call._retrieved = True  # the client sees the error, so it must not fail the app
    if seconds is not None:
        await _wait(call, seconds)
    return json_response(_view(api, call), 200 if call.done else 202)


async def _wait(call: Call[Any], seconds: float) -> None:
    """Wait for a call without counting as a caller: the call does not run for the sake of this wait."""
    try:
        async with asyncio.timeout(seconds):
            while not call.done:
                await call._wait()
    except TimeoutError:
        return


def _view(api: Api, call: Call[Any]) -> CallDetail:
    record = api.history.call(call.id)
    if record is None:  # the history has already dropped it, because many calls came after it
        status = call.status
        return CallDetail(call.id, call.work, call.hash, status.stage, status.reason, status.message, status.attempt)
    return api.views.call(record)


async def _cancel_call(api: Api, request: Request) -> Accepted:
    """Cancel a call that is waiting or running."""
    record = find_call(api, request.params["id"])
    work = api.views.find(record.work)
    entry = api.views.entry(work) if isinstance(work, Work) else None
    if entry is None:
        raise Problem("conflict", f"the work {record.work} is no longer in the app")
    if record.ended_at is not None:
        raise Problem("conflict", f"call {record.id} has already ended: {record.status.stage.value}")
    api.engine.cancel_call(entry, record.id)
    return Accepted()


ROUTES = [
    Route("POST", "/app/stop", _stop_app, body=StopRequest, answer=Accepted, status=202, tag="app"),
    Route(
        "POST", "/schedules/trigger", _trigger,
        body=TriggerRequest, answer=Accepted, status=202, errors=["not_found"], tag="app",
    ),
    Route(
        "PATCH", "/state/{component}", _patch_state, body=Edits, answer=Applied,
        errors=["unknown_component", "unknown_path", "refused", "conflict", "timeout"], tag="state",
    ),
    Route(
        "POST", "/works/{name}/start", _start_work, query=_WaitQuery, answer=(WorkView, Accepted), status=202,
        errors=["unknown_work", "conflict"], tag="works",
    ),
    Route(
        "POST", "/works/{name}/stop", _stop_work, query=_WaitQuery, answer=(WorkView, Accepted), status=202,
        errors=["unknown_work", "conflict"], tag="works",
    ),
    Route(
        "POST", "/works/{name}/calls", _call_work, query=_CallQuery, body=CallRequest, answer=CallDetail, status=202,
        errors=["unknown_work", "conflict", "refused"], tag="calls",
    ),
    Route(
        "POST", "/calls/{id}/cancel", _cancel_call, answer=Accepted, status=202,
        errors=["unknown_call", "conflict"], tag="calls",
    ),
    Route(
        "POST", "/calls/{id}/retry", _retry_call, query=_CallQuery, answer=CallDetail, status=202,
        errors=["unknown_call", "unknown_work", "conflict", "refused"], tag="calls",
    ),
]  # fmt: skip
