"""How a worker reaches its scheduler: it tries each route in turn, until a scheduler there proves the secret."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable

from lightwork._common.backoff import Backoff
from lightwork.errors import LightworkError, ProtocolError
from lightwork.link.connection import Connection
from lightwork.link.handshake import NONCE_SIZE, ClientHandshake
from lightwork.link.messages import Ticket
from lightwork.link.tls import TlsLayer, client_context

__all__ = ["MAX_FRAME", "ROUTE_TIMEOUT", "DialFailed", "dial", "patience"]

ROUTE_TIMEOUT = 5.0
"""Longest time for one route in seconds: a firewall that drops packets must not delay the other routes for long."""

MAX_FRAME = 1 << 30
"""Longest body in bytes accepted from a scheduler that has proved itself, until its `Welcome` sets the limit."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds. Short, so that a scheduler that was killed and resumed gets its works back soon after it listens."""


class DialFailed(LightworkError, ConnectionError):
    """No route reached the scheduler in time. The message names each route and its last error."""


async def dial(ticket: Ticket, *, timeout: float, route_timeout: float | None = None) -> Connection:
    """Connect to the scheduler that made `ticket`; return an open and proved connection.

    Tries the routes in order, each for at most `route_timeout` seconds. Then pauses and tries all of them again. The
    pause doubles from 50 ms to 1 s and varies by half, so that many workers do not return at the same moment. A
    listener that does not know the secret belongs to somebody else, and its route is skipped. If the ticket has a
    fingerprint, the link is TLS. A listener with another certificate gets nothing, not even the launch's public id.

    Set the connection's callbacks before the next await. Cancelling closes a connection in progress.

    Args:
        ticket: The worker's ticket.
        timeout: Seconds for all attempts together.
        route_timeout: Seconds for one attempt of one route; `patience` by default.

    Raises:
        DialFailed: If no route reached the scheduler in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    if route_timeout is None:
        route_timeout = patience(ticket, timeout)
    outcomes: dict[tuple[str, int], str] = {}
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        for route in ticket.routes:
            left = min(route_timeout, deadline - loop.time())
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    return await _try(ticket, route)
            except TimeoutError as error:
                if error.errno:  # the operating system's timeout
                    outcomes[route] = _reason(error)
                elif left == route_timeout:
                    outcomes[route] = f"no answer within {left:g} s"
                else:  # the deadline cut this attempt short: the error of an earlier attempt says more
                    outcomes.setdefault(route, f"no answer within {left:.2g} s")
            except (OSError, ProtocolError) as error:
                outcomes[route] = _reason(error)
        left = deadline - loop.time()
        if not ticket.routes or left < _FIRST_PAUSE:
            raise DialFailed(_story(ticket, outcomes, timeout))
        # A pause ends before the deadline: the scheduler may come back just before it.
        await asyncio.sleep(min(backoff.advance() * random.uniform(0.5, 1.5), left / 2))


def patience(ticket: Ticket, timeout: float) -> float:
    """Return the seconds that one route may be silent: each route gets two attempts in `timeout` if all are silent."""
    return min(ROUTE_TIMEOUT, timeout / (2 * max(1, len(ticket.routes))))


async def _try(ticket: Ticket, route: tuple[str, int]) -> Connection:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()

    def on_open(_: Connection) -> None:
        if not opened.done():
            opened.set_result(None)

    def on_closed(error: Exception | None) -> None:
        if not opened.done():
            opened.set_exception(error or ProtocolError("the connection was closed"))

    handshake = ClientHandshake(ticket.launch, ticket.secret, os.urandom(NONCE_SIZE), ticket.fingerprint)
    connection = Connection(handshake, MAX_FRAME, on_open=on_open, on_closed=on_closed)

    def make() -> asyncio.Protocol:
        if not ticket.fingerprint:
            return connection
        return TlsLayer(connection, client_context(), ticket.fingerprint)

    try:
        host, port = route
        if host.startswith("@"):
            await _connect_here(loop, make, f"\0{host[1:]}")
        else:
            await loop.create_connection(make, host, port)
        await opened
        if not connection.is_open:
            raise ProtocolError("the connection was closed after the handshake")
    except BaseException:
        connection.abort()
        if not opened.cancel() and not opened.cancelled():
            opened.exception()  # mark it as retrieved: otherwise the loop reports it
        raise
    return connection


async def _connect_here(loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.Protocol], name: str) -> None:
    """Connect to a Unix socket in the abstract namespace. Done by hand, because libuv takes the name for a path."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, name)
        await loop.create_unix_connection(make, sock=sock)
    except BaseException:
        sock.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0 and error.strerror:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def _spell(route: tuple[str, int]) -> str:
    host, port = route
    return host if host.startswith("@") else f"{host}:{port}"


def _story(ticket: Ticket, outcomes: dict[tuple[str, int], str], timeout: float) -> str:
    if not ticket.routes:
        return "the ticket names no route to the scheduler"
    tried = "; ".join(f"{_spell(route)}: {outcomes.get(route, 'not tried')}" for route in ticket.routes)
    return f"could not reach the scheduler within {timeout:g} s: {tried}"
