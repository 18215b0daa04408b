"""`Api`: the HTTP API of one running app, independent of the server that passes the requests on."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from lightwork._common.public import export
from lightwork._logging import get_logger
from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.engine import Engine
from lightwork.engine.history import History
from lightwork.server.feed import Feed
from lightwork.server.guard import Guard
from lightwork.server.static import DOCS_FOLDER, PAGE_FOLDER, PageFiles
from lightwork.server.types import UsageTotal
from lightwork.server.usage import Usages
from lightwork.server.user_routes import UserRoutes
from lightwork.server.views import AppLike, Views
from lightwork.server.web import PREFIX, Problem, Request, Response, Route, Routes, json_response, problem_response

if TYPE_CHECKING:
    from pathlib import Path

    from lightwork.config import Config

__all__ = ["FEED", "Api", "Mountable"]

FEED = f"{PREFIX}/feed"
"""Path of the WebSocket."""

_log = get_logger("lightwork.server")


class Mountable(AppLike, Protocol):
    """An app that can be mounted in another server, such as `lightwork.App`."""

    def _mount(self) -> Callable[[], Api | None]:
        """Enable the API without a port. Return a function that returns the API, or None while the app does not run."""


class Api:
    """The routes and the feed of one run of an app. Use it in the loop's thread only.

    Args:
        app: The app.
        engine: The engine of the run.
        hub: Publishes the changes of the run.
        run: Id of the run.
        routes: Routes below `PREFIX`.
        probes: Routes at the root, where platforms expect them.

    Attributes:
        views: Reads the app.
        history: The calls so far.
        feed: Sends changes to clients.
        usages: Samples the usage of works.
        guard: Decides which requests have access.
        routes: The argument `routes`.
        own: Routes and commands that the app's flows have configured.
        log_folder: Folder with the log lines of works; None if they are not stored.
        started_at: Time at which the run began.
    """

    def __init__(
        self,
        app: AppLike,
        engine: Engine,
        hub: ChangeHub,
        run: str,
        *,
        routes: Sequence[Route],
        probes: Sequence[Route] = (),
    ) -> None:
        self._app = app
        self.hub = hub
        self.engine = engine
        self.run = run
        self.started_at: float = time.time()
        self.history: History = History(engine.core, engine.entries)
        self.views: Views = Views(app, engine, self.history, run, self.started_at)
        self.usages: Usages = Usages(engine, lambda found: self.feed.put_usage(found))
        self.feed: Feed = Feed(app, self.views, self.history, hub, run, self.usages.follow)
        self.guard: Guard = Guard(None)
        writer = engine.output.writer
        self.log_folder: Path | None = writer.folder if writer is not None else None
        self.own: UserRoutes = UserRoutes(app.root)
        self.routes: tuple[Route, ...] = tuple(routes)
        self._routes = Routes(routes)
        self._probes = {probe.pattern: probe for probe in probes}
        self._page = PageFiles(PAGE_FOLDER)
        self._docs = PageFiles(DOCS_FOLDER)

    @property
    def root(self) -> Flow:
        """The root flow."""
        return self._app.root

    @property
    def app(self) -> AppLike:
        """The app."""
        return self._app

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._app.config

    def near(self, name: str, *, works: bool = False) -> list[str]:
        """Return the names of components (or of works only) that are similar to `name`."""
        kinds = Work if works else (Work, Flow)
        return difflib.get_close_matches(
            name[:200], [node.name for node in self.root._walk() if isinstance(node, kinds)]
        )

    def load(self) -> UsageTotal | None:
        """Return the latest total usage of all works, None if there is no recent sample."""
        return self.usages.load

    def stopping(self) -> None:
        """Report to clients that the app is about to end."""
        self.views.is_stopping = True
        self.feed.app_changed()

    async def aclose(self) -> None:
        """Send clients the last changes and stop watching the app. Calling it again does nothing."""
        await self.usages.aclose()
        await self.feed.aclose()
        self.history.close()

    # --- answering --------------------------------------------------------------------------------

    def admit(self, request: Request) -> Response | None:
        """Check access. Return None if the request may proceed, otherwise the response to send instead.

        The page's files need no token, because they contain no data of the app and the page itself asks for the token.
        """
        is_open = request.method in ("GET", "HEAD") and request.first("token") is None and self._has_file(request.path)
        try:
            return self.guard.check(request, needs_token=not is_open)
        except Problem as problem:
            return problem_response(problem)

    def _has_file(self, path: str) -> bool:
        return path in self._page or (path.startswith("/docs/") and path.removeprefix("/docs") in self._docs)

    async def answer(self, request: Request) -> Response:
        """Answer a request that has passed `admit`. Raises only `asyncio.CancelledError`."""
        try:
            return await self._answer(request)
        except Problem as problem:
            return problem_response(problem)
        except Exception as error:
            _log.error("a request failed", method=request.method, path=request.path, exc_info=error)
            text = f"the request failed with {type(error).__name__}; see the log of the app for details"
            return problem_response(Problem("internal", text))

    async def _answer(self, request: Request) -> Response:
        path = request.path
        if path == PREFIX or path.startswith(PREFIX + "/"):
            route, request.params = self._routes.find(request.method, path.removeprefix(PREFIX) or "/")
            return await self._call(route, request)
        if request.method in ("GET", "HEAD"):
            probe = self._probes.get(path)
            if probe is not None:
                return await self._call(probe, request)
            found = self._page.answer(request, path) or self._answer_docs(request, path)
            if found is not None:
                return found
        route, request.params = self.own.routes.find(request.method, path)
        return await self._call(route, request)

    def _answer_docs(self, request: Request, path: str) -> Response | None:
        if path == "/docs":
            return Response(b"", 308, headers={"Location": "./docs/"})
        return self._docs.answer(request, path.removeprefix("/docs")) if path.startswith("/docs/") else None

    async def _call(self, route: Route, request: Request) -> Response:
        outcome = await route.handler(self, request)
        return outcome if isinstance(outcome, Response) else json_response(outcome, route.status)


export("lightwork.server", Api)
