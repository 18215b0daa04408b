"""Routes for the commands that the app defines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightwork.server.types import CommandRequest, CommandsPage
from lightwork.server.values import BadValue, from_json, to_json
from lightwork.server.web import Problem, Request, Route, parse_body

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["ROUTES"]


async def _get_commands(api: Api, request: Request) -> CommandsPage:
    """Return the commands that the app defines."""
    return CommandsPage(api.own.commands())


async def _run_command(api: Api, request: Request) -> dict[str, Any]:
    """Run a command that the app defines."""
    given = parse_body(request, CommandRequest).kwargs
    try:
        given = {name: from_json(value) for name, value in given.items()}
    except BadValue as error:
        raise Problem("bad_request", f"invalid argument: {error}") from None
    return {"result": to_json(await api.own.run(request.params["name"], given))}


ROUTES = [
    Route("GET", "/commands", _get_commands, answer=CommandsPage, tag="app"),
    Route(
        "POST", "/commands/{name}", _run_command,
        body=CommandRequest, answer=dict[str, Any], errors=["unknown_command", "timeout"], tag="app",
    ),
]  # fmt: skip
