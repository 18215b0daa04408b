"""The seam between the scheduler and the places where works run.

A runtime brings a command to life somewhere, says what became of it, and ends it. It knows nothing of
works, calls or state: the worker that it starts dials back to the scheduler by itself, and the link says
whether it lives. The runtime is asked only to explain a death, to end what must end, and to give back
what it made.

To write one, implement `Runtime` and register the class under the entry point group ``lightwork.runtimes``.
"""

from __future__ import annotations

import asyncio
import enum
import importlib
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import msgspec

from lightwork.build import BuildConfig
from lightwork.compute import CloudCompute
from lightwork.errors import PlatformError

__all__ = [
    "Cause",
    "Conflict",
    "Diagnosable",
    "Door",
    "Finding",
    "Health",
    "Holding",
    "Inventory",
    "NoCapacity",
    "Ref",
    "Rejected",
    "Report",
    "Route",
    "Runtime",
    "RuntimeFailure",
    "Spec",
    "Standing",
    "TimedOut",
    "Unreachable",
    "outcome_of",
    "resolve_entry",
    "resolve_serve",
]


class RuntimeFailure(PlatformError):
    """A runtime could not do what it was asked; the children say what that means for the caller."""


class Rejected(RuntimeFailure):
    """The request can never succeed as it stands: an unknown image, an option out of range."""


class NoCapacity(RuntimeFailure):
    """Nothing was created; the same request may succeed later."""


class Conflict(RuntimeFailure):
    """Something of that name exists already, made from another `Spec`."""


class Unreachable(RuntimeFailure):
    """The platform did not answer: the outcome is unknown, so ask (`Runtime.find`) before trying again."""


class TimedOut(RuntimeFailure):
    """It took longer than it may; what was made until then is found by `Runtime.find` and can be released."""


class Route(msgspec.Struct, frozen=True):
    """An address at which a worker may reach the scheduler. The handshake, not the connect, decides.

    Attributes:
        host: Name or address. One that begins with ``@`` names a Unix socket in Linux's abstract namespace.
        port: Of the host; 0 for a Unix socket.
    """

    host: str
    port: int

    @property
    def from_here(self) -> list[Route]:
        """Of a listener: the routes of a worker that runs on this machine, best first."""
        return [Route(host, self.port) for host in _WILDCARDS.get(self.host, (self.host,))]


