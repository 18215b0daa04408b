"""The OpenAPI document. It is generated from the routes and from the types that they encode and validate with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lightwork._version import __version__
from lightwork.server.types import ErrorBody
from lightwork.server.web import JSON, STATUS, Route

__all__ = ["make_document"]

_TEMPLATE = "#/components/schemas/{name}"
_ALWAYS = ("bad_request", "unauthorized", "forbidden_origin", "internal")
_WITH_BODY = ("bad_json", "too_large")


def make_document(routes: Iterable[Route], prefix: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of routes that are served under `prefix`."""
    table = list(routes)
    kinds: list[Any] = [ErrorBody]
    for route in table:
        kinds += [kind for kind in (route.body, *_alternatives(route.answer)) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    by_kind = dict(zip(map(_key, kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(prefix + route.pattern, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lightwork",
            "version": __version__,
            "description": "A running app: its state, works, calls and logs. Times are seconds since the epoch.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in table)],
    }


def _alternatives(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _key(kind: Any) -> Any:
    return kind if isinstance(kind, type) else str(kind)


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    name = getattr(route.handler, "__name__", route.pattern).lstrip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*map(_path_parameter, route.params), *_query_parameters(route)],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {"content": {JSON: {"schema": schemas[_key(route.body)]}}}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1} if name == "id" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    (reference,), components = msgspec.json.schema_components([route.query], ref_template="{name}")
    found = components[reference["$ref"]]
    required = set(found.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _inlined(schema, components)}
        for name, schema in found["properties"].items()
    ]


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Replace references in a schema by their schemas: parameters are small, and nothing else uses their types."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(components[schema["$ref"]], components)
        return {key: _inlined(value, components) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(value, components) for value in schema]
    return schema


def _responses(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any]
    if route.answer is None:
        content = {"text/plain": {"schema": {"type": "string"}}}
    else:
        found = [schemas[_key(kind)] for kind in _alternatives(route.answer)]
        content = {JSON: {"schema": found[0] if len(found) == 1 else {"anyOf": found}}}
    responses: dict[str, Any] = {str(route.status): {"description": route.summary, "content": content}}
    if route.status == 202 and route.query is not None:
        responses["200"] = {"description": "The request waited, and the operation is done.", "content": content}
    codes = [*_ALWAYS, *(_WITH_BODY if route.body is not None else ()), *route.errors]
    if route.params:
        codes.append("not_found")
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(STATUS[code], []).append(code)
    for status, names in sorted(by_status.items()):
        responses[str(status)] = {
            "description": ", ".join(names),
            "content": {JSON: {"schema": schemas[ErrorBody]}},
        }
    return responses
