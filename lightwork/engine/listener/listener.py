"""Accepts connections from workers, authenticates them, and hands over those that pass.

Unauthenticated connections cost a bounded amount. Each has `handshake_timeout` seconds, their number is limited, and
nothing is made or computed for a connection before it has sent what only a worker knows; the `Acceptor` checks that at
the sockets. A connection that has named a present launch does not count as unauthenticated any more, so many silent
connections cannot crowd out workers. It counts towards the limit of its launch instead. A worker that was turned away
among unauthenticated connections dials again.

On a loopback address the link is plain. On any other address, the wildcard included, every connection uses TLS. What
only a worker knows is the id of a present launch where the link is plain, and otherwise the fingerprint of the
listener's certificate. The listener shows that certificate only to a client that already knows the fingerprint.

On Linux, workers of this machine can also use a Unix socket in the abstract namespace, which needs no file. A client
that can reach the loopback address can reach that socket too, so the same rules apply there.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import cast

from lightwork._common.system import is_loopback
from lightwork._logging import get_logger
from lightwork.engine.listener.acceptor import Acceptor
from lightwork.engine.listener.certificate import Certificate, make_certificate, server_context
from lightwork.errors import ConfigError, ProtocolError
from lightwork.link.connection import HANDSHAKE_TIMEOUT, Connection, Frames, reject_frames
from lightwork.link.handshake import GREETING_SIZE, NONCE_SIZE, ServerHandshake, named_launch
from lightwork.link.messages import Hello, decode_from_worker
from lightwork.link.tls import TlsLayer, knows_fingerprint

__all__ = ["Listener"]

_BACKLOG = 2048
"""Connections that the kernel holds until they are accepted: a thousand workers may dial at once. The kernel caps this
number, at 4096 by default on Linux."""

_log = get_logger("lightwork.engine")

_HELLO_LIMIT = 1 << 20
_PER_LAUNCH = 4
_TRY_AGAIN = 0.05
_BURST = 4
_SETTLE = 0.1

_RATE = 500.0
"""Admitted connections per second, in the long run, that name no present launch. Such a connection comes from a client
that has overheard a worker's TLS handshake, or through a tunnel. It costs up to 0.3 ms if it begins a TLS handshake."""


