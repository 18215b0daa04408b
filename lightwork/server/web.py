"""Requests, responses and routes, independent of any HTTP library. The aiohttp face and the ASGI face share them.

A handler takes a `Request`. It returns a `Response`, or a value that is encoded as JSON. If it raises `Problem`, the
client gets an error response with a `lightwork.server.types.ErrorBody`. Any other exception becomes the error
``internal``, which names the type of the exception and nothing more.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from lightwork.server.types import ErrorBody, Failed

__all__ = [
    "BODY_LIMIT",
    "JSON",
    "PREFIX",
    "STATUS",
    "Handler",
    "Method",
    "Problem",
    "Request",
    "Response",
    "Route",
    "Routes",
    "encode_json",
    "json_response",
    "parse_body",
    "parse_query",
    "problem_response",
    "split_path",
]

PREFIX = "/api/v1"
"""Path prefix of the API's routes."""

T = TypeVar("T")

BODY_LIMIT = 4 * 1024 * 1024
"""Maximum size of a request body in bytes."""

JSON = "application/json"

STATUS = {
    "bad_json": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden_origin": 403,
    "unknown_work": 404,
    "unknown_component": 404,
    "unknown_call": 404,
    "unknown_path": 404,
    "unknown_command": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "refused": 409,
    "conflict": 409,
    "too_large": 413,
    "internal": 500,
    "not_ready": 503,
    "timeout": 504,
}

_CONSTANT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def encode_json(value: Any) -> bytes:
    """Encode structs and plain values as JSON."""
    return _encoder.encode(value)


_encoder = msgspec.json.Encoder()


