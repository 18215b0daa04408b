"""The app's own routes and commands, which its flows return from ``configure_api`` and ``configure_commands``."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from lightwork._logging import get_logger
from lightwork.api import Command, HttpMethod
from lightwork.components.flow import Flow
from lightwork.components.rollback import Rollback
from lightwork.components.signature import describe_parameters
from lightwork.errors import UsageError
from lightwork.server.types import CommandView
from lightwork.server.values import to_json
from lightwork.server.views import describe
from lightwork.server.web import Problem, Request, Response, Route, Routes, json_response, parse_body

__all__ = ["UserRoutes"]

_RESERVED = ("/api/v1", "/docs", "/feed", "/healthz", "/metrics", "/readyz", "/ui")
_COMMAND_WITHIN = 3600.0

_log = get_logger("lightwork.server")


class _Parameters:
    """The parameters of a user's function, and the conversion of JSON values to their types."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = _signature(function)
        target = getattr(function, "__func__", function)
        try:
            self._hints = typing.get_type_hints(target, include_extras=True)
        except Exception:  # evaluating a user's annotation may raise anything; values are then not converted
            self._hints = {}

    def whole(self, taken: Iterable[str]) -> str | None:
        """Return the parameter that takes the whole body: the only remaining one, a struct, dataclass or model."""
        names = [name for name in self.signature.parameters if name not in set(taken)]
        if len(names) != 1:
            return None
        kind = self._hints.get(names[0])
        is_record = isinstance(kind, type) and (
            issubclass(kind, msgspec.Struct) or hasattr(kind, "__dataclass_fields__")
        )
        return names[0] if is_record or hasattr(kind, "model_validate") else None

    def convert(self, name: str, value: Any, *, strict: bool) -> Any:
        """Convert a value to the type of its parameter.

        Raises:
            Problem: The value does not match the type; it names the parameter.
        """
        kind = self._hints.get(name, Any)
        try:
            if hasattr(kind, "model_validate"):
                return kind.model_validate(value)
            return msgspec.convert(value, kind, strict=strict)
        except (msgspec.ValidationError, ValueError) as error:
            raise Problem("bad_request", f"invalid value for parameter {name!r:.80}: {error}") from None
        except TypeError:  # the annotation is not a type that msgspec can convert to
            return value

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name. Raises `Problem` if they do not match the signature."""
        try:
            self.signature.bind(**given)
        except TypeError as error:
            raise Problem("bad_request", f"{error}; the parameters are {self.signature}") from None
        return dict(given)


class UserRoutes:
    """Routes and commands of one app. The flows are asked for them once, when the app starts.

    Args:
        root: The root flow.

    Raises:
        UsageError: A flow returns an invalid, reserved or duplicate route or command.
    """

    def __init__(self, root: Flow) -> None:
        self._rollback = Rollback(root)
        self._commands: dict[str, Command] = {}
        self._methods: list[tuple[str, HttpMethod]] = []
        routes = []
        seen: set[tuple[str, str]] = set()
        for flow in (root, *root.flows.values()):
            for method in _given(flow, "configure_api"):
                route = self._route(flow, method)
                if (route.method, route.pattern) in seen:
                    raise UsageError(f"configure_api of {flow._label()} returned {method!r}, which already exists")
                seen.add((route.method, route.pattern))
                self._methods.append((flow.name, method))
                routes.append(route)
            for command in _commands(flow):
                if command.name in self._commands:
                    raise UsageError(
                        f"configure_commands of {flow._label()} returned {command.name!r}, which already exists"
                    )
                self._commands[command.name] = command
        self.routes: Routes = Routes(routes)

    def _route(self, flow: Flow, method: Any) -> Route:
        where = f"configure_api of {flow._label()}"
        if not isinstance(method, HttpMethod) or not method.verb:
            raise UsageError(
                f"{where} must return a list of Get, Post, Put and Delete of lightwork.api, got an item {method!r:.80}"
            )
        path = method.route.rstrip("/")
        if not path or any(path == taken or path.startswith(f"{taken}/") for taken in _RESERVED):
            taken = ", ".join(_RESERVED)
            raise UsageError(f"{where} returned {method!r}, but / and paths below {taken} are reserved")
        parameters = _Parameters(method.method)
        names = [part[1:-1] for part in path.split("/") if part[:1] == "{"]

        async def handle(api: Any, request: Request) -> Response:
            arguments = _arguments(method, parameters, names, request)
            value = await self._call(method.method, arguments, method.timeout, repr(method))
            return value if isinstance(value, Response) else json_response(to_json(value))

        verb: Any = method.verb
        summary = str(method.method.__doc__ or method.method_name).strip().partition("\n")[0]
        return Route(verb, path, handle, summary=summary, tag=flow.name)

    async def _call(self, function: Callable[..., Any], arguments: dict[str, Any], timeout: float, what: str) -> Any:
        try:
            with self._rollback.on_error():
                async with asyncio.timeout(timeout):
                    if inspect.iscoroutinefunction(function):
                        return await function(**arguments)
                    from anyio import to_thread

                    outcome = await to_thread.run_sync(lambda: function(**arguments), abandon_on_cancel=True)
                    return await outcome if inspect.isawaitable(outcome) else outcome
        except Problem:
            raise
        except TimeoutError:
            raise Problem("timeout", f"{what} took longer than {timeout:g} s") from None
        except Exception as error:
            _log.error("a handler of the app failed", handler=what, exc_info=error)
            raise Problem("internal", f"{type(error).__name__}: {error}") from error

    # --- commands ---------------------------------------------------------------------------------

    def commands(self) -> list[CommandView]:
        """Return all commands."""
        return [
            CommandView(one.name, one.help, describe(describe_parameters(_signature(one.method))))
            for one in self._commands.values()
        ]

    async def run(self, name: str, given: dict[str, Any]) -> Any:
        """Run a command and return its result.

        Raises:
            Problem: The command does not exist, the arguments do not match, it took too long, or it raised.
        """
        command = self._commands.get(name)
        if command is None:
            raise Problem("unknown_command", f"there is no command {name!r:.80}", known=sorted(self._commands))
        parameters = _Parameters(command.method)
        arguments = parameters.bind({key: parameters.convert(key, value, strict=False) for key, value in given.items()})
        return await self._call(command.method, arguments, _COMMAND_WITHIN, f"the command {name}")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:  # evaluating a user's annotation may raise anything; it is then shown as text
        return inspect.signature(function)


def _given(flow: Flow, hook: str) -> list[Any]:
    try:
        given = getattr(flow, hook)()
    except Exception as error:
        raise UsageError(f"{hook} of {flow._label()} raised {type(error).__name__}: {error}") from error
    if not isinstance(given, (list, tuple)):
        raise UsageError(f"{hook} of {flow._label()} must return a list, got {given!r:.80}")
    return list(given)


def _commands(flow: Flow) -> list[Command]:
    found = []
    for one in _given(flow, "configure_commands"):
        if isinstance(one, Command):
            found.append(one)
        elif isinstance(one, Mapping) and one:
            found += [Command(name, method) for name, method in one.items()]
        else:
            raise UsageError(
                f"configure_commands of {flow._label()} must return a list of {{'name': self.method}}, "
                f"got an item {one!r:.80}"
            )
    return found


def _arguments(method: HttpMethod, parameters: _Parameters, names: list[str], request: Request) -> dict[str, Any]:
    arguments = {name: parameters.convert(name, request.params[name], strict=False) for name in names}
    if method.verb in ("GET", "DELETE"):
        for name, value in request.query:
            if name not in arguments and name in parameters.signature.parameters:
                arguments[name] = parameters.convert(name, value, strict=False)
        return parameters.bind(arguments)
    whole = parameters.whole(names)
    body = parse_body(request, Any)
    if whole is not None:
        return parameters.bind({**arguments, whole: parameters.convert(whole, body, strict=True)})
    if not isinstance(body, dict):
        raise Problem("bad_request", "the request body must be a JSON object with the parameters by name")
    for name, value in body.items():
        arguments[name] = parameters.convert(name, value, strict=True)
    return parameters.bind(arguments)
