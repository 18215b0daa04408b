"""`Frontend`, what ``configure_layout`` may return: a user interface that the app serves while it runs.

A request names a file in three steps, each of which can only refuse: `path_parts` takes the path apart without
looking at the disk, `find_file` follows symbolic links to what is really there, and what is not inside of the folder
then does not exist. CVE-2024-5980 is what becomes of joining the two strings instead.
"""

from __future__ import annotations

import abc
import functools
import mimetypes
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from lightwork.errors import LayoutError, UsageError

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["FoundFile", "Frontend", "StaticWebFrontend", "find_file", "path_parts"]

_INDEX = "index.html"

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")

_SHUTDOWN = 1.0
"""Seconds that answers on their way out get when the server stops."""

_TYPES = {
    ".css": "text/css",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "text/xml",
}
"""What browsers insist on; what a machine's own table says of these differs from machine to machine."""


class Frontend(abc.ABC):
    """A user interface of a component. Return one from ``configure_layout``; the app starts and stops its server.

    Subclass it for a server of your own. Both methods may be ``async def``, in the app's loop, or plain; a plain one
    runs in a thread and returns as soon as the server is up, or gone.

    Attributes:
        root_path: Prefix of its addresses, ``/docs``; None for none. The app passes it to `start_server`.
    """

    root_path: str | None = None

    @abc.abstractmethod
    def start_server(self, host: str, port: int, root_path: str = "") -> Any:
        """Serve on that address; return when requests are answered.

        What it raises fails the app. It then has cleaned up after itself, and so where it is cancelled: `stop_server`
        is only called after it has returned.

        Args:
            host: Address to bind, and no other.
            port: Port to bind. It was free a moment ago; `OSError` with ``EADDRINUSE`` brings another.
            root_path: Prefix under which requests arrive; left out where there is none.
        """

    @abc.abstractmethod
    def stop_server(self) -> Any:
        """Stop serving and let go of everything; return when that is done. Cancelled when it takes too long."""