class Listener:
    """Accepts and authenticates workers.

    Args:
        find_secret: Returns the secret of a launch, None for a launch that is unknown or revoked.
        on_hello: Called with a connection, the launch that it has proved, and its `Hello`. It takes over the
            connection's callbacks. Frames that came with the hello follow at once.
        max_frame: Longest body accepted from an authenticated worker, in bytes.
        max_unauthenticated: How many connections that have named no present launch are kept. The oldest is dropped
            first. Up to four times as many are held for a tenth of a second: workers that dial all at once need a
            moment.
        max_crowd: How many connections that the acceptor admits are processed regardless of their rate. Beyond that
            number, 500 a second are processed. By default as many as the backlog, so that the limit does not affect
            workers that dial all at once.
        handshake_timeout: Seconds that a connection has to authenticate, TLS included, and again to send its hello.
        certificate: The certificate for TLS; None makes one when it is needed. If given, the link is TLS on loopback
            too.

    Attributes:
        certificate: The certificate in use; None where the link is plain.
        bound: The address and port on which it listens.
        socket: Name of the Unix socket, see `lightwork.runtime.ListenerAddress.socket`; empty if there is no socket.
    """

    def __init__(
        self,
        find_secret: Callable[[bytes], bytes | None],
        on_hello: Callable[[Connection, bytes, Hello], None],
        max_frame: int,
        *,
        max_unauthenticated: int = 256,
        max_crowd: int = _BACKLOG,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        certificate: Certificate | None = None,
    ) -> None:
        self._find_secret = find_secret
        self._on_hello = on_hello
        self._max_frame = max_frame
        self._max_unauthenticated = max_unauthenticated
        self._crowd = _Crowd(max_crowd)
        self._handshake_timeout = handshake_timeout
        self.certificate = certificate
        self.bound: tuple[str, int] = ("", 0)
        self._context: ssl.SSLContext | None = None
        self._acceptor: Acceptor | None = None
        self.socket: str = ""
        self._closed = False
        self._pending: dict[Connection, asyncio.TimerHandle | None] = {}  # not handed over; the timer is for the hello
        self._unauthenticated: dict[Connection, None] = {}  # pending, and named no present launch; oldest first
        self._launches: dict[bytes, list[Connection]] = {}  # pending, and named this launch; oldest first
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()  # set while nothing is pending
        self._empty.set()

    @property
    def pending(self) -> int:
        """How many connections have not been handed over or lost yet."""
        return len(self._pending) + self._waiting

    @property
    def _waiting(self) -> int:
        """How many connections the acceptor has not admitted yet."""
        return 0 if self._acceptor is None else self._acceptor.waiting

    @property
    def fingerprint(self) -> bytes:
        """Fingerprint of the certificate, which tickets carry and the handshake includes; empty on a plain link."""
        return b"" if self.certificate is None else self.certificate.fingerprint

    async def start(self, host: str, port: int, *, socket: str = "", within: float = 0.0) -> tuple[str, int]:
        """Start to listen; return the numeric address and the port that were bound.

        Args:
            host: An address of this machine, or a name for one. If a name has several addresses, the first is used.
            port: The port; 0 for any free one.
            socket: Name for the Unix socket, with its ``@``; empty for any name.
            within: Seconds to wait for the port if it is taken.

        Raises:
            ConfigError: The address cannot be bound, or TLS is needed and not available.
        """
        if not 0 <= port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, got {port}; 0 takes any free port")
        loop = asyncio.get_running_loop()
        address = await _resolve(host, port)
        if self.certificate is None and not is_loopback(address):
            self.certificate = make_certificate()
        if self.certificate is not None:
            self._context = server_context(self.certificate)
        deadline = loop.time() + within
        while True:
            try:
                sock = _bind(address, port)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or loop.time() >= deadline:
                    raise ConfigError(_advice(host, port, error)) from error
                await asyncio.sleep(_TRY_AGAIN)
        bound = sock.getsockname()
        self.bound = bound[0], bound[1]
        self._acceptor = Acceptor(self._judge, self._welcome, self._handshake_timeout, self._limit_unauthenticated)
        self._acceptor.open(sock)
        self._open_socket(socket.removeprefix("@") or f"lightwork-{os.urandom(8).hex()}")
        return self.bound

    def _open_socket(self, name: str) -> None:
        if sys.platform != "linux":
            return
        assert self._acceptor is not None
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(f"\0{name}")
            sock.listen(_BACKLOG)
        except OSError as error:  # a sandbox may forbid it; workers then use the address
            sock.close()
            _log.info("cannot open the Unix socket; works of this machine use the address", error=str(error))
        else:
            self._acceptor.open(sock)
            self.socket = f"@{name}"

    async def aclose(self) -> None:
        """Stop listening and drop every connection that was not handed over. May be repeated.

        Cancelling it leaves the port closed; the connections close shortly after.
        """
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._acceptor is not None:
            await self._acceptor.aclose()
        for connection in list(self._pending):
            connection.abort()
        await self._empty.wait()

    # --- one connection -----------------------------------------------------------------------------

    def accept(self) -> asyncio.Protocol:
        """Return the protocol for one more connection that does not come from a socket of this listener."""
        return self._welcome(0.0)

    def _judge(self, data: bytes) -> bool | None:
        """Return whether these are the first bytes of a worker, None if that takes more bytes."""
        if self.certificate is not None:
            return knows_fingerprint(data, self.fingerprint)
        try:
            launch = named_launch(data)
        except ProtocolError:
            return False
        if launch and self._find_secret(launch) is None:
            return False
        return True if len(data) >= GREETING_SIZE else None

    def _welcome(self, been_here: float) -> asyncio.Protocol:
        """Return the protocol for a connection that was accepted `been_here` seconds ago."""
        if not self._crowd.admit(asyncio.get_running_loop().time()):
            return _TurnedAway()
        handshake = ServerHandshake(self._find_secret, os.urandom(NONCE_SIZE), self.fingerprint)
        left = max(0.0, self._handshake_timeout - been_here)
        connection = Connection(handshake, _HELLO_LIMIT, handshake_timeout=left)
        handshake.find_secret = partial(self._claim, connection)
        connection.on_open = self._on_open
        connection.on_frames = partial(self._on_frames, connection)
        connection.on_closed = partial(self._on_closed, connection)
        if self._closed:
            connection.abort()
        self._pending[connection] = None
        self._unauthenticated[connection] = None
        self._empty.clear()
        self._limit_unauthenticated()
        return connection if self._context is None else TlsLayer(connection, self._context)

    def _claim(self, connection: Connection, launch: bytes) -> bytes | None:
        """Look up the secret of the launch that a connection names, and count the connection towards that launch."""
        secret = self._find_secret(launch)
        if secret is not None and connection in self._unauthenticated:
            del self._unauthenticated[connection]
            self._crowd.forgive()
            claims = self._launches.setdefault(launch, [])
            claims.append(connection)
            if len(claims) > _PER_LAUNCH:
                claims.pop(0).abort(ProtocolError("too many connections name this launch"))
        return secret

    def _on_open(self, connection: Connection) -> None:
        late = ProtocolError(f"a worker must send a hello within {self._handshake_timeout:g} s after its proof")
        loop = asyncio.get_running_loop()
        self._pending[connection] = loop.call_later(self._handshake_timeout, connection.abort, late)

    def _on_frames(self, connection: Connection, frames: Frames) -> None:
        number, body = frames[0]
        hello = decode_from_worker(body)
        if number or not isinstance(hello, Hello):
            raise ProtocolError(
                f"a worker's first frame must be an unnumbered Hello, got {type(hello).__name__} with number {number}"
            )
        launch = connection.handshake.launch
        self._forget(connection)
        connection.max_frame = self._max_frame
        connection.on_frames = reject_frames
        self._on_hello(connection, launch, hello)
        if frames[1:] and connection.is_open:
            connection.on_frames(frames[1:])

    def _on_closed(self, connection: Connection, error: Exception | None) -> None:
        # The error is dropped: no caller waits for this connection, and unauthenticated clients are not worth a log.
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if connection not in self._pending:
            return
        timer = self._pending.pop(connection)
        if timer is not None:
            timer.cancel()
        self._unauthenticated.pop(connection, None)
        launch = connection.handshake.launch
        claims = self._launches.get(launch, [])
        if connection in claims:
            claims.remove(connection)
        if not claims:
            self._launches.pop(launch, None)
        if not self._pending:
            self._empty.set()

    # --- how many -----------------------------------------------------------------------------------

    def _limit_unauthenticated(self) -> None:
        self._drop_oldest(self._max_unauthenticated * _BURST)
        many = self._waiting + len(self._unauthenticated)
        if many > self._max_unauthenticated and self._sweep is None and not self._closed:
            self._sweep = asyncio.get_running_loop().call_later(_SETTLE, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        self._drop_oldest(self._max_unauthenticated)

    def _drop_oldest(self, keep: int) -> None:
        """Drop the oldest until `keep` are left, those in the acceptor first: the others have passed its check."""
        if self._acceptor is not None:
            self._acceptor.drop(max(0, keep - len(self._unauthenticated)))
        while len(self._unauthenticated) > keep:
            connection = next(iter(self._unauthenticated))
            del self._unauthenticated[connection]
            connection.abort(ProtocolError("dropped for newer connections"))


class _Crowd:
    """Limits the rate of admitted connections: a leaky bucket that each connection fills and that time drains."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._level = 0.0
        self._at = 0.0

    def admit(self, now: float) -> bool:
        """Count one more connection if there is room; return whether there was."""
        self._level = max(0.0, self._level - (now - self._at) * _RATE)
        self._at = now
        if self._level + 1 > self._limit:
            return False
        self._level += 1
        return True

    def forgive(self) -> None:
        """Take back the count of one connection, because it is a worker's."""
        self._level = max(0.0, self._level - 1)


class _TurnedAway(asyncio.Protocol):
    """The protocol of a connection that is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


def _bind(address: str, port: int) -> socket.socket:
    """Return a socket that listens on a numeric address."""
    flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
    family, kind, protocol, _, there = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier listener may linger
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(there)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def _resolve(host: str, port: int) -> str:
    """Return the one numeric address to bind. With several addresses, port 0 would give each a different port."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass  # it is a name, looked up below
    else:
        return host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(_advice(host, port, error)) from error
    return str(found[0][4][0])


def _advice(host: str, port: int, error: Exception) -> str:
    code = getattr(error, "errno", None)
    match code:
        case errno.EADDRINUSE:
            hint = "the port is taken; set port = 0 for any free one, or choose another"
        case errno.EACCES:
            hint = "this user may not bind that port; set port = 0 for any free one, or choose one above 1023"
        case int() if code > 0:
            hint = f"{os.strerror(code)}; set host to an address of this machine, such as 127.0.0.1"
        case _:
            hint = f"{error}; set host to an address of this machine, such as 127.0.0.1"
    return f"cannot listen on host {host!r}, port {port}: {hint}"
