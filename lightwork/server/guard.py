"""Access control: checks the host name, the origin and the token of each request.

A page of another site can make a browser send requests to this server, even on loopback. It cannot choose the
``Origin`` and ``Host`` headers that the browser sends. Therefore these headers are checked first.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, unquote, urlencode, urlsplit

from lightwork._common.system import is_loopback
from lightwork.server.web import Problem, Request, Response

__all__ = ["Guard"]


class Guard:
    """Decides which requests have access.

    Args:
        token: Token that requests must carry; None if no token is needed.
        origins: Origins with access in addition to the page's own, such as ``https://example.org``.

    Attributes:
        token: The argument `token`.
        cookie: Name of the cookie that is set when a page is opened with ``?token=``.
    """

    def __init__(self, token: str | None, origins: Sequence[str] = ()) -> None:
        self.token = token
        # Cookies ignore the port: two apps on one host must not read each other's cookie.
        self.cookie: str = f"lightwork_{blake2b((token or '').encode(), digest_size=6).hexdigest()}"
        self._origins = {origin.rstrip("/").lower() for origin in origins}

    def check(self, request: Request, *, needs_token: bool = True) -> Response | None:
        """Check access. Return None, or the redirect with which a request with ``?token=`` is answered.

        Args:
            request: The request.
            needs_token: Whether this request needs the token, if there is one.

        Raises:
            Problem: The request has no access: ``forbidden_origin`` or ``unauthorized``.
        """
        self._check_host(request)
        self._check_origin(request)
        if self.token is None or not needs_token:
            return None
        return self._check_token(request)

    def _check_host(self, request: Request) -> None:
        """Refuse foreign host names that resolve to this machine (DNS rebinding)."""
        if request.is_mounted or not request.is_loopback:
            return
        host = request.headers.get("host", "")
        name = _host_of(host)
        if name is None or not (is_loopback(name) or name in self._names):
            raise Problem("forbidden_origin", f"unknown host name {host!r:.100}; use localhost or 127.0.0.1")

    @property
    def _names(self) -> set[str]:
        return {_host_of(urlsplit(origin).netloc) or "" for origin in self._origins}

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            # Not every request has an Origin. A request that the browser marks as cross-site is refused all the same.
            if request.headers.get("sec-fetch-site") == "cross-site" and not _is_navigation(request):
                raise Problem("forbidden_origin", "requests from pages of another site are refused")
            return
        wanted = origin.rstrip("/").lower()
        if wanted in self._origins:
            return
        try:
            authority = urlsplit(wanted).netloc
        except ValueError:
            authority = ""
        if not authority or authority != request.headers.get("host", "").lower():
            raise Problem(
                "forbidden_origin",
                f"origin {origin!r:.100} has no access; the configuration key http_origins can allow it",
            )

    def _check_token(self, request: Request) -> Response | None:
        assert self.token is not None
        given = request.first("token")
        if given is not None:
            if not self._is_right(given):
                raise _unauthorized("the token is wrong")
            if request.method == "GET" and _is_navigation(request):
                return self._enter(request)
            return None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if bearer:
            if scheme.lower() == "bearer" and self._is_right(bearer.strip()):
                return None
            raise _unauthorized("the token is wrong")
        if self._is_right(_cookie(request, self.cookie)):
            return None
        raise _unauthorized("a token is needed: send Authorization: Bearer TOKEN, or open the page with ?token=TOKEN")

    def _is_right(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())

    def _enter(self, request: Request) -> Response:
        """Store the token in a cookie and redirect to the address without it: histories and logs would show it."""
        rest = urlencode([(key, value) for key, value in request.query if key != "token"])
        # A relative address works behind any proxy. A path that begins with two slashes must not name another host.
        last = request.path.rpartition("/")[2]
        location = f"./{last}" + (f"?{rest}" if rest else "")
        assert self.token is not None
        cookie = f"{self.cookie}={quote(self.token, safe='')}; HttpOnly; SameSite=Strict; Path={request.prefix or '/'}"
        return Response(b"", 303, headers={"Location": location, "Set-Cookie": cookie, "Cache-Control": "no-store"})


def _host_of(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _is_navigation(request: Request) -> bool:
    """Return whether a person opens the address in a browser, rather than a script requests it."""
    return request.headers.get("sec-fetch-mode", "navigate") == "navigate" and "text/html" in request.headers.get(
        "accept", ""
    )


def _cookie(request: Request, name: str) -> str:
    try:
        found = SimpleCookie(request.headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if found is None else unquote(found.value)


def _unauthorized(message: str) -> Problem:
    return Problem("unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
