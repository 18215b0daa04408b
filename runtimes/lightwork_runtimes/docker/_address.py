"""The engine's address, from the profile, the environment and Docker's contexts, as Docker's command line finds it."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lightwork.errors import PlatformError
from lightwork.runtime import is_loopback
from lightwork_runtimes.docker._options import DockerOptions

__all__ = ["EngineAddress", "find_engine"]

_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "~/.docker/run/docker.sock")


class EngineAddress(msgspec.Struct, frozen=True):
    """The address of an engine.

    Attributes:
        url: ``unix:///path`` or ``tcp://host:port``.
        tls: Folder with the certificates of TLS, None for a plain connection.
        verify: Whether the engine's certificate is checked.
        source: The key, variable or context that the address comes from.
    """

    url: str
    tls: str | None = None
    verify: bool = True
    source: str = ""

    @property
    def socket(self) -> str | None:
        """Path of the unix socket, None for another kind of address."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    @property
    def host(self) -> str | None:
        """Name or address of the engine's machine, None for a unix socket."""
        return None if self.socket is not None else urlsplit(self.url).hostname

    @property
    def port(self) -> int:
        """Port of the engine."""
        return urlsplit(self.url).port or (2376 if self.tls else 2375)

    @property
    def is_here(self) -> bool:
        """Whether the engine is on this machine, judged by its address alone."""
        return self.host is None or is_loopback(self.host)

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context for the connection, None for a plain connection.

        Raises:
            PlatformError: The certificates cannot be read.
        """
        if self.tls is None:
            return None
        folder = Path(self.tls)
        try:
            context = ssl.create_default_context(cafile=str(folder / "ca.pem") if self.verify else None)
            if not self.verify:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if (folder / "cert.pem").exists():
                context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
        except (OSError, ssl.SSLError) as error:
            raise PlatformError(f"the certificates of the Docker engine in {folder} cannot be read: {error}") from error
        return context

    def __str__(self) -> str:
        return f"{self.url} ({self.source})" if self.source else self.url


def find_engine(options: DockerOptions) -> EngineAddress:
    """Return the address of the profile's engine.

    Raises:
        PlatformError: The context does not exist, or its kind of address is not supported.
    """
    if options.host is not None:
        return _checked(EngineAddress(options.host, options.tls or _tls_variable(), source="`host` of the profile"))
    if options.context is not None:
        return _with_tls(_context(options.context, "`context` of the profile"), options)
    if host := os.environ.get("DOCKER_HOST"):
        return _checked(EngineAddress(host, options.tls or _tls_variable(), source="DOCKER_HOST"))
    name = os.environ.get("DOCKER_CONTEXT", "")
    source = "DOCKER_CONTEXT"
    if not name:
        name, source = str(_read_json(_folder() / "config.json").get("currentContext", "")), "docker context use"
    if name and name != "default":
        return _with_tls(_context(name, source), options)
    paths = [os.path.expanduser(path) for path in _SOCKETS]
    return EngineAddress(
        "unix://" + next((path for path in paths if os.path.exists(path)), paths[0]), source="the usual socket"
    )


def _checked(address: EngineAddress) -> EngineAddress:
    if address.url.startswith(("unix://", "tcp://", "http://", "https://")):
        return address
    raise PlatformError(
        f"the Docker engine {address} cannot be used: the address must be unix:///path or tcp://host:port. For a "
        "machine that is reached by ssh, use the runtime `ssh`, or forward the engine's socket"
    )


def _with_tls(address: EngineAddress, options: DockerOptions) -> EngineAddress:
    return msgspec.structs.replace(address, tls=options.tls) if options.tls else address


def _tls_variable() -> str | None:
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    return os.environ.get("DOCKER_CERT_PATH") or str(_folder())


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))


def _context(name: str, source: str) -> EngineAddress:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _folder() / "contexts" / "meta" / digest / "meta.json"
    endpoint = _read_json(meta).get("Endpoints", {}).get("docker", {})
    if "Host" not in endpoint:
        raise PlatformError(
            f"Docker context {name!r} not found (from {source}): `docker context ls` lists the existing contexts"
        )
    tls = _folder() / "contexts" / "tls" / digest / "docker"
    verify = not endpoint.get("SkipTLSVerify", False)
    found = EngineAddress(
        endpoint["Host"], str(tls) if tls.exists() else None, verify, f"the context {name!r} of {source}"
    )
    return _checked(found)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PlatformError(f"Docker's configuration file {path} cannot be read: {error}") from error
    return content
