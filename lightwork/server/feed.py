"""The feed: a snapshot of the app, then its changes, to any number of clients, each at the pace that it can take.

While nobody listens nothing is watched, and a change costs nothing here. Otherwise changes wait until they can leave
together, once in `INTERVAL` seconds at most; a value that was overwritten meanwhile is left out. A batch is encoded
once, and the same bytes go to every client and into the ring of those who come back after a break. A client's queue
holds references to them; one that falls too far behind loses its queue and gets a new snapshot when it can take one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from lightwork.changes import Change, ComponentAdded, ComponentRemoved, LogLine, StateChanged, StatusChanged
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.history import CallRecord, History
from lightwork.server.types import Usage
from lightwork.server.values import to_json
from lightwork.server.views import MOST_STATE, AppLike, Views
from lightwork.server.web import Problem, encode_json

__all__ = ["INTERVAL", "Feed", "Subscriber"]

INTERVAL = 0.016
"""Seconds between two batches: a frame of a screen."""

_RING_BYTES = 8 * 1024 * 1024
"""Bytes of batches that are kept for clients that come back."""

_QUEUE_BYTES = 4 * 1024 * 1024
_QUEUE_FRAMES = 1024
_LINES_BYTES = 1024 * 1024
"""What may wait for one client before it counts as one that cannot keep up; and with how much it gets no lines."""

_MOST_CLIENTS = 2048
_LINGER = 60.0
"""Seconds for which changes are still kept when the last client has left: a page that is loaded anew resumes."""

_LAYOUT_EVERY = 1.0
"""Seconds between two looks at the layout, while things change."""

_LAST_WORDS = 0.5
_CALLS_SHOWN = 200
_LOGS_PENDING = 5_000
"""Lines that wait for one batch; of more the oldest are left out, and said so: the disk has them."""


class _Hello(msgspec.Struct, tag_field="type", tag="hello"):
    run: str | None = None
    last: int | None = None


class _Follow(msgspec.Struct, tag_field="type", tag="follow"):
    logs: bool | list[str] | None = None
    usage: bool | None = None


class _Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


_decode = msgspec.json.Decoder(_Hello | _Follow | _Ping).decode


class Subscriber:
    """One WebSocket, free of any library: its face gives what arrives to `receive` and sends what `next` gives.

    Attributes:
        logs: Works whose output it follows: True for all, False for none.
        usage: Whether it follows what works use.
        is_greeted: Whether it has said hello.
        sent: Set when there is nothing left to send, and nothing will follow.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._needs_snapshot = False
        self._lagged = False
        self._log_gap: tuple[int, int] | None = None
        self.is_greeted = False
        self.logs: bool | frozenset[str] = False
        self.usage = False
        self.sent = asyncio.Event()
        self._is_finished = False

    def receive(self, text: str | bytes) -> None:
        """Take in a message.

        Raises:
            Problem: It is none of the feed's, or comes before the hello; close the connection.
        """
        try:
            message = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Problem("bad_request", f"this is no message of the feed: {error}") from None
        if isinstance(message, _Hello):
            if self.is_greeted:
                raise Problem("bad_request", "hello was said before")
            self._feed._greet(self, message.run, message.last)
            self.is_greeted = True
            return
        if not self.is_greeted:
            raise Problem("bad_request", "the first message must be hello")
        if isinstance(message, _Follow):
            if message.logs is not None:
                self.logs = message.logs if isinstance(message.logs, bool) else frozenset(message.logs)
            if message.usage is not None:
                self.usage = message.usage
            self._feed._followed()
        else:
            self.put(b'{"type":"pong"}')

    def put(self, data: bytes) -> None:
        """Queue a message; where that is too much, the queue goes and a new snapshot is due."""
        if self._needs_snapshot:
            return
        self._queue.append(data)
        self._bytes += len(data)
        if self._bytes > _QUEUE_BYTES or len(self._queue) > _QUEUE_FRAMES:
            self.start_over(lagged=True)
        self._wake.set()

    def put_lines(self, data: bytes, first: int, last: int) -> None:
        """Queue lines; where too much waits already they are left out, and the next ones say so: the disk has them."""
        if self._bytes > _LINES_BYTES or self._needs_snapshot:
            self._log_gap = (self._log_gap[0] if self._log_gap else first, last)
            return
        if self._log_gap is not None:
            gap, self._log_gap = self._log_gap, None
            self.put(self._feed._tell_gap(*gap))
        self.put(data)

    def start_over(self, *, lagged: bool) -> None:
        """Forget what is queued: a snapshot is next."""
        self._queue.clear()
        self._bytes = 0
        self._needs_snapshot, self._lagged = True, lagged
        self._wake.set()

    def follows(self, work: str) -> bool:
        """Whether it wants the output of a work."""
        return self.logs is True or (self.logs is not False and work in self.logs)

    def finish(self) -> None:
        """Nothing is put any more."""
        self._is_finished = True
        self._wake.set()

    async def next(self) -> bytes:
        """The next message to send, when the one before it has left. Cancelling it loses none."""
        while True:
            if self._needs_snapshot and not self._is_finished:
                data = self._feed._snapshot(lagged=self._lagged)  # which flushes: what that sends is in it already
                self._needs_snapshot = self._lagged = False
                return data
            if self._queue:
                data = self._queue.popleft()
                self._bytes -= len(data)
                return data
            if self._is_finished:
                self.sent.set()
            self._wake.clear()
            await self._wake.wait()


