"""The orphan guard: it ends a worker's process that has lost its scheduler, even if the event loop is blocked.

An agent without a connection for too long ends gracefully. It cannot if user code blocks the loop, or if a run ignores
its cancellation. So a separate thread watches the socket and the clock.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable

from lightwork.link.messages import LOST_CODE
from lightwork.worker.urgent_data import UrgentBytes

__all__ = ["OrphanGuard"]

_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)
"""Poll event for a closed connection. On Linux it is set as soon as the other end has closed, even with unread data.
Other systems set it only when both ends have closed."""

_HUNG_UP_ANY = _HUNG_UP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class OrphanGuard:
    """Watches one worker's connection from a separate thread. The thread sleeps until an event of the connection.

    Attributes:
        on_urgent: Called in this thread when the other end has sent an urgent byte: a query while the loop is blocked.
    """

    def __init__(self) -> None:
        self.on_urgent: Callable[[], None] | None = None
        self._patience = 0.0
        self._fd = -1
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._thread = threading.Thread(target=self._watch, name="lightwork-guard", daemon=True)

    def connected(self, fd: int, patience: float) -> None:
        """Watch a new connection.

        Args:
            fd: File descriptor of the connection's socket.
            patience: Seconds after its loss within which there must be another connection. Otherwise the guard ends the
                process.
        """
        self._fd, self._patience = fd, patience
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._notify()

    def lost(self) -> None:
        """Note that the connection is lost."""
        self._fd = -1
        self._notify()

    def _notify(self) -> None:
        try:
            os.write(self._wake, b".")
        except BlockingIOError:
            return  # the pipe is full: the thread wakes up anyway

    def _watch(self) -> None:
        connected = True
        urgent = UrgentBytes()
        while True:
            fd = self._fd
            poll = select.poll()
            poll.register(self._woken, select.POLLIN)
            if connected and fd >= 0:
                urgent.register(poll, fd, _HUNG_UP)
            events = poll.poll(None if connected and fd >= 0 else self._patience * 1000)
            if any(number == self._woken for number, _ in events):
                os.read(self._woken, 4096)
                connected = self._fd >= 0
            elif any(number == fd and event & _HUNG_UP_ANY for number, event in events):
                connected = False  # the agent also calls `lost`, unless its loop is blocked
            elif events:
                if urgent.take(fd) and self.on_urgent is not None:
                    self.on_urgent()  # if there is no byte, the loop has read past it meanwhile, and answers itself
            else:
                self._end()

    def _end(self) -> None:
        text = f"no scheduler for {self._patience:g} s, and this worker did not end by itself: its process is ended now"
        print(f"lightwork: {text}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(LOST_CODE)
