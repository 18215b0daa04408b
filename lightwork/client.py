"""An asyncio client of a running app's HTTP side: what the commands use, and other programs may.

``async with Client("http://127.0.0.1:7501") as client: print(await client.app())``. `Client.find` finds the app of
this machine. Answers are the types of `lightwork.server.types`. Values that JSON has no form for are as
``docs/http.md`` describes.
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

from lightwork.errors import AppEnded, AppUnreachable, RequestFailed
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

__all__ = ["Client", "Event"]

_T = TypeVar("_T")

_PREFIX = "/api/v1"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a feed that broke is tried again; doubled from the first to the longest."""

_GOING_AWAY = 1001
_DECODE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message of the feed: a snapshot of 1,000 works has about one million."""


class Event(NamedTuple):
    """Something that the feed told.

    Attributes:
        kind: ``snapshot``, ``resumed``, or of a change its ``t``: ``state``, ``work``, ``status``, ``call``,
            ``added``, ``removed``, ``layout``, ``schedules``, ``app``, ``log``, ``log_gap``, ``usage``.
        data: The fields, as decoded JSON.
    """

    kind: str
    data: dict[str, Any]

    def as_type(self, kind: type[_T]) -> _T:
        """The fields as a type of `lightwork.server.types`; those that it does not know are left out."""
        return msgspec.convert(self.data, kind)


class Client:
    """Asks one app. Entering it connects to nothing yet; every method may be called concurrently.

    Args:
        url: Where the app's HTTP side is, ``http://127.0.0.1:7501``; one below a path is fine.
        token: What it asks for, None where it asks for none.
        timeout: Seconds that an answer may take, but for those that are asked to wait.

    Every method raises `AppUnreachable` where the app does not answer in time or at all, and `RequestFailed`,
    which has the app's own words and a code, where it refuses.
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
        """The app as a whole, with an overview."""
        return await self._get("/app", AppDetail)

    async def stop_app(self, message: str | None = None) -> None:
        """End the app in order. Returns when that has begun."""
        await self._post("/app/stop", Accepted, {"message": message})

    async def components(self) -> ComponentsPage:
        """Every component, parents first."""
        return await self._get("/components", ComponentsPage)

    async def runtimes(self) -> RuntimesPage:
        """The runtime profiles in use."""
        return await self._get("/runtimes", RuntimesPage)

    async def usage(self) -> UsagePage:
        """What the works' processes use now."""
        return await self._get("/usage", UsagePage)

    # --- state ------------------------------------------------------------------------------------

    async def state(self, component: str = "root", path: Sequence[Any] = ()) -> ComponentState:
        """The state of a component, or with a path, attribute first, the value that stands there."""
        if not path:
            return await self._get("/state", ComponentState, component=component)
        shown = msgspec.json.encode(list(path)).decode()
        return await self._get(f"/state/{_segment(component)}", ComponentState, path=shown)

    async def edit_state(self, component: str, edits: Sequence[tuple[Sequence[Any], Any]]) -> int:
        """Set ``(path, value)`` in a component's state; how many edits were made, which is all of them.

        A work that runs may refuse: `RequestFailed` with the code ``refused``.
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
        """Works by a pattern of their names, their stage, their runtime; a page of them."""
        return await self._get(
            "/works", WorksPage, match=match, stage=stage, runtime=runtime, sort=sort, limit=limit, offset=offset
        )

    async def work(self, name: str) -> WorkDetail:
        """Everything that is known of a work."""
        return await self._get(f"/works/{_segment(name)}", WorkDetail)

    async def start_work(self, name: str, *, wait: bool = False) -> None:
        """Start a work's process; with `wait`, return when it runs."""
        await self._order(f"/works/{_segment(name)}/start", wait)

    async def stop_work(self, name: str, *, wait: bool = False) -> None:
        """Stop a work; with `wait`, return when it has stopped."""
        await self._order(f"/works/{_segment(name)}/stop", wait)

    async def _order(self, path: str, wait: bool) -> None:
        kind: Any = dict if wait else Accepted  # a work that the flow has not made again is not waited for
        await self._request("POST", path, kind, within=None if wait else self._timeout, wait=1 if wait else None)

    async def stack(self, name: str) -> StackView:
        """What a work's process does at this moment."""
        return await self._get(f"/works/{_segment(name)}/stack", StackView)

    # --- calls ------------------------------------------------------------------------------------

    async def calls(
        self, *, work: str | None = None, stage: str | None = None, limit: int = 100, offset: int = 0
    ) -> CallsPage:
        """Calls, newest first; a page of them."""
        return await self._get("/calls", CallsPage, work=work, stage=stage, limit=limit, offset=offset)

    async def call(self, number: int) -> CallDetail:
        """One call, with its arguments and its result."""
        return await self._get(f"/calls/{number}", CallDetail)

    async def submit(self, work: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> CallDetail:
        """Call a work; the call as soon as it is queued."""
        body = {"args": list(args), "kwargs": dict(kwargs or {})}
        return await self._post(f"/works/{_segment(work)}/calls", CallDetail, body)

    async def cancel_call(self, number: int) -> None:
        """Cancel a call. Returns when that was asked for."""
        await self._post(f"/calls/{number}/cancel", msgspec.Raw)

    async def retry_call(self, number: int) -> CallDetail:
        """Call again with the same arguments; the new call."""
        return await self._post(f"/calls/{number}/retry", CallDetail)

    async def wait_call(self, number: int) -> CallDetail:
        """The call, when it is over. Cancelling this leaves the call alone.

        Raises:
            AppEnded: The app ended before.
        """
        async with contextlib.aclosing(self.feed()) as feed:
            async for event in feed:
                # What went before the snapshot is asked for; what comes after it is told.
                if event.kind == "snapshot" or (event.kind == "call" and event.data["id"] == number):
                    call = await self.call(number)
                    if call.stage.is_final:
                        return call
        raise AppEnded(f"the app at {self.url} ended before call {number} was over")

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
        """Lines of these works, of all if there are none, in order; a page of them."""
        return await self._get(
            "/logs", LogsPage, work=list(works), tail=tail, before=before, after=after, search=search, limit=limit
        )

    async def timeline(self, *, since: float | None = None, limit: int | None = None) -> Timeline:
        """When calls waited and ran, newest first."""
        return await self._get("/timeline", Timeline, since=since, limit=limit)

    # --- schedules and commands -------------------------------------------------------------------

    async def schedules(self) -> SchedulesPage:
        """The schedules of the flows, the next to fire first."""
        return await self._get("/schedules", SchedulesPage)

    async def trigger(self, flow: str, key: str) -> None:
        """Let a schedule fire now."""
        await self._post("/schedules/trigger", Accepted, {"flow": flow, "key": key})

    async def commands(self) -> CommandsPage:
        """The app's own commands."""
        return await self._get("/commands", CommandsPage)

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run one of the app's own commands, however long it takes; what it returned."""
        answer: Any = await self._request(
            "POST", f"/commands/{_segment(name)}", dict[str, Any], {"kwargs": dict(arguments)}, within=None
        )
        return answer.get("result")

    # --- the feed ---------------------------------------------------------------------------------

    async def feed(self, *, logs: bool | Sequence[str] = False, usage: bool = False) -> AsyncGenerator[Event, None]:
        """What happens from now on: a snapshot first, then each change. Ends when the app does.

        A connection that breaks is made again and goes on where it was; where that is too long ago there is
        another snapshot. Between two lines of the output some may be missing: then a ``log_gap`` says which,
        and so does every ``snapshot`` after the first. Close it (`contextlib.aclosing`) when done.

        Args:
            logs: Whose output to follow; True for every work's.
            usage: Whether to be told what works use.

        Raises:
            AppUnreachable: The connection broke, and could not be made again within the client's timeout.
        """
        follow = {"type": "follow", "logs": logs if isinstance(logs, bool) else list(logs), "usage": usage}
        run: str | None = None
        last: int | None = None
        broken_since: float | None = None
        pause = _FIRST_PAUSE
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
                        broken_since, pause = None, _FIRST_PAUSE
                        last = frame.get("seq", last)
                        if frame["type"] == "snapshot":
                            if run not in (None, frame["app"]["run"]):
                                return  # another app has taken the address of the one that ended
                            run = frame["app"]["run"]
                        for event in _events(frame):
                            yield event
                    if socket.close_code == _GOING_AWAY:
                        return
                    if socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION:
                        raise AppUnreachable(f"the app at {self.url} refused to be followed: another version?")
            except aiohttp.WSServerHandshakeError as error:
                raise RequestFailed(
                    f"the app at {self.url} refused to be followed (HTTP {error.status})",
                    code="unauthorized" if error.status == 401 else "refused",
                    status=error.status,
                ) from error
            except (aiohttp.ClientError, OSError) as error:
                now = loop.time()
                broken_since = now if broken_since is None else broken_since
                # One that was never there is told at once; one that was may be restarting, or the network may be.
                if run is None or now - broken_since > self._timeout:
                    raise self._unreachable(error) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        address = f"{self.url}{_PREFIX}/feed"
        async with self._entered.ws_connect(address, max_msg_size=_DECODE_LIMIT, heartbeat=20.0) as socket:
            yield socket

    # --- requests ---------------------------------------------------------------------------------

    @property
    def _entered(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client in its context: `async with client:`")
        return self._session

    async def _get(self, path: str, kind: type[_T], /, **query: Any) -> _T:
        return await self._request("GET", path, kind, **query)

    async def _post(self, path: str, kind: type[_T], body: Any = None) -> _T:
        return await self._request("POST", path, kind, body)

    async def _request(
        self, method: str, path: str, kind: type[_T], body: Any = None, /, *, within: float | None = -1.0, **query: Any
    ) -> _T:
        """Ask, and decode the answer; `within` is None to wait as long as it takes."""
        pairs: list[tuple[str, str]] = []
        for name, value in query.items():
            pairs += [(name, str(one)) for one in (value if isinstance(value, list) else [value]) if one is not None]
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(self._timeout if within == -1.0 else within):
                # Nothing here is anywhere else: a redirect would take the request, and its token, to a stranger.
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
            raise AppUnreachable(f"what answers at {self.url} is no lightwork app, or of another version") from error

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
    """A name as one part of a path."""
    return quote(text, safe="")


def _refusal(url: str, status: int, content: bytes) -> RequestFailed | AppUnreachable:
    try:
        error = msgspec.json.decode(content, type=ErrorBody).error
    except msgspec.MsgspecError:
        return AppUnreachable(f"what answers at {url} is no lightwork app (HTTP {status})")
    return RequestFailed(error.message, code=error.code, status=status, detail=error.detail)
