"""One machine of a profile: its connection, which is renewed when it breaks, and what was prepared there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import anyio
import anyio.abc
import anyio.to_thread

from lightwork.runtime import Address, Backoff, NoCapacity, RuntimeFailure, Spec, Unreachable
from lightwork.runtime.bundle import Bundle
from lightwork_runtimes.ssh import _code, _tunnel
from lightwork_runtimes.ssh._claims import claimed
from lightwork_runtimes.ssh._environment import Environment
from lightwork_runtimes.ssh._options import SshOptions, Target
from lightwork_runtimes.ssh._session import Facts, Session

__all__ = ["Host", "Prepared"]

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
"""Seconds before the next try to connect; doubled from the first pause to the longest."""

_AVOID_FOR = 30.0
"""Seconds in which a machine that could not be reached is tried last."""

_log = logging.getLogger("lightwork.runtimes.ssh")


class Prepared(NamedTuple):
    """What was prepared for a launch on the remote machine.

    Attributes:
        python: The remote interpreter.
        plan: The place of the code.
        facts: The facts of the machine.
        uses: Folders, relative to lightwork's folder there, that must not be removed while the work lives.
    """

    python: str
    plan: _code.CodePlan
    facts: Facts
    uses: list[str]


class Host:
    """One remote machine.

    Args:
        profile: Name of the profile.
        target: The machine.
        options: The profile's options.
        instance: Id of this runtime on this machine.
        ports: Ports to forward, see `SshOptions.ports`.
        tasks: The task group for tasks that outlive a request.

    Attributes:
        kept: ``(owner, name)`` of the launches that this runtime looks after. While there are any, a broken
            connection is renewed.
        owed: ``(owner, name)`` of the launches to release when the machine can be reached again.
        listener: Address of the scheduler, None until it is known.
    """

    def __init__(
        self,
        profile: str,
        target: Target,
        options: SshOptions,
        instance: str,
        ports: Sequence[int],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.target = target
        self.where = f"runtimes.{profile}: host {target.label}"
        self.kept: set[tuple[str, str]] = set()
        self.owed: set[tuple[str | None, str]] = set()
        self.listener: Address | None = None
        self._options = options
        self._instance = instance
        self._ports = ports
        self._tasks = tasks
        self._session: Session | None = None
        self._opening: asyncio.Future[Session] | None = None
        self._is_renewing = False
        self._failed_at = 0.0
        self._ready: dict[str, asyncio.Lock] = {}
        self._services: dict[str, asyncio.Server] = {}
        self._environment = Environment(self.where, options)

    @property
    def failed_lately(self) -> bool:
        """Whether the last try to connect failed, less than `_AVOID_FOR` seconds ago."""
        return self._failed_at > 0 and time.monotonic() - self._failed_at < _AVOID_FOR

    def slots(self, facts: Facts) -> int:
        """Return how many works may run there at once."""
        return self.target.slots or int(facts["cpus"])

    # --- the connection -------------------------------------------------------------------------

    async def session(self) -> Session:
        """Return the open connection, or connect. Cancelling does not stop the attempt: other tasks may wait for it.

        Raises:
            Rejected, Unreachable: See `Session.open`.
        """
        if self._session is not None and self._session.is_open:
            return self._session
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_future()
            self._tasks.start_soon(self._open, self._opening, name=f"lightwork ssh {self.target.label}")
        return await asyncio.shield(self._opening)

    async def _open(self, opening: asyncio.Future[Session]) -> None:
        try:
            session = await self._connect()
        except RuntimeFailure as error:
            self._failed_at = time.monotonic()
            opening.set_exception(error)
            opening.exception()  # mark it as retrieved: every waiting task may be gone
        except BaseException:
            opening.cancel()
            raise
        else:
            self._failed_at = 0.0
            self._session = session
            opening.set_result(session)
        finally:
            self._opening = None

    async def _connect(self) -> Session:
        session = await Session.open(self.where, self.target, self._options, self._instance, self._on_lost)
        try:
            if self.listener is not None and not self._options.direct:
                try:
                    await session.forward(self._ports, self.listener)
                except NoCapacity as error:  # the next launch raises it; other requests need no port
                    _log.warning("%s", error)
            if self.kept:
                await session.request("attach", refs=sorted(self.kept))
            await self._release_owed(session)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await session.aclose()
            raise
        return session

    async def _release_owed(self, session: Session) -> None:
        for owner, name in list(self.owed):
            try:
                await session.request("release", owner=owner, name=name)
            except Unreachable:
                raise
            except RuntimeFailure as error:  # `release` has reported the failure; other requests need the connection
                _log.error("%s: %s could not be released: %s", self.where, name, error)
            self.owed.discard((owner, name))

    def _on_lost(self) -> None:
        if self.kept:
            _log.warning("%s: the connection was lost; reconnecting", self.where)
            self.renew()

    def renew(self) -> None:
        """Try to connect until it succeeds or no launch needs the connection."""
        if not self._is_renewing:
            self._is_renewing = True
            self._tasks.start_soon(self._try_again, name=f"lightwork ssh again {self.target.label}")

    async def _try_again(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while self.kept or self.owed:
                try:
                    await self.session()
                    return
                except RuntimeFailure as error:
                    _log.warning("%s; next try in %.1f s", error, backoff.pause)
                await asyncio.sleep(backoff.advance())
        finally:
            self._is_renewing = False

    async def aclose(self) -> None:
        """Close the connection. Remote processes go on."""
        for name in list(self._services):
            self.close_service(name)
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    # --- requests -------------------------------------------------------------------------------

    async def ask(self, op: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """Make one request; see `Session.request`."""
        return await (await self.session()).request(op, payload, **arguments)

    async def ask_until_answered(self, op: str, **arguments: Any) -> tuple[Any, bytes]:
        """Make one request that changes nothing. Repeat it on the next connection if one breaks.

        Raises:
            RuntimeFailure: The helper's error. An unreachable machine is no error here: the request is repeated.
        """
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                return await self.ask(op, **arguments)
            except Unreachable as error:
                _log.info("%s; next try in %.1f s", error, backoff.pause)
            await asyncio.sleep(backoff.advance())

    # --- services of works ------------------------------------------------------------------------

    async def open_service(self, name: str, local_port: int, remote_port: int) -> int:
        """Forward a port of this machine to a port of the remote machine while the launch is kept. Return the port.

        The forwarding survives reconnects. A connection that the remote machine refuses is closed here.

        Args:
            name: The launch.
            local_port: Preferred port of this machine. If it is taken, another one is used.
            remote_port: Port of the service on the remote machine.
        """

        def begin(factory: _tunnel.SessionFactory, refuse: Callable[[], None]) -> None:
            self._tasks.start_soon(
                self._open_channel, factory, remote_port, refuse, name=f"lightwork ssh service {name}"
            )

        self.close_service(name)
        server = await _tunnel.listen_here(local_port, begin)
        self._services[name] = server
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _open_channel(self, factory: _tunnel.SessionFactory, port: int, refuse: Callable[[], None]) -> None:
        try:
            await (await self.session()).open_channel(factory, port)
        except RuntimeFailure as error:
            _log.debug("%s", error)
            refuse()

    def has_service(self, name: str) -> bool:
        """Whether a port of this machine is forwarded to that launch's service."""
        return name in self._services

    def close_service(self, name: str) -> None:
        """Stop listening for the launch's service. Idempotent."""
        server = self._services.pop(name, None)
        if server is not None:
            server.close()

    # --- preparing ------------------------------------------------------------------------------

    async def lead_to(self, listener: Address) -> None:
        """Forward connections of remote workers to this listener from now on, also over an open connection."""
        self.listener = listener
        if self._session is not None and self._session.is_open and not self._options.direct:
            try:
                await self._session.forward(self._ports, listener)
            except RuntimeFailure as error:  # the next launch raises it; other requests need no port
                _log.warning("%s", error)

    async def forward(self) -> None:
        """Make sure that remote workers reach the scheduler."""
        if self.listener is not None and not self._options.direct:
            await (await self.session()).forward(self._ports, self.listener)

    @contextlib.asynccontextmanager
    async def ready(self, spec: Spec, code: _code.Code) -> AsyncIterator[Prepared]:
        """Send what the spec needs and is missing. It is not removed inside the context.

        Raises:
            Rejected: The machine cannot be prepared, for instance because requirements cannot be installed.
        """
        session = await self.session()
        bundles = await code.bundles(spec.cwd, spec.lightningignore)
        plan = code.plan(bundles, spec.cwd, session.facts["folder"])
        uses = [_code.code_path(bundle) for bundle in bundles]
        python, make = self.target.python, None
        if self._options.prepare:
            venv, make = self._environment.plan(session.facts, spec.build, plan.cwd)
            python = f"{session.facts['folder']}/{venv}/bin/python"
            uses.append(venv)
        else:
            self._environment.check_as_is(session.facts, spec.build)
        async with claimed(session, uses):
            for bundle in bundles:
                await self._once(_code.code_path(bundle), functools.partial(self._send_code, bundle))
            if make is not None:
                await self._once(f"{uses[-1]}/lightwork.json", functools.partial(make, session))
            yield Prepared(python, plan, session.facts, uses)

    async def _once(self, path: str, make: Callable[[], Awaitable[None]]) -> None:
        """Make what belongs at the remote `path` if it is missing. Concurrent launches wait for the first."""
        async with self._ready.setdefault(path, asyncio.Lock()):
            missing, _ = await self.ask("missing", paths=[path])
            if missing:
                await make()

    async def _send_code(self, bundle: Bundle) -> None:
        session = await self.session()
        archive = f"incoming/{bundle.digest[:32]}-{self._instance}.tar"
        with await anyio.to_thread.run_sync(_code.write_bundle, bundle) as file:
            await session.send({file.name: archive})
        await session.request("unpack", archive=archive, digest=bundle.digest[:32])
