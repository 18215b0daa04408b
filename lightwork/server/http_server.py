"""`HttpSide`: what a run of an app has for the HTTP side, from its start to its end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightwork._logging import get_logger
from lightwork.discovery import AppFile, announce
from lightwork.engine.changes import ChangeHub
from lightwork.engine.engine import Engine
from lightwork.errors import PlatformError
from lightwork.server.api import Api
from lightwork.server.guard import Guard, is_loopback
from lightwork.server.routes import PROBES, ROUTES
from lightwork.server.views import AppLike

if TYPE_CHECKING:
    from lightwork.server.aiohttp import HttpListener

__all__ = ["HttpSide"]

_log = get_logger("lightwork.server")


class HttpSide:
    """The `Api` of one run, and its listener where it has one.

    Args:
        app: The app.
        engine, hub: Of its run.
        run: Id of the run.

    Attributes:
        api: What answers.
        url: Where it listens; empty where it does not.
        token: What clients must show; None where they need not.
    """

    def __init__(self, app: AppLike, engine: Engine, hub: ChangeHub, run: str) -> None:
        self._app = app
        self.api = Api(app, engine, hub, run, routes=ROUTES, probes=PROBES)
        self.url = ""
        self.token: str | None = None
        self._listener: HttpListener | None = None
        self._withdraw: Callable[[], None] | None = None

    async def listen(self) -> None:
        """Answer on the configured address, and let commands find the app.

        Raises:
            ConfigError: It cannot be bound.
        """
        from lightwork.server.aiohttp import HttpListener

        config = self._app.config
        self.token = config.http_token
        if self.token is None and not is_loopback(config.http_host):
            self.token = secrets.token_urlsafe(24)
        self.api.guard = Guard(self.token, config.http_origins)
        self._listener = HttpListener(self.api)
        is_fixed = config.http_port != type(config)().http_port
        self.url = self.api.views.url = await self._listener.start(
            config.http_host, config.http_port, is_fixed=is_fixed
        )

        app = self.api.views.app()
        folder = self.api.log_folder
        file = AppFile(
            run=app.run,
            name=app.name,
            file=app.file,
            pid=app.pid,
            url=self.url,
            token=self.token,
            started_at=app.started_at,
            logs=None if folder is None else str(folder),
        )
        try:
            self._withdraw = announce(file)
        except PlatformError as error:
            # It runs all the same; whoever wants to reach it names its address.
            _log.warning("the commands will not find this app by themselves", error=str(error))

    def stopping(self) -> None:
        """The app is about to end: whoever looks on sees that."""
        self.api.stopping()

    async def aclose(self) -> None:
        """Tell whoever looks on the last changes, then answer no more. May be repeated."""
        withdraw, self._withdraw = self._withdraw, None
        if withdraw is not None:
            withdraw()
        await self.api.aclose()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self.url = ""
