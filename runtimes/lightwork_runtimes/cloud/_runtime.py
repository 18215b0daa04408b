"""The runtime `cloud`: each work on a separate machine, created for it and deleted when it is released."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from lightwork.errors import ConfigError
from lightwork.runtime import (
    ABSENT,
    Address,
    Cause,
    Conflict,
    Finding,
    Holding,
    NoCapacity,
    Ref,
    Rejected,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
)
from lightwork_runtimes.cloud import _diagnose
from lightwork_runtimes.cloud._options import CloudOptions

if TYPE_CHECKING:
    from lightwork_runtimes.cloud._account import Account
    from lightwork_runtimes.cloud._landing import Ways
    from lightwork_runtimes.cloud._launch import Launch
    from lightwork_runtimes.cloud._lease import Leases
    from lightwork_runtimes.cloud._providers import Order
    from lightwork_runtimes.cloud._register import Register

__all__ = ["CloudRuntime"]

_LOOPBACK = ("localhost", "::1", "127.")
_WILDCARD = ("", "0.0.0.0", "::")

_log = logging.getLogger("lightwork.runtimes.cloud")


class CloudRuntime:
    """Runs each work on a machine that apache-libcloud creates and that is reached as in the runtime `ssh`.

    A launch orders a machine, waits until it runs and allows the login, and starts the worker there. The order itself
    carries owner and name of the launch, so the machine is found again even if this process has died. A release
    deletes the machine. Leaving the runtime leaves machines alone.

    A machine shuts itself down after `CloudOptions.abandoned_after` without a worker and without a scheduler, and
    after `CloudOptions.max_lifetime`. Mounts, `CloudCompute.shm_size` and `CloudCompute.colocation_group_id`
    are refused.

    Args:
        name: Name of the profile.
        options: Keys of the profile.

    Raises:
        ConfigError: apache-libcloud or asyncssh is not installed.
    """

    Options: ClassVar[type[msgspec.Struct]] = CloudOptions
    is_remote: ClassVar[bool] = True

    def __init__(self, name: str, options: CloudOptions) -> None:
        for module, package in (("libcloud", "apache-libcloud"), ("asyncssh", "asyncssh")):
            if importlib.util.find_spec(module) is None:
                raise ConfigError(f"the runtime 'cloud' (profile {name!r}) needs {package}: install lightwork[cloud]")
        self.name = name
        self.options = options
        self._where = f"runtimes.{name}"
        self._endings: dict[str, asyncio.Future[None]] = {}
        self._tasks: anyio.abc.TaskGroup | None = None
        self._account: Account
        self._ways: Ways
        self._leases: Leases
        self._register: Register
        self._public_keys: list[str] = []
        self._parts: Any = None

    @property
    def launch_within(self) -> float:
        """Seconds that a launch may take in addition to `launch_timeout`."""
        options = self.options
        return options.create_timeout + options.boot_timeout + options.prepare_timeout

    async def __aenter__(self) -> Self:
        # Imported late and in a thread: the client libraries take half a second to load.
        self._parts = parts = await anyio.to_thread.run_sync(_load)
        keys, self._public_keys = await anyio.to_thread.run_sync(parts.hostkeys.login_keys, self._where, self.options)
        self._leases = parts.lease.Leases(self.options)
        self._account = parts.account.Account(self._where, self.options)
        self._tasks = await anyio.create_task_group().__aenter__()
        ports = self.options.ports or parts.ports(self.name)
        self._ways = parts.landing.Ways(self.name, self.options, self._account, keys, ports, self._tasks)
        self._register = parts.register.Register(self._ways, self._leases)
        try:
            await self._account.open(self._tasks)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        with anyio.CancelScope(shield=True):
            # Wait for deletions, and for orders, so that no answer is lost.
            await asyncio.gather(*self._endings.values(), return_exceptions=True)
            await asyncio.gather(*(launch.leave() for launch in self._register.launches.values()))
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            await self._account.aclose()
        self._leases.drop()
        self._register.launches.clear()

    @classmethod
    async def diagnose(cls, name: str, options: CloudOptions | None) -> Sequence[Finding]:
        """Check what is missing here, and the login to the cloud; see `lightwork.runtime.Diagnosable`."""
        return await _diagnose.look(name, options)

    # --- routes ---------------------------------------------------------------------------------

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the ports of a machine's loopback, one of which is forwarded; with `CloudOptions.direct` the listener.

        Raises:
            Rejected: `direct` is set, and the scheduler has no address that a machine could connect to.
        """
        self._check_entered()
        if self.options.direct:
            if listener.host in _WILDCARD or listener.host.startswith(_LOOPBACK):
                raise Rejected(
                    f"{self._where}: direct = true, but no machine of a cloud reaches {listener.host!r}; set "
                    "`advertise` to an address of this machine that they reach"
                )
            return [listener]
        if self._ways.listener not in (None, listener):
            raise RuntimeFailure(
                f"{self._where}: already in use by another scheduler; create a separate runtime for each app"
            )
        self._ways.listener = listener
        # Launches of another scheduler that were queried before this call.
        landings = [launch.landing for launch in self._register.launches.values() if launch.landing is not None]
        await asyncio.gather(*(landing.ssh.routes(listener) for landing in landings))
        return [Address("127.0.0.1", port) for port in self.options.ports or self._parts.ports(self.name)]

    # --- launching ------------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Create a machine for the spec and start its worker there; see `lightwork.runtime.Runtime.launch`.

        Returns when the worker has started, or when the launch was stopped meanwhile.

        Raises:
            Rejected: Also for a size that is not in the profile's table, credentials that the cloud rejects, and a
                machine that could not be prepared.
            NoCapacity: A quota is used up, or the cloud has no such machine now. The message has the cloud's text.
            TimedOut: A step took longer than the profile allows.
        """
        self._check_entered()
        digest = hashlib.sha256(msgspec.msgpack.encode(spec, order="deterministic")).hexdigest()[:32]
        order = self._parts.ordering.order_for(self.name, self.options, self._public_keys, spec, digest)
        launch = self._register.launches.get(spec.name)
        if launch is None:
            launch = self._parts.launch.Launch(self._ways, spec.owner, spec.name, digest)
            self._register.launches[spec.name] = launch
        elif launch.digest != digest:
            raise Conflict(f"{spec.name}: a launch with this name exists from another spec; use names only once")
        self._leases.hold(spec.owner)
        async with launch.lock:
            if not launch.is_started and launch.report is None:
                await self._bring_up(launch, spec, order)
        if launch.is_released:
            raise RuntimeFailure(f"{spec.name}: released while it was launched")
        return launch.ref()

    async def _bring_up(self, launch: Launch, spec: Spec, order: Order) -> None:
        launch.failure = None
        try:
            with anyio.CancelScope() as launch.scope:
                await launch.bring_up(spec, order)
        except RuntimeFailure as error:
            launch.failure = error
            launch.settled.set()
            is_foreign = isinstance(error, Conflict)
            if is_foreign or (launch.machine is None and isinstance(error, Rejected | NoCapacity)):
                launch.is_released = is_foreign
                self._register.launches.pop(spec.name, None)  # nothing was created
            else:
                launch.order_again()
            raise
        finally:
            launch.scope = None

    def _check_entered(self) -> None:
        if self._tasks is None:
            raise RuntimeError("use the runtime in its context: `async with runtime:`")

    # --- state ----------------------------------------------------------------------------------

    async def _known(self, ref: Ref) -> Launch | None:
        self._check_entered()
        return await self._register.known(ref)

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return the report of each launch. It is `Standing.UNKNOWN` if neither the machine nor the cloud answers."""
        self._check_entered()
        return await asyncio.gather(*(self._register.report(ref) for ref in refs))

    async def wait(self, ref: Ref) -> Report:
        """Wait until the worker or its machine has ended. The caller takes the launch over.

        Raises:
            RuntimeFailure: The launch is not known and the cloud cannot be reached, or the login to the machine fails.
        """
        launch = await self._known(ref)
        if launch is None:
            return ABSENT
        self._leases.hold(launch.owner)
        if launch.is_coming:
            await launch.settled.wait()
        if launch.failure is not None and launch.report is None:
            return Report(Standing.EXITED, cause=Cause.START_FAILED, detail=str(launch.failure))
        if launch.report is None:
            landing = await launch.land(self.options.boot_timeout)
            report = await self._parts.tasks.first_of(landing.ssh.wait(launch.inner()), launch.over)
            if report is not None:
                return self._register.seen(launch, report)
        assert launch.report is not None
        return launch.report

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return every launch of this owner that was not released, whichever process launched it.

        Raises:
            RuntimeFailure: The cloud cannot be reached.
        """
        self._check_entered()
        return await self._register.find(owner)

    async def holdings(self) -> Sequence[Holding]:
        """Return every machine of lightwork in the account, of all owners and profiles.

        Raises:
            RuntimeFailure: The cloud cannot be reached.
        """
        self._check_entered()
        return await self._register.holdings()

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the worker as the runtime `ssh` does. If its machine cannot be reached, delete the machine instead.

        A machine that is being created is deleted at once. After cancelling, the stop stays requested.

        Raises:
            RuntimeFailure: Neither could be done.
        """
        launch = await self._known(ref)
        if launch is None:
            return
        if not launch.has_ended and not launch.is_coming and await self._stop_worker(launch, grace):
            return
        if not launch.has_ended:
            was = "its machine was released" if launch.is_started else "stopped before its worker was started"
            launch.break_off(Report(Standing.EXITED, cause=Cause.STOPPED, detail=was))
            await self._end(launch)
        elif launch.name in self._endings:
            await self._end(launch)

    async def _stop_worker(self, launch: Launch, grace: float) -> bool:
        """Stop the worker. Return whether it has ended, by the stop or by itself."""
        try:
            landing = await launch.land(self.options.connect_timeout)
            stopping = _within(self.options.connect_timeout + grace, landing.ssh.stop(launch.inner(), grace))
            await self._parts.tasks.first_of(stopping, launch.over)
            if not launch.has_ended:
                (report,) = await landing.ssh.poll([launch.inner()])
                if report.standing.is_over:
                    self._register.seen(launch, report)
        except RuntimeFailure as error:
            _log.warning(
                "%s: the worker of %s cannot be stopped, so its machine is released: %s", *self._about(launch, error)
            )
        return launch.has_ended

    def _about(self, launch: Launch, error: object) -> tuple[str, str, object]:
        return self._where, launch.name, error

    async def _end(self, launch: Launch) -> None:
        """Delete the machine of a launch. The deletion continues if this call is cancelled."""
        ending = self._endings.get(launch.name)
        if ending is None:
            assert self._tasks is not None
            ending = self._parts.tasks.start(self._tasks, launch.give_back, f"lightwork cloud end {launch.name}")
            self._endings[launch.name] = ending
            ending.add_done_callback(lambda _: self._endings.pop(launch.name, None))
        await asyncio.shield(ending)

    async def release(self, ref: Ref) -> None:
        """Delete the machine with everything on it. Idempotent. Continues if it is cancelled."""
        self._check_entered()
        launch = self._register.launches.get(ref.name)
        if launch is None:
            owner = ref.hint.get("owner")
            launch = self._parts.launch.Launch(self._ways, owner if isinstance(owner, str) else "", ref.name, "")
            self._register.launches[ref.name] = launch
        was_released, launch.is_released = launch.is_released, True
        launch.break_off(Report(Standing.EXITED, cause=Cause.STOPPED, detail="released"))
        try:
            await self._end(launch)
        except ExceptionGroup:
            launch.is_released = was_released
            raise
        if self._register.launches.get(ref.name) is launch:
            del self._register.launches[ref.name]

    # --- output ---------------------------------------------------------------------------------

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """As in the runtime `ssh`. Output that a machine had not sent before its end is lost."""
        launch = await self._known(ref)
        if launch is None:
            return
        if launch.is_coming and follow:
            await launch.settled.wait()
        if launch.dead.is_set() or launch.is_coming or launch.failure is not None or launch.machine is None:
            return
        landing = await launch.land(self.options.connect_timeout)
        stream = landing.ssh.logs(launch.inner(), start, follow=follow)
        try:
            while True:
                piece = await self._parts.tasks.first_of(_next(stream), launch.dead)
                if piece is None:
                    return
                yield piece
        finally:
            await stream.aclose()  # type: ignore[attr-defined]


async def _next(stream: AsyncIterator[tuple[int, bytes]]) -> tuple[int, bytes] | None:
    return await anext(stream, None)


async def _within(seconds: float, what: Any) -> None:
    """Wait for it, but not forever: a machine that vanished never answers."""
    with anyio.move_on_after(seconds):
        await what


class _Parts(msgspec.Struct):
    """The modules that need the client libraries."""

    account: Any
    hostkeys: Any
    landing: Any
    launch: Any
    lease: Any
    ordering: Any
    register: Any
    tasks: Any
    ports: Any


def _load() -> _Parts:
    from lightwork_runtimes.cloud import (
        _account,
        _hostkeys,
        _landing,
        _launch,
        _lease,
        _ordering,
        _register,
        _tasks,
    )
    from lightwork_runtimes.ssh._ports import usual_ports

    return _Parts(_account, _hostkeys, _landing, _launch, _lease, _ordering, _register, _tasks, usual_ports)