_WILDCARDS = {"": ("127.0.0.1",), "0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}
"""Addresses that stand for every one of a machine, and where a listener bound there is found on the machine itself."""


class Door(Route, frozen=True):
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
    def from_here(self) -> list[Route]:
        """See `Route.from_here`: the Unix socket first."""
        return [*([Route(self.socket, 0)] if self.socket else []), *super().from_here]


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


@runtime_checkable
class Runtime(Protocol):
    """What a place to run works implements. Every method may be called concurrently with every other.

    Constructed as ``cls(name, options)``: the profile's name and an instance of `Options`. Entering the
    context acquires clients and helpers; leaving it releases those and leaves the workers alone.

    A runtime that takes long to accept a launch, since machines have to be made first, says so in an attribute
    ``launch_within``: seconds that are added to what a worker has until it is ready. One whose leftovers cost
    something implements `Inventory` too.

    Attributes:
        Options: Struct of the profile's keys, validated when the configuration is read.
        is_remote: Whether works run on other machines than the scheduler's: they then get
            `cloud_build_config`, else `local_build_config`.
        name: Name of the profile.
    """

    Options: ClassVar[type[msgspec.Struct]]
    is_remote: ClassVar[bool]
    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def routes(self, listener: Route) -> Sequence[Route]:
        """Addresses at which workers launched here can reach the listener, best first.

        The scheduler gives a `Door`, so that a runtime which carries connections itself need not dial the listener.
        """
        ...

    async def launch(self, spec: Spec) -> Ref:
        """Bring the spec to life; returns when the platform has accepted it.

        Launching the same spec again gives the same ref and starts nothing. After an error or a
        cancellation, whatever was made is found by `find` and can be released.

        Raises:
            Rejected, NoCapacity, Conflict, Unreachable: As their classes say.
        """
        ...

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """What became of each, in order. Never raises for a single one: that one is `Standing.UNKNOWN`."""
        ...

    async def wait(self, ref: Ref) -> Report:
        """Return once it is over (`Standing.is_over`). Cancelling leaves everything as it was."""
        ...

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the whole process tree: ask (SIGTERM), and force after `grace` seconds. 0 forces at once.

        Valid while it is pending; something absent is a success; may be repeated, and a repetition with
        a shorter grace shortens it. Returns when it is over.
        """
        ...

    def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Its output, standard and error in one stream, as ``(offset, bytes)`` from byte `start` on.

        With `follow` it goes on until the worker is over and everything has been given. The output stays
        readable after the exit, until `release`. A ref that is not known has no output.
        """
        ...

    async def release(self, ref: Ref) -> None:
        """Give back everything that the launch made; ends it first if it still runs. Idempotent.

        Raises:
            ExceptionGroup: Of what could not be given back, after everything was tried.
        """
        ...

    async def find(self, owner: str) -> Sequence[Ref]:
        """Every ref of this owner that was not released, in every standing; all of them, or an error."""
        ...


class Health(enum.StrEnum):
    """How something that a runtime needs is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        what: What it is, in a word or two: ``engine``, ``client library``.
        health: `Health.PROBLEM` where no work can be started without it.
        detail: What was found.
        fix: What to do about it, empty where nothing is to be done.
    """

    what: str
    health: Health
    detail: str
    fix: str = ""


@runtime_checkable
class Diagnosable(Protocol):
    """What a runtime may offer besides `Runtime`: to say whether works could be started here, and what is missing."""

    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        """Look at everything that a launch would need, and change nothing. The runtime is not entered for it.

        Bounded in time by whoever asks: cancelling it leaves nothing behind. What is wrong is a finding,
        never an error.

        Args:
            name: Name of the profile.
            options: Its options, an instance of `Runtime.Options`; None to look only at what every profile needs.
        """
        ...


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a runtime made for a launch, and that costs something until it is given back.

    Attributes:
        ref: The launch; `Runtime.release` gives the holding back.
        owner: Id of the scheduler that it was made for.
        work: Name of the work.
        place: The account that it is in: several profiles may be of one.
        id: The platform's, unique in `place`.
        size: The platform's word for the kind of thing.
        state: The platform's word for how it is.
        age: Seconds since it was made, None where the platform does not tell.
        is_wanted: Whether its scheduler lives; None where that cannot be told from here.
    """

    ref: Ref
    owner: str
    work: str
    place: str
    id: str
    size: str
    state: str
    age: float | None
    is_wanted: bool | None


@runtime_checkable
class Inventory(Protocol):
    """What a runtime implements besides `Runtime` where what it makes costs something and may be left behind."""

    async def holdings(self) -> Sequence[Holding]:
        """Everything that it has, of whatever owner; all of it, or an error."""
        ...


def resolve_entry(entry: str) -> Callable[[], Any]:
    """The function that `Spec.entry` names."""
    module, _, function = entry.partition(":")
    found: Callable[[], Any] = getattr(importlib.import_module(module), function)
    return found


def resolve_serve(entry: str) -> Callable[[bytes], Awaitable[int]]:
    """What runs `Spec.entry` as a task: the coroutine function ``serve`` of its module, to be called with the ticket.

    Raises:
        Rejected: There is none.
    """
    module = entry.partition(":")[0]
    try:
        serve: Callable[[bytes], Awaitable[int]] = importlib.import_module(module).serve
    except (ImportError, AttributeError) as error:
        raise Rejected(f"entry {entry!r}: its module needs a coroutine function `serve(ticket)` ({error})") from error
    return serve


async def outcome_of(serve: Callable[[bytes], Awaitable[int]], ticket: bytes) -> tuple[int, str]:
    """The exit code and what there is to say about it, as if `serve` had its process for itself."""
    try:
        code = await serve(ticket)
    except SystemExit as leaving:  # it would end the event loop, and with it everybody else
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:
        # The launch's report carries it to whoever waits; other launches go on.
        traceback.print_exception(error, file=sys.stderr)
        return 1, "".join(traceback.format_exception_only(error)).strip()
    return code, f"exit code {code}"
