"""Ends a worker's process that has lost its scheduler, also where its event loop is too busy to notice.

The agent ends in order when it was cut off too long. It cannot where user code blocks the loop, or a run ignores
its cancellation. So a thread that needs neither watches the socket and the clock.
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
"""Told as soon as the other end has closed, with unread data too; elsewhere than on Linux when both have."""


_HUNG_UP_ANY = _HUNG_UP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class OrphanGuard:
    """Watches one worker's connection from a thread of its own, which sleeps until something happens to it.

    Attributes:
        on_urgent: Called in that thread when the other end has sent an urgent byte: it asks, and the loop is blocked.
    """

    def __init__(self) -> None:
        self.on_urgent: Callable[[], None] | None = None
        self._patience = 0.0
        self._fd = -1
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._thread = threading.Thread(target=self._watch, name="lightwork-guard", daemon=True)

    def connected(self, fd: int, patience: float) -> None:
        """There is a connection.

        Args:
            fd: Its socket's descriptor.
            patience: Seconds after its loss in which there must be another; else the process is ended.
        """
        self._fd, self._patience = fd, patience
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._notify()

    def lost(self) -> None:
        """There is none any more."""
        self._fd = -1
        self._notify()

    def _notify(self) -> None:
        try:
            os.write(self._wake, b".")
        except BlockingIOError:
            return  # full: the thread has enough to wake up for

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
                connected = False  # the agent will say `lost`, if it comes to it
            elif events:
                if urgent.take(fd) and self.on_urgent is not None:
                    self.on_urgent()  # else the loop has come past it meanwhile, and answers itself
            else:
                self._end()

    def _end(self) -> None:
        print(f"lightwork: no scheduler for {self._patience:g} s, and this worker does not end", file=sys.stderr)
        sys.stderr.flush()
        os._exit(LOST_CODE)
