"""The HTTP side of a running app: REST, a WebSocket feed and the page; on a port of its own, or in another server.

`lightwork.App` starts it where the configuration says so (``http``). A service that embeds an app mounts
`aiohttp_app` or `asgi_app` instead. aiohttp is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    from lightwork.app import App
    from lightwork.server.api import Api

__all__ = ["Api", "aiohttp_app"]


def aiohttp_app(app: App[Any]) -> web.Application:
    """An aiohttp application with everything that the app's own HTTP side has: ``host.add_subapp("/jobs", ...)``.

    It answers while the app runs, in the same loop, and with 503 else. Who may ask is the host's to decide: there is no
    token; the origin is checked.
    """
    from lightwork.server.aio import make_application

    return make_application(app._api)


def __getattr__(name: str) -> Any:
    # Late: whoever only needs the types must not load the engine.
    if name != "Api":
        raise AttributeError(f"module 'lightwork.server' has no attribute {name!r}")
    from lightwork.server.api import Api

    return Api
