"""An asyncio client for the HTTP API of a running app. The command line uses it, and other programs can use it.

``async with Client("http://127.0.0.1:7501") as client: print(await client.app())``. `running_apps`
finds the apps of this machine. Answers have the types of `lightwork.server.types`. ``docs/http.md`` describes the form
of values that JSON cannot represent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import msgspec

from lightwork._common.backoff import Backoff
from lightwork.errors import AppEnded, AppUnreachable, RequestFailed
from lightwork.server.discovery import running_apps
from lightwork.server.types import (
    Accepted,
    AppDetail,
    Applied,
    CallDetail,
    CallsPage,
    CommandsPage,
    ComponentsPage,
    ComponentState,
    ErrorBody,
    LogsPage,
    RuntimesPage,
    SchedulesPage,
    StackView,
    Timeline,
    UsagePage,
    WorkDetail,
    WorksPage,
)

__all__ = ["Client", "Event", "running_apps"]

_T = TypeVar("_T")

_PREFIX = "/api/v1"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a broken feed connects again. The pause doubles from the first to the longest."""

_GOING_AWAY = 1001
_DECODE_LIMIT = 64 * 1024 * 1024
"""Maximum bytes of one message of the feed. A snapshot of 1,000 works has about one million bytes."""


class Event(NamedTuple):
    """An event of the feed.

    Attributes:
        kind: ``snapshot``, ``resumed``, or the ``t`` of a change: ``state``, ``work``, ``status``, ``call``,
            ``added``, ``removed``, ``layout``, ``schedules``, ``app``, ``log``, ``log_gap``, ``usage``.
        data: The fields, as decoded JSON.
    """

    kind: str
    data: dict[str, Any]

    def as_type(self, kind: type[_T]) -> _T:
        """Convert the fields to a type of `lightwork.server.types`. Fields that the type does not have are dropped."""
        return msgspec.convert(self.data, kind)


