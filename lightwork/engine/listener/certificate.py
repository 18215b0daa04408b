"""The certificate of a run. It is made in memory, and only workers that have its fingerprint trust it."""

from __future__ import annotations

import datetime
import os
import secrets
import ssl
import tempfile
from typing import TYPE_CHECKING

import msgspec

from lightwork.errors import ConfigError
from lightwork.link.tls import fingerprint_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["Certificate", "make_certificate", "server_context"]


class Certificate(msgspec.Struct, frozen=True):
    """A self-signed certificate and its key. Anyone who has the key can impersonate the scheduler's address.

    Attributes:
        certificate: In DER.
        key: In PEM, not encrypted.
    """

    certificate: bytes
    key: bytes

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate; a ticket carries it."""
        return fingerprint_of(self.certificate)

    def __repr__(self) -> str:
        return f"Certificate(fingerprint={self.fingerprint.hex()})"


def make_certificate() -> Certificate:
    """Make a new key (P-256) and a certificate for it. Nothing checks the certificate's names and dates.

    Raises:
        ConfigError: The package ``cryptography`` is missing. The message names the extra to install.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ConfigError(
            "host is not a loopback address, so connections to works use TLS; the package cryptography, which makes "
            'the certificate, is missing: pip install "lightwork[tls]", or set host = "127.0.0.1"'
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(_sign(key), pem)


def _sign(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lightwork")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return the TLS context of the listening end.

    `ssl` takes a key from a file only. Only this user can read the file, and it is deleted before this returns. The key
    in it is encrypted with a password that never leaves this process, so any remains on the disk reveal nothing.
    """
    from cryptography.hazmat.primitives import serialization

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no TLS session is resumed
    password = secrets.token_hex(32).encode()
    key = serialization.load_pem_private_key(certificate.key, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    descriptor, path = tempfile.mkstemp(prefix="lightwork-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(ssl.DER_cert_to_PEM_cert(certificate.certificate).encode() + encrypted)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
    return context
