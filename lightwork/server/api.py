"""`Api`: everything that can be asked of one running app, whichever server it is asked through."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from lightwork._logging import get_logger
from lightwork.components.flow import Flow
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.engine import Engine
from lightwork.engine.history import History
from lightwork.server.feed import Feed, Subscriber
from lightwork.server.guard import Guard
from lightwork.server.static import DOCS_FOLDER, PAGE_FOLDER, PageFiles
from lightwork.server.types import UsageTotal
from lightwork.server.usage import Usages
from lightwork.server.user_routes import UserRoutes
from lightwork.server.views import AppLike, Views
from lightwork.server.web import PREFIX, Problem, Request, Response, Route, Routes, json_response, problem_response

if TYPE_CHECKING:
    from lightwork.config import Config

__all__ = ["FEED", "Api", "Mountable"]

FEED = f"{PREFIX}/feed"
"""Where the WebSocket is."""

_log = get_logger("lightwork.server")


class Mountable(AppLike, Protocol):
    """An app that a host's own server can pass requests on to; `lightwork.App` is one."""

    def _mount(self) -> Callable[[], Api | None]:
        """Have the API while the app runs, without a port of its own; None comes while it does not run."""


class Api:
    """The routes and the feed of one run of an app. Belongs to the loop's thread.

    Args:
        app: The app.
        engine, hub: Of its run.
        run: Id of the run.
        routes: Below `PREFIX`.
        probes: At the root, where platforms look for them.

    Attributes:
        views, history, feed, usages: What there is to see.
        guard: Decides who may ask.
        routes: As given.
        own: What the flows of the app have configured.
        log_folder: Of the run; None where the output of works is not kept.
        started_at: When the run began.
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
        self.started_at = time.time()
        self.history = History(engine.core, engine.entries)
        self.views = Views(app, engine, self.history, run, self.started_at)
        self.usages = Usages(engine, lambda found: self.feed.use(found))
        self.feed = Feed(app, self.views, self.history, hub, run, self.usages.follow)
        self.guard = Guard(None)
        writer = engine.output.writer
        self.log_folder = writer.folder if writer is not None else None
        self.own = UserRoutes(app.root)
        self.routes = tuple(routes)
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
        """Names of components that somebody who wrote `name` may have meant."""
        kinds = Work if works else (Work, Flow)
        return difflib.get_close_matches(
            name[:200], [node.name for node in self.root._walk() if isinstance(node, kinds)]
        )

    def load(self) -> UsageTotal | None:
        """What all works use, as last sampled."""
        return self.usages.load

    def stopping(self) -> None:
        """The app is about to end."""
        self.views.is_stopping = True
        self.feed.app_changed()

    async def aclose(self) -> None:
        """The app has ended: tell whoever looks on, and look on no more. May be repeated."""
        await self.usages.aclose()
        await self.feed.aclose()
        self.history.close()

    # --- answering --------------------------------------------------------------------------------

    def admit(self, request: Request) -> Response | None:
        """The answer to a request that may not be made, or that the guard answers itself; None where it may.

        The files of the page hold nothing of the app. They need no token, so that the page can ask for one.
        """
        is_open = request.method in ("GET", "HEAD") and request.first("token") is None and self._has_file(request.path)
        try:
            return self.guard.check(request, needs_token=not is_open)
        except Problem as problem:
            return problem_response(problem)

    def _has_file(self, path: str) -> bool:
        return path in self._page or (path.startswith("/docs/") and path.removeprefix("/docs") in self._docs)

    def join(self) -> Subscriber:
        """A new client of the feed. Raises `Problem` where there are too many."""
        return self.feed.join()

    async def answer(self, request: Request) -> Response:
        """Answer a request that the guard has let pass. Raises nothing but what cancels it."""
        try:
            return await self._answer(request)
        except Problem as problem:
            return problem_response(problem)
        except Exception as error:
            _log.error("a request failed", method=request.method, path=request.path, exc_info=error)
            text = f"the request failed with {type(error).__name__}; the app's log has more"
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
