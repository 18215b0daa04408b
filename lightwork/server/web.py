"""Requests, answers and routes, free of any HTTP library: what aiohttp's face and the ASGI face have in common.

A handler takes a `Request` and gives what is encoded as JSON, or a `Response`. What it raises as `Problem` becomes
the answer that `lightwork.server.types.ErrorBody` describes; so does everything else, as ``internal``, with nothing of
the exception but its type.
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
"""Where the routes are."""

T = TypeVar("T")

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes that the body of a request may have."""

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
    """JSON of structs and plain values."""
    return _encoder.encode(value)


_encoder = msgspec.json.Encoder()


class Problem(Exception):
    """A request is not answered, and why.

    Args:
        code: One of the codes of the contract; it decides the status.
        message: For people.
        detail: What else is known.
        headers: For the answer.
    """

    def __init__(self, code: str, message: str, *, headers: Mapping[str, str] | None = None, **detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail or None
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The status of the answer."""
        return STATUS[self.code]


class Request:
    """What a client asks.

    Attributes:
        method: In capitals.
        path: Below the prefix of a mount, percent-encoded as it arrived; begins with a slash.
        query: Pairs, decoded.
        headers: By name in small letters.
        body: The whole of it.
        params: The named parts of the path, decoded.
        is_loopback: Whether it came in at an address that only this machine can reach.
        prefix: Of a mount; empty where there is none.
        is_mounted: Whether another server passed it on: that one decides who may ask.
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
        self.method = method
        self.path = path
        self.query: list[tuple[str, str]] = parse_qsl(query_string, keep_blank_values=True, errors="replace")
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.body = body
        self.params: dict[str, str] = {}
        self.is_loopback = is_loopback
        self.prefix = prefix
        self.is_mounted = is_mounted

    def first(self, name: str) -> str | None:
        """The first value of that name in the query."""
        return next((value for key, value in self.query if key == name), None)


class Response:
    """What a client is given.

    Args:
        body: The whole of it, or pieces that are sent as they come.
        headers: Beside the constant ones.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes | AsyncIterator[bytes] = b"",
        status: int = 200,
        content_type: str = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.headers = {**_CONSTANT_HEADERS, "Content-Type": content_type, **(headers or {})}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON, which no cache keeps."""
    return Response(encode_json(value), status, JSON, {"Cache-Control": "no-store", **(headers or {})})


def problem_response(problem: Problem) -> Response:
    """The answer to a request that failed."""
    body = ErrorBody(Failed(problem.code, problem.message, problem.detail))
    return json_response(body, problem.status, problem.headers)


# --- what is in a request ------------------------------------------------------------------------


def parse_body(request: Request, kind: type[T]) -> T:
    """The body as a struct; an empty one counts as an empty object.

    Raises:
        Problem: It is no JSON, or does not fit; names the field.
    """
    body = request.body or b"{}"
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Problem("bad_request", f"the body does not fit: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("bad_json", f"the body is no JSON: {error}") from None


def parse_query(request: Request, kind: type[T]) -> T:
    """The query as a struct. Names that it has not are left alone; a list takes every value of its name.

    Raises:
        Problem: A value does not fit; names the parameter.
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
        raise Problem("bad_request", f"the query does not fit: {error}") from None


# --- routes --------------------------------------------------------------------------------------

Handler = Callable[[Any, Request], Awaitable[Any]]
"""Takes what the routes are about and a request."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Route:
    """One thing that can be asked.

    Args:
        method: HTTP's.
        pattern: ``/works/{name}``; a part in braces takes one part of a path, decoded.
        handler: Answers.
        summary: For people; the first line of the handler's docstring where it is left out.
        query: Struct of the query, None where there is none.
        body: Struct of the body, None where there is none.
        answer: Type of the answer, or a tuple of those that it may have; None where it is no JSON.
        status: Of the answer.
        errors: Codes that it may fail with, beside those that any request may.
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
        self.summary = summary or (handler.__doc__ or "").strip().partition("\n")[0]
        self.query = query
        self.body = body
        self.answer = answer
        self.status = status
        self.errors = tuple(errors)
        self.tag = tag
        self._parts = pattern.strip("/").split("/")

    @property
    def params(self) -> list[str]:
        """Names of the parts in braces."""
        return [part[1:-1] for part in self._parts if part[:1] == "{"]

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """The named parts of a path, if it is one of this route's."""
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
    """A table of routes; the first that fits answers."""

    def __init__(self, routes: Sequence[Route] = ()) -> None:
        self._routes = list(routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route for a path as it was sent.

        Raises:
            Problem: There is none, or none of that method.
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
                "method_not_allowed", f"{method} cannot be used here; {methods} can", headers={"Allow": methods}
            )
        raise Problem("not_found", f"there is nothing at {path:.200}")


def split_path(path: str) -> list[str] | None:
    """The parts of a path, each decoded once after the path was taken apart; None where it is no UTF-8."""
    try:
        return [unquote_to_bytes(part).decode() for part in path.strip("/").split("/")]
    except UnicodeDecodeError:
        return None
