"""Static files of the dashboard. They are listed once and served from memory, with restrictive security headers."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from lightwork.server.web import Request, Response, split_path

__all__ = ["DOCS_FOLDER", "PAGE_FOLDER", "PageFiles"]

PAGE_FOLDER = Path(__file__).parent / "page"
"""Folder of the dashboard. All files in it are served, and no others."""

DOCS_FOLDER = Path(__file__).parent / "docs_page"
"""Folder of the page that documents the API and sends test requests."""

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        # Older browsers do not count a WebSocket to the page's own host as 'self'.
        "connect-src 'self' {sockets}",
        "manifest-src 'self'",
        # User interfaces of components: the app's layout chooses the addresses, and each frame is sandboxed.
        "frame-src http: https:",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        self.stamp = (0, 0)
        self.body = b""
        self.tag = ""

    def load(self) -> None:
        """Read the file again if it has changed, so that developers of the page see their edits."""
        stat = self.path.stat()
        if (stat.st_mtime_ns, stat.st_size) != self.stamp:
            self.body = self.path.read_bytes()
            self.tag = f'"{blake2b(self.body, digest_size=12).hexdigest()}"'
            self.stamp = (stat.st_mtime_ns, stat.st_size)


class PageFiles:
    """The files of one folder, by path. Paths of requests are looked up and never joined to the folder.

    Args:
        folder: The folder. Files that are added later are not served.
    """

    def __init__(self, folder: Path) -> None:
        self._files: Mapping[tuple[str, ...], _File] = {
            path.relative_to(folder).parts: _File(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        }

    def _find(self, path: str) -> _File | None:
        parts = split_path(path)
        if parts == [""]:
            parts = ["index.html"]
        return self._files.get(tuple(parts or ()))

    def __contains__(self, path: str) -> bool:
        """Return whether a path names a file."""
        return self._find(path) is not None

    def answer(self, request: Request, path: str) -> Response | None:
        """Return the file that a path names, None if there is no such file. ``/`` is the folder's ``index.html``."""
        file = self._find(path)
        if file is None:
            return None
        try:
            file.load()
        except OSError:  # deleted since
            return None
        headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
        if file.path.suffix == ".html":
            headers |= {
                "Content-Security-Policy": _policy(request),
                "X-Frame-Options": "SAMEORIGIN",
                "Cross-Origin-Opener-Policy": "same-origin",
            }
        if file.tag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
            return Response(b"", 304, file.kind, headers)
        return Response(file.body, 200, file.kind, headers)


def _policy(request: Request) -> str:
    host = request.headers.get("host", "")
    # The client's Host becomes part of a header, so only a plain name with a port is used.
    is_plain = host.isascii() and host.replace(".", "").replace("-", "").replace(":", "").strip("[]").isalnum()
    return _POLICY.format(sockets=f"ws://{host} wss://{host}" if is_plain else "").replace("  ", " ").replace(" ;", ";")
