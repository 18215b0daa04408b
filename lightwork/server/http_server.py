"""`HttpSide`: the HTTP server of one run of an app."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from lightwork._common.system import is_loopback
from lightwork._logging import get_logger
from lightwork.engine.changes import ChangeHub
from lightwork.engine.engine import Engine
from lightwork.errors import PlatformError
from lightwork.server.api import Api
from lightwork.server.discovery import AppFile, announce
from lightwork.server.guard import Guard
from lightwork.server.routes import PROBES, ROUTES
from lightwork.server.views import AppLike

if TYPE_CHECKING:
    from lightwork.server.aiohttp import HttpListener

__all__ = ["HttpSide"]

_log = get_logger("lightwork.server")


class HttpSide:
    """The `Api` of one run, and its listener if it has one.

    Args:
        app: The app.
        engine: The engine of the run.
        hub: Publishes the changes of the run.
        run: Id of the run.

    Attributes:
        api: Answers the requests.
        url: URL of the listener; empty without a listener.
        token: Token that clients must send; None if no token is needed.
    """

    def __init__(self, app: AppLike, engine: Engine, hub: ChangeHub, run: str) -> None:
        self._app = app
        self.api: Api = Api(app, engine, hub, run, routes=ROUTES, probes=PROBES)
        self.url: str = ""
        self.token: str | None = None
        self._listener: HttpListener | None = None
        self._withdraw: Callable[[], None] | None = None

    async def listen(self) -> None:
        """Listen on the configured address, and announce the app to the command line.

        Raises:
            ConfigError: The address cannot be bound.
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
            # The app runs all the same. Commands can still reach it by its address.
            _log.warning("commands cannot find this app; give them its address", error=str(error))

    def stopping(self) -> None:
        """Report to clients that the app is about to end."""
        self.api.stopping()

    async def aclose(self) -> None:
        """Send clients the last changes, then stop listening. Calling it again does nothing."""
        withdraw, self._withdraw = self._withdraw, None
        if withdraw is not None:
            withdraw()
        await self.api.aclose()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self.url = ""
