"""Formats errors for the author of the flow: the worker's traceback, then the frames of the flow.

Frames of lightwork and of the event loop are left out, because the line to fix is not there. An error that has no other
frames keeps them: it is a bug of lightwork.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import traceback
from collections.abc import Iterator

import lightwork.errors
from lightwork.errors import LightworkError, RemoteTraceback

__all__ = ["format_error"]

_HIDDEN = tuple(
    os.path.dirname(os.path.abspath(file)) + os.sep
    for file in (lightwork.errors.__file__, asyncio.__file__, importlib.__file__)
)
# The location of other packages depends on their installation, so they are recognized by the name of their folder.
_HIDDEN_PARTS = tuple(f"{os.sep}{name}{os.sep}" for name in ("anyio", "click", "uvloop", "lightwork_runtimes"))

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
_REMOTE = "\nThe traceback above is from the worker. The error reached the flow here:\n\n"


def format_error(error: BaseException, *, full: bool = False) -> str:
    """Format the traceback of an error, with causes, exception groups and remote tracebacks. It ends with a newline.

    Args:
        error: The exception.
        full: Whether to show every frame.
    """
    return "".join(_lines(error, full, set()))


def _lines(error: BaseException, full: bool, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause, sentence = error.__cause__, _CAUSE
    if cause is None and not error.__suppress_context__:
        cause, sentence = error.__context__, _CONTEXT
    frames = _frames(error, full)
    if isinstance(cause, RemoteTraceback):
        yield cause.text.rstrip("\n") + "\n"
        if not frames:
            yield from _notes(error)
            return
        yield _REMOTE
    elif cause is not None and id(cause) not in seen:
        yield from _lines(cause, full, seen)
        yield sentence
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from frames.format()
    yield from traceback.format_exception_only(type(error), error)
    if isinstance(error, BaseExceptionGroup):
        yield from _members(error, full, seen)


def _members(group: BaseExceptionGroup[BaseException], full: bool, seen: set[int]) -> Iterator[str]:
    total = len(group.exceptions)
    for number, member in enumerate(group.exceptions, 1):
        yield f"  +---------------- {number} of {total} ----------------\n"
        for line in "".join(_lines(member, full, seen)).splitlines():
            yield f"  | {line}\n" if line else "  |\n"


def _notes(error: BaseException) -> Iterator[str]:
    for note in getattr(error, "__notes__", ()):
        yield f"{note}\n"


def _frames(error: BaseException, full: bool) -> traceback.StackSummary:
    """Return the frames to show. Empty if all frames are hidden and the error is clear without them."""
    every = traceback.extract_tb(error.__traceback__)
    if full:
        return every
    shown = traceback.StackSummary.from_list([frame for frame in every if not _is_hidden(frame.filename)])
    explained = isinstance(error, LightworkError | SyntaxError | BaseExceptionGroup)
    if shown or explained or isinstance(error.__cause__, RemoteTraceback):
        return shown
    return every


def _is_hidden(filename: str) -> bool:
    """Return whether frames of this file are left out."""
    return (
        filename.startswith(("<frozen ", *_HIDDEN))
        or any(part in filename for part in _HIDDEN_PARTS)
        or filename == "uvloop/loop.pyx"
    )
