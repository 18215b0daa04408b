"""Connections through SSH channels: from workers to the scheduler, and from this machine to the services of works.

The scheduler serves a worker's channel in this process, as if it were a socket. That saves two passes through the
loopback and four turns of the event loop for each call. A listener known only by its address is connected to for each
channel.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

import asyncssh

from lightwork.runtime import Address, ListenerAddress

__all__ = ["OpenChannel", "SessionFactory", "forward", "listen_here"]

SessionFactory = Callable[[], asyncssh.SSHTCPSession[bytes]]
"""Makes the session of a channel."""

OpenChannel = Callable[[SessionFactory, Callable[[], None]], object]
"""Starts to open a channel with the session from the first argument. Calls the second argument if that fails."""

_TCP_CORK: int | None = getattr(socket, "TCP_CORK", None)
"""Socket option of Linux that holds back the data written to a connection."""


async def forward(
    connection: asyncssh.SSHClientConnection, ports: Sequence[int], listener: Address
) -> asyncssh.SSHListener | None:
    """Listen on the first free port of `ports` on the remote loopback. Return None if none is free.

    Each connection there becomes a connection to `listener`, as long as the SSH connection lives.
    """
    door = listener.accept if isinstance(listener, ListenerAddress) else None

    async def accept(host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        if door is not None:
            return _Served(door, connection.get_extra_info("socket"))
        local = _LocalEnd()
        try:
            await asyncio.get_running_loop().create_connection(lambda: local, listener.host, listener.port)
        except OSError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from error
        return _RemoteEnd(local)

    for port in ports:
        try:
            return await connection.create_server(accept, "127.0.0.1", port, encoding=None)
        except asyncssh.ChannelListenError:
            continue
    return None


async def listen_here(port: int, open_channel: OpenChannel) -> asyncio.Server:
    """Listen on this machine's loopback, at `port` or at any port if it is taken. Each connection gets a channel."""

    def welcome() -> _PendingConnection:
        return _PendingConnection(open_channel)

    loop = asyncio.get_running_loop()
    # Created first and started later: if cancelled in its last step, `create_server` would leak its listener.
    try:
        server = await loop.create_server(welcome, "127.0.0.1", port, start_serving=False)
    except OSError:
        server = await loop.create_server(welcome, "127.0.0.1", 0, start_serving=False)
    try:
        await server.start_serving()
    except BaseException:
        server.close()
        raise
    return server


class _Served(asyncssh.SSHTCPSession[bytes], asyncio.Transport):
    """A channel served by a protocol of this process. It is a session for SSH and a transport for the protocol.

    The protocol is made when the channel is open. As with a socket, `abort` ends it at once, without waiting for the
    remote side, which may never answer. No call follows `connection_lost`.

    Args:
        accept: Makes the protocol.
        sock: The socket of the SSH connection.
    """

    def __init__(self, accept: Callable[[], asyncio.Protocol], sock: socket.socket | None) -> None:
        super().__init__()
        self._accept = accept
        self._sock = sock
        self._channel: asyncssh.SSHTCPChannel[bytes]
        self._protocol: asyncio.Protocol | None = None

    # --- the session, called by the SSH connection --------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._protocol = self._accept()
        self._protocol.connection_made(self)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._protocol is not None:
            self._protocol.data_received(data)

    def eof_received(self) -> bool:
        if self._protocol is not None and not self._protocol.eof_received():
            self.close()
        return True

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(exc)

    # --- the transport, called by the protocol ------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the default: the channel's facts describe the SSH connection, not the worker's connection."""
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._channel.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._channel.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._channel.is_closing():
            return
        # The SSH library writes an empty packet before each packet. Held back until both are written, they leave in one
        # segment and wake the remote side once. A call is then 7 % faster.
        is_held = self._hold(True)
        try:
            self._channel.write(bytes(data))
        finally:
            if is_held:
                self._hold(False)

    def _hold(self, wanted: bool) -> bool:
        """Hold back written data, or send it. Return False if the system cannot, or the connection has gone."""
        if self._sock is None or _TCP_CORK is None:
            return False
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, wanted)
        except OSError:
            return False
        return True

    def is_closing(self) -> bool:
        return self._protocol is None or self._channel.is_closing()

    def close(self) -> None:
        self._channel.close()

    def abort(self) -> None:
        self._channel.abort()
        asyncio.get_running_loop().call_soon(self.connection_lost, None)

    def pause_reading(self) -> None:
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._channel.resume_reading()


# Two protocols that write directly to each other's transports. A stream or task between them would slow each call.


class _LocalEnd(asyncio.Protocol):
    """The connection to the scheduler's listener."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.channel: asyncssh.SSHTCPChannel[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.pause_reading()  # until the channel is open

    def data_received(self, data: bytes) -> None:
        if self.channel is not None and not self.channel.is_closing():
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


class _PendingConnection(_LocalEnd):
    """A connection of a local client to a work's service. It waits until its channel is open."""

    def __init__(self, open_channel: OpenChannel) -> None:
        super().__init__()
        self._open_channel = open_channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self._open_channel(lambda: _RemoteEnd(self), self.transport.abort)


class _RemoteEnd(asyncssh.SSHTCPSession[bytes]):
    """The channel through the SSH connection to the worker."""

    def __init__(self, local: _LocalEnd) -> None:
        assert local.transport is not None
        self._local = local
        self._transport = local.transport

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._local.channel = chan

    def session_started(self) -> None:
        if self._transport.is_closing():  # it was closed while the channel was opened
            assert self._local.channel is not None
            self._local.channel.close()
        else:
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
