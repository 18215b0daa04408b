"""What goes over the seam: where the scheduler listens, what to launch, what was launched, what became of it."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

import msgspec

from lightwork.build import BuildConfig
from lightwork.compute import CloudCompute

__all__ = ["ABSENT", "Address", "Cause", "ListenerAddress", "Ref", "Report", "Spec", "Standing"]


class Address(msgspec.Struct, frozen=True):
    """An address at which a worker may reach the scheduler. The handshake, not the connect, decides.

    Attributes:
        host: Name or address. One that begins with ``@`` names a Unix socket in Linux's abstract namespace.
        port: Of the host; 0 for a Unix socket.
    """

    host: str
    port: int

    @property
    def from_here(self) -> list[Address]:
        """Of a listener: the routes of a worker that runs on this machine, best first."""
        return [Address(host, self.port) for host in _WILDCARDS.get(self.host, (self.host,))]


_WILDCARDS = {"": ("127.0.0.1",), "0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}
"""Addresses that stand for every one of a machine, and where a listener bound there is found on the machine itself."""


class ListenerAddress(Address, frozen=True):
    """Where the scheduler of this process listens, as `Runtime.routes` is told.

    Attributes:
        accept: Makes the protocol that serves a worker's connection, for a runtime whose tunnels end in this process.
            The runtime calls `connection_made` and so on, with a transport of its own, in the scheduler's event loop;
            that saves the way through the loopback. None where the address must be dialled.
        socket: Name, with its ``@``, of a Unix socket that leads to the listener too, for workers of this machine and
            network namespace, whose calls are a fifth faster over it. Empty where there is none.
    """

    accept: Callable[[], asyncio.Protocol] | None = None
    socket: str = ""

    @property
    def from_here(self) -> list[Address]:
        """See `Address.from_here`: the Unix socket first."""
        return [*([Address(self.socket, 0)] if self.socket else []), *super().from_here]


class Spec(msgspec.Struct, frozen=True):
    """What to bring to life.

    Attributes:
        name: Unique for ever: owner, work and attempt. Safe in file names, labels and host names.
        owner: Id of the scheduler, stamped on whatever is created, in the create call itself.
        entry: ``package.module:function`` that the worker runs, without arguments. It reads `ticket` from
            its standard input, up to the end of the stream.
        ticket: What the worker needs to dial back, its secret included. It goes to standard input and
            nowhere else: not to argv, the environment, labels, files that outlive the launch, or logs.
        env: Variables to set for the worker, above those it inherits. A runtime that knows the addresses of the
            worker's machine adds ``LW_INTERNAL_IP`` and ``LW_PUBLIC_IP``, which become the work's.
        cwd: Folder to start in, where the runtime shares this machine's files; None for the runtime's own.
        lightningignore: Patterns of files that are not sent along with the code, besides those in its folder.
        port: Port that the work's own service binds, where the work names one; None where it takes any.
        build: What must be installed where the worker runs, None for what is there.
        compute: What machine is wanted, None for the runtime's default.
        dial_within: Seconds after which a worker that was never welcomed ends itself.
        orphan_after: Seconds after which a worker that was cut off ends itself.
        max_lifetime: Seconds after which it is ended whatever it does, None for no limit.
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
    """Names something that was launched. It can be written down and used by another process later.

    Attributes:
        runtime: Name of the runtime's profile.
        name: `Spec.name`; this alone identifies.
        hint: What makes finding it faster (a pid and its start time, a container's id): a cache only.
    """

    runtime: str
    name: str
    hint: dict[str, str | int | float] = {}


class Standing(enum.StrEnum):
    """What a runtime knows of something it launched."""

    PENDING = "pending"
    RUNNING = "running"
    EXITED = "exited"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def is_over(self) -> bool:
        """Whether it is known to have ended. `UNKNOWN` is not over."""
        return self in (Standing.EXITED, Standing.ABSENT)


class Cause(enum.StrEnum):
    """Why something ended."""

    EXIT = "exit"
    OOM = "oom"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    LIFETIME = "lifetime"
    START_FAILED = "start_failed"


class Report(msgspec.Struct, frozen=True):
    """A runtime's answer to what became of a `Ref`.

    Attributes:
        standing: `ABSENT` needs a positive answer; a platform that could not be asked is `UNKNOWN`.
        exit_code: The process's exit code, or minus the number of the signal that ended it; None if not known.
        cause: Why it ended, None while it has not or where nobody can tell.
        detail: For people.
    """

    standing: Standing
    exit_code: int | None = None
    cause: Cause | None = None
    detail: str = ""


ABSENT = Report(Standing.ABSENT, detail="not launched here, or released")
"""What became of a `Ref` that a runtime does not know."""
