"""Who may ask: the token, the page's own origin, and the name under which this machine was asked.

A page of another site can make a browser send requests here, to loopback too. What it cannot do is choose the
``Origin`` and ``Host`` that the browser sends along, so those are checked before anything else is looked at.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, unquote, urlencode, urlsplit

from lightwork.server.web import Problem, Request, Response

__all__ = ["Guard", "is_loopback"]


class Guard:
    """Decides over requests.

    Args:
        token: Must be shown where it is not None.
        origins: Origins that may ask beside the page's own, as ``https://example.org``.

    Attributes:
        token: As given.
        cookie: Name of the cookie that a page load with ``?token=`` sets.
    """

    def __init__(self, token: str | None, origins: Sequence[str] = ()) -> None:
        self.token = token
        # Cookies do not tell ports apart: two apps of one host must not take each other's for theirs.
        self.cookie = f"lightwork_{blake2b((token or '').encode(), digest_size=6).hexdigest()}"
        self._origins = {origin.rstrip("/").lower() for origin in origins}

    def check(self, request: Request, *, needs_token: bool = True) -> Response | None:
        """Let a request pass, or answer it in its handler's stead: the redirect that follows ``?token=``.

        Args:
            request: What is asked.
            needs_token: Whether it takes the token, where there is one.

        Raises:
            Problem: It may not: ``forbidden_origin`` or ``unauthorized``.
        """
        self._check_host(request)
        self._check_origin(request)
        if self.token is None or not needs_token:
            return None
        return self._check_token(request)

    def _check_host(self, request: Request) -> None:
        """Against names of other people that resolve to this machine."""
        if request.is_mounted or not request.is_loopback:
            return
        host = request.headers.get("host", "")
        name = _host_of(host)
        if name is None or not (is_loopback(name) or name in self._names):
            raise Problem("forbidden_origin", f"this app is not called {host!r:.100}: ask it as localhost or 127.0.0.1")

    @property
    def _names(self) -> set[str]:
        return {_host_of(urlsplit(origin).netloc) or "" for origin in self._origins}

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None:
            # Not every request has one; those that browsers mark as another site's never pass.
            if request.headers.get("sec-fetch-site") == "cross-site" and not _is_navigation(request):
                raise Problem("forbidden_origin", "a page of another site asks")
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
                "forbidden_origin", f"a page of {origin!r:.100} asks; http_origins of the configuration can allow it"
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
        raise _unauthorized("a token is needed: Authorization: Bearer TOKEN, or ?token= when the page is opened")

    def _is_right(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())

    def _enter(self, request: Request) -> Response:
        """Keep the token in a cookie, and out of the address, where histories and logs would show it."""
        rest = urlencode([(key, value) for key, value in request.query if key != "token"])
        # Relative, so that it holds behind any proxy; a path of slashes must not name another host.
        last = request.path.rpartition("/")[2]
        location = f"./{last}" + (f"?{rest}" if rest else "")
        assert self.token is not None
        cookie = f"{self.cookie}={quote(self.token, safe='')}; HttpOnly; SameSite=Strict; Path={request.prefix or '/'}"
        return Response(b"", 303, headers={"Location": location, "Set-Cookie": cookie, "Cache-Control": "no-store"})


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_of(authority: str) -> str | None:
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None


def _is_navigation(request: Request) -> bool:
    """Whether somebody opens the address in a browser, as against a script that asks."""
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