class Client:
    """A client of one app. Its methods may be called concurrently.

    Entering the context opens no connection: the first request does.

    Args:
        url: URL of the app's HTTP server, for example ``http://127.0.0.1:7501``. It may have a path.
        token: The token of the HTTP server; None if the server needs no token.
        timeout: Seconds that an answer may take. Methods that wait by intention have no such limit.

    Every method raises `AppUnreachable` if the app does not answer in time or at all. It raises `RequestFailed`, which
    has the message and the code of the app, if the app refuses the request.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.url: str = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # --- the app ----------------------------------------------------------------------------------

    async def app(self) -> AppDetail:
        """Return the app itself, with an overview of its works."""
        return await self._get("/app", AppDetail)

    async def stop_app(self, message: str | None = None) -> None:
        """Stop the app gracefully. The method returns when the app has begun to stop."""
        await self._post("/app/stop", Accepted, {"message": message})

    async def components(self) -> ComponentsPage:
        """Return all components, parents first."""
        return await self._get("/components", ComponentsPage)

    async def runtimes(self) -> RuntimesPage:
        """Return the runtime profiles in use."""
        return await self._get("/runtimes", RuntimesPage)

    async def usage(self) -> UsagePage:
        """Return the present resource usage of the works' processes."""
        return await self._get("/usage", UsagePage)

    # --- state ------------------------------------------------------------------------------------

    async def state(self, component: str = "root", path: Sequence[Any] = ()) -> ComponentState:
        """Return the state of a component, or the value at a path of it. A path begins with an attribute."""
        if not path:
            return await self._get("/state", ComponentState, component=component)
        shown = msgspec.json.encode(list(path)).decode()
        return await self._get(f"/state/{_segment(component)}", ComponentState, path=shown)

    async def edit_state(self, component: str, edits: Sequence[tuple[Sequence[Any], Any]]) -> int:
        """Set values in a component's state. Each edit is ``(path, value)``.

        Returns:
            The number of edits that were made. It equals the number of `edits`.

        Raises:
            RequestFailed: With the code ``refused``, if a running work refuses the edits.
        """
        body = {"edits": [{"path": list(path), "value": value} for path, value in edits]}
        return (await self._request("PATCH", f"/state/{_segment(component)}", Applied, body)).applied

    # --- works ------------------------------------------------------------------------------------

    async def works(
        self,
        *,
        match: str | None = None,
        stage: str | None = None,
        runtime: str | None = None,
        sort: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> WorksPage:
        """Return a page of the works, filtered by a pattern of names, a stage and a runtime profile."""
        return await self._get(
            "/works", WorksPage, match=match, stage=stage, runtime=runtime, sort=sort, limit=limit, offset=offset
        )

    async def work(self, name: str) -> WorkDetail:
        """Return everything about a work."""
        return await self._get(f"/works/{_segment(name)}", WorkDetail)

    async def start_work(self, name: str, *, wait: bool = False) -> None:
        """Start a work's process. With `wait`, return when it runs."""
        await self._change_work(f"/works/{_segment(name)}/start", wait)

    async def stop_work(self, name: str, *, wait: bool = False) -> None:
        """Stop a work. With `wait`, return when it has stopped."""
        await self._change_work(f"/works/{_segment(name)}/stop", wait)

    async def _change_work(self, path: str, wait: bool) -> None:
        # Any object: the app does not wait for a work that the flow has not made again, and answers `Accepted` then.
        kind: Any = dict if wait else Accepted
        await self._request("POST", path, kind, within=None if wait else self._timeout, wait=1 if wait else None)

    async def stack(self, name: str) -> StackView:
        """Return the current stack of a work's process."""
        return await self._get(f"/works/{_segment(name)}/stack", StackView)

    # --- calls ------------------------------------------------------------------------------------

    async def calls(
        self, *, work: str | None = None, stage: str | None = None, limit: int = 100, offset: int = 0
    ) -> CallsPage:
        """Return a page of the calls, newest first."""
        return await self._get("/calls", CallsPage, work=work, stage=stage, limit=limit, offset=offset)

    async def call(self, number: int) -> CallDetail:
        """Return a call with its arguments and its result."""
        return await self._get(f"/calls/{number}", CallDetail)

    async def submit(self, work: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> CallDetail:
        """Call a work. Return the call as soon as it is queued."""
        body = {"args": list(args), "kwargs": dict(kwargs or {})}
        return await self._post(f"/works/{_segment(work)}/calls", CallDetail, body)

    async def cancel_call(self, number: int) -> None:
        """Request the cancellation of a call. The method does not wait for the end of the call."""
        await self._post(f"/calls/{number}/cancel", msgspec.Raw)

    async def retry_call(self, number: int) -> CallDetail:
        """Repeat a call with the same arguments, and return the new call."""
        return await self._post(f"/calls/{number}/retry", CallDetail)

    async def wait_call(self, number: int) -> CallDetail:
        """Wait until a call has ended, and return it. Cancelling the method does not cancel the call.

        Raises:
            AppEnded: The app ended before the call.
        """
        async with contextlib.aclosing(self.feed()) as feed:
            async for event in feed:
                # The request sees changes before the snapshot; the feed sends changes after it.
                if event.kind == "snapshot" or (event.kind == "call" and event.data["id"] == number):
                    call = await self.call(number)
                    if call.stage.is_final:
                        return call
        raise AppEnded(f"the app at {self.url} ended before call {number} had ended")

    # --- output and times -------------------------------------------------------------------------

    async def logs(
        self,
        works: Sequence[str] = (),
        *,
        tail: int | None = None,
        before: int | None = None,
        after: int | None = None,
        search: str | None = None,
        limit: int | None = None,
    ) -> LogsPage:
        """Return a page of the output lines of these works, in order. Without `works`, of all works."""
        return await self._get(
            "/logs", LogsPage, work=list(works), tail=tail, before=before, after=after, search=search, limit=limit
        )

    async def timeline(self, *, since: float | None = None, limit: int | None = None) -> Timeline:
        """Return when calls waited and ran, newest call first."""
        return await self._get("/timeline", Timeline, since=since, limit=limit)

    # --- schedules and commands -------------------------------------------------------------------

    async def schedules(self) -> SchedulesPage:
        """Return the schedules of the flows, ordered by the time at which they fire next."""
        return await self._get("/schedules", SchedulesPage)

    async def trigger(self, flow: str, key: str) -> None:
        """Fire a schedule now."""
        await self._post("/schedules/trigger", Accepted, {"flow": flow, "key": key})

    async def commands(self) -> CommandsPage:
        """Return the commands that the app defines."""
        return await self._get("/commands", CommandsPage)

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command that the app defines, without a time limit, and return its result."""
        answer: Any = await self._request(
            "POST", f"/commands/{_segment(name)}", dict[str, Any], {"kwargs": dict(arguments)}, within=None
        )
        return answer.get("result")

    # --- the feed ---------------------------------------------------------------------------------

    async def feed(self, *, logs: bool | Sequence[str] = False, usage: bool = False) -> AsyncGenerator[Event, None]:
        """Iterate over the events of the app: a snapshot first, then each change. The iteration ends with the app.

        A broken connection is made again, and the feed continues after the last event. If the break was too long, there
        is another snapshot. Log lines may be missing before a ``log_gap``, which says which lines, and before every
        later ``snapshot``: `logs` returns them. Close the iterator when done, with `contextlib.aclosing`.

        Args:
            logs: The works whose output to include; True for all works.
            usage: Whether to include the resource usage of works.

        Raises:
            AppUnreachable: The first connection failed, or a broken connection could not be made again within the
                client's timeout.
            RequestFailed: The app refuses the connection.
        """
        follow = {"type": "follow", "logs": logs if isinstance(logs, bool) else list(logs), "usage": usage}
        run: str | None = None
        last: int | None = None
        broken_since: float | None = None
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._connect() as socket:
                    await socket.send_json({"type": "hello", "run": run, "last": last})
                    await socket.send_json(follow)
                    async for message in socket:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            continue
                        frame = msgspec.json.decode(message.data)
                        broken_since = None
                        backoff.reset()
                        last = frame.get("seq", last)
                        if frame["type"] == "snapshot":
                            if run not in (None, frame["app"]["run"]):
                                return  # the app has ended, and another app uses its address now
                            run = frame["app"]["run"]
                        for event in _events(frame):
                            yield event
                    if socket.close_code == _GOING_AWAY:
                        return
                    if socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION:
                        raise AppUnreachable(
                            f"the app at {self.url} refused the feed: it may have another version of lightwork"
                        )
            except aiohttp.WSServerHandshakeError as error:
                raise RequestFailed(
                    f"the app at {self.url} refused the feed (HTTP {error.status})",
                    code="unauthorized" if error.status == 401 else "refused",
                    status=error.status,
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                now = loop.time()
                broken_since = now if broken_since is None else broken_since
                # An app that never answered is an error at once. An app that did may come back, or the network may.
                if run is None or now - broken_since > self._timeout:
                    raise self._unreachable(error) from error
            await asyncio.sleep(backoff.advance())

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        address = f"{self.url}{_PREFIX}/feed"
        async with self._entered.ws_connect(address, max_msg_size=_DECODE_LIMIT, heartbeat=20.0) as socket:
            yield socket

    # --- requests ---------------------------------------------------------------------------------

    @property
    def _entered(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use it inside `async with client:`")
        return self._session

    async def _get(self, path: str, kind: type[_T], /, **query: Any) -> _T:
        return await self._request("GET", path, kind, **query)

    async def _post(self, path: str, kind: type[_T], body: Any = None) -> _T:
        return await self._request("POST", path, kind, body)

    async def _request(
        self, method: str, path: str, kind: type[_T], body: Any = None, /, *, within: float | None = -1.0, **query: Any
    ) -> _T:
        """Send a request and decode the answer. With `within` None there is no time limit."""
        pairs: list[tuple[str, str]] = []
        for name, value in query.items():
            pairs += [(name, str(one)) for one in (value if isinstance(value, list) else [value]) if one is not None]
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(self._timeout if within == -1.0 else within):
                # The API never redirects. A redirect would send the request and its token to another server.
                async with self._entered.request(
                    method,
                    f"{self.url}{_PREFIX}{path}",
                    params=pairs,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                ) as response:
                    content = await response.read()
        except TimeoutError as error:
            raise AppUnreachable(f"the app at {self.url} did not answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status >= 300:
            raise _refusal(self.url, response.status, content)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise AppUnreachable(f"no lightwork app at {self.url}, or an app of another version") from error

    def _unreachable(self, error: Exception) -> AppUnreachable:
        return AppUnreachable(f"no app answers at {self.url}: {error}")


def _events(frame: dict[str, Any]) -> list[Event]:
    match frame["type"]:
        case "changes":
            return [Event(item.pop("t"), item) for item in frame["items"]]
        case "snapshot" | "resumed" as kind:
            return [Event(kind, frame)]
        case _:
            return []


def _segment(text: str) -> str:
    """Quote a name as one segment of a path."""
    return quote(text, safe="")


def _refusal(url: str, status: int, content: bytes) -> RequestFailed | AppUnreachable:
    try:
        error = msgspec.json.decode(content, type=ErrorBody).error
    except msgspec.MsgspecError:
        return AppUnreachable(f"no lightwork app at {url}: another server answers (HTTP {status})")
    return RequestFailed(error.message, code=error.code, status=status, detail=error.detail)
