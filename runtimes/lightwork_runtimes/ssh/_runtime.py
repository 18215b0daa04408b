"""The runtime `ssh`: each work in a separate process on a machine that SSH reaches."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.util
import logging
import os
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
    Cached,
    Cause,
    Finding,
    Ref,
    Rejected,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
    Unreachable,
)
from lightwork_runtimes.ssh import _cache, _diagnose
from lightwork_runtimes.ssh._job import check_spec, job_for
from lightwork_runtimes.ssh._options import SshOptions
from lightwork_runtimes.ssh._ports import service_ports, usual_ports

if TYPE_CHECKING:
    from lightwork_runtimes.ssh._code import Code
    from lightwork_runtimes.ssh._host import Host
    from lightwork_runtimes.ssh._pool import Pool

__all__ = ["SshRuntime"]

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_log = logging.getLogger("lightwork.runtimes.ssh")


class SshRuntime:
    """Runs works on existing machines, over one SSH connection to each.

    Entering the context connects to nothing. A machine is connected when it is first needed, and again when the
    connection breaks. All facts of a launch are files in `SshOptions.folder` on its machine. So any later runtime with
    the same machines can continue it, even if this runtime has ended. Leaving the context closes the connections and
    leaves the workers alone.

    A worker that cannot reach its scheduler ends itself after `Spec.orphan_after`. If it does not, its supervisor
    process ends it 10 s later. A worker inherits the environment of a login without a terminal.
    Image, Dockerfile and `Spec.compute` are ignored: works run directly on the machine. Mounts are refused.

    Args:
        name: Name of the profile.
        options: Keys of the profile.

    Raises:
        ConfigError: asyncssh is not installed.
    """

    Options: ClassVar[type[msgspec.Struct]] = SshOptions
    is_remote: ClassVar[bool] = True

    def __init__(self, name: str, options: SshOptions) -> None:
        if importlib.util.find_spec("asyncssh") is None:
            raise ConfigError(f"the runtime 'ssh' (profile {name!r}) needs asyncssh: install lightwork[ssh]")
        self.name = name
        self.options = options
        self._tasks: anyio.abc.TaskGroup | None = None
        self._hosts: dict[str, Host] = {}
        self._places: dict[str, Host] = {}
        self._pool: Pool | None = None
        self._code: Code | None = None
        self._listener: Address | None = None

    @functools.cached_property
    def _ports(self) -> Sequence[int]:
        """Ports of the remote loopback that workers may connect to."""
        return self.options.ports or usual_ports(self.name)

    async def __aenter__(self) -> Self:
        # Imported late and in a thread: the client library takes a quarter of a second to load.
        modules = await anyio.to_thread.run_sync(_load)
        self._tasks = await anyio.create_task_group().__aenter__()
        instance = os.urandom(8).hex()
        for target in self.options.targets():
            key = hashlib.sha256(f"{instance} {target.label}".encode()).hexdigest()[:16]
            self._hosts[target.label] = modules.host.Host(
                self.name, target, self.options, key, self._ports, self._tasks
            )
        self._pool = modules.pool.Pool(self.name, list(self._hosts.values()))
        self._code = modules.code.Code(f"runtimes.{self.name}", self.options.code, self.options.exclude)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        for host in self._hosts.values():
            host.kept.clear()  # from now on a lost connection is not renewed
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*(host.aclose() for host in self._hosts.values()))
        self._hosts.clear()
        self._places.clear()
        self._listener = None

    @classmethod
    async def diagnose(cls, name: str, options: SshOptions | None) -> Sequence[Finding]:
        """Check what is missing here, and log in to each machine; see `lightwork.runtime.Diagnosable`."""
        return await _diagnose.look(name, options)

    @property
    def launch_within(self) -> float:
        """Seconds that a launch may take in addition to `launch_timeout`; see `SshOptions.launch_within`."""
        return self.options.launch_within

    # --- routes ---------------------------------------------------------------------------------

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the ports of the remote loopback, one of which is forwarded; with `SshOptions.direct` the listener.

        Machines may forward different ports, because some are taken. A port that is not forwarded refuses the worker at
        once, or belongs to another program. The handshake then fails.

        Raises:
            Rejected: `direct` is set and the listener is on the loopback, which no other machine can reach.
            RuntimeFailure: This runtime already serves another listener.
        """
        self._check_entered()
        if self.options.direct:
            return await self._direct_routes(listener)
        local = msgspec.structs.replace(listener, host=_LOOPBACK.get(listener.host, listener.host))
        if self._listener not in (None, local):
            raise RuntimeFailure(
                f"runtimes.{self.name}: already in use by another scheduler; create a separate runtime for each app"
            )
        self._listener = local
        await asyncio.gather(*(host.lead_to(local) for host in self._hosts.values()))
        return [Address("127.0.0.1", port) for port in self._ports]

    async def _direct_routes(self, listener: Address) -> Sequence[Address]:
        if listener.host not in _LOOPBACK:
            if listener.host == "localhost" or listener.host.startswith("127.") or listener.host == "::1":
                raise Rejected(
                    f"runtimes.{self.name}: direct = true, but the scheduler listens on {listener.host}, which no "
                    "other machine can reach; set `host` to an address of this machine, or to 0.0.0.0"
                )
            return [listener]
        # The source addresses of the SSH connections are the addresses that the remote machines see.
        found = await asyncio.gather(*(host.session() for host in self._hosts.values()), return_exceptions=True)
        addresses = {session.local_address: None for session in found if not isinstance(session, BaseException)}
        if not addresses:
            raise next(error for error in found if isinstance(error, BaseException))
        return [Address(address, listener.port) for address in addresses]

    async def touch(self) -> None:
        """Connect to every machine and record a sign of life there, the time of the file ``alive``.

        Raises:
            Rejected, Unreachable: A machine refuses the login, or does not answer.
        """
        self._check_entered()
        await asyncio.gather(*(host.ask("touch") for host in self._hosts.values()))

    # --- launching ------------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Start a process for the spec; see `lightwork.runtime.Runtime.launch`.

        Waits until a machine has a free slot, then until it is prepared: the first launch with a set of requirements
        also waits for their installation. Cancelling leaves nothing, or a launch that `find` returns.

        Raises:
            Rejected: Also if requirements cannot be installed; the message has the last lines of pip or uv.
        """
        self._check_entered()
        check_spec(self.name, spec)
        assert self._pool is not None
        digest = hashlib.sha256(msgspec.msgpack.encode(spec, order="deterministic")).hexdigest()
        known = await self._find_known(spec, digest)
        host, is_new = known if known is not None else await self._pool.place(spec.owner, spec.name, digest)
        self._places[spec.name] = host
        if is_new:
            host.kept.add((spec.owner, spec.name))
            try:
                await self._start(host, spec)
            except BaseException:
                host.kept.discard((spec.owner, spec.name))
                host.close_service(spec.name)
                raise
        return self._ref(host, spec.owner, spec.name)

    async def _find_known(self, spec: Spec, digest: str) -> tuple[Host, bool] | None:
        """Return the machine of an existing launch with that name. It needs no slot, so it skips the queue."""
        host = self._places.get(spec.name) or await self._locate(Ref(self.name, spec.name, {"owner": spec.owner}), None)
        if host is None:
            return None
        # With 0 slots, the answer is `known` if the launch exists, and `full` if it was released meanwhile.
        state, _ = await host.ask("reserve", owner=spec.owner, name=spec.name, digest=digest, slots=0)
        return (host, False) if state == "known" else None

    async def _start(self, host: Host, spec: Spec) -> None:
        assert self._code is not None
        await host.forward()
        local_port, remote_port = service_ports(spec.name, self._ports)
        remote_port = spec.port or remote_port
        local_port = await host.open_service(spec.name, local_port, remote_port)
        removed = True
        while removed:
            async with host.ready(spec, self._code) as ready:
                job = job_for(spec, self.options, ready, (local_port, remote_port))
                asked = {
                    "owner": spec.owner,
                    "name": spec.name,
                    "job": job,
                    "service": [local_port, remote_port],
                    "uses": ready.uses,
                }
                # A folder in `uses` can be gone only if the connection was renewed meanwhile.
                removed, _ = await host.ask("start", spec.ticket, **asked)

    def _ref(self, host: Host, owner: str, name: str) -> Ref:
        return Ref(self.name, name, {"owner": owner, "host": host.target.label})

    def _check_entered(self) -> None:
        if self._tasks is None:
            raise RuntimeError("use the runtime in its context: `async with runtime:`")

    # --- state ----------------------------------------------------------------------------------

    def _place(self, ref: Ref) -> Host | None:
        label = ref.hint.get("host")
        return self._places.get(ref.name) or (self._hosts.get(label) if isinstance(label, str) else None)

    async def _locate(self, ref: Ref, unreachable: list[RuntimeFailure] | None) -> Host | None:
        """Return the machine that has the launch. Query all machines if it is not known.

        Args:
            ref: The launch.
            unreachable: Receives the errors of unreachable machines; None ignores these machines.
        """
        place = self._place(ref)
        if place is not None:
            return place
        hosts = list(self._hosts.values())
        found = await asyncio.gather(*(_has(host, ref) for host in hosts), return_exceptions=True)
        for host, answer in zip(hosts, found, strict=True):
            if answer is True:
                self._places[ref.name] = host
                return host
        for answer in found:
            if isinstance(answer, RuntimeFailure):
                if unreachable is not None:
                    unreachable.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
        return None

    async def _locate_surely(self, ref: Ref) -> Host | None:
        """Return the machine that has the launch, None if every machine has answered that it does not."""
        self._check_entered()
        unreachable: list[RuntimeFailure] = []
        host = await self._locate(ref, unreachable)
        if host is None and unreachable:
            raise unreachable[0]
        return host

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return the report of each launch. It is `Standing.UNKNOWN` if the machine cannot be reached."""
        self._check_entered()
        by_host: dict[Host, list[int]] = {}
        reports: list[Report] = [ABSENT] * len(refs)
        for index, ref in enumerate(refs):
            unreachable: list[RuntimeFailure] = []
            host = await self._locate(ref, unreachable)
            if host is not None:
                by_host.setdefault(host, []).append(index)
            elif unreachable:
                reports[index] = Report(Standing.UNKNOWN, detail=str(unreachable[0]))

        async def ask(host: Host, indices: list[int]) -> None:
            try:
                views, _ = await host.ask("look", refs=[_key(refs[index]) for index in indices])
            except RuntimeFailure as error:
                views = [{"standing": "unknown", "detail": str(error)}] * len(indices)
            for index, view in zip(indices, views, strict=True):
                reports[index] = self._seen(host, refs[index], view)

        await asyncio.gather(*(ask(host, indices) for host, indices in by_host.items()))
        return reports

    def _seen(self, host: Host, ref: Ref, view: Any) -> Report:
        report = msgspec.convert(view, Report)
        if report.standing.is_over:
            self._forget(host, ref)
        return report

    def _forget(self, host: Host, ref: Ref) -> None:
        """Stop looking after a launch that has ended."""
        host.close_service(ref.name)
        host.kept -= {(owner, name) for owner, name in host.kept if name == ref.name}

    async def wait(self, ref: Ref) -> Report:
        """Wait until the launch has ended, over any number of connections. The caller takes it over from its scheduler.

        Raises:
            RuntimeFailure: The launch is not known, and not every machine can be queried.
        """
        host = await self._locate_surely(ref)
        if host is None:
            return ABSENT
        owner = ref.hint.get("owner")
        if isinstance(owner, str):
            host.kept.add((owner, ref.name))
        if not host.has_service(ref.name):
            # Another scheduler launched it and may have published its url.
            ports, _ = await host.ask_until_answered("service", owner=_key(ref)[0], name=ref.name)
            if ports is not None:
                await host.open_service(ref.name, *ports)
        view, _ = await host.ask_until_answered("wait", owner=_key(ref)[0], name=ref.name)
        return self._seen(host, ref, view)

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return every launch of this owner that was not released, whichever process launched it.

        Raises:
            Unreachable: A machine of the profile cannot be queried.
        """
        self._check_entered()
        hosts = list(self._hosts.values())
        answers = await asyncio.gather(*(host.ask("find", owner=owner) for host in hosts), return_exceptions=True)
        refs: list[Ref] = []
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            for name in answer[0]:
                self._places[name] = host
                refs.append(self._ref(host, owner, name))
        return refs

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the process tree: SIGTERM to the worker and, after `grace` seconds, SIGKILL to all its processes.

        Returns when none of its processes is left. After cancelling, the stop stays requested.

        Raises:
            Unreachable: The launch's machine cannot be reached.
        """
        host = await self._locate_surely(ref)
        if host is not None:
            await host.ask("stop", owner=_key(ref)[0], name=ref.name, grace=grace)
            self._forget(host, ref)

    async def release(self, ref: Ref) -> None:
        """Remove the launch's folder with its output. End the launch first if it still runs. Idempotent.

        An unreachable machine is an error. The release is then done when the machine can be reached again, as long as
        this runtime is open.
        """
        self._check_entered()
        place = self._place(ref)
        hosts = list(self._hosts.values()) if place is None else [place]
        owner = _key(ref)[0]
        answers = await asyncio.gather(
            *(host.ask("release", owner=owner, name=ref.name) for host in hosts), return_exceptions=True
        )
        for host, answer in zip(hosts, answers, strict=True):
            self._forget(host, ref)
            if isinstance(answer, Unreachable) and place is not None:
                host.owed.add((owner, ref.name))
                host.renew()
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if errors:
            raise ExceptionGroup(f"{ref.name} could not be released", errors)
        self._places.pop(ref.name, None)

    # --- cached files --------------------------------------------------------------------------

    async def cached(self) -> Sequence[Cached]:
        """Return code, environments and wheels on the machines, and wheels that were downloaded here to be sent.

        Raises:
            Unreachable: A machine of the profile cannot be queried.
        """
        self._check_entered()
        return await _cache.cached(list(self._hosts.values()))

    async def discard(self, entry: Cached) -> bool:
        """Remove an entry unless it is in use; see `lightwork.runtime.Caching`."""
        self._check_entered()
        return await _cache.discard(list(self._hosts.values()), entry)

    # --- output ---------------------------------------------------------------------------------

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Yield standard output and error of the process tree, in pieces of at most 64 kB.

        With `follow` it continues over any number of connections.
        """
        host = await self._locate_surely(ref)
        if host is None:
            return
        ask = host.ask_until_answered if follow else host.ask
        while True:
            is_end, data = await ask("read", owner=_key(ref)[0], name=ref.name, start=start, follow=follow)
            if is_end:
                return
            yield start, data
            start += len(data)


class _Modules(msgspec.Struct):
    """The modules that need the client library."""

    code: Any
    host: Any
    pool: Any


def _load() -> _Modules:
    from lightwork_runtimes.ssh import _code, _host, _pool

    return _Modules(_code, _host, _pool)


def _key(ref: Ref) -> tuple[str | None, str]:
    owner = ref.hint.get("owner")
    return (owner if isinstance(owner, str) else None), ref.name


async def _has(host: Host, ref: Ref) -> bool:
    (view,), _ = await host.ask("look", refs=[_key(ref)])
    report = msgspec.convert(view, Report)
    if report.standing is Standing.UNKNOWN:
        raise Unreachable(f"{host.where}: {report.detail}")
    return report.standing is not Standing.ABSENT or report.cause is Cause.START_FAILED