class Problem(Exception):
    """A request failed. It becomes an error response.

    Args:
        code: Error code, a key of `STATUS`, which also gives the HTTP status.
        message: Description for people.
        headers: Headers of the response.
        detail: More facts for programs, by name.
    """

    def __init__(self, code: str, message: str, *, headers: Mapping[str, str] | None = None, **detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail: dict[str, Any] | None = detail or None
        self.headers: dict[str, str] = dict(headers or {})

    @property
    def status(self) -> int:
        """HTTP status of the response."""
        return STATUS[self.code]


class Request:
    """An HTTP request.

    Attributes:
        method: HTTP method in capitals.
        path: Path below the mount prefix, percent-encoded as it arrived; begins with a slash.
        query: Decoded names and values of the query string.
        headers: Headers by lower-case name.
        body: The whole body.
        params: Decoded path parameters, by name.
        is_loopback: Whether it arrived at an address that only this machine can reach.
        prefix: Path prefix of the mount; empty without a mount.
        is_mounted: Whether another server passed the request on. That server then decides who has access.
    """

    __slots__ = ("body", "headers", "is_loopback", "is_mounted", "method", "params", "path", "prefix", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query_string: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        is_loopback: bool = True,
        prefix: str = "",
        is_mounted: bool = False,
    ) -> None:
        self.method: str = method
        self.path: str = path
        self.query: list[tuple[str, str]] = parse_qsl(query_string, keep_blank_values=True, errors="replace")
        self.headers: dict[str, str] = {name.lower(): value for name, value in (headers or {}).items()}
        self.body: bytes = body
        self.params: dict[str, str] = {}
        self.is_loopback: bool = is_loopback
        self.prefix: str = prefix
        self.is_mounted: bool = is_mounted

    def first(self, name: str) -> str | None:
        """Return the first value of a query parameter, None if it is absent."""
        return next((value for key, value in self.query if key == name), None)


class Response:
    """An HTTP response.

    Args:
        body: The whole body, or an iterator of pieces that are streamed.
        status: HTTP status.
        content_type: Value of the header ``Content-Type``.
        headers: Headers in addition to those that every response has.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes | AsyncIterator[bytes] = b"",
        status: int = 200,
        content_type: str = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body: bytes | AsyncIterator[bytes] = body
        self.status: int = status
        self.headers: dict[str, str] = {**_CONSTANT_HEADERS, "Content-Type": content_type, **(headers or {})}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response that must not be cached."""
    return Response(encode_json(value), status, JSON, {"Cache-Control": "no-store", **(headers or {})})


def problem_response(problem: Problem) -> Response:
    """Return the error response for a problem."""
    body = ErrorBody(Failed(problem.code, problem.message, problem.detail))
    return json_response(body, problem.status, problem.headers)


# --- parsing a request ---------------------------------------------------------------------------


def parse_body(request: Request, kind: type[T]) -> T:
    """Decode the body as `kind`. An empty body counts as an empty object.

    Raises:
        Problem: ``bad_json`` if the body is not JSON. ``bad_request`` if it does not match `kind`; it names the field.
    """
    body = request.body or b"{}"
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem("bad_request", f"invalid request body: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("bad_json", f"the request body must be JSON: {error}") from None


def parse_query(request: Request, kind: type[T]) -> T:
    """Decode the query string as the struct `kind`. Unknown parameters are ignored. A list field takes every value.

    Raises:
        Problem: ``bad_request``, which names the parameter, if a value does not match `kind`.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for name, value in request.query:
        field = fields.get(name)
        if field is None:
            continue
        if typing.get_origin(field.type) is list:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem("bad_request", f"invalid query: {error}") from None


# --- routes --------------------------------------------------------------------------------------

Handler = Callable[[Any, Request], Awaitable[Any]]
"""Takes the object that the routes serve (the `Api`) and a request."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Route:
    """One operation of the API: a method, a path pattern and the handler.

    Args:
        method: HTTP method.
        pattern: Path such as ``/works/{name}``. A part in braces matches one decoded part of a path.
        handler: Answers the request.
        summary: Summary for the documentation; by default the first line of the handler's docstring.
        query: Struct of the query string; None if the route takes no query.
        body: Struct of the body; None if the route takes no body.
        answer: Type of the response body, or a tuple of the possible types; None if the response is not JSON.
        status: HTTP status of a successful response.
        errors: Error codes of this route, in addition to those of every route.
        tag: Heading in the documentation.
    """

    def __init__(
        self,
        method: Method,
        pattern: str,
        handler: Handler,
        *,
        summary: str = "",
        query: type[msgspec.Struct] | None = None,
        body: type[msgspec.Struct] | None = None,
        answer: Any = None,
        status: int = 200,
        errors: Sequence[str] = (),
        tag: str = "",
    ) -> None:
        self.method = method
        self.pattern = pattern
        self.handler = handler
        self.summary: str = summary or (handler.__doc__ or "").strip().partition("\n")[0]
        self.query = query
        self.body = body
        self.answer = answer
        self.status = status
        self.errors: tuple[str, ...] = tuple(errors)
        self.tag = tag
        self._parts = pattern.strip("/").split("/")

    @property
    def params(self) -> list[str]:
        """Names of the path parameters."""
        return [part[1:-1] for part in self._parts if part[:1] == "{"]

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """Return the path parameters of a split path, None if the path does not match."""
        if len(parts) != len(self._parts):
            return None
        found = {}
        for want, part in zip(self._parts, parts, strict=True):
            if want[:1] == "{":
                if not part:
                    return None
                found[want[1:-1]] = part
            elif want != part:
                return None
        return found


class Routes:
    """A table of routes. The first route that matches answers."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        self._routes = list(routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route for a percent-encoded path, and the path parameters.

        Raises:
            Problem: ``not_found`` if no route has this path; ``method_not_allowed`` if none of them has this method.
        """
        parts = split_path(path)
        allowed = []
        for route in self._routes if parts is not None else ():
            found = route.match(parts or ())
            if found is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                return route, found
            allowed.append(route.method)
        if allowed:
            methods = ", ".join(sorted(set(allowed)))
            raise Problem(
                "method_not_allowed", f"this path supports {methods}, got {method}", headers={"Allow": methods}
            )
        raise Problem("not_found", f"unknown path {path:.200}")


def split_path(path: str) -> list[str] | None:
    """Split a path and then decode each part once; None if a part is not UTF-8."""
    try:
        return [unquote_to_bytes(part).decode() for part in path.strip("/").split("/")]
    except UnicodeDecodeError:
        return None
