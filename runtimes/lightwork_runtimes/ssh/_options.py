"""The keys of a profile of kind ``ssh``."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

__all__ = ["FarOptions", "HostOptions", "SshOptions", "Target", "parse_host"]

_HOST = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<v6>[\w:.%]+)\]|(?P<host>[^@:\s\[\]]+))(?::(?P<port>\d+))?")


class HostOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one machine that differ from the profile's.

    Attributes:
        host: ``user@host:port``. User and port are optional; the host may be an alias of the SSH configuration.
        slots: Works that run there at once.
        python: The interpreter there.
        folder: lightwork's folder there.
    """

    host: str
    slots: int | None = None
    python: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        parse_host(self.host)
        _check_slots(self.slots)


class FarOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of every profile whose machines are reached by SSH.

    Attributes:
        python: The remote interpreter. It runs lightwork's helper, and the works if `prepare` is false.
        folder: lightwork's folder on the remote machine, absolute or relative to the home folder.
        connect_timeout: Seconds that a connection may take, up to the first answer of the helper.
        keepalive: Seconds of silence after which the server is sent a keepalive. Three unanswered keepalives end
            the connection. The remote side does the same.
        direct: Works connect to the scheduler's own address instead of a port forwarded through SSH.
        ports: Ports on the remote loopback, one of which is forwarded. Empty: eight ports computed from the
            profile and this machine.
        prepare: Create a virtual environment with lightwork in it. False: `python` has all that works need.
        wheels: Whether packages are downloaded here and sent: ``auto`` if the remote machine cannot install them.
        code: Local folders with the app's code. None: the working folder and the folders of ``sys.path`` without
            installed packages.
        exclude: Patterns of files in these folders that are not sent, in addition to ``.lightningignore``.
    """

    python: str = "python3"
    folder: str = ".cache/lightwork/ssh"
    connect_timeout: float = 20.0
    keepalive: float = 5.0
    direct: bool = False
    ports: list[int] = []
    prepare: bool = True
    wheels: Literal["auto", "always", "never"] = "auto"
    code: list[str] | None = None
    exclude: list[str] = []

    def __post_init__(self) -> None:
        for key in ("connect_timeout", "keepalive"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key} must be more than 0 seconds, got {getattr(self, key)!r}")
        for port in self.ports:
            if not 0 < port < 65536:
                raise ValueError(f"ports must be between 1 and 65535, got {port}")
        if not self.python or not self.folder:
            raise ValueError("python and folder must not be empty; leave them out instead")


class SshOptions(FarOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a profile of kind ``ssh``.

    Attributes:
        hosts: The machines, each ``user@host:port`` or a table of `HostOptions`.
        slots: Works that run on one machine at once. None: as many as it has processors.
        username: User to log in as, if the host names none. None: the user from `config`, otherwise the local user.
        client_keys: Files of private keys. Empty: the agent's keys, those in `config` and the usual files.
        known_hosts: File with the hosts' keys. None: the user's file. Host keys are always checked.
        config: OpenSSH's configuration file. None: the user's file; an empty text: no file.
        launch_within: Seconds that a launch may take in addition to `launch_timeout`, to wait for a slot and to create
            an environment. Increase it if works queue for slots.
        python, folder, connect_timeout, keepalive, direct, ports, prepare, wheels, code, exclude: As in `FarOptions`.
    """

    hosts: list[str | HostOptions]
    slots: int | None = None
    username: str | None = None
    client_keys: list[str] = []
    known_hosts: str | None = None
    config: str | None = None
    launch_within: float = 3600.0

    def __post_init__(self) -> None:
        FarOptions.__post_init__(self)
        if not self.hosts:
            raise ValueError("hosts is empty; set at least one machine, as in hosts = ['me@10.0.0.4']")
        for host in self.hosts:
            if isinstance(host, str):
                parse_host(host)
        _check_slots(self.slots)
        if not self.launch_within > 0:
            raise ValueError(f"launch_within must be more than 0 seconds, got {self.launch_within!r}")
        names = [target.label for target in self.targets()]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"hosts names {double!r} twice; give it more slots instead")

    def targets(self) -> list[Target]:
        """Return the machines, each with the profile's settings for it."""
        tables = [HostOptions(host=host) if isinstance(host, str) else host for host in self.hosts]
        return [
            Target(
                table.host,
                *parse_host(table.host),
                slots=table.slots or self.slots,
                python=table.python or self.python,
                folder=(table.folder or self.folder).removeprefix("~/"),
            )
            for table in tables
        ]


class Target(msgspec.Struct, frozen=True):
    """One machine of a profile. `label` is the host as configured; a `Ref` stores it."""

    label: str
    user: str | None
    host: str
    port: int | None
    slots: int | None
    python: str
    folder: str


def parse_host(text: str) -> tuple[str | None, str, int | None]:
    """Split ``user@host:port`` into user, host and port.

    Raises:
        ValueError: The text has another form.
    """
    found = _HOST.fullmatch(text)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise ValueError(f"hosts: {text!r} is not of the form user@host:port, such as 'me@10.0.0.4:22'")
    return found["user"], found["v6"] or found["host"], port


def _check_slots(slots: int | None) -> None:
    if slots is not None and slots < 1:
        raise ValueError(f"slots must be 1 or more, got {slots}")
