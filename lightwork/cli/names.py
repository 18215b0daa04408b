"""Completes the names of what a running app has. Fast, and silent where there is no app.

A shell waits for this at each press of the key, so it asks with the standard library's client, which loads in a
tenth of the time that aiohttp takes, and gives up soon.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import click
from click.shell_completion import CompletionItem

from lightwork.cli.connect import find_target, full_name
from lightwork.discovery import running_apps
from lightwork.errors import LightworkError

__all__ = ["complete_app", "complete_command", "complete_component", "complete_work"]

_WITHIN = 0.5
_MOST = 200

_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_work(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of works that begin so."""
    pattern = f"{_escaped(_beginning(incomplete))}*"
    items = _ask(ctx, "/works", match=pattern, limit=_MOST)
    return [
        CompletionItem(_as_typed(work["name"], incomplete), help=str(work["stage"]))
        for work in items
        if isinstance(work, dict)
    ]


def complete_component(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of flows and works that begin so."""
    items = _ask(ctx, "/components")
    names = [str(item["name"]) for item in items if isinstance(item, dict)]
    begun = _beginning(incomplete)
    return [CompletionItem(_as_typed(name, incomplete)) for name in names if name.startswith(begun)][:_MOST]


def complete_command(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the app's own commands that begin so."""
    return [
        CompletionItem(item["name"], help=item.get("help") or None)
        for item in _ask(ctx, "/commands")
        if isinstance(item, dict) and str(item["name"]).startswith(incomplete)
    ]


def complete_app(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the apps that run here and begin so."""
    try:
        apps = running_apps()
    except LightworkError:
        return []
    return [CompletionItem(app.name, help=app.run) for app in apps if app.name.startswith(incomplete)]


def _beginning(incomplete: str) -> str:
    """What a full name that is meant begins with."""
    return "" if "root.".startswith(incomplete) else full_name(incomplete)


def _as_typed(name: str, incomplete: str) -> str:
    """The name with its ``root.``, unless what was typed goes without."""
    return name if name.startswith(incomplete) else name.removeprefix("root.")


def _escaped(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def _ask(ctx: click.Context, path: str, **query: Any) -> list[Any]:
    """The ``items`` that the app has at `path`; none where anything at all goes wrong: nobody could read why."""
    try:
        values = {name: ctx.params.get(name) or _of_environment(name) for name in ("app_name", "url", "token")}
        target = find_target(values["app_name"], values["url"], values["token"])
        items = _get(target.url, target.token, f"/api/v1{path}?{urlencode(query, quote_via=quote)}")["items"]
    except (click.ClickException, LightworkError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return []
    return items if isinstance(items, list) else []


def _of_environment(name: str) -> str | None:
    return os.environ.get(f"LIGHTWORK_{name.removesuffix('_name').upper()}") or None


def _get(url: str, token: str | None, path: str) -> Any:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_WITHIN)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=dict(_headers(token)))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _headers(token: str | None) -> Iterator[tuple[str, str]]:
    if token:
        yield "Authorization", f"Bearer {token}"
