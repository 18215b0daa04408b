"""Hands on what workers say to a forwarded port to the scheduler's listener, and back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

import asyncssh

from lightwork.runtime import Route

__all__ = ["forward"]


async def forward(
    connection: asyncssh.SSHClientConnection, ports: Sequence[int], listener: Route
) -> asyncssh.SSHListener | None:
    """Listen on the first of these ports of the far side's loopback that is free; None if none is.

    Each connection there becomes one to `listener`, for as long as the connection lives.
    """

    async def accept(host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        near = _Near()
        try:
            await asyncio.get_running_loop().create_connection(lambda: near, listener.host, listener.port)
        except OSError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
        return _Far(near)

    for port in ports:
        try:
            return await connection.create_server(accept, "127.0.0.1", port, encoding=None)
        except asyncssh.ChannelListenError:
            continue
    return None


# Two protocols that write into each other's transports, and no stream or task between: that is what a call waits for.


class _Near(asyncio.Protocol):
    """The end at the scheduler's listener."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.channel: asyncssh.SSHTCPChannel[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.pause_reading()  # until the channel is open

    def data_received(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.write(data)

    def eof_received(self) -> bool:
        if self.channel is not None:
            self.channel.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.channel is not None:
            self.channel.close()

    def pause_writing(self) -> None:
        if self.channel is not None:
            self.channel.pause_reading()

    def resume_writing(self) -> None:
        if self.channel is not None:
            self.channel.resume_reading()


class _Far(asyncssh.SSHTCPSession[bytes]):
    """The end at the worker, as the SSH connection has it."""

    def __init__(self, near: _Near) -> None:
        assert near.transport is not None
        self._near = near
        self._transport = near.transport

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._near.channel = chan

    def session_started(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._transport.write(data)

    def eof_received(self) -> bool:
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()
