"""Both ends of a new connection prove that they know the launch's secret. No I/O, no clock, no randomness.

Three messages of fixed size, nothing else is read before they are over::

    client  magic (4), launch (16), client nonce (32)
    server  server nonce (32), HMAC-SHA256(secret, "server" + transcript) (32)
    client  HMAC-SHA256(secret, "client" + transcript) (32)

The transcript is the magic, the launch, both nonces and the channel binding: the fingerprint of the TLS
certificate, or nothing. Both nonces are fresh, so a recorded handshake proves nothing later. The two proofs
differ in their label, so neither can be sent back as the other. The server proves itself first: a worker
gives a stranger on the scheduler's address nothing to work with but a public id. An unknown launch gets no
answer at all.
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
"""Of the client's first message."""


def _proof(secret: bytes, label: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, label + transcript, "sha256")


def _require(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise ValueError(f"{name} must have {size} bytes, this has {len(value)}")


def named_launch(data: bytes) -> bytes:
    """The launch that a client's first bytes name; empty where they do not go that far.

    Raises:
        ProtocolError: If they are not those of a client.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise ProtocolError("the first bytes are not those of a lightwork worker")
    launch = data[len(MAGIC) : len(MAGIC) + LAUNCH_SIZE]
    return launch if len(launch) == LAUNCH_SIZE else b""


class ClientHandshake:
    """The end that dials.

    Args:
        launch: Public id of the launch, 16 bytes.
        secret: The launch's secret.
        nonce: 32 fresh random bytes.
        binding: What the channel below is bound to; both ends must give the same.

    Attributes:
        launch: As given.
        done: Whether the server has proved itself. The client's own proof is in what `feed` returned.
        rest: Bytes that came after the handshake; empty until `done`.
    """

    def __init__(self, launch: bytes, secret: bytes, nonce: bytes, binding: bytes = b"") -> None:
        _require("launch", launch, LAUNCH_SIZE)
        _require("nonce", nonce, NONCE_SIZE)
        if not secret:
            raise ValueError("the secret is empty")
        self.launch = launch
        self.done: bool = False
        self.rest: bytes = b""
        self._secret = secret
        self._hello = MAGIC + launch + nonce
        self._binding = binding
        self._buffer = b""

    def start(self) -> bytes:
        """The first bytes to send."""
        return self._hello

    def feed(self, data: bytes) -> bytes:
        """Take in bytes, in pieces of any size; return what to send.

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
    """The end that listens.

    Args:
        find_secret: Gives the secret of a launch, None if there is no such launch or it was revoked. Asked
            when the launch is named and again when it is proved, so a launch revoked in between is refused.
        nonce: 32 fresh random bytes.
        binding: What the channel below is bound to; both ends must give the same.

    Attributes:
        launch: The launch that the client named, empty until then. Proved only once `done`.
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
        """Nothing: the client speaks first."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Take in bytes, in pieces of any size; return what to send.

        Raises:
            ProtocolError: If these are not the bytes of a client that knows the secret of a present launch.
                Raised at the first byte that cannot belong to a handshake.
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
            raise ProtocolError("the client does not know the secret of the launch that it names")
        self.done = True
        self.rest, self._buffer = self._buffer[PROOF_SIZE:], b""

    def _secret_of(self, launch: bytes) -> bytes:
        secret = self.find_secret(launch)
        if not secret:
            raise ProtocolError("no present launch has the id that the client names")
        return secret


Handshake = ClientHandshake | ServerHandshake
