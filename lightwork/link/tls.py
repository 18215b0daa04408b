"""TLS between a connection and its socket. The layer is a transport to the connection and a protocol to the socket.

The `Connection` above exists from the accept on. It does not know that the TLS handshake precedes its own. The layer
buffers what the connection writes meanwhile. The connection's time limit and the listener's counts cover both
handshakes. So no connection needs a task, and every unauthenticated connection is counted. asyncio's ``start_tls``
needs a task, leaves a connection uncounted, and takes 256 kB of read buffer for each connection.

Only TLS 1.3, without resumption: no renegotiation, no tickets. The name and the dates of a certificate have no meaning
here. The dialling end compares the certificate's fingerprint with the fingerprint in its ticket before it sends
anything inside the channel.

A TLS handshake costs the listening end about 300 µs. So the listening end begins a handshake only if the dialling end's
first message shows that it knows the fingerprint. The dialling end shows it in the server name, which TLS sends in
clear text: a nonce, and an HMAC of the nonce with the fingerprint as the key. An eavesdropper can repeat the name and
then gets the certificate. The name has no other use: it only decides whether the listening end answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, cast

from lightwork.errors import ProtocolError

__all__ = ["FINGERPRINT_SIZE", "TlsLayer", "client_context", "fingerprint_of", "knows_fingerprint"]

FINGERPRINT_SIZE = 32

_RECORD = 16 * 1024
"""Longest TLS record in bytes: one read returns at most one record."""

_PIECE = 256 * 1024
"""Bytes to encrypt before they are sent on, so that a long frame does not need memory for two more copies."""

_GREETING = 2048
"""Bytes of a client's first message to examine. The message of a worker has fewer than 600, with the name near the
front."""


def fingerprint_of(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate in DER, as in `lightwork.link.messages.Ticket.fingerprint`."""
    return hashlib.sha256(certificate).digest()


_PASSWORD = re.compile(rb"lw([0-9a-f]{16})([0-9a-f]{32})")
_HANDSHAKE = 22
_RECORD_HEADER = 5


def _password(fingerprint: bytes, nonce: bytes) -> bytes:
    """Return the server name that the dialling end requests: 50 characters that a host name may contain."""
    return b"lw" + nonce.hex().encode() + hmac.digest(fingerprint, b"door" + nonce, "sha256")[:16].hex().encode()


def knows_fingerprint(data: bytes, fingerprint: bytes) -> bool | None:
    """Return whether a client's first bytes show that it knows the fingerprint; None if more bytes are needed."""
    if data[0] != _HANDSHAKE:
        return False
    said = _PASSWORD.search(data)
    if said is not None:
        return hmac.compare_digest(said[0], _password(fingerprint, bytes.fromhex(said[1].decode())))
    length = int.from_bytes(data[3:_RECORD_HEADER], "big")
    if len(data) < _RECORD_HEADER or (len(data) < _RECORD_HEADER + length and len(data) < _GREETING):
        return None
    return False