class Feed:
    """The changes of one app for its clients. Belongs to the loop's thread.

    Args:
        app, views, history, hub: Of the app.
        run: Id of the run.
        on_usage: Called with whether anybody follows what works use, whenever that may have changed.
    """

    def __init__(
        self,
        app: AppLike,
        views: Views,
        history: History,
        hub: ChangeHub,
        run: str,
        on_usage: Callable[[bool], None] = lambda wanted: None,
    ) -> None:
        self._app = app
        self._views = views
        self._history = history
        self._hub = hub
        self._run = run
        self._on_usage = on_usage
        self._loop = asyncio.get_running_loop()
        self._clients: set[Subscriber] = set()
        self._seq = 0
        self._ring: deque[tuple[int, bytes]] = deque()
        self._ring_bytes = 0
        self._ring_start = 0
        self._unwatch: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._is_closed = False
        self._made: tuple[tuple[int, int, bool], bytes] | None = None
        # What waits for the next batch.
        self._items: list[Any] = []
        self._latest: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._works: dict[str, None] = {}
        self._calls: dict[int, CallRecord] = {}
        self._logs: deque[LogLine] = deque()
        self._log_lost: tuple[int, int] | None = None
        self._is_app_changed = False
        self._layout: Any = None
        self._schedules: Any = None
        self._looked_at = 0.0
        self._look: asyncio.TimerHandle | None = None

    @property
    def num_clients(self) -> int:
        """WebSockets that are open."""
        return len(self._clients)

    @property
    def wants_usage(self) -> bool:
        """Whether a client follows what works use."""
        return any(client.usage for client in self._clients)

    # --- clients ----------------------------------------------------------------------------------

    def join(self) -> Subscriber:
        """A new client, which says hello first.

        Raises:
            Problem: There are too many, or the app has ended.
        """
        if self._is_closed:
            raise Problem("not_ready", "the app has ended")
        if len(self._clients) >= _MOST_CLIENTS:
            raise Problem("not_ready", f"{_MOST_CLIENTS} clients are connected, and no more are taken")
        client = Subscriber(self)
        self._clients.add(client)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        return client

    def leave(self, client: Subscriber) -> None:
        """It is gone. May be repeated."""
        self._clients.discard(client)
        self._followed()
        if not self._clients and self._unwatch is not None and self._linger is None and not self._is_closed:
            self._linger = self._loop.call_later(_LINGER, self._rest)

    def _followed(self) -> None:
        self._on_usage(self.wants_usage)

    def _greet(self, client: Subscriber, run: str | None, last: int | None) -> None:
        self._watch()
        self._flush()
        if run != self._run or last is None or not self._ring_start <= last <= self._seq:
            client.start_over(lagged=False)
            return
        client.put(encode_json({"type": "resumed", "seq": last}))
        for seq, data in self._ring:
            if seq > last:
                client.put(data)

    def _watch(self) -> None:
        if self._unwatch is not None:
            return
        self._unwatch = self._hub.watch(self._take)
        self._history.touched = self._touch
        self._ring_start = self._seq
        self._layout = encode_json(self._views.layout())
        self._schedules = encode_json(self._views.schedules())

    def _rest(self) -> None:
        """Nobody listens: watch nothing."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._history.touched = None
        for timer in (self._timer, self._linger, self._look):
            if timer is not None:
                timer.cancel()
        self._timer = self._linger = self._look = None
        self._drop_pending()
        self._ring.clear()
        self._ring_bytes = 0
        self._seq += 1  # what is not told from here on cannot be resumed
        self._ring_start = self._seq

    def _drop_pending(self) -> None:
        self._items, self._logs = [], deque()
        self._latest.clear()
        self._works.clear()
        self._calls.clear()
        self._log_lost = None

    async def aclose(self) -> None:
        """The app has ended: clients get its last changes, and nothing more follows. May be repeated.

        Those that do not take them within `_LAST_WORDS` seconds go without. The faces end the connections.
        """
        if self._unwatch is not None:
            self._flush()
        self._is_closed = True
        self._rest()
        for client in self._clients:
            client.finish()
        waiting = [client.sent.wait() for client in self._clients if client.is_greeted]
        if waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await asyncio.gather(*waiting)

    # --- changes ----------------------------------------------------------------------------------

    def _take(self, change: Change) -> None:
        match change:
            case StateChanged():
                self._take_edit(change)
            case LogLine():
                self._take_line(change)
                return
            case StatusChanged():
                self._works[change.name] = None
                self._items.append({"t": "status", "name": change.name, "status": change.status})
                self._look_soon()
            case ComponentAdded() | ComponentRemoved():
                self._take_component(change)
        self._flush_soon()

    def _take_edit(self, change: StateChanged) -> None:
        name, path = change.name, change.path
        item = {"t": "state", "name": name, "path": path, "kind": change.kind, "value": change.value}
        if path[0][:1] == "_":  # the port, the url: part of the work's view
            self._works[name] = None
            self._look_soon()
        if change.kind == "set" and not isinstance(change.value, (list, dict, set, tuple)):
            try:
                at = self._latest.setdefault((name, path), len(self._items))
            except TypeError:
                at = len(self._items)
            if at < len(self._items):
                self._items[at] = item
                return
        elif self._latest:
            self._latest.clear()  # what is set from here on must not move before this
        self._items.append(item)

    def _take_line(self, line: LogLine) -> None:
        if not any(client.logs is not False for client in self._clients):
            return
        self._logs.append(line)
        if len(self._logs) > _LOGS_PENDING:
            lost = self._logs.popleft().seq
            self._log_lost = (self._log_lost[0] if self._log_lost else lost, lost)
        self._flush_soon()

    def _take_component(self, change: ComponentAdded | ComponentRemoved) -> None:
        added = isinstance(change, ComponentAdded)
        found = self._views.find(change.name) if added else None
        self._works.pop(change.name, None)
        item: dict[str, Any] = {"t": "added" if added else "removed", "name": change.name, "kind": None, "type": None}
        if found is not None:
            item["kind"] = "work" if isinstance(found, Work) else "flow"
            item["type"] = type(found).__name__
            item["state"] = self._views.state(found, 0)
            if isinstance(found, Work):
                self._works[change.name] = None
        self._latest.clear()
        self._items.append(item)
        self._look_soon()

    def _touch(self, record: CallRecord) -> None:
        self._calls[record.id] = record
        self._flush_soon()

    def app_changed(self) -> None:
        """What is told of the app as a whole has changed."""
        self._is_app_changed = True
        if self._unwatch is not None:
            self._flush_soon()

    def use(self, usages: Iterable[Usage]) -> None:
        """Send samples to those who follow them."""
        data = self._changes([{"t": "usage", **msgspec.structs.asdict(usage)} for usage in usages])
        for client in self._clients:
            if client.usage and client.is_greeted:
                client.put(data)

    def _look_soon(self) -> None:
        """The layout, or a schedule, may be another one now."""
        if self._look is None:
            due = max(0.0, self._looked_at + _LAYOUT_EVERY - self._loop.time())
            self._look = self._loop.call_later(due, self._look_again)

    def _look_again(self) -> None:
        self._look, self._looked_at = None, self._loop.time()
        layout, schedules = self._views.layout(), self._views.schedules()
        for name, value in (("layout", layout), ("schedules", schedules)):
            data = encode_json(value)
            if data != getattr(self, f"_{name}"):
                setattr(self, f"_{name}", data)
                self._items.append({"t": name, "items": value})
                self._flush_soon()

    # --- batches ----------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if self._timer is not None:
            return
        due = self._flushed_at + INTERVAL - self._loop.time()
        if due <= 0:
            self._timer = self._loop.call_soon(self._flush)
        else:
            self._timer = self._loop.call_later(due, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed_at = self._loop.time()
        items = self._gather()
        if items:
            self._seq += len(items)
            data = self._changes(items)
            self._ring.append((self._seq, data))
            self._ring_bytes += len(data)
            while self._ring_bytes > _RING_BYTES and len(self._ring) > 1:
                self._ring_start, oldest = self._ring.popleft()
                self._ring_bytes -= len(oldest)
            for client in self._clients:
                if client.is_greeted:
                    client.put(data)
        if self._logs:
            self._send_logs()

    def _gather(self) -> list[Any]:
        """What the next batch holds, in order; nothing waits afterwards."""
        items = self._items
        for item in items:
            if item["t"] == "state":
                item["value"] = to_json(item["value"], MOST_STATE)
                item["path"] = [to_json(key) for key in item["path"]]
        works, self._works = self._works, {}
        if works:
            found = [work for name in works if isinstance(work := self._views.find(name), Work)]
            items.extend({"t": "work", **msgspec.structs.asdict(self._views.work(work))} for work in found)
        calls, self._calls = self._calls, {}
        for record in calls.values():
            view = msgspec.structs.asdict(self._views.call(record, with_args=False))
            del view["args"], view["result"]
            items.append({"t": "call", **view})
        if self._is_app_changed:
            self._is_app_changed = False
            items.append({"t": "app", **msgspec.structs.asdict(self._views.app())})
        self._items = []
        self._latest.clear()
        return items

    def _changes(self, items: list[Any]) -> bytes:
        return encode_json({"type": "changes", "seq": self._seq, "items": items})

    def _send_logs(self) -> None:
        lines, self._logs = self._logs, deque()
        lost, self._log_lost = self._log_lost, None
        made: dict[Any, bytes] = {}
        gap = [_gap(*lost)] if lost else []
        first, last = lost[0] if lost else lines[0].seq, lines[-1].seq
        for client in self._clients:
            if client.logs is False:
                continue
            if client.logs not in made:
                told = [
                    {"t": "log", "seq": line.seq, "work": line.name, "time": line.time, "text": line.text}
                    for line in lines
                    if client.follows(line.name)
                ]
                made[client.logs] = self._changes(gap + told) if told or gap else b""
            if made[client.logs]:
                client.put_lines(made[client.logs], first, last)

    def _tell_gap(self, first: int, last: int) -> bytes:
        return self._changes([_gap(first, last)])

    # --- snapshots --------------------------------------------------------------------------------

    def _snapshot(self, *, lagged: bool) -> bytes:
        self._flush()
        moment = (self._hub.version, self._seq, lagged)
        if self._made is None or self._made[0] != moment:
            self._made = (moment, self._make_snapshot(lagged=lagged))
        return self._made[1]

    def _make_snapshot(self, *, lagged: bool) -> bytes:
        views, calls = self._views, []
        for record in self._history.newest():
            view = msgspec.structs.asdict(views.call(record, with_args=False))
            del view["args"], view["result"]
            calls.append(view)
            if len(calls) >= _CALLS_SHOWN:
                break
        snapshot: dict[str, Any] = {
            "type": "snapshot",
            "seq": self._seq,
            "app": views.app(),
            "components": views.components(),
            "works": [views.work(work) for work in self._app.root.works()],
            "state": views.state(self._app.root),
            "calls": calls,
            "layout": views.layout(),
            "schedules": views.schedules(),
        }
        if lagged:
            snapshot["lagged"] = True
        return encode_json(snapshot)


def _gap(first: int, last: int) -> dict[str, Any]:
    """Says that lines from `first` to `last` were left out."""
    return {"t": "log_gap", "after": first - 1, "before": last + 1}
