"""Routes for the log lines of works, which are read from the disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from lightwork.components.work import Work
from lightwork.logfiles import LogReader
from lightwork.server.types import LogEntry, LogsPage
from lightwork.server.web import Problem, Request, Response, Route, parse_query

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["ROUTES"]

_Seq = Annotated[int, Meta(ge=0, le=2**62)]
_Count = Annotated[int, Meta(ge=1, le=10_000)]
_PATIENCE = 1.0
"""Maximum seconds to wait until pending lines are written to the disk."""


class _LogsQuery(msgspec.Struct, frozen=True):
    """Which lines: those after a number, or the last ones, optionally before a number."""

    work: list[str] = []
    tail: _Count | None = None
    before: _Seq | None = None
    after: _Seq | None = None
    search: Annotated[str, Meta(max_length=1000)] | None = None
    limit: _Count = 100


def _reader(api: Api) -> LogReader:
    if api.log_folder is None:
        raise Problem("not_found", "log lines are not stored, because the configuration key log_dir is empty")
    return LogReader(api.log_folder)


async def _check_works(api: Api, reader: LogReader, names: list[str]) -> None:
    """Raise `Problem` for a name that is neither a work nor the name of a removed work with log lines."""
    unknown = [name for name in names if not isinstance(api.views.find(name), Work)]
    if unknown:
        known = await asyncio.to_thread(reader.works)
        for name in unknown:
            if name not in known:
                raise Problem("unknown_work", f"there is no work {name!r:.200}", near=api.near(name, works=True))


async def _get_logs(api: Api, request: Request) -> LogsPage:
    """Return log lines of works, merged in the order in which they arrived."""
    query = parse_query(request, _LogsQuery)
    reader = _reader(api)
    await _check_works(api, reader, query.work)
    await _settle(api)
    found = await asyncio.to_thread(
        reader.read,
        query.work or None,
        tail=query.tail,
        after=query.after,
        before=query.before,
        search=query.search,
        limit=query.limit,
    )
    items = [LogEntry(one.seq, one.work, one.time, one.text) for one in found.items]
    return LogsPage(items, found.first, found.last, found.more)


async def _settle(api: Api) -> None:
    writer = api.engine.output.writer
    if writer is None:
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            await writer.wait_written()
    except TimeoutError:
        return  # the lines that are written are returned


async def _download(api: Api, request: Request) -> Response:
    """Return all stored log lines of one work, as text."""
    name = request.params["name"]
    reader = _reader(api)
    await _check_works(api, reader, [name])
    await _settle(api)
    # The file name is for people only. It must not contain characters that are special in a header.
    shown = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]
    headers = {"Content-Disposition": f'attachment; filename="{shown}.log"', "Cache-Control": "no-store"}
    return Response(_stream(reader.pieces(name)), headers=headers)


async def _stream(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


ROUTES = [
    Route(
        "GET", "/logs", _get_logs, query=_LogsQuery, answer=LogsPage, errors=["unknown_work", "not_found"], tag="logs"
    ),
    Route("GET", "/works/{name}/logs/download", _download, errors=["unknown_work", "not_found"], tag="logs"),
]  # fmt: skip
