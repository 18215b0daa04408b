"""Inspection of a worker's process: the stacks of its threads and tasks, and its resource usage.

The loop answers a query over the link. If the loop is blocked, the thread of `OrphanGuard` writes the answer to the
output, with a mark; the scheduler removes it from the output.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import resource
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import msgspec

from lightwork.link import messages
from lightwork.link.reports import FrameInfo, StackDump, Usage

__all__ = ["dump_stacks", "stack_bytes", "usage", "usage_bytes", "write_stack"]

_FRAMES = 60
_THREADS = 50
_TASKS = 200
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def dump_stacks(loop: asyncio.AbstractEventLoop) -> StackDump:
    """Return the stacks of all threads, and of all tasks of a loop. May be called in any thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    threads = []
    for ident, frame in list(sys._current_frames().items())[:_THREADS]:
        frames = _thread_frames(frame)
        if frames:
            threads.append((names.get(ident, f"thread {ident}"), frames))
    tasks = []
    for task in list(asyncio.all_tasks(loop))[:_TASKS]:
        frames = _task_frames(task)
        if frames:
            tasks.append((task.get_name(), frames))
    return StackDump(threads, tasks)


def _thread_frames(frame: FrameType | None) -> list[FrameInfo]:
    found: list[FrameInfo] = []
    while frame is not None and len(found) < _FRAMES:
        where = _where(frame.f_code, frame.f_lineno)
        if where is not None:
            found.append(where)
        frame = frame.f_back
    return found[::-1]


def _task_frames(task: asyncio.Task[Any]) -> list[FrameInfo]:
    """Return the frames of the whole chain that a task awaits; `Task.get_stack` returns only its first frame."""
    found: list[FrameInfo] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(found) < _FRAMES:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            where = _where(frame.f_code, frame.f_lineno)
            if where is not None:
                found.append(where)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found


def _where(code: CodeType, line: int) -> FrameInfo | None:
    """Return a frame of user code, or None for a frame of the framework, which does not help the user."""
    if code.co_filename.startswith(_PACKAGE):
        return None
    text = linecache.getline(code.co_filename, line).strip()
    return FrameInfo(
        code.co_filename, line, code.co_qualname if hasattr(code, "co_qualname") else code.co_name, text[:200]
    )


def usage() -> Usage:
    """Return the resource usage of the process and all its descendants."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    cpu = own.ru_utime + own.ru_stime
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += ended.ru_utime + ended.ru_stime
    memory, processes = _resident("self"), 1
    if not memory:  # not Linux: the peak usage is the best value available
        return Usage(cpu, own.ru_maxrss, 1)
    for pid in _descendants():
        used = _processor(pid)
        if used is not None:
            cpu += used
            memory += _resident(pid)
            processes += 1
    return Usage(cpu, memory, processes)


def _resident(pid: str) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def _processor(pid: str) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _descendants() -> list[str]:
    found: list[str] = []
    waiting = ["self"]
    while waiting and len(found) < 1000:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = task.read_text().split()
            except OSError:
                continue
            found += children
            waiting += children
    return found


# --- as bytes ------------------------------------------------------------------------------------


def stack_bytes(loop: asyncio.AbstractEventLoop) -> bytes:
    """Return `dump_stacks` in JSON for the scheduler, shortened to at most `MAX_QUERY_REPLY` bytes."""
    look = dump_stacks(loop)
    data = msgspec.json.encode(look)
    if len(data) > messages.MAX_QUERY_REPLY:
        data = msgspec.json.encode(StackDump(look.threads[:5], look.tasks[:20]))
    return data if len(data) <= messages.MAX_QUERY_REPLY else msgspec.json.encode(StackDump([], []))


def usage_bytes() -> bytes:
    """Return `usage` in JSON for the scheduler."""
    return msgspec.json.encode(usage())


def write_stack(loop: asyncio.AbstractEventLoop) -> None:
    """Write the stacks to the output in one piece: the loop is blocked, and so is the link."""
    os.write(1, messages.QUERY_REPLY_MARK + stack_bytes(loop) + b"\n")