class StaticWebFrontend(Frontend):
    """Serves a folder of files, by aiohttp in the app's own loop.

    ``/`` is the folder's ``index.html``, and so it is for folders inside. It answers GET and HEAD, with ``ETag`` and
    ``Last-Modified``. Nothing outside of the folder is served; a symbolic link that leads out of it is not found.
    Two of the same folder and prefix are equal.

    Args:
        serve_dir: The folder, with at least a file ``index.html`` inside; relative to the working directory.
        root_path: Prefix of all addresses, ``/docs``; None for none.

    Attributes:
        serve_dir: The folder, absolute.

    Raises:
        LayoutError: There is no such folder, no ``index.html`` in it, or `root_path` is no prefix.
    """

    def __init__(self, serve_dir: str | os.PathLike[str], root_path: str | None = None) -> None:
        self.serve_dir: Path = _checked_folder(os.path.abspath(os.fspath(serve_dir)))
        self.root_path: str | None = None if root_path is None else _checked_prefix(root_path)
        self._runner: web.AppRunner | None = None

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.serve_dir, self.root_path) == (other.serve_dir, other.root_path)

    def __hash__(self) -> int:
        return hash((self.serve_dir, self.root_path))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.serve_dir)!r}, root_path={self.root_path!r})"

    async def start_server(self, host: str, port: int, root_path: str = "") -> None:
        """Serve on that address, under `root_path` or else the prefix given to the constructor.

        Raises:
            OSError: The address cannot be bound. Nothing is left then, nor where it is cancelled.
            UsageError: It serves already.
            LayoutError: `root_path` is no prefix.
        """
        from aiohttp import web

        if self._runner is not None:
            raise UsageError(f"{self!r} serves already: make one for each component")
        app = web.Application()
        app.add_routes(self.routes(root_path or self.root_path or ""))
        runner = self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
        try:
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await self.stop_server()
            raise

    async def stop_server(self) -> None:
        """Stop serving. Where it does not serve, nothing happens."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def routes(self, prefix: str = "") -> list[web.RouteDef]:
        """The routes of an aiohttp application that serve the folder under `prefix`, the full path of the mount.

        Raises:
            LayoutError: `prefix` is no prefix.
        """
        from aiohttp import web

        prefix = _checked_prefix(prefix)
        below = web.get(prefix + "/{path:.*}", functools.partial(self.handler, prefix=prefix))
        return [below, web.get(prefix, functools.partial(self.handler, prefix=prefix))] if prefix else [below]

    async def handler(self, request: web.Request, *, prefix: str = "") -> web.StreamResponse:
        """Answer a GET or HEAD request whose path, after `prefix`, names a file.

        Raises:
            aiohttp.web.HTTPNotFound: It names none that is inside of the folder and may be read.
        """
        import asyncio

        from aiohttp import web

        # The path as it was sent: routers match, and `match_info` holds, a decoded one.
        raw = request.rel_url.raw_path
        if not raw.startswith(prefix):
            raise web.HTTPNotFound
        raw = raw.removeprefix(prefix)
        found = await asyncio.to_thread(find_file, self.serve_dir, raw or "/")
        if found is None:
            raise web.HTTPNotFound
        if found.is_folder and not raw.endswith("/"):
            # Links in an index are relative to its folder. A relative address holds behind any proxy too.
            last = request.rel_url.raw_path.rpartition("/")[2]
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            return web.Response(status=308, headers={"Location": f"./{quote(last, safe='%')}/{query}"})
        return web.FileResponse(found.path, headers=_headers(found.path))


class FoundFile(NamedTuple):
    """What a request names. `is_folder`: a folder, and `path` is its index."""

    path: Path
    is_folder: bool


def path_parts(raw: str) -> tuple[str, ...] | None:
    """The names in the path of a request, percent-encoded as it arrives; None for one that no file can have.

    Taken apart first and decoded then, once: an encoded separator is part of a name, and no name has one. Refused are
    ``.`` and ``..``, empty names but for the last (a slash at the end), backslashes, NUL and what is not UTF-8.
    """
    if not raw.startswith("/"):
        return None
    names = raw[1:].split("/")
    if not names[-1]:
        names.pop()
    try:
        parts = tuple(unquote_to_bytes(name).decode() for name in names)
    except UnicodeError:
        return None
    if any(part in ("", ".", "..") or not _SEPARATORS.isdisjoint(part) for part in parts):
        return None
    return parts


_SEPARATORS = frozenset("/\\\0")


def find_file(folder: Path, raw: str) -> FoundFile | None:
    """The file inside of `folder` that the path of a request names, a folder's ``index.html`` for a folder.

    None where there is none: not a regular file, not readable, or outside of `folder` when symbolic links are
    followed. `folder` is absolute and has no symbolic link in it.
    """
    parts = path_parts(raw)
    if parts is None:
        return None
    named = _inside(folder, folder.joinpath(*parts))
    if named is None:
        return None
    is_folder = named.is_dir()
    if not is_folder and raw.endswith("/"):
        return None
    file = _inside(folder, named / _INDEX) if is_folder else named
    if file is None or not _is_readable_file(file):
        return None
    return FoundFile(file, is_folder)


def _inside(folder: Path, path: Path) -> Path | None:
    """Where `path` really is, if that is `folder` or in it; None if not, or if there is nothing."""
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError:  # there is none, a loop of links, a name that is too long, a folder that may not be entered
        return None
    return real if real.is_relative_to(folder) else None


def _is_readable_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK)
    except OSError:  # gone since
        return False


# `configure_layout` is asked again and again and makes a new frontend each time. A folder that was good is not looked
# at again: a build that replaces it for a moment must not fail an app whose jobs run.
@functools.lru_cache(maxsize=256)
def _checked_folder(path: str) -> Path:
    folder = Path(path).resolve()
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise LayoutError(f"{path} {what}: a StaticWebFrontend needs a folder with an index.html inside")
    if find_file(folder, "/") is None:
        raise LayoutError(
            f"{path} has no index.html that can be read and is inside of it: a StaticWebFrontend shows that file at /"
        )
    return folder


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix) or not {".", ".."}.isdisjoint(prefix.split("/")):
        raise LayoutError(
            f"root_path is {prefix!r}; it must be empty, or begin with a slash, have none at its end, and be made of "
            "letters, digits and . _ ~ - between them: '/docs'"
        )
    return prefix


@functools.cache
def _known_types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()


def _headers(path: Path) -> dict[str, str]:
    suffix = path.suffix.lower()
    kind = _TYPES.get(suffix) or _known_types().guess_type(f"x{suffix}", strict=False)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return {
        "Content-Type": kind + charset,
        # The files may be built anew while the app runs: ask each time, and be answered 304.
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
