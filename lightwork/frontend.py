"""`Frontend`: a user interface that ``configure_layout`` returns and the app serves.

A request is resolved to a file in three steps, and each step can only refuse. `path_parts` splits the path without
reading the disk. `find_file` resolves symbolic links. A result outside of the folder counts as not found. Joining the
two strings instead is the mistake of CVE-2024-5980.
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
"""Seconds that open responses get to finish when the server stops."""

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
"""Types that browsers require. The tables of the operating system differ from machine to machine."""


class Frontend(abc.ABC):
    """A user interface of a component. Return one from ``configure_layout``; the app starts and stops its server.

    Subclass it for your own server. Both methods may be ``async def`` or plain. An ``async def`` runs in the app's
    event loop. A plain method runs in a thread and must return as soon as the server has started, or stopped.

    Attributes:
        root_path: Prefix of all addresses, ``/docs``; None for no prefix. The app passes it to `start_server`.
    """

    root_path: str | None = None

    @abc.abstractmethod
    def start_server(self, host: str, port: int, root_path: str = "") -> Any:
        """Start the server. Return when it answers requests.

        An exception fails the app. `stop_server` is only called after this method has returned, so clean up before
        you raise or are cancelled.

        Args:
            host: The only address to bind.
            port: Port to bind. It was free a moment ago. After an `OSError` with ``EADDRINUSE`` the app calls again
                with another port.
            root_path: Prefix under which requests arrive; not passed if there is no prefix.
        """

    @abc.abstractmethod
    def stop_server(self) -> Any:
        """Stop the server and release its resources, then return. It is cancelled if it takes too long."""


class StaticWebFrontend(Frontend):
    """Serves a folder of files with aiohttp, in the app's event loop.

    ``/`` is the ``index.html`` of the folder; each subfolder is served by its own ``index.html``. It answers GET and
    HEAD, with ``ETag`` and ``Last-Modified``. Nothing outside of the folder is served: a symbolic link that leads out
    of it is not found. Two instances with the same folder and prefix are equal.

    Args:
        serve_dir: Folder with at least an ``index.html``; relative to the working directory.
        root_path: Prefix of all addresses, ``/docs``; None for no prefix.

    Attributes:
        serve_dir: Absolute path of the folder.

    Raises:
        LayoutError: The folder is missing or has no ``index.html``, or `root_path` is not a valid prefix.
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
        """Start serving under `root_path`, or under the prefix of the constructor if `root_path` is empty.

        After an error or a cancellation nothing is left running.

        Raises:
            OSError: The address cannot be bound.
            UsageError: The server is already running.
            LayoutError: `root_path` is not a valid prefix.
        """
        from aiohttp import web

        if self._runner is not None:
            raise UsageError(f"{self!r} is already serving: make one StaticWebFrontend for each component")
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
        """Stop serving. Do nothing if the server is not running."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def routes(self, prefix: str = "") -> list[web.RouteDef]:
        """Return the routes of an aiohttp application that serve the folder under `prefix`, the full path of the mount.

        Raises:
            LayoutError: `prefix` is not a valid prefix.
        """
        from aiohttp import web

        prefix = _checked_prefix(prefix)
        below = web.get(prefix + "/{path:.*}", functools.partial(self.handler, prefix=prefix))
        return [below, web.get(prefix, functools.partial(self.handler, prefix=prefix))] if prefix else [below]

    async def handler(self, request: web.Request, *, prefix: str = "") -> web.StreamResponse:
        """Answer a GET or HEAD request whose path, after `prefix`, names a file.

        Raises:
            aiohttp.web.HTTPNotFound: The path names no readable file inside of the folder.
        """
        import asyncio

        from aiohttp import web

        # The path as it was sent. Routers and `match_info` use a decoded path.
        raw = request.rel_url.raw_path
        if not raw.startswith(prefix):
            raise web.HTTPNotFound
        raw = raw.removeprefix(prefix)
        found = await asyncio.to_thread(find_file, self.serve_dir, raw or "/")
        if found is None:
            raise web.HTTPNotFound
        if found.is_folder and not raw.endswith("/"):
            # Links in an index are relative to its folder. A relative address also works behind a proxy.
            last = request.rel_url.raw_path.rpartition("/")[2]
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            return web.Response(status=308, headers={"Location": f"./{quote(last, safe='%')}/{query}"})
        return web.FileResponse(found.path, headers=_headers(found.path))


class FoundFile(NamedTuple):
    """The file that a request names. `is_folder`: the request names a folder, and `path` is its index."""

    path: Path
    is_folder: bool


def path_parts(raw: str) -> tuple[str, ...] | None:
    """Return the names in the percent-encoded path of a request, or None if no file can have this path.

    The path is split first and then decoded once. So an encoded separator becomes part of a name, and such a name is
    refused. Also refused: ``.`` and ``..``, empty names except the last (a final slash), backslashes, NUL and invalid
    UTF-8.
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
    """Return the file inside of `folder` that the path of a request names; for a folder, its ``index.html``.

    Return None if the file is missing, not regular, not readable, or outside of `folder` after symbolic links are
    resolved. `folder` must be absolute and without symbolic links.
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
    """Return `path` with symbolic links resolved, or None if it is outside of `folder` or does not exist."""
    try:
        real = Path(os.path.realpath(path, strict=True))
    except OSError:  # missing, a loop of links, a name that is too long, or a folder without permission
        return None
    return real if real.is_relative_to(folder) else None


def _is_readable_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK)
    except OSError:  # deleted meanwhile
        return False


# `configure_layout` is called repeatedly and makes a new frontend each time. A valid folder is not checked again: a
# build that replaces the folder for a moment must not fail the app.
@functools.lru_cache(maxsize=256)
def _checked_folder(path: str) -> Path:
    folder = Path(path).resolve()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise LayoutError(f"{path} {what}: a StaticWebFrontend needs a folder with an index.html inside")
    if find_file(folder, "/") is None:
        raise LayoutError(
            f"{path} must contain a readable index.html, not a link out of it: a StaticWebFrontend serves it at /"
        )
    return folder


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix) or not {".", ".."}.isdisjoint(prefix.split("/")):
        raise LayoutError(
            f"root_path must be empty or a path such as '/docs', got {prefix!r}: begin with a slash, end without one, "
            "and use only letters, digits and . _ ~ - between slashes"
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
        # The files may be rebuilt while the app runs: the browser revalidates each time and gets a 304.
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
