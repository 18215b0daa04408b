"""Notifies a thread of urgent bytes on a socket that another thread reads.

Polling the socket for urgent bytes (POLLPRI) also works. But then Linux wakes the thread inside the kernel for every
received byte, which costs two more thread switches for each call. So on Linux the kernel sends SIGURG to the polling
thread, which blocks the signal and polls a signalfd. On other systems the thread polls the socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import threading

__all__ = ["UrgentBytes"]

_F_SETOWN_EX = 15
_F_OWNER_TID = 0

_SIGNAL_SET = 128
"""Size of a ``sigset_t`` in bytes."""

_SIGNAL_INFO = 128
"""Size of a ``signalfd_siginfo`` in bytes."""

_ON_ITS_WAY = 1000
"""Milliseconds that the urgent byte may arrive after its signal. The signal comes with the data before the byte."""


class UrgentBytes:
    """Watches one socket at a time for urgent bytes. Made and used in the polling thread."""

    def __init__(self) -> None:
        self._signals = _open_signals() if sys.platform == "linux" else -1

    def register(self, poll: select.poll, fd: int, events: int) -> None:
        """Make `poll` report urgent bytes of the socket `fd`, besides `events`."""
        if self._signals < 0:
            poll.register(fd, events | select.POLLPRI)
            return
        try:
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, threading.get_native_id()))
        except OSError:  # a sandbox forbids it; or the socket was closed meanwhile, which the poll reports
            events |= select.POLLPRI
        poll.register(fd, events)
        poll.register(self._signals, select.POLLIN)
        if _has_come(fd, 0):  # the byte arrived before the kernel knew the thread
            signal.pthread_kill(threading.get_ident(), signal.SIGURG)

    def take(self, fd: int) -> bool:
        """Read the urgent byte, which is not part of the stream. Return False if there is none, or it was read past."""
        if self._signals >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals, _SIGNAL_INFO)
            _has_come(fd, _ON_ITS_WAY)
        try:
            with socket.socket(fileno=os.dup(fd)) as copy:
                copy.recv(1, socket.MSG_OOB)
        except OSError:
            return False
        return True


def _has_come(fd: int, patience: int) -> bool:
    """Return whether an urgent byte arrives within `patience` milliseconds."""
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return any(event & select.POLLPRI for _, event in poll.poll(patience))


def _open_signals() -> int:
    """Return a file descriptor that is readable when this thread has received SIGURG; -1 if unsupported."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "signalfd"):
        return -1
    signals = ctypes.create_string_buffer(_SIGNAL_SET)
    libc.sigemptyset(signals)
    libc.sigaddset(signals, signal.SIGURG)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    return int(libc.signalfd(-1, signals, os.O_NONBLOCK | os.O_CLOEXEC))
