"""A listener on a real socket, and clients that connect to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from lightwork.engine.listener.listener import Listener
from lightwork.link import Connection
from lightwork.link.messages import Hello, Ticket, encode, pack
from lightwork.worker.dial import dial
from tests.link.support import LAUNCH, SECRET, SECRETS

HELLO = Hello(version=1, lightwork="0", python="3", pid=1, host="h", received=0)

Scenario = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


class Door:
    """A listener, and the connections that it has handed over."""

    def __init__(self, listener: Listener, address: tuple[str, int], arrived: asyncio.Queue[Any]) -> None:
        self.listener = listener
        self.address = address
        self.arrived = arrived

    def ticket(self, *before: tuple[str, int], secret: bytes = SECRET) -> Ticket:
        routes = [*before, self.address]
        return Ticket(LAUNCH, secret, routes, 10.0, 10.0, self.listener.fingerprint)


@asynccontextmanager
async def door(host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Door]:
    arrived: asyncio.Queue[tuple[Connection, bytes, Hello]] = asyncio.Queue()
    listener = Listener(SECRETS.get, lambda *what: arrived.put_nowait(what), 1 << 20, **options)
    address = await listener.start(host, 0)
    try:
        yield Door(listener, address, arrived)
    finally:
        await listener.aclose()
        while not arrived.empty():
            connection, _, _ = arrived.get_nowait()
            await ended(connection)


@asynccontextmanager
async def stranger(address: tuple[str, int], data: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(data)
        yield reader
    finally:
        await leave(writer)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Everything that the other end sends until it closes or resets."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def ended(connection: Connection) -> Exception | None:
    """Close a connection and wait for its end."""
    future: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    connection.on_closed = future.set_result
    connection.close()
    return await future


async def let_in(door: Door) -> tuple[Connection, Connection]:
    """Dial and say hello; return the scheduler's end and the worker's."""
    far = await dial(door.ticket(), timeout=10)
    far.send(pack(encode(HELLO)))
    near, launch, hello = await door.arrived.get()
    assert (launch, hello) == (LAUNCH, HELLO)
    return near, far


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionResetError):
        await writer.wait_closed()
