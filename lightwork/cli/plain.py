"""The views for output that is not a terminal: a line for each status and each log line, flushed immediately."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO, assert_never

from lightwork._logging import get_logger
from lightwork.changes import Change, ComponentAdded, ComponentRemoved, LogLine, StateChanged, StatusChanged
from lightwork.status import WorkStatus

__all__ = ["JsonView", "PlainView", "View", "clean", "describe", "discard"]

_log = get_logger(__name__)


class View(Protocol):
    """Shows a running app. Its methods are called in the app's event loop, so they must not block for long or raise."""

    def start(self, works: Sequence[Any]) -> None:
        """Start the view. `works` are the present works."""

    def change(self, change: Change) -> None:
        """Process a change."""

    def message(self, text: str) -> None:
        """Show a line about the app as a whole."""

    def serving(self, url: str) -> None:
        """Show the URL of the app's HTTP server."""

    def stop(self) -> None:
        """Show the pending output, and end the view. Calling it twice is safe."""


class PlainView:
    """Writes ``root.train | text`` for a log line and ``root.train running`` for a status.

    If the output cannot be written any more (its reader has gone), the view stops writing and the app continues.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._is_closed = False

    def start(self, works: Sequence[Any]) -> None:
        """Do nothing: there is no output before the first change."""

    def change(self, change: Change) -> None:
        """Write a line for a status or a log line."""
        match change:
            case LogLine(name=name, text=text):
                self._write(f"{name} | {clean(text)}")
            case StatusChanged(name=name, status=status):
                self._write(f"{name} {describe(status)}")
            case StateChanged() | ComponentAdded() | ComponentRemoved():
                return  # too many to print
            case _:
                assert_never(change)

    def message(self, text: str) -> None:
        """Write a line about the app as a whole."""
        self._write(text)

    def serving(self, url: str) -> None:
        """Write the URL of the app's HTTP server."""
        self._write(f"dashboard: {url}")

    def stop(self) -> None:
        """Do nothing: there is no pending output."""

    def _write(self, line: str) -> None:
        if self._is_closed:
            return
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError as error:
            # A pipe without a reader, a closed terminal, or a full disk.
            self._is_closed = True
            discard(self._stream)
            _log.warning("the output cannot be written any more; the app continues", error=str(error))


class JsonView(PlainView):
    """Writes JSON objects, one a line: ``time``, ``event`` (``log``, ``status``, ``serving``, ``message``), its fields.

    In every other respect it behaves like `PlainView`.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(stream)
        self._clock = clock

    def change(self, change: Change) -> None:
        """Write an object for a status or a log line."""
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
            case StateChanged() | ComponentAdded() | ComponentRemoved():
                return  # too many to print
            case _:
                assert_never(change)

    def message(self, text: str) -> None:
        """Write an object about the app as a whole."""
        self._dump(time=self._clock(), event="message", text=text)

    def serving(self, url: str) -> None:
        """Write an object with the URL of the app's HTTP server."""
        self._dump(time=self._clock(), event="serving", url=url)

    def _dump(self, **fields: Any) -> None:
        import msgspec

        self._write(msgspec.json.encode(fields).decode())


def clean(text: str) -> str:
    """Return the final look of a line on a terminal: only the text after the last carriage return (progress bars)."""
    return text.rstrip("\r\n").rpartition("\r")[2]


def describe(status: WorkStatus) -> str:
    """Describe a status on one line: stage, reason, number of the call, message."""
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
    """Discard the buffered output, so that the flush at the interpreter's end cannot fail."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return  # not a file: a flush of this stream cannot fail
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
