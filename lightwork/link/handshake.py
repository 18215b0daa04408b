"""Both ends of a new connection prove that they know the launch's secret. No I/O, no clock, no randomness.

There are three messages of fixed size. Neither end reads anything else before them::

    client  magic (4), launch (16), client nonce (32)
    server  server nonce (32), HMAC-SHA256(secret, "server" + transcript) (32)
    client  HMAC-SHA256(secret, "client" + transcript) (32)

The transcript is the magic, the launch, both nonces and the channel binding. The binding is the fingerprint of the
TLS certificate, or empty. Both nonces are fresh, so a recorded handshake proves nothing later. The two proofs have
different labels, so neither can be sent back as the other. The server proves itself first: a stranger on the
scheduler's address learns only a public id from the worker. An unknown launch gets no answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from lightwork.errors import ProtocolError

__all__ = [
    "GREETING_SIZE",
    "LAUNCH_SIZE",
    "MAGIC",
    "NONCE_SIZE",
    "PROOF_SIZE",
    "ClientHandshake",
    "Handshake",
    "ServerHandshake",
    "named_launch",
]

MAGIC = b"LWK1"
LAUNCH_SIZE = 16
NONCE_SIZE = 32
PROOF_SIZE = 32

GREETING_SIZE = len(MAGIC) + LAUNCH_SIZE + NONCE_SIZE
"""Size of the client's first message in bytes."""


def _proof(secret: bytes, label: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, label + transcript, "sha256")


def _require(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise ValueError(f"{name} must have {size} bytes, got {len(value)}")


def named_launch(data: bytes) -> bytes:
    """Return the launch that a client's first bytes name; empty if more bytes are needed.

    Raises:
        ProtocolError: If a lightwork worker does not begin with these bytes.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise ProtocolError(
            f"the first bytes must be those of a lightwork worker, {MAGIC!r}, got {data[: len(MAGIC)]!r}"
        )
    launch = data[len(MAGIC) : len(MAGIC) + LAUNCH_SIZE]
    return launch if len(launch) == LAUNCH_SIZE else b""


class ClientHandshake:
    """The handshake of the end that dials.

    Args:
        launch: Public id of the launch, 16 bytes.
        secret: The launch's secret.
        nonce: 32 fresh random bytes.
        binding: The channel binding; it must be equal at both ends.

    Attributes:
        launch: The argument.
        done: Whether the server has proved itself. `feed` has returned the client's own proof by then.
        rest: Bytes that came after the handshake; empty until `done`.
    """

    def __init__(self, launch: bytes, secret: bytes, nonce: bytes, binding: bytes = b"") -> None:
        _require("launch", launch, LAUNCH_SIZE)
        _require("nonce", nonce, NONCE_SIZE)
        if not secret:
            raise ValueError("the secret must not be empty")
        self.launch = launch
        self.done: bool = False
        self.rest: bytes = b""
        self._secret = secret
        self._hello = MAGIC + launch + nonce
        self._binding = binding
        self._buffer = b""

    def start(self) -> bytes:
        """Return the first bytes to send."""
        return self._hello

    def feed(self, data: bytes) -> bytes:
        """Process received bytes, in pieces of any size; return the bytes to send.

        Raises:
            ProtocolError: If the server does not know the secret.
        """
        if self.done:
            self.rest += data
            return b""
        self._buffer += data
        if len(self._buffer) < NONCE_SIZE + PROOF_SIZE:
            return b""
        nonce, proof = self._buffer[:NONCE_SIZE], self._buffer[NONCE_SIZE : NONCE_SIZE + PROOF_SIZE]
        transcript = self._hello + nonce + self._binding
        if not hmac.compare_digest(proof, _proof(self._secret, b"server", transcript)):
            raise ProtocolError("the listener does not know this launch's secret: it is not our scheduler")
        self.done = True
        self.rest, self._buffer = self._buffer[NONCE_SIZE + PROOF_SIZE :], b""
        return _proof(self._secret, b"client", transcript)


class ServerHandshake:
    """The handshake of the end that listens.

    Args:
        find_secret: Returns the secret of a launch, or None if the launch is unknown or revoked. Called when the
            client names the launch and again when the client proves it, so a launch revoked in between is refused.
        nonce: 32 fresh random bytes.
        binding: The channel binding; it must be equal at both ends.

    Attributes:
        launch: The launch that the client has named; empty before. It is proved only when `done` is true.
        done: Whether the client has proved itself.
        rest: Bytes that came after the handshake; empty until `done`.
    """

    def __init__(self, find_secret: Callable[[bytes], bytes | None], nonce: bytes, binding: bytes = b"") -> None:
        _require("nonce", nonce, NONCE_SIZE)
        self.launch: bytes = b""
        self.done: bool = False
        self.rest: bytes = b""
        self.find_secret = find_secret
        self._nonce = nonce
        self._binding = binding
        self._transcript = b""
        self._buffer = b""

    def start(self) -> bytes:
        """Return no bytes: the client speaks first."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Process received bytes, in pieces of any size; return the bytes to send.

        Raises:
            ProtocolError: If the client does not know the secret of a current launch. Raised at the first byte that
                cannot belong to a handshake.
        """
        if self.done:
            self.rest += data
            return b""
        self._buffer += data
        reply = b"" if self._transcript else self._answer()
        if self._transcript and len(self._buffer) >= PROOF_SIZE:
            self._check()
        return reply

    def _answer(self) -> bytes:
        launch = named_launch(self._buffer)
        if len(self._buffer) < GREETING_SIZE:
            return b""
        hello, self._buffer = self._buffer[:GREETING_SIZE], self._buffer[GREETING_SIZE:]
        secret = self._secret_of(launch)
        self.launch = launch
        self._transcript = hello + self._nonce + self._binding
        return self._nonce + _proof(secret, b"server", self._transcript)

    def _check(self) -> None:
        proof = self._buffer[:PROOF_SIZE]
        if not hmac.compare_digest(proof, _proof(self._secret_of(self.launch), b"client", self._transcript)):
            raise ProtocolError("the client does not know the secret of the launch it names")
        self.done = True
        self.rest, self._buffer = self._buffer[PROOF_SIZE:], b""

    def _secret_of(self, launch: bytes) -> bytes:
        secret = self.find_secret(launch)
        if not secret:
            raise ProtocolError(f"the client names launch {launch.hex()}, which is unknown or revoked")
        return secret


Handshake = ClientHandshake | ServerHandshake
