"""The view where output is not a terminal: a line for each status and each log line, flushed at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from lightwork._logging import get_logger
from lightwork.changes import Change, LogLine, StatusChanged
from lightwork.status import WorkStatus

__all__ = ["JsonView", "PlainView", "View", "clean", "describe", "discard"]

_log = get_logger(__name__)


class View(Protocol):
    """Shows a running app. Called in the app's loop, so no method may block for long or raise."""

    def start(self, works: Sequence[Any]) -> None:
        """Begin; `works` are those that exist already."""

    def change(self, change: Change) -> None:
        """Take in a change."""

    def message(self, text: str) -> None:
        """Show a line about the app as a whole."""

    def serving(self, url: str) -> None:
        """Show where the app's HTTP side is."""

    def stop(self) -> None:
        """Show what is still held back, and end. Calling it twice is safe."""


class PlainView:
    """Writes ``root.train | text`` for what works print and ``root.train running`` for their statuses.

    If the output can no longer be written (its reader has gone), the view falls silent and the app goes on.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._is_closed = False

    def start(self, works: Sequence[Any]) -> None:
        """Nothing to show before something happens."""

    def change(self, change: Change) -> None:
        """Write the line of a change, if it has one."""
        match change:
            case LogLine(name=name, text=text):
                self._write(f"{name} | {clean(text)}")
            case StatusChanged(name=name, status=status):
                self._write(f"{name} {describe(status)}")

    def message(self, text: str) -> None:
        """Write a line about the app as a whole."""
        self._write(text)

    def serving(self, url: str) -> None:
        """Write where the app's HTTP side is."""
        self._write(f"dashboard: {url}")

    def stop(self) -> None:
        """Nothing is held back, so nothing is left to write."""

    def _write(self, line: str) -> None:
        if self._is_closed:
            return
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError as error:
            # A pipe whose reader ended, a terminal that was closed, a full disk.
            self._is_closed = True
            discard(self._stream)
            _log.warning("the output cannot be written any more; the app goes on", error=str(error))


class JsonView(PlainView):
    """The same as JSON objects: ``time``, ``event`` (``log``, ``status``, ``serving``, ``message``), and its parts."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(stream)
        self._clock = clock

    def change(self, change: Change) -> None:
        """Write the object of a change, if it has one."""
        match change:
            case LogLine(name=name, text=text, time=when):
                self._dump(time=when, event="log", work=name, text=text)
            case StatusChanged(name=name, status=status):
                self._dump(
                    time=status.timestamp,
                    event="status",
                    work=name,
                    stage=status.stage,
                    reason=status.reason,
                    message=status.message,
                    call=status.call,
                    attempt=status.attempt,
                )

    def message(self, text: str) -> None:
        """Write an object about the app as a whole."""
        self._dump(time=self._clock(), event="message", text=text)

    def serving(self, url: str) -> None:
        """Write an object that says where the app's HTTP side is."""
        self._dump(time=self._clock(), event="serving", url=url)

    def _dump(self, **fields: Any) -> None:
        import msgspec

        self._write(msgspec.json.encode(fields).decode())


def clean(text: str) -> str:
    """One line of output as it would look in a terminal in the end: progress bars overwrite themselves."""
    return text.rstrip("\r\n").rpartition("\r")[2]


def describe(status: WorkStatus) -> str:
    """A status on one line: stage, reason, which call, message."""
    parts = [str(status.stage)]
    if status.reason is not None and str(status.reason) != str(status.stage):
        parts.append(f"({status.reason})")
    if status.call is not None:
        parts.append(f"call {status.call}")
    if status.attempt > 1:
        parts.append(f"attempt {status.attempt}")
    if status.count > 1:
        parts.append(f"{status.count} times")
    line = " ".join(parts)
    message = " / ".join(part.strip() for part in (status.message or "").splitlines() if part.strip())
    return f"{line}: {message}" if message else line


def discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the flush at the interpreter's end cannot fail."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return  # not a file: a flush writes to nothing that can be closed
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
