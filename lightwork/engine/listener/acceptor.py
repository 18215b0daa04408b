"""Accepts connections as bare sockets, and admits one only after its first bytes are those of a worker.

The dialling end speaks first, so its first bytes show whether it is a worker. The acceptor reads them with `MSG_PEEK`,
so they are still there for the transport of an admitted connection. Any other connection costs one accept and one
close. asyncio's own server makes a transport, a protocol and a task for each connection, which costs four to ten times
as much.

Two measures bound the time that unauthenticated clients take from the event loop, however many connect:

- The acceptor has a separate selector, which is one descriptor in the loop's selector. Many connections then cause one
  wake-up.
- When wake-ups that admit nobody become frequent, the loop stops waiting for that descriptor and polls it a hundred
  times a second. The kernel holds new connections meanwhile. Wake-ups are the main cost: each one delays the loop's
  real work by more than the time that is then spent here.

Linux can hold back connections until they have sent data (``TCP_DEFER_ACCEPT``). It is not used: silent connections
would then fill the kernel's queue of half-open connections instead of this one, which has a bound, a time limit and an
order.
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
"""How many first bytes are inspected. A TLS hello has fewer than 600, and its relevant part is at the beginning."""

_ACCEPTED = 32
_HEARD = 64
"""How many connections are accepted, and how many are read, in one wake-up. That takes a millisecond at most; then the
loop goes on."""

_PAUSE = 0.01
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SHORT_PAUSE = 0.1
_SAY_AGAIN = 60.0


class Pace:
    """A token bucket of wake-ups of the loop. Time refills it, and so does each admitted connection.

    Args:
        most: Capacity, in wake-ups; the bucket starts full.
        rate: Wake-ups added per second.
    """

    def __init__(self, most: float = 64.0, rate: float = 50.0) -> None:
        self._most = most
        self._rate = rate
        self._left = most
        self._at = 0.0

    def spend(self, now: float, *, let_in: int) -> bool:
        """Count one wake-up. Each connection that it admitted adds two. Return whether the next may follow at once."""
        self._fill(now)
        self._left = min(self._most, max(0.0, self._left - 1) + 2 * let_in)
        return self._left >= 1

    def may_wake(self, now: float) -> bool:
        """Return whether the next wake-up may follow at once, after a check that found no event."""
        self._fill(now)
        return self._left >= 1

    def _fill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now


class _Pending:
    """An accepted connection that has not sent enough bytes yet to be judged."""

    __slots__ = ("deadline", "heard", "is_watched", "sock")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline  # on the loop's clock
        self.heard = 0  # bytes that were there at the last read
        self.is_watched = False  # whether the selector has it


class Acceptor:
    """Accepts connections from any number of listening sockets, and admits those that `judge` recognizes.

    Args:
        judge: Called with all bytes that a connection has sent so far. Returns whether to admit it, None if that takes
            more bytes.
        welcome: Makes the protocol of an admitted connection. Called with the seconds since it was accepted.
        timeout: Seconds within which a connection must be admitted.
        on_crowd: Called when more connections were accepted. It may `drop` some.

    Attributes:
        came: How many connections were ever accepted.
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
        self._pending: dict[_Pending, None] = {}  # not admitted yet, oldest first; all have the same time limit
        self._tasks: set[asyncio.Task[None]] = set()  # one for each connection that is being admitted
        self._pace = Pace()
        self._is_woken = False  # whether the loop waits for the selector
        self._pause: asyncio.TimerHandle | None = None  # with a socket open: runs if and only if the loop does not wait
        self._shortage: asyncio.TimerHandle | None = None  # while it runs, no connection is accepted
        self._due: asyncio.TimerHandle | None = None  # deadline of the oldest connection, or of a former oldest one
        self._said_at = -_SAY_AGAIN
        self._is_closed = False
        self.came: int = 0

    @property
    def waiting(self) -> int:
        """How many connections are accepted and not admitted yet."""
        return len(self._pending)

    def open(self, sock: socket.socket) -> None:
        """Accept from a listening socket, and take ownership of it."""
        sock.setblocking(False)
        self._listening.append(sock)
        self._selector.register(sock, selectors.EVENT_READ)
        if self._pause is None:
            self._wake()

    def drop(self, keep: int) -> None:
        """Close the oldest waiting connections until `keep` are left."""
        many = len(self._pending) - keep
        if many > 0:
            for pending in list(islice(self._pending, many)):
                self._close(pending)

    async def aclose(self) -> None:
        """Close the sockets and all waiting connections; return when none is being admitted. May be repeated.

        Cancelling it leaves the port closed. A connection that was being admitted is still admitted.
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

    # --- when to check ------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_woken and not self._is_closed:
            self._is_woken = True
            self._loop.add_reader(self._selector, self._look)

    def _sleep(self) -> None:
        if self._is_woken:
            self._is_woken = False
            self._loop.remove_reader(self._selector)

    def _look(self) -> None:
        """Handle new connections and new bytes, and decide when to check again."""
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
        """Handle some of the new connections and new bytes; return whether the loop may be woken again at once."""
        now, heard, let_in, has_come = self._loop.time(), 0, 0, False
        events = self._selector.select(0)
        for key, _ in events:
            if key.data is None:
                let_in += self._accept(key.fileobj, now)  # type: ignore[arg-type]
                has_come = True
            elif heard < _HEARD:
                heard += 1
                if key.data in self._pending:  # otherwise it was dropped meanwhile
                    let_in += self._hear(key.data, now)
        if has_come:
            self._on_crowd()
        return self._pace.spend(now, let_in=let_in) if events else self._pace.may_wake(now)

    def _on_due(self) -> None:
        """Close every connection whose deadline has passed."""
        self._due = None
        now = self._loop.time()
        while self._pending:
            pending = next(iter(self._pending))
            if pending.deadline > now:
                self._due = self._loop.call_at(pending.deadline, self._on_due)
                return
            self._close(pending)

    # --- one connection -----------------------------------------------------------------------------

    def _accept(self, listening: socket.socket, now: float) -> int:
        """Accept some connections; return how many of them were admitted at once."""
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
                continue  # it concerns that connection alone, see accept(2): the peer left, or a firewall forbids it
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
        """Read what a connection has sent; return whether it is admitted. If not, it goes on waiting or is closed."""
        sock = pending.sock
        try:
            data = sock.recv(_MOST, socket.MSG_PEEK)
            verdict = self._judge(data) if data else False
            if verdict:
                self._let_in(pending, now)
                return True
            if verdict is None and len(data) > pending.heard and sock.family != socket.AF_UNIX:
                # The selector reports it again when more bytes have come, or at the end of the stream; at the end no
                # more bytes are there than now. A Unix socket has no low-water mark, but there a greeting arrives
                # whole, as it was written.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + 1)
                pending.heard = len(data)
                return False
            if data:
                sock.recv(_MOST)  # unread bytes would turn the close into a reset
        except BlockingIOError:
            return False
        except OSError:
            pass  # the peer has left
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
            sock.close()  # the peer has left
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
        """Out of descriptors: close all waiting connections to free theirs, and stop accepting for a moment."""
        self.drop(0)
        if now - self._said_at >= _SAY_AGAIN:
            # The first log call imports modules, which takes descriptors. If it fails, the next shortage logs it.
            with suppress(OSError, ImportError):
                _log.warning("cannot accept connections for now: workers that dial wait", error=error.strerror)
                self._said_at = now
        if self._shortage is None:
            for sock in self._listening:
                self._selector.unregister(sock)
            self._shortage = self._loop.call_later(_SHORT_PAUSE, self._on_shortage_over)

    def _on_shortage_over(self) -> None:
        self._shortage = None
        for sock in self._listening:
            self._selector.register(sock, selectors.EVENT_READ)
