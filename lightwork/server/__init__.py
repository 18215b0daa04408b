"""The HTTP side of a running app: REST, a WebSocket feed and the page; on a port of its own, or in another server.

`lightwork.App` starts it where the configuration says so (``http``). A service that embeds an app mounts
`aiohttp_app` or `asgi_app` instead. aiohttp is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

    from lightwork.server.api import Api, Mountable
    from lightwork.server.asgi import AsgiFace

__all__ = ["Api", "aiohttp_app", "asgi_app"]


def aiohttp_app(app: Mountable) -> web.Application:
    """An aiohttp application with everything that the app's own HTTP side has: ``host.add_subapp("/jobs", ...)``.

    It answers while the app runs, in the same loop, and with 503 else. Who may ask is the host's to decide: there is no
    token; the origin is checked.
    """
    from lightwork.server.aiohttp import make_application

    return make_application(app._mount())


def asgi_app(app: Mountable) -> AsgiFace:
    """The same for FastAPI, Starlette and other ASGI hosts, its WebSocket too: give it to the host's ``mount``.

    It answers while the app runs, and with 503 else. The server must run in the app's own loop. Who may ask is the
    host's to decide: there is no token; the origin is checked.
    """
    from lightwork.server.asgi import AsgiFace

    return AsgiFace(app._mount())


def __getattr__(name: str) -> Any:
    # Late: whoever only needs the types must not load the engine.
    if name != "Api":
        raise AttributeError(f"module 'lightwork.server' has no attribute {name!r}")
    from lightwork.server.api import Api

    return Api
