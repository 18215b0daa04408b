"""The keys of a profile of kind ``cloud``."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import msgspec

from lightwork_runtimes.ssh import FarOptions

__all__ = ["CloudOptions"]

_SOURCE = re.compile(r"(?:env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_SECRETS = ("key", "secret", "token", "password", "credentials")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_FOLDER = re.compile(r"[A-Za-z0-9._/-]+")
_EC2_CREDENTIALS = {"key": "env:AWS_ACCESS_KEY_ID", "secret": "env:AWS_SECRET_ACCESS_KEY"}
_SECONDS = (
    "create_timeout",
    "boot_timeout",
    "prepare_timeout",
    "api_timeout",
    "abandoned_after",
)


class CloudOptions(FarOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a profile of kind ``cloud``. They name the sources of credentials, never their values.

    Attributes:
        provider: Id of a driver of apache-libcloud, such as ``ec2``; or ``package.module:Class`` of a custom driver.
        image: Id of the image that machines start from.
        username: User of the image to log in as.
        sizes: The cloud's id of a size for each name that a `CloudCompute` may have.
        credentials: Source of each of the driver's secrets: ``env:NAME`` or ``file:PATH``. Empty: for ``ec2``, the
            usual two variables.
        region: Region of the driver, None for its default.
        driver: Additional arguments of the driver.
        create: Additional arguments of its ``create_node``.
        interruptible: Additional arguments for a machine that the cloud may take away. Empty: such machines are not
            available, except with ``ec2``, which orders a spot machine.
        key_name: A key pair of the cloud that may log in too.
        security_groups: Firewalls, by name, or by id if there is a `subnet`.
        subnet: Id of the network.
        public_address: Request a public address, if the network does not assign one.
        root_device: The image's root device, such as ``/dev/sda1``; needed for `CloudCompute.disk_size`.
        address: Which of a machine's addresses the scheduler connects to.
        port: Port of the machine's SSH server.
        service_port: Port of a work's own service if the work names none; its `url` has this port and that address.
        client_keys: Files of private keys. Empty: a key that is created once and kept in `state`.
        host_keys: How a new machine's host key becomes known: ``console`` reads it from the machine's console over
            the cloud's API, ``known`` takes it from `known_hosts`, ``first-use`` trusts the first answer.
        known_hosts: File with host keys for ``known``.
        setup: Shell commands that root runs on a new machine before it is used.
        max_lifetime: Seconds after which a machine shuts itself down, whatever runs on it; None for no limit.
        abandoned_after: Seconds without a worker and without a scheduler after which a machine shuts itself down.
        create_timeout: Seconds that the cloud may take to bring a machine up.
        boot_timeout: Seconds from then until the login succeeds.
        prepare_timeout: Seconds that preparing the machine for works may take.
        api_timeout: Seconds that one answer of the cloud may take.
        state: lightwork's folder on this machine, None for ``lightwork/cloud`` in the user's folder for state.
        python, folder, connect_timeout, keepalive, direct, ports, prepare, wheels, code, exclude: As in a profile of
            kind ``ssh``. With `direct` the scheduler must listen on, or advertise, an address that machines reach.
    """

    provider: str
    image: str
    username: str
    sizes: dict[str, str]
    credentials: dict[str, str] = {}
    region: str | None = None
    driver: dict[str, Any] = {}
    create: dict[str, Any] = {}
    interruptible: dict[str, Any] = {}
    key_name: str | None = None
    security_groups: list[str] = []
    subnet: str | None = None
    public_address: bool = False
    root_device: str | None = None
    address: Literal["public", "private"] = "public"
    port: int = 22
    service_port: int = 8000
    client_keys: list[str] = []
    host_keys: Literal["console", "known", "first-use"] = "console"
    known_hosts: str | None = None
    setup: list[str] = []
    max_lifetime: float | None = None
    abandoned_after: float = 300.0
    create_timeout: float = 180.0
    boot_timeout: float = 300.0
    prepare_timeout: float = 900.0
    api_timeout: float = 30.0
    state: str | None = None

    def __post_init__(self) -> None:
        FarOptions.__post_init__(self)
        for key in ("provider", "image"):
            if not getattr(self, key):
                raise ValueError(f"{key} must not be empty")
        if not _USER.fullmatch(self.username):
            raise ValueError(f"username must be the name of a user of the image, got {self.username!r}")
        if not _FOLDER.fullmatch(self.folder):
            raise ValueError(f"folder must be made of letters, digits and ._-/, got {self.folder!r}")
        if not self.sizes or not all(self.sizes.values()):
            raise ValueError("sizes must have at least one entry, as in sizes = { default = 't3.medium' }")
        for key in _SECONDS:
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} must be more than 0 seconds, got {getattr(self, key)!r}")
        if self.max_lifetime is not None and not self.max_lifetime > 0:
            raise ValueError(f"max_lifetime must be more than 0 seconds, got {self.max_lifetime!r}")
        for port in (self.port, self.service_port):
            if not 0 < port < 65536:
                raise ValueError(f"port and service_port must be between 1 and 65535, got {port}")
        if (self.host_keys == "known") != (self.known_hosts is not None):
            raise ValueError("known_hosts is the file for host_keys = 'known': set both, or neither")
        self._check_secrets()
        if not self.credentials and self.provider == "ec2":
            msgspec.structs.force_setattr(self, "credentials", dict(_EC2_CREDENTIALS))
        if not self.interruptible and self.provider == "ec2":
            msgspec.structs.force_setattr(self, "interruptible", {"ex_spot": True})

    def _check_secrets(self) -> None:
        """Check the sources of secrets. A wrong source may be the secret itself, so no message has it."""
        for key, source in self.credentials.items():
            if not _SOURCE.fullmatch(source):
                raise ValueError(
                    f"credentials.{key} must name the value's source, 'env:NAME' or 'file:PATH', not the value itself"
                )
        for key in _SECRETS:
            if key in self.driver:
                raise ValueError(f"driver.{key}: name its source in credentials.{key} instead, as 'env:NAME'")

    @property
    def state_folder(self) -> str:
        """The absolute path of lightwork's folder on this machine."""
        if self.state is not None:
            return os.path.abspath(os.path.expanduser(self.state))
        home = os.environ.get("XDG_STATE_HOME", "")
        parent = home if os.path.isabs(home) else os.path.expanduser("~/.local/state")
        return f"{parent}/lightwork/cloud"
