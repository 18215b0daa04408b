"""Login: the settings that it uses, and the meaning of its errors."""

from __future__ import annotations

import os
import socket
from typing import Any

import asyncssh

from lightwork.runtime import Rejected, RuntimeFailure, Unreachable
from lightwork_runtimes.ssh._options import SshOptions, Target

__all__ = ["explain", "log_in"]

_KEEPALIVES = 3
"""How many keepalives may stay unanswered."""


async def log_in(where: str, target: Target, options: SshOptions) -> asyncssh.SSHClientConnection:
    """Log in. The profile's settings come first, those of the user's configuration second."""
    given: dict[str, Any] = {
        "host": target.host,
        "keepalive_interval": options.keepalive,
        "keepalive_count_max": _KEEPALIVES,
    }
    if options.config is not None:
        given["config"] = _home(options.config) if options.config else None
    if target.port is not None:
        given["port"] = target.port
    user = target.user or options.username
    if user is not None:
        given["username"] = user
    if options.known_hosts is not None:
        given["known_hosts"] = _home(options.known_hosts)
    if options.client_keys:
        given["client_keys"] = [_home(key) for key in options.client_keys]
    try:
        settings = await asyncssh.SSHClientConnectionOptions.construct(**given)
    except (OSError, ValueError, asyncssh.Error) as error:
        raise Rejected(f"{where}: invalid settings (client_keys, known_hosts, config): {error}") from error
    if settings.known_hosts is None:
        raise Rejected(f"{where}: the configuration turns off the host key check (UserKnownHostsFile none)")
    if settings.config.get("Ciphers") is None:
        given["encryption_algs"] = "^aes128-gcm@openssh.com"  # faster than the default
    return await asyncssh.connect(**given)


def _home(path: str) -> str:
    return os.path.expanduser(path)


def explain(where: str, target: Target, error: Exception) -> RuntimeFailure:
    """Return the failure for a connection's error, with what to do."""
    match error:
        case asyncssh.HostKeyNotVerifiable():
            host = target.host if target.port is None else f"[{target.host}]:{target.port}"
            return Rejected(
                f"{where}: the host key is unknown or has changed ({error.reason}). If the machine was reinstalled: "
                f"`ssh-keygen -R '{host}'`, log in once with ssh and compare the key. Otherwise somebody may be "
                "intercepting the connection"
            )
        case asyncssh.PermissionDenied():
            return Rejected(
                f"{where}: the login was refused ({error.reason}); check `username`, and that authorized_keys on the "
                "machine has a key of the agent or of `client_keys`"
            )
        case asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return Rejected(f"{where}: no common algorithm: {error.reason}")
        case asyncssh.ChannelOpenError():
            return Rejected(f"{where}: the server refused to open a session: {error.reason}")
        case asyncssh.Error():
            return Unreachable(f"{where}: the connection was lost: {error.reason}")
        case socket.gaierror():
            return Unreachable(f"{where}: the name {target.host!r} cannot be resolved: {error.strerror}")
        case OSError():
            why = os.strerror(error.errno) if error.errno else str(error)
            return Unreachable(f"{where}: cannot be reached: {why}")
    return Unreachable(f"{where}: {error}")
