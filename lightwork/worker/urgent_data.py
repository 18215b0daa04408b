"""Tells a thread of urgent bytes that come to a socket which another thread reads.

To poll that socket for them (POLLPRI) would do, but Linux then wakes the thread for every byte that comes, and has it
look and sleep again in the kernel: each call cost two switches of threads more. So the kernel sends SIGURG, to that
thread alone, which blocks the signal and polls a signalfd. Elsewhere the socket is polled.
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
"""Bytes of a ``sigset_t``."""

_SIGNAL_INFO = 128
"""Bytes of a ``signalfd_siginfo``."""

_ON_ITS_WAY = 1000
"""Milliseconds that the byte may take to come after its signal, which leaves with the data before it."""


class UrgentBytes:
    """Watches one socket after the other. Made and used in the thread that polls."""

    def __init__(self) -> None:
        self._signals = _open_signals() if sys.platform == "linux" else -1

    def register(self, poll: select.poll, fd: int, events: int) -> None:
        """Have `poll` tell of urgent bytes of the socket `fd` too, besides `events`."""
        if self._signals < 0:
            poll.register(fd, events | select.POLLPRI)
            return
        try:
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_TID, threading.get_native_id()))
        except OSError:  # a sandbox that has no such thing; or it was closed meanwhile, and so says the poll
            events |= select.POLLPRI
        poll.register(fd, events)
        poll.register(self._signals, select.POLLIN)
        if _has_come(fd, 0):  # before the kernel knew whom to tell
            signal.pthread_kill(threading.get_ident(), signal.SIGURG)

    def take(self, fd: int) -> bool:
        """Take the urgent byte, which is no part of the stream. False if there is none, be it that it was read past."""
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
    """Whether an urgent byte is there within that many milliseconds."""
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return any(event & select.POLLPRI for _, event in poll.poll(patience))


def _open_signals() -> int:
    """A descriptor that is readable when this thread has been sent SIGURG; -1 where there can be none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "signalfd"):
        return -1
    signals = ctypes.create_string_buffer(_SIGNAL_SET)
    libc.sigemptyset(signals)
    libc.sigaddset(signals, signal.SIGURG)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    return int(libc.signalfd(-1, signals, os.O_NONBLOCK | os.O_CLOEXEC))
