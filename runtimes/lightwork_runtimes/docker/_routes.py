"""Addresses between this machine and its containers, in both directions."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from lightwork.runtime import Address, Rejected
from lightwork_runtimes.docker._engine import DockerEngine, EngineError
from lightwork_runtimes.docker._options import DockerOptions

__all__ = ["find_routes", "publish_address"]

_INSIDE = "host.docker.internal"
_WILDCARDS = ("", "0.0.0.0", "::")
_LOOPBACK = ("127.", "localhost", "::1")


async def find_routes(engine: DockerEngine, options: DockerOptions, listener: Address) -> Sequence[Address]:
    """Return the addresses of the listener as a container sees them, best first.

    Raises:
        Rejected: The listener is on the loopback only, which no container reaches; the message says what to set.
            Or the network does not exist.
    """
    here = engine.address.is_here
    shares_network = options.network == "host" and here and not engine.is_desktop
    if options.address is not None:
        return [Address(options.address, listener.port)]
    if shares_network:
        return [Address("127.0.0.1" if listener.host in _WILDCARDS else listener.host, listener.port)]
    if listener.host.startswith(_LOOPBACK):
        raise Rejected(await _loopback_only(engine, options, listener))
    if listener.host not in _WILDCARDS:
        return [Address(listener.host, listener.port)]
    if not here:
        return [Address(_own_address(engine), listener.port)]
    gateway = None if engine.is_desktop else await _gateway(engine, options)
    hosts = [gateway, _INSIDE] if gateway else [_INSIDE]
    return [Address(host, listener.port) for host in hosts]


def publish_address(engine: DockerEngine, options: DockerOptions) -> str | None:
    """Return the address at which to publish the ports of containers, None if they are not published."""
    if options.network == "host":
        return None
    reachable = engine.address.is_here and not engine.is_desktop
    if options.publish or (options.publish is None and not reachable):
        return "127.0.0.1" if engine.address.is_here else engine.address.host
    return None


async def _gateway(engine: DockerEngine, options: DockerOptions) -> str | None:
    try:
        return await engine.gateway(options.network)
    except EngineError as error:
        if error.status == 404:
            raise Rejected(f"`network`: the engine {engine.address} has no network {options.network!r}") from error
        raise


async def _loopback_only(engine: DockerEngine, options: DockerOptions, listener: Address) -> str:
    here = f"the scheduler listens on {listener.host}, which no container reaches"
    text = f"{here}: set host = '0.0.0.0' in its configuration"
    if engine.address.is_here and not engine.is_desktop and (gateway := await _gateway(engine, options)):
        text += f", or host = {gateway!r} to accept containers only"
    return text


def _own_address(engine: DockerEngine) -> str:
    """Return this machine's address on the way to the engine. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((engine.address.host or "", engine.address.port))
        found: str = probe.getsockname()[0]
    return found