@cache
def client_context() -> ssl.SSLContext:
    """Return the context of the dialling end. It accepts every certificate: `TlsLayer` checks the fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """Encrypts the data that the protocol above writes, and decrypts the data that the transport below receives.

    The protocol above gets `connection_made` when the transport below is connected. It gets data only after the TLS
    handshake, and data that it writes before is sent after it. `connection_lost` gets a `ConnectionResetError` if the
    socket ends without the end of the channel, and a `ProtocolError` if the other end does not use TLS 1.3 or has
    another certificate.

    Args:
        above: The protocol that gets the decrypted data.
        context: The `ssl` context; it also says which end this is.
        fingerprint: The required fingerprint of the other end's certificate; empty at the listening end.
    """

    def __init__(self, above: asyncio.Protocol, context: ssl.SSLContext, fingerprint: bytes = b"") -> None:
        super().__init__()
        self._above = above
        self._fingerprint = fingerprint
        self._is_client = context.protocol == ssl.PROTOCOL_TLS_CLIENT
        if self._is_client and len(fingerprint) != FINGERPRINT_SIZE:
            raise ValueError(f"fingerprint must have {FINGERPRINT_SIZE} bytes, got {len(fingerprint)}")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = _password(fingerprint, os.urandom(8)).decode() if self._is_client else None
        self._channel = context.wrap_bio(self._incoming, self._outgoing, not self._is_client, name)
        self._below: asyncio.Transport | None = None
        self._waiting = b""  # written by the protocol above before the channel was secure
        self._is_secure = False
        self._is_closing = False
        self._error: Exception | None = None

    # --- the transport, called from above -----------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the channel for ``ssl_object``; otherwise ask the transport below."""
        if name == "ssl_object":
            return self._channel
        return default if self._below is None else self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the transport below: this transport has no separate buffer."""
        assert self._below is not None
        self._below.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        """Return whether the transport is closing or closed."""
        return self._is_closing or (self._below is not None and self._below.is_closing())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send the data. Before the channel is secure, buffer it."""
        if self.is_closing():
            return
        if not self._is_secure:
            self._waiting += data
            return
        with memoryview(data) as view:
            for start in range(0, len(view), _PIECE):
                self._encrypt(view[start : start + _PIECE])

    def close(self) -> None:
        """Flush the written data, send the end of the channel, then close. An insecure channel sends nothing."""
        if self.is_closing():
            return
        self._is_closing = True
        assert self._below is not None
        if self._is_secure:
            # `unwrap` always raises, because this end does not wait for the other end's answer. The notice is in the
            # buffer by then.
            with suppress(ssl.SSLError):
                self._channel.unwrap()
            self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close now."""
        self._is_closing = True
        if self._below is not None:
            self._below.abort()

    # --- the protocol, called from below ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Notify the protocol above; at the dialling end, begin the TLS handshake."""
        # Not an isinstance check: uvloop's transports do not subclass asyncio's.
        self._below = cast(asyncio.Transport, transport)
        self._above.connection_made(self)
        if self._is_client and not self.is_closing():
            self._guarded(self._shake)

    def data_received(self, data: bytes) -> None:
        """Process received bytes of the channel."""
        if not self.is_closing():
            self._incoming.write(data)
            self._guarded(self._take)

    def pause_writing(self) -> None:
        """Notify the protocol above."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """Notify the protocol above."""
        self._above.resume_writing()

    def eof_received(self) -> None:
        """Handle an end of the socket before the end of the channel: a third party may have cut the connection."""
        if not self._is_closing:
            self._error = ConnectionResetError("the socket was closed without the end of the TLS channel")

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the protocol above, with the first known reason."""
        self._is_closing = True
        self._above.connection_lost(self._error or exc)

    # --- inside -------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[[], None]) -> None:
        """Call `act`; abort the connection if the other end has violated the protocol."""
        try:
            act()
        except ProtocolError as error:
            self._fail(error)
        except ssl.SSLError as error:
            self._fail(ProtocolError(f"the other end does not follow TLS 1.3: {error.reason or error}"))

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.abort()

    def _take(self) -> None:
        if not self._is_secure:
            self._shake()
            if not self._is_secure:
                return
        pieces, ended = self._decrypt()
        self._flush()  # answers of the channel itself
        if pieces:
            self._above.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and not self.is_closing():
            self._is_closing = True
            assert self._below is not None
            self._below.close()

    def _shake(self) -> None:
        try:
            self._channel.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        if self._is_client:
            self._check_certificate()
        self._is_secure = True
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self._encrypt(memoryview(waiting))
        self._flush()

    def _check_certificate(self) -> None:
        certificate = self._channel.getpeercert(binary_form=True) or b""
        if not hmac.compare_digest(fingerprint_of(certificate), self._fingerprint):
            raise ProtocolError(
                f"the listener's certificate is not the ticket's: expected the fingerprint {self._fingerprint.hex()}, "
                f"got {fingerprint_of(certificate).hex()}"
            )

    def _decrypt(self) -> tuple[list[bytes], bool]:
        """Decrypt all received data; return its pieces, and whether the channel has ended."""
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._channel.read(_RECORD)
            except ssl.SSLWantReadError:
                return pieces, False
            if not piece:
                return pieces, True
            pieces.append(piece)

    def _encrypt(self, view: memoryview) -> None:
        while view:
            view = view[self._channel.write(view) :]
        self._flush()

    def _flush(self) -> None:
        assert self._below is not None
        data = self._outgoing.read()
        if data and not self._below.is_closing():
            self._below.write(data)
