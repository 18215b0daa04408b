"""The bare references: messages of a call's size, sent to another process and back without any framework.

Each form runs the same code at both ends. ``python -m benchmarks.echo FORM LOOP ADDRESS`` runs the other end.

A bare process pays for more than the exchange: asyncio reads into 256 kB, which glibc requests from the system and
returns on each read, until the process happens to have freed a larger block. So there are two echoes: an ordinary one,
and a stricter reference that keeps its buffers as lightwork does (`lightwork.link.buffers`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import msgspec

from benchmarks.harness import Batch, Contender, LoopFactory

LENGTH = struct.Struct(">I")

CONNECT = 30.0
"""Seconds that the other end may take to start and connect."""


class Request(msgspec.Struct, array_like=True, tag="call"):
    """The request."""

    id: int
    args: bytes


class Response(msgspec.Struct, array_like=True, tag="result"):
    """The response."""

    call: int
    value: int


encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_response = msgspec.msgpack.Decoder(Response).decode


def answer(body: bytes) -> bytes:
    """Return the response to a request, like a work whose run has one line."""
    request = decode_request(body)
    return encode(Response(request.id, int(msgspec.msgpack.decode(request.args)["n"]) + 1))


def ask(n: int) -> bytes:
    """Return the bytes of a request."""
    return encode(Request(n, encode({"n": n})))


def check(body: bytes, n: int) -> None:
    """Raise if the response does not belong to request `n`."""
    response = decode_response(body)
    if (response.call, response.value) != (n, n + 1):
        raise ValueError(f"{response} does not answer request {n}")


def uvloop_factory() -> LoopFactory | None:
    """Return a factory of uvloop loops; None if uvloop is not installed."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    factory: LoopFactory = uvloop.new_event_loop
    return factory


# --- asyncio streams ----------------------------------------------------------------------------


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next body."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return await reader.readexactly(length)


