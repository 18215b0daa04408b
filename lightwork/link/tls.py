"""TLS between a connection and its socket: a transport to the one, a protocol to the other.

The `Connection` above is there from the moment of the accept, and does not know that the TLS handshake comes before
its own: what it writes meanwhile waits, and its time limit and the listener's counts cover both. So there is no task
for each connection and no state in which a stranger is not counted. asyncio's own ``start_tls`` has both, and takes
256 kB of read buffer for each connection, a stranger's too.

Only TLS 1.3, without resumption: no renegotiation, no tickets. Names and dates of certificates mean nothing here; the
dialling end compares the certificate's fingerprint with the one of its ticket before it sends anything inside.

A TLS handshake costs the listening end some 300 µs, so a stranger's is not begun: the dialling end's first message
shows that it knows the fingerprint. It does so by the name of the server that it asks for, which TLS leaves in the
clear: a nonce, and an HMAC of that with the fingerprint as the key. Whoever overhears it can say it again, and is then
answered with the certificate; it proves nothing else, and nothing depends on it but who is listened to.
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
"""The longest TLS record: more than one is never read at once."""

_PIECE = 256 * 1024
"""Bytes that are encrypted before they are handed on, so that a long frame is not in memory twice more."""

_GREETING = 2048
"""Bytes of a client's first message that are looked at: it has fewer than 600, and the server's name comes early."""


def fingerprint_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER, as it is in `lightwork.link.messages.Ticket.fingerprint`."""
    return hashlib.sha256(certificate).digest()


_PASSWORD = re.compile(rb"lw([0-9a-f]{16})([0-9a-f]{32})")
_HANDSHAKE = 22
_RECORD_HEADER = 5


def _password(fingerprint: bytes, nonce: bytes) -> bytes:
    """What the dialling end asks for instead of a server: 50 characters that a host's name may have."""
    return b"lw" + nonce.hex().encode() + hmac.digest(fingerprint, b"door" + nonce, "sha256")[:16].hex().encode()


def knows_fingerprint(data: bytes, fingerprint: bytes) -> bool | None:
    """Whether a client's first bytes, all that have come, show that it knows this; None if that takes more of them."""
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
    """The context of the dialling end. It trusts nobody: `TlsLayer` checks the fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsLayer(asyncio.Transport, asyncio.Protocol):
    """Encrypts what the protocol above writes, and decrypts what the transport below receives.

    The protocol above is told of its connection as soon as there is one below. It is given bytes only after the TLS
    handshake, and what it writes before leaves after it. A channel that ends without saying so is lost with a
    `ConnectionResetError`, one that is no TLS 1.3 or has another certificate with a `ProtocolError`.

    Args:
        above: Gets what is received.
        context: Of `ssl`; says which end this is, too.
        fingerprint: What the other end's certificate must have; empty at the end that listens.
    """

    def __init__(self, above: asyncio.Protocol, context: ssl.SSLContext, fingerprint: bytes = b"") -> None:
        super().__init__()
        self._above = above
        self._fingerprint = fingerprint
        self._is_client = context.protocol == ssl.PROTOCOL_TLS_CLIENT
        if self._is_client and len(fingerprint) != FINGERPRINT_SIZE:
            raise ValueError(f"fingerprint must have {FINGERPRINT_SIZE} bytes, this has {len(fingerprint)}")
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
        """What the transport below knows; under ``ssl_object`` the channel."""
        if name == "ssl_object":
            return self._channel
        return default if self._below is None else self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Those of the transport below: this one has no buffer of its own."""
        assert self._below is not None
        self._below.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._is_closing or (self._below is not None and self._below.is_closing())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; before the channel is secure it waits."""
        if self.is_closing():
            return
        if not self._is_secure:
            self._waiting += data
            return
        with memoryview(data) as view:
            for start in range(0, len(view), _PIECE):
                self._encrypt(view[start : start + _PIECE])

    def close(self) -> None:
        """Send what was written and the end of the channel, then close. Before it is secure, nothing is sent."""
        if self.is_closing():
            return
        self._is_closing = True
        assert self._below is not None
        if self._is_secure:
            # It always raises: the other end has not answered, and is not waited for. The notice is in the buffer.
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
        """Tell the protocol above; the dialling end begins the TLS handshake."""
        # Not an isinstance check: the transports of uvloop subclass nothing of asyncio's.
        self._below = cast(asyncio.Transport, transport)
        self._above.connection_made(self)
        if self._is_client and not self.is_closing():
            self._guarded(self._shake)

    def data_received(self, data: bytes) -> None:
        """Take in bytes of the channel."""
        if not self.is_closing():
            self._incoming.write(data)
            self._guarded(self._take)

    def pause_writing(self) -> None:
        """Handed on."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """Handed on."""
        self._above.resume_writing()

    def eof_received(self) -> None:
        """The socket ended, the channel had not: whoever sits in between may have cut it."""
        if not self._is_closing:
            self._error = ConnectionResetError("the connection ended, and not by a word of the other end")

    def connection_lost(self, exc: Exception | None) -> None:
        """Handed on, with the first reason that is known."""
        self._is_closing = True
        self._above.connection_lost(self._error or exc)

    # --- inside -------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something to the channel; what the other end did wrong costs the connection."""
        try:
            act()
        except ProtocolError as error:
            self._fail(error)
        except ssl.SSLError as error:
            self._fail(ProtocolError(f"the other end does not keep to TLS 1.3: {error.reason or error}"))

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.abort()

    def _take(self) -> None:
        if not self._is_secure:
            self._shake()
            if not self._is_secure:
                return
        pieces, ended = self._decrypt()
        self._flush()  # what the channel itself has to answer
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
            raise ProtocolError("the listener's certificate is another than the ticket names")

    def _decrypt(self) -> tuple[list[bytes], bool]:
        """Everything that has arrived, and whether that was the end of the channel."""
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
