"""Checks of what the runtime `docker` needs. They change nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from lightwork.errors import PlatformError
from lightwork.runtime import Finding, Health
from lightwork_runtimes.docker._address import find_engine
from lightwork_runtimes.docker._engine import DockerEngine, require_client
from lightwork_runtimes.docker._options import DockerOptions

__all__ = ["look"]

_INSTALL = 'pip install "lightwork[docker]"'


async def look(options: DockerOptions) -> Sequence[Finding]:
    """Check the client library, the engine, and the TLS library for the link to containers."""
    try:
        require_client()
    except PlatformError as error:
        return [Finding("client library", Health.PROBLEM, str(error), _INSTALL)]
    return [Finding("client library", Health.OK, "aiodocker"), await _engine(options), _tls()]


async def _engine(options: DockerOptions) -> Finding:
    try:
        address = find_engine(options)
        engine = DockerEngine(address)
        await engine.open()
        await engine.close()
    except PlatformError as error:
        fix = "start it: sudo systemctl start docker, or Docker Desktop; or set `host` of the profile"
        return Finding("engine", Health.PROBLEM, str(error), fix)
    return Finding("engine", Health.OK, f"answers at {address}")


def _tls() -> Finding:
    if importlib.util.find_spec("cryptography") is None:
        detail = "cryptography is not installed: containers are off loopback, where the link uses TLS"
        return Finding("link", Health.PROBLEM, detail, _INSTALL)
    return Finding("link", Health.OK, "TLS can be used")
