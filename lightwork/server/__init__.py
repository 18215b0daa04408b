"""The HTTP server of a running app: REST, a WebSocket feed and the dashboard, on its own port or in another server.

`lightwork.App` starts it if the configuration key ``http`` is true. A service that embeds an app can mount
`aiohttp_app` or `asgi_app` instead. aiohttp is imported only when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    from lightwork.server.api import Api, Mountable
    from lightwork.server.asgi import AsgiFace

__all__ = ["Api", "aiohttp_app", "asgi_app"]


def aiohttp_app(app: Mountable) -> web.Application:
    """Return an aiohttp application with the whole HTTP API; mount it with ``host.add_subapp("/jobs", ...)``.

    It runs in the app's loop. While the app does not run, it answers 503. The host decides who has access: a mount
    checks the origin, but takes no token.
    """
    from lightwork.server.aiohttp import make_application

    return make_application(app._mount())


def asgi_app(app: Mountable) -> AsgiFace:
    """Return an ASGI application with the whole HTTP API, for FastAPI, Starlette and others; pass it to ``mount``.

    The server must run in the app's loop. While the app does not run, it answers 503. The host decides who has access:
    a mount checks the origin, but takes no token.
    """
    from lightwork.server.asgi import AsgiFace

    return AsgiFace(app._mount())


if not TYPE_CHECKING:  # otherwise a type checker accepts any misspelt name

    def __getattr__(name: str) -> Any:
        # Imported late: a program that needs only the types must not load the engine.
        if name != "Api":
            raise AttributeError(f"module 'lightwork.server' has no attribute {name!r}")
        from lightwork.server.api import Api

        return Api