async def serve_streams(host: str, port: int) -> None:
    """Serve as the other end until the connection is closed."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while True:
            body = answer(await read_frame(reader))
            writer.write(LENGTH.pack(len(body)) + body)
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()
        await writer.wait_closed()


class StreamsEcho:
    """asyncio streams over TCP on loopback."""

    def __init__(self, name: str, loop_factory: LoopFactory | None) -> None:
        self.name = name
        self.loop_factory = loop_factory

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        connected = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda r, w: connected.set_result((r, w)), "127.0.0.1", 0)
        child = spawn("streams", self.loop_factory, server.sockets[0].getsockname())
        async with asyncio.timeout(CONNECT):
            reader, writer = await connected
        server.close()

        async def batch(count: int) -> float:
            start = time.perf_counter()
            for n in range(count):
                body = ask(n)
                writer.write(LENGTH.pack(len(body)) + body)
                await writer.drain()
                check(await read_frame(reader), n)
            return time.perf_counter() - start

        try:
            yield batch
        finally:
            writer.close()
            await writer.wait_closed()
            await asyncio.to_thread(child.wait)


# --- an asyncio Protocol ------------------------------------------------------------------------


class Framed(asyncio.Protocol):
    """Splits incoming data into frames and passes each to `took`."""

    def __init__(self, took: Callable[[Framed, bytes], None]) -> None:
        self._took = took
        self._buffer = bytearray()
        self.connected = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport class is not a subclass of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.connected.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            end = LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH.size : end])
            del self._buffer[:end]
            self._took(self, body)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)

    def send(self, body: bytes) -> None:
        self.transport.write(LENGTH.pack(len(body)) + body)


async def serve_protocol(host: str, port: int) -> None:
    """Serve as the other end until the connection is closed."""
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: Framed(lambda own, body: own.send(answer(body))), host, port)
    await protocol.closed


class Asking(Framed):
    """The requesting end, one request at a time; a future for each request, as an awaiting caller needs it."""

    def __init__(self) -> None:
        super().__init__(self._on_answer)
        self._waiting: list[asyncio.Future[bytes]] = []

    def _on_answer(self, own: Framed, body: bytes) -> None:
        self._waiting.pop().set_result(body)

    async def batch(self, count: int) -> float:
        """Make that many requests, check each response, and return the seconds."""
        loop = asyncio.get_running_loop()
        start = time.perf_counter()
        for n in range(count):
            future: asyncio.Future[bytes] = loop.create_future()
            self._waiting.append(future)
            self.send(ask(n))
            check(await future, n)
        return time.perf_counter() - start

    @asynccontextmanager
    async def beside(self, child: subprocess.Popen[bytes]) -> AsyncIterator[Batch]:
        """Yield the batch function once the other end has dialled; afterwards close the connection and the process."""
        async with asyncio.timeout(CONNECT):
            await self.connected
        try:
            yield self.batch
        finally:
            self.transport.close()
            await self.closed
            await asyncio.to_thread(child.wait)


class ProtocolEcho:
    """An asyncio Protocol over TCP on loopback.

    Args:
        name: Name of the row.
        loop_factory: Loop factory of both ends; None for asyncio's own.
        keeps: Whether the other end keeps the memory of its read buffers.
    """

    def __init__(self, name: str, loop_factory: LoopFactory | None, *, keeps: bool = False) -> None:
        self.name = name
        self.loop_factory = loop_factory
        self._form = "keeping" if keeps else "protocol"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        protocol = Asking()
        server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        child = spawn(self._form, self.loop_factory, server.sockets[0].getsockname())
        async with protocol.beside(child) as batch:
            server.close()
            yield batch


# --- a raw socketpair ---------------------------------------------------------------------------


def exchange(sock: socket.socket) -> bytes:
    """Return the next body; a frame of this size arrives whole. Empty at the end of the stream."""
    return sock.recv(4096)[LENGTH.size :]


def serve_socketpair(descriptor: int) -> None:
    """Serve as the other end until it is closed."""
    with socket.socket(fileno=descriptor) as sock:
        while body := exchange(sock):
            answered = answer(body)
            sock.sendall(LENGTH.pack(len(answered)) + answered)


class SocketpairEcho:
    """Blocking sends and receives on a pair of Unix sockets: the limit of the machine."""

    name = "raw socketpair"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        ours, theirs = socket.socketpair()
        with theirs:
            child = spawn("socketpair", None, (theirs.fileno(),), keep=(theirs.fileno(),))

        async def batch(count: int) -> float:
            start = time.perf_counter()
            for n in range(count):
                body = ask(n)
                ours.sendall(LENGTH.pack(len(body)) + body)
                check(exchange(ours), n)
            return time.perf_counter() - start

        try:
            yield batch
        finally:
            ours.close()
            await asyncio.to_thread(child.wait)


# --- all of them --------------------------------------------------------------------------------


def spawn(
    form: str, loop_factory: LoopFactory | None, address: tuple[object, ...], keep: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start the process of the other end."""
    loop = "uvloop" if loop_factory else "asyncio"
    command = [sys.executable, "-m", "benchmarks.echo", form, loop, *[str(part) for part in address]]
    return subprocess.Popen(command, pass_fds=keep, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def references() -> list[Contender]:
    """Return every form that this machine can run."""
    forms: list[Contender] = [
        SocketpairEcho(),
        ProtocolEcho("bare echo, asyncio Protocol", None),
        ProtocolEcho("the same, its buffers kept", None, keeps=True),
        StreamsEcho("bare echo, asyncio streams", None),
    ]
    if factory := uvloop_factory():
        forms += [
            ProtocolEcho("bare echo, uvloop Protocol", factory),
            StreamsEcho("bare echo, uvloop streams", factory),
        ]
    return forms


def main(form: str, loop: str, *address: str) -> None:
    """Run as the other end."""
    if form == "socketpair":
        serve_socketpair(int(address[0]))
        return
    if form == "keeping":
        from lightwork.link.buffers import keep_buffers  # only for this form, because the import frees blocks too

        keep_buffers()
    serve = serve_streams if form == "streams" else serve_protocol
    with asyncio.Runner(loop_factory=uvloop_factory() if loop == "uvloop" else None) as runner:
        runner.run(serve(address[0], int(address[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
