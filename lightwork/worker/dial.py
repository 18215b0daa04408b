"""How a worker reaches its scheduler: every route in turn, until one proves that it is ours."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable

from lightwork.errors import LightworkError, ProtocolError
from lightwork.link.connection import Connection
from lightwork.link.handshake import NONCE_SIZE, ClientHandshake
from lightwork.link.messages import Ticket
from lightwork.link.tls import TlsLayer, client_context

__all__ = ["MAX_FRAME", "ROUTE_TIMEOUT", "DialFailed", "dial", "patience"]

ROUTE_TIMEOUT = 5.0
"""Seconds that one route may take at most until the next is tried: a firewall that drops packets must not cost the
others."""

MAX_FRAME = 1 << 30
"""Longest body accepted from a scheduler that has proved itself, until its `Welcome` gives the limit."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds: a scheduler that was killed and goes on has all its works back soon after it listens."""


class DialFailed(LightworkError, ConnectionError):
    """No route led to the scheduler in time. The message names each and what happened there last."""


async def dial(ticket: Ticket, *, timeout: float, route_timeout: float | None = None) -> Connection:
    """Connect to the scheduler that `ticket` was made by; the connection is open and proved.

    Tries the routes in their order, each for at most `route_timeout` seconds, and all of them again after a pause
    that doubles from 50 ms to 1 s, varied by half so that many workers do not come back at once. A route that
    answers but does not know the secret is somebody else's and is passed over. Where the ticket has a fingerprint the
    link is TLS, and whoever has another certificate is sent nothing, not even the launch's public id.

    Set the connection's callbacks without awaiting anything before. Cancelling closes what was begun.

    Args:
        ticket: As given to the worker.
        timeout: Seconds for all of it.
        route_timeout: Seconds for one try of one route; by default `patience` with them all.

    Raises:
        DialFailed: If no route led there in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    if route_timeout is None:
        route_timeout = patience(ticket, timeout)
    outcomes: dict[tuple[str, int], str] = {}
    pause = _FIRST_PAUSE
    while True:
        for route in ticket.routes:
            left = min(route_timeout, deadline - loop.time())
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    return await _try(ticket, route)
            except TimeoutError as error:
                if error.errno:  # the system's own
                    outcomes[route] = _reason(error)
                elif left == route_timeout:
                    outcomes[route] = f"no answer within {left:g} s"
                else:  # cut short by the deadline: what an earlier try came to says more
                    outcomes.setdefault(route, f"no answer within {left:.2g} s")
            except (OSError, ProtocolError) as error:
                outcomes[route] = _reason(error)
        left = deadline - loop.time()
        if not ticket.routes or left < _FIRST_PAUSE:
            raise DialFailed(_story(ticket, outcomes, timeout))
        # No pause leads past the deadline: the scheduler may come back just before it.
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), left / 2))
        pause = min(pause * 2, _LONGEST_PAUSE)


def patience(ticket: Ticket, timeout: float) -> float:
    """Seconds that one route may be silent: each must get two tries within `timeout` if all the others are silent."""
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
            opened.exception()  # seen: else the loop reports it as never retrieved
        raise
    return connection


async def _connect_here(loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.Protocol], name: str) -> None:
    """Connect to a Unix socket in the abstract namespace; by hand, since libuv takes its name for a path."""
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
    return f"the scheduler was not reached within {timeout:g} s: {tried}"
