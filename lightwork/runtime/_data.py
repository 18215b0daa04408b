"""The data that the scheduler and a runtime exchange: addresses, `Spec`, `Ref` and `Report`."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

import msgspec

from lightwork.build import BuildConfig
from lightwork.compute import CloudCompute

__all__ = ["ABSENT", "Address", "Cause", "ListenerAddress", "Ref", "Report", "Spec", "Standing"]


class Address(msgspec.Struct, frozen=True):
    """An address at which a worker may reach the scheduler. It works only if the handshake succeeds, not the connect.

    Attributes:
        host: Host name or IP address. A name that begins with ``@`` is a Unix socket in Linux's abstract namespace.
        port: TCP port; 0 for a Unix socket.
    """

    host: str
    port: int

    @property
    def from_here(self) -> list[Address]:
        """The addresses at which a worker on this machine reaches a listener at this address, best first."""
        return [Address(host, self.port) for host in _WILDCARDS.get(self.host, (self.host,))]


_WILDCARDS = {"": ("127.0.0.1",), "0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}
"""Wildcard addresses, and the loopback addresses at which a listener bound to them is reachable on its own machine."""


class ListenerAddress(Address, frozen=True):
    """Where the scheduler of this process listens. `Runtime.routes` receives it.

    Attributes:
        accept: Return the protocol that serves a worker's connection, for a runtime whose tunnels end in this process.
            The runtime calls `connection_made` and so on with its own transport, in the scheduler's event loop. This
            saves the path through the loopback. None if the address must be dialled.
        socket: Name, with its ``@``, of a Unix socket that leads to the same listener. It is for workers in the same
            machine and network namespace, whose calls are a fifth faster over it. Empty if there is no such socket.
    """

    accept: Callable[[], asyncio.Protocol] | None = None
    socket: str = ""

    @property
    def from_here(self) -> list[Address]:
        """The addresses for workers on this machine, the Unix socket first; see `Address.from_here`."""
        return [*([Address(self.socket, 0)] if self.socket else []), *super().from_here]


class Spec(msgspec.Struct, frozen=True):
    """What to launch.

    Attributes:
        name: Name made from owner, work and attempt. It is never used twice. Safe in file names, labels and host
            names.
        owner: Id of the scheduler. A runtime puts it on everything that it creates, in the create call itself.
        entry: ``package.module:function`` that the worker calls, without arguments. The function reads `ticket` from
            standard input, up to the end of the stream.
        ticket: What the worker needs to dial back, with its secret. It goes to standard input only: never to argv,
            the environment, labels, files that outlive the launch, or logs.
        env: Variables to set for the worker, in addition to the inherited ones. A runtime that has the addresses of
            the worker's machine adds ``LW_INTERNAL_IP`` and ``LW_PUBLIC_IP``, which become the work's addresses.
        cwd: Folder to start in, if the runtime shares the files of this machine; None for the runtime's own folder.
        lightningignore: Patterns of files that are not sent with the code, in addition to those in the code's folder.
        port: Port that the work's own service binds, if the work names one; None if the service takes any port.
        build: What must be installed where the worker runs; None to use what is installed already.
        compute: Requested machine; None for the runtime's default.
        dial_within: Seconds after which a worker ends itself if the scheduler never welcomed it.
        orphan_after: Seconds after which a worker ends itself if it lost its connection.
        max_lifetime: Seconds after which the runtime ends the worker in any case; None for no limit.
    """

    name: str
    owner: str
    entry: str
    ticket: bytes
    env: dict[str, str] = {}
    cwd: str | None = None
    lightningignore: tuple[str, ...] = ()
    port: int | None = None
    build: BuildConfig | None = None
    compute: CloudCompute | None = None
    dial_within: float = 60.0
    orphan_after: float = 60.0
    max_lifetime: float | None = None

    def __repr__(self) -> str:
        ticket = f"<{len(self.ticket)} bytes>"
        return f"Spec(name={self.name!r}, owner={self.owner!r}, entry={self.entry!r}, ticket={ticket})"


class Ref(msgspec.Struct, frozen=True):
    """A reference to a launch. It can be stored and used by another process later.

    Attributes:
        runtime: Name of the runtime's profile.
        name: `Spec.name`. It alone identifies the launch.
        hint: Data that makes the lookup faster (a pid and its start time, a container's id): only a cache.
    """

    runtime: str
    name: str
    hint: dict[str, str | int | float] = {}


class Standing(enum.StrEnum):
    """The state of a launch, as far as the runtime can tell."""

    PENDING = "pending"
    RUNNING = "running"
    EXITED = "exited"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def is_over(self) -> bool:
        """Whether the launch is known to have ended. False for `UNKNOWN`."""
        return self in (Standing.EXITED, Standing.ABSENT)


class Cause(enum.StrEnum):
    """Why a launch ended."""

    EXIT = "exit"
    OOM = "oom"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    LIFETIME = "lifetime"
    START_FAILED = "start_failed"


class Report(msgspec.Struct, frozen=True):
    """What became of a launch, as the runtime reports it.

    Attributes:
        standing: State of the launch. `ABSENT` needs a positive answer of the platform; use `UNKNOWN` if the platform
            did not answer.
        exit_code: Exit code of the process, or minus the number of the signal that ended it; None if not known.
        cause: Why the launch ended; None while it has not ended, or if the cause is not known.
        detail: Explanation for people.
    """

    standing: Standing
    exit_code: int | None = None
    cause: Cause | None = None
    detail: str = ""


ABSENT = Report(Standing.ABSENT, detail="not launched here, or released")
"""The report for a `Ref` that the runtime does not have."""
