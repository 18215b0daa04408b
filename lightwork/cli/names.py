"""Completes the names of works, components, commands and apps. It is fast, and silent if no app runs.

A shell waits for the completion at each key press. Therefore the requests use the HTTP client of the standard library,
which loads in a tenth of the time that aiohttp takes, and have a short timeout.
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
from lightwork.errors import LightworkError
from lightwork.server.discovery import running_apps

__all__ = ["complete_app", "complete_command", "complete_component", "complete_work"]

_TIMEOUT = 0.5
"""Seconds that the app may take to answer."""

_MAX_ITEMS = 200

_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_work(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a work."""
    pattern = f"{_escaped(_prefix(incomplete))}*"
    items = _fetch_items(ctx, "/works", match=pattern, limit=_MAX_ITEMS)
    return [
        CompletionItem(_as_typed(work["name"], incomplete), help=str(work["stage"]))
        for work in items
        if isinstance(work, dict)
    ]


def complete_component(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a flow or a work."""
    items = _fetch_items(ctx, "/components")
    names = [str(item["name"]) for item in items if isinstance(item, dict)]
    prefix = _prefix(incomplete)
    return [CompletionItem(_as_typed(name, incomplete)) for name in names if name.startswith(prefix)][:_MAX_ITEMS]


def complete_command(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a command that the app defines."""
    return [
        CompletionItem(item["name"], help=item.get("help") or None)
        for item in _fetch_items(ctx, "/commands")
        if isinstance(item, dict) and str(item["name"]).startswith(incomplete)
    ]


def complete_app(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of an app that runs on this machine."""
    try:
        apps = running_apps()
    except LightworkError:
        return []
    return [CompletionItem(app.name, help=app.run) for app in apps if app.name.startswith(incomplete)]


def _prefix(incomplete: str) -> str:
    """Return the prefix of the full names that match the typed text."""
    return "" if "root.".startswith(incomplete) else full_name(incomplete)


def _as_typed(name: str, incomplete: str) -> str:
    """Return the name with ``root.`` if the typed text has it, without it otherwise."""
    return name if name.startswith(incomplete) else name.removeprefix("root.")


def _escaped(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def _fetch_items(ctx: click.Context, path: str, **query: Any) -> list[Any]:
    """Return the ``items`` that the app has at `path`, or an empty list on any error: a shell shows no message."""
    try:
        values = {name: ctx.params.get(name) or _from_environment(name) for name in ("app_name", "url", "token")}
        target = find_target(values["app_name"], values["url"], values["token"])
        items = _get(target.url, target.token, f"/api/v1{path}?{urlencode(query, quote_via=quote)}")["items"]
    except (click.ClickException, LightworkError, OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return []
    return items if isinstance(items, list) else []


def _from_environment(name: str) -> str | None:
    return os.environ.get(f"LIGHTWORK_{name.removesuffix('_name').upper()}") or None


def _get(url: str, token: str | None, path: str) -> Any:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers=dict(_headers(token)))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _headers(token: str | None) -> Iterator[tuple[str, str]]:
    if token:
        yield "Authorization", f"Bearer {token}"
