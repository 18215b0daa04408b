"""The sockets that are dialled: who comes is a bare socket, and nothing else, until it has said what a worker says.

The dialling end speaks first, so a stranger can be told by its first bytes, and they are looked at without being taken
(`MSG_PEEK`): of one that is let in they are still there for its transport. Everybody else costs an accept and a close:
asyncio's server makes a transport, a protocol and a task for each, which is four to ten times as much.

Two things bound what strangers take from the event loop, however many come. They have a selector of their own, which is
one descriptor in the loop's, so that many are one wake-up. And when wake-ups that let nobody in become frequent, the
loop does not wait for that descriptor any more, and looks there a hundred times a second; meanwhile the kernel holds
who comes. Wake-ups are what hurts: each delays what the loop is really for by more than what is then done in it.

Linux can keep back connections until they have spoken (``TCP_DEFER_ACCEPT``). It was not taken: whoever stays silent
then fills the queue of half-open connections in place of this one, which has a bound, a time limit and an order.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from lightwork._logging import get_logger

__all__ = ["Acceptor", "Pace"]

_log = get_logger("lightwork.engine")

_MOST = 2048
"""First bytes that are looked at: a TLS hello has fewer than 600, and what is looked for stands at its beginning."""

_ACCEPTED = 32
_HEARD = 64
"""Accepted, and listened to, in one wake-up: a millisecond at most. Then the loop has its turn."""

_PAUSE = 0.01
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SHORT_PAUSE = 0.1
_SAY_AGAIN = 60.0


class Pace:
    """When the loop may be woken at once: a purse of wake-ups, that fills with time and that workers fill, too.

    Args:
        most: What it holds, and holds at first.
        rate: Wake-ups a second that it is given.
    """

    def __init__(self, most: float = 64.0, rate: float = 50.0) -> None:
        self._most = most
        self._rate = rate
        self._left = most
        self._at = 0.0

    def spend(self, now: float, *, let_in: int) -> bool:
        """Count one wake-up, and those it let in, each of which pays for two; whether the next may be at once."""
        self._fill(now)
        self._left = min(self._most, max(0.0, self._left - 1) + 2 * let_in)
        return self._left >= 1

    def may_wake(self, now: float) -> bool:
        """Whether the next one may be at once, when nothing was there this time."""
        self._fill(now)
        return self._left >= 1

    def _fill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now


class _Pending:
    """A connection that has not said enough yet."""

    __slots__ = ("deadline", "heard", "is_watched", "sock")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline  # of the loop's clock
        self.heard = 0  # bytes that it had said when last listened to
        self.is_watched = False  # by the selector


class Acceptor:
    """Accepts from any number of listening sockets, and lets in whom `judge` knows.

    Args:
        judge: Given the first bytes of a connection, all that have come so far: whether it is let in, None if that
            takes more of them.
        welcome: Makes the protocol of one that is let in; told how many seconds it has been here.
        timeout: Seconds that a connection has until it is let in.
        on_crowd: Called when more have come: it may `drop` some.

    Attributes:
        came: How many were accepted, ever.
    """

    def __init__(
        self,
        judge: Callable[[bytes], bool | None],
        welcome: Callable[[float], asyncio.Protocol],
        timeout: float,
        on_crowd: Callable[[], None],
    ) -> None:
        self._judge = judge
        self._welcome = welcome
        self._timeout = timeout
        self._on_crowd = on_crowd
        self._loop = asyncio.get_running_loop()
        self._selector = selectors.DefaultSelector()
        self._listening: list[socket.socket] = []
        self._pending: dict[_Pending, None] = {}  # all that wait, oldest first: all have the same time
        self._tasks: set[asyncio.Task[None]] = set()  # of those who are being let in
        self._pace = Pace()
        self._is_woken = False  # whether the loop waits for the selector
        self._pause: asyncio.TimerHandle | None = None  # running if and only if it does not, once there is a socket
        self._shortage: asyncio.TimerHandle | None = None  # while it runs, nobody is accepted
        self._due: asyncio.TimerHandle | None = None  # for the oldest connection, or one that has gone
        self._said_at = -_SAY_AGAIN
        self._is_closed = False
        self.came: int = 0

    @property
    def waiting(self) -> int:
        """How many have not said enough yet."""
        return len(self._pending)

    def open(self, sock: socket.socket) -> None:
        """Accept from a socket that listens, which is this one's from now on."""
        sock.setblocking(False)
        self._listening.append(sock)
        self._selector.register(sock, selectors.EVENT_READ)
        if self._pause is None:
            self._wake()

    def drop(self, keep: int) -> None:
        """Close the oldest of those who wait, until there are so many."""
        many = len(self._pending) - keep
        if many > 0:
            for pending in list(islice(self._pending, many)):
                self._close(pending)

    async def aclose(self) -> None:
        """Close the sockets and everybody who waits; return when nobody is on the way in. May be repeated.

        Cancelling it leaves the port closed; who was on the way in gets there.
        """
        if not self._is_closed:
            self._is_closed = True
            self._sleep()
            for timer in (self._pause, self._shortage, self._due):
                if timer is not None:
                    timer.cancel()
            self.drop(0)
            for sock in self._listening:
                sock.close()
            self._selector.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- when to look -------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_woken and not self._is_closed:
            self._is_woken = True
            self._loop.add_reader(self._selector, self._look)

    def _sleep(self) -> None:
        if self._is_woken:
            self._is_woken = False
            self._loop.remove_reader(self._selector)

    def _look(self) -> None:
        """See who has come or has spoken, and decide when to look again."""
        self._pause = None
        may_wake = False
        try:
            may_wake = self._see_to()
        finally:
            if may_wake:
                self._wake()
            else:
                self._sleep()
                self._pause = self._loop.call_later(_PAUSE, self._look)

    def _see_to(self) -> bool:
        """Deal with some of those who have come or have spoken; whether the loop may be woken for the next at once."""
        now, heard, let_in, has_come = self._loop.time(), 0, 0, False
        events = self._selector.select(0)
        for key, _ in events:
            if key.data is None:
                let_in += self._accept(key.fileobj, now)  # type: ignore[arg-type]
                has_come = True
            elif heard < _HEARD:
                heard += 1
                if key.data in self._pending:  # else it was dropped since
                    let_in += self._hear(key.data, now)
        if has_come:
            self._on_crowd()
        return self._pace.spend(now, let_in=let_in) if events else self._pace.may_wake(now)

    def _on_due(self) -> None:
        """The time of the oldest is over, if it is still here."""
        self._due = None
        now = self._loop.time()
        while self._pending:
            pending = next(iter(self._pending))
            if pending.deadline > now:
                self._due = self._loop.call_at(pending.deadline, self._on_due)
                return
            self._close(pending)

    # --- one of them --------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket, now: float) -> int:
        """Accept some; return how many of them were let in at once."""
        let_in = 0
        for _ in range(_ACCEPTED):
            try:
                sock, _address = listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._on_shortage(error, now)
                    break
                continue  # that connection's own, as accept(2) says: it went, or a firewall forbids it
            self.came += 1
            sock.setblocking(False)
            pending = _Pending(sock, now + self._timeout)
            self._pending[pending] = None
            if self._hear(pending, now):
                let_in += 1
            elif pending in self._pending:
                self._selector.register(sock, selectors.EVENT_READ, pending)
                pending.is_watched = True
                if self._due is None:
                    self._due = self._loop.call_at(pending.deadline, self._on_due)
        return let_in

    def _hear(self, pending: _Pending, now: float) -> bool:
        """Listen to one who waits: whether that lets it in. If not it waits on, or is closed."""
        sock = pending.sock
        try:
            data = sock.recv(_MOST, socket.MSG_PEEK)
            verdict = self._judge(data) if data else False
            if verdict:
                self._let_in(pending, now)
                return True
            if verdict is None and len(data) > pending.heard and sock.family != socket.AF_UNIX:
                # It is told of again when there is more, or never will be: and then there is no more than this time. A
                # Unix socket has no such mark; but there a greeting comes whole, as it was written.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + 1)
                pending.heard = len(data)
                return False
            if data:
                sock.recv(_MOST)  # what is left unread would make the close a reset
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has gone
        self._close(pending)
        return False

    def _let_in(self, pending: _Pending, now: float) -> None:
        self._forget(pending)
        if pending.heard:
            pending.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        been_here = now - (pending.deadline - self._timeout)
        task = self._loop.create_task(self._connect(pending.sock, been_here), name="letting in")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket, been_here: float) -> None:
        """Give the socket a transport and a protocol."""
        try:
            await self._loop.connect_accepted_socket(lambda: self._welcome(been_here), sock)
        except OSError:
            sock.close()  # it has gone
        except BaseException:
            sock.close()
            raise

    def _close(self, pending: _Pending) -> None:
        self._forget(pending)
        pending.sock.close()

    def _forget(self, pending: _Pending) -> None:
        del self._pending[pending]
        if pending.is_watched:
            self._selector.unregister(pending.sock)

    # --- descriptors --------------------------------------------------------------------------------

    def _on_shortage(self, error: OSError, now: float) -> None:
        """The process or the system has no more descriptors: those of strangers are given back, and a moment passes."""
        self.drop(0)
        if now - self._said_at >= _SAY_AGAIN:
            # The first that is logged loads modules, and that takes descriptors: it is said when there are some.
            with suppress(OSError, ImportError):
                _log.warning("workers that dial have to wait: no connection can be accepted", error=error.strerror)
                self._said_at = now
        if self._shortage is None:
            for sock in self._listening:
                self._selector.unregister(sock)
            self._shortage = self._loop.call_later(_SHORT_PAUSE, self._on_shortage_over)

    def _on_shortage_over(self) -> None:
        self._shortage = None
        for sock in self._listening:
            self._selector.register(sock, selectors.EVENT_READ)
