"""The feed: sends a snapshot of the app, then its changes, to any number of clients, each at its own pace.

A `Subscriber` is the server's end of one client's connection. The `Feed` queues changes for all subscribers.

Without subscribers the feed does not watch the app, and a change costs nothing here. With subscribers, it sends changes
in batches, at most one in `INTERVAL` seconds. A batch leaves out values that a later change has overwritten.

Each batch is encoded once. The same bytes go to every subscriber, and into a ring buffer from which a client resumes
after a broken connection. The queue of a subscriber holds references to the bytes. If a client falls too far behind,
its queue is dropped, and it gets a new snapshot as soon as it can take one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, assert_never

import msgspec

from lightwork.changes import Change, ComponentAdded, ComponentRemoved, LogLine, StateChanged, StatusChanged
from lightwork.components.work import Work
from lightwork.engine.changes import ChangeHub
from lightwork.engine.history import CallRecord, History
from lightwork.server.types import WorkUsage
from lightwork.server.values import to_json
from lightwork.server.views import MOST_STATE, AppLike, Views
from lightwork.server.web import Problem, encode_json

__all__ = ["INTERVAL", "Feed", "Subscriber"]

INTERVAL = 0.016
"""Seconds between two batches: one frame of a screen."""

_RING_BYTES = 8 * 1024 * 1024
"""Bytes of batches that are kept for clients that reconnect."""

_QUEUE_BYTES = 4 * 1024 * 1024
_QUEUE_FRAMES = 1024
"""Bytes and messages that one queue holds. Beyond either limit the client counts as too slow."""

_LINES_BYTES = 1024 * 1024
"""Bytes in a queue beyond which log lines are left out for this subscriber."""

_MOST_SUBSCRIBERS = 2048
_LINGER = 60.0
"""Seconds for which changes are kept after the last client has left, so that a reloaded page can resume."""

_LAYOUT_EVERY = 1.0
"""Minimum seconds between two checks of the layout and the schedules."""

_LAST_WORDS = 0.5
"""Seconds that clients have to take the last changes when the app ends."""

_CALLS_SHOWN = 200
_LOGS_PENDING = 5_000
"""Lines that wait for one batch. Beyond this the oldest are left out and reported as a gap: the disk has them."""


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
    """The server's end of one client's connection to the feed, independent of any WebSocket library.

    The face passes each incoming message to `receive`, and sends each message that `next` returns.

    Attributes:
        logs: Works whose log lines the client follows: True for all, False for none.
        usage: Whether the client follows the usage of works.
        is_greeted: Whether the client has sent its hello.
        sent: Set when everything was sent and the feed has ended.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._needs_snapshot = False
        self._lagged = False
        self._log_gap: tuple[int, int] | None = None
        self.is_greeted: bool = False
        self.logs: bool | frozenset[str] = False
        self.usage: bool = False
        self.sent: asyncio.Event = asyncio.Event()
        self._is_finished = False

    def receive(self, text: str | bytes) -> None:
        """Handle a message of the client.

        Raises:
            Problem: The message is invalid, or it is not a hello and no hello came before. Close the connection.
        """
        try:
            message = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Problem("bad_request", f"invalid message for the feed: {error}") from None
        if not self.is_greeted and not isinstance(message, _Hello):
            raise Problem("bad_request", "the first message must be hello")
        match message:
            case _Hello():
                if self.is_greeted:
                    raise Problem("bad_request", "hello must be sent only once")
                self._feed._greet(self, message.run, message.last)
                self.is_greeted = True
            case _Follow():
                if message.logs is not None:
                    self.logs = message.logs if isinstance(message.logs, bool) else frozenset(message.logs)
                if message.usage is not None:
                    self.usage = message.usage
                self._feed._report_usage_wanted()
            case _Ping():
                self.put(b'{"type":"pong"}')
            case _:
                assert_never(message)

    def put(self, data: bytes) -> None:
        """Queue a message. If the queue is then too large, drop it and send a new snapshot next."""
        if self._needs_snapshot:
            return
        self._queue.append(data)
        self._bytes += len(data)
        if self._bytes > _QUEUE_BYTES or len(self._queue) > _QUEUE_FRAMES:
            self.start_over(lagged=True)
        self._wake.set()

    def put_lines(self, data: bytes, first: int, last: int) -> None:
        """Queue log lines, or leave them out if the queue is too large; the next lines then begin with a gap.

        The client can read the missing lines from the disk.
        """
        if self._bytes > _LINES_BYTES or self._needs_snapshot:
            self._log_gap = (self._log_gap[0] if self._log_gap else first, last)
            return
        if self._log_gap is not None:
            gap, self._log_gap = self._log_gap, None
            self.put(self._feed._encode_gap(*gap))
        self.put(data)

    def start_over(self, *, lagged: bool) -> None:
        """Drop the queue; the next message is a snapshot."""
        self._queue.clear()
        self._bytes = 0
        self._needs_snapshot, self._lagged = True, lagged
        self._wake.set()

    def follows(self, work: str) -> bool:
        """Whether the client follows the log lines of a work."""
        return self.logs is True or (self.logs is not False and work in self.logs)

    def finish(self) -> None:
        """Mark the queue as complete: nothing is queued from now on."""
        self._is_finished = True
        self._wake.set()

    async def next(self) -> bytes:
        """Wait for and return the next message to send. Call it after the previous one was sent.

        Cancelling it loses no message.
        """
        while True:
            if self._needs_snapshot and not self._is_finished:
                data = self._feed._snapshot(lagged=self._lagged)  # flushes first: the batch is part of the snapshot
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
    """Collects the changes of one app and queues them for every `Subscriber`. Use it in the loop's thread only.

    Args:
        app: The app.
        views: Reads the app.
        history: The history of its calls.
        hub: Publishes its changes.
        run: Id of the run.
        on_usage: Called whenever `wants_usage` may have changed, with its value.
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
        self._subscribers: set[Subscriber] = set()
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
        # Collected for the next batch.
        self._items: list[Any] = []
        self._latest: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._works: dict[str, None] = {}
        self._calls: dict[int, CallRecord] = {}
        self._logs: deque[LogLine] = deque()
        self._log_lost: tuple[int, int] | None = None
        self._is_app_changed = False
        self._layout: Any = None
        self._schedules: Any = None
        self._layout_checked_at = 0.0
        self._layout_timer: asyncio.TimerHandle | None = None

    @property
    def num_clients(self) -> int:
        """Number of connected clients, which is the number of subscribers."""
        return len(self._subscribers)

    @property
    def wants_usage(self) -> bool:
        """Whether any client follows the usage of works."""
        return any(subscriber.usage for subscriber in self._subscribers)

    # --- subscribers ------------------------------------------------------------------------------

    def subscribe(self) -> Subscriber:
        """Add and return a subscriber, which waits for the client's hello.

        Raises:
            Problem: There are too many subscribers, or the app has ended.
        """
        if self._is_closed:
            raise Problem("not_ready", "the app has ended")
        if len(self._subscribers) >= _MOST_SUBSCRIBERS:
            raise Problem("not_ready", f"the feed has {_MOST_SUBSCRIBERS} clients and accepts no more; try again later")
        subscriber = Subscriber(self)
        self._subscribers.add(subscriber)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, because its client has gone. Calling it again does nothing."""
        self._subscribers.discard(subscriber)
        self._report_usage_wanted()
        if not self._subscribers and self._unwatch is not None and self._linger is None and not self._is_closed:
            self._linger = self._loop.call_later(_LINGER, self._rest)

    def _report_usage_wanted(self) -> None:
        self._on_usage(self.wants_usage)

    def _greet(self, subscriber: Subscriber, run: str | None, last: int | None) -> None:
        self._watch()
        self._flush()
        if run != self._run or last is None or not self._ring_start <= last <= self._seq:
            subscriber.start_over(lagged=False)
            return
        subscriber.put(encode_json({"type": "resumed", "seq": last}))
        for seq, data in self._ring:
            if seq > last:
                subscriber.put(data)

    def _watch(self) -> None:
        if self._unwatch is not None:
            return
        self._unwatch = self._hub.watch(self._take)
        self._history.touched = self._touch
        self._ring_start = self._seq
        self._layout = encode_json(self._views.layout())
        self._schedules = encode_json(self._views.schedules())

    def _rest(self) -> None:
        """Stop watching the app, because there are no subscribers."""
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._history.touched = None
        for timer in (self._timer, self._linger, self._layout_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._linger = self._layout_timer = None
        self._drop_pending()
        self._ring.clear()
        self._ring_bytes = 0
        self._seq += 1  # changes from here on are not recorded: nobody can resume across them
        self._ring_start = self._seq

    def _drop_pending(self) -> None:
        self._items, self._logs = [], deque()
        self._latest.clear()
        self._works.clear()
        self._calls.clear()
        self._log_lost = None

    async def aclose(self) -> None:
        """Send the last changes to all subscribers, then end the feed. Calling it again does nothing.

        Clients have `_LAST_WORDS` seconds to take the last changes. The faces close the connections.
        """
        if self._unwatch is not None:
            self._flush()
        self._is_closed = True
        self._rest()
        for subscriber in self._subscribers:
            subscriber.finish()
        waiting = [subscriber.sent.wait() for subscriber in self._subscribers if subscriber.is_greeted]
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
                self._check_layout_soon()
            case ComponentAdded():
                self._take_added(change)
            case ComponentRemoved():
                self._take_removed(change)
            case _:
                assert_never(change)
        self._flush_soon()

    def _take_edit(self, change: StateChanged) -> None:
        name, path = change.name, change.path
        item = {"t": "state", "name": name, "path": path, "kind": change.kind, "value": change.value}
        if path[0][:1] == "_":  # the port or the url, which are part of the work's view
            self._works[name] = None
            self._check_layout_soon()
        if change.kind == "set" and not isinstance(change.value, (list, dict, set, tuple)):
            try:
                at = self._latest.setdefault((name, path), len(self._items))
            except TypeError:
                at = len(self._items)
            if at < len(self._items):
                self._items[at] = item
                return
        elif self._latest:
            self._latest.clear()  # a later set must not be moved before this edit
        self._items.append(item)

    def _take_line(self, line: LogLine) -> None:
        if not any(subscriber.logs is not False for subscriber in self._subscribers):
            return
        self._logs.append(line)
        if len(self._logs) > _LOGS_PENDING:
            lost = self._logs.popleft().seq
            self._log_lost = (self._log_lost[0] if self._log_lost else lost, lost)
        self._flush_soon()

    def _take_added(self, change: ComponentAdded) -> None:
        found = self._views.find(change.name)
        self._works.pop(change.name, None)
        item: dict[str, Any] = {"t": "added", "name": change.name, "kind": None, "type": None}
        if found is not None:
            item["kind"] = "work" if isinstance(found, Work) else "flow"
            item["type"] = type(found).__name__
            item["state"] = self._views.state(found, 0)
            if isinstance(found, Work):
                self._works[change.name] = None
        self._latest.clear()
        self._items.append(item)
        self._check_layout_soon()

    def _take_removed(self, change: ComponentRemoved) -> None:
        self._works.pop(change.name, None)
        self._latest.clear()
        self._items.append({"t": "removed", "name": change.name, "kind": None, "type": None})
        self._check_layout_soon()

    def _touch(self, record: CallRecord) -> None:
        self._calls[record.id] = record
        self._flush_soon()

    def app_changed(self) -> None:
        """Send the view of the app with the next batch, because it has changed."""
        self._is_app_changed = True
        if self._unwatch is not None:
            self._flush_soon()

    def put_usage(self, usages: Iterable[WorkUsage]) -> None:
        """Queue samples of usage for the subscribers that follow usage."""
        data = self._changes([{"t": "usage", **msgspec.structs.asdict(usage)} for usage in usages])
        for subscriber in self._subscribers:
            if subscriber.usage and subscriber.is_greeted:
                subscriber.put(data)

    def _check_layout_soon(self) -> None:
        """Plan a check of the layout and the schedules, because they may have changed."""
        if self._layout_timer is None:
            due = max(0.0, self._layout_checked_at + _LAYOUT_EVERY - self._loop.time())
            self._layout_timer = self._loop.call_later(due, self._check_layout)

    def _check_layout(self) -> None:
        self._layout_timer, self._layout_checked_at = None, self._loop.time()
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
            for subscriber in self._subscribers:
                if subscriber.is_greeted:
                    subscriber.put(data)
        if self._logs:
            self._send_logs()

    def _gather(self) -> list[Any]:
        """Remove and return the items of the next batch, in order."""
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
        for subscriber in self._subscribers:
            if subscriber.logs is False:
                continue
            if subscriber.logs not in made:
                items = [
                    {"t": "log", "seq": line.seq, "work": line.name, "time": line.time, "text": line.text}
                    for line in lines
                    if subscriber.follows(line.name)
                ]
                made[subscriber.logs] = self._changes(gap + items) if items or gap else b""
            if made[subscriber.logs]:
                subscriber.put_lines(made[subscriber.logs], first, last)

    def _encode_gap(self, first: int, last: int) -> bytes:
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
    """Return the item that reports the lines from `first` to `last`, both included, as left out."""
    return {"t": "log_gap", "after": first - 1, "before": last + 1}
