"""One machine of a profile: its connection, renewed when it breaks, and what was made ready there."""

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

from lightwork.runtime import Address, NoCapacity, RuntimeFailure, Spec, Unreachable
from lightwork.runtime.bundle import Bundle
from lightwork_runtimes.ssh import _code, _tunnel
from lightwork_runtimes.ssh._claims import claimed
from lightwork_runtimes.ssh._environment import Environment
from lightwork_runtimes.ssh._options import SshOptions, Target
from lightwork_runtimes.ssh._session import Facts, Session

__all__ = ["Host", "Prepared"]

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
"""Seconds before a connection is tried again; doubled from the first to the longest."""

_AVOID_FOR = 30.0
"""Seconds in which a machine that could not be reached is asked last."""

_log = logging.getLogger("lightwork.runtimes.ssh")


class Prepared(NamedTuple):
    """What was made ready for a launch.

    Attributes:
        python: The interpreter there.
        plan: Where the code is.
        facts: What is known of the machine.
        uses: Folders there, relative to ours, that must not be removed while the work lives.
    """

    python: str
    plan: _code.CodePlan
    facts: Facts
    uses: list[str]


class Host:
    """One machine.

    Args:
        profile: Name of the profile.
        target: The machine.
        options: The profile's.
        instance: Id of this runtime, as far as this machine goes.
        ports: What to forward, see `SshOptions.ports`.
        tasks: Holds what goes on between requests.

    Attributes:
        kept: ``(owner, name)`` of launches that this runtime looks after; while there are any, a connection that
            breaks is renewed.
        owed: ``(owner, name)`` of launches that are to be released when the machine can be reached again.
        listener: Where the scheduler listens; None until it is known.
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
        """Whether it could not be reached a moment ago."""
        return self._failed_at > 0 and time.monotonic() - self._failed_at < _AVOID_FOR

    def slots(self, facts: Facts) -> int:
        """How many works it takes."""
        return self.target.slots or int(facts["cpus"])

    # --- the connection -------------------------------------------------------------------------

    async def session(self) -> Session:
        """The connection, made if there is none. Cancelling does not break it off: it may have others that wait.

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
            opening.exception()  # seen: nobody may wait for it any more
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
                except NoCapacity as error:  # the next launch raises it; all else can be done without
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
            except RuntimeFailure as error:  # it has been told that it may be left; others need the connection
                _log.error("%s: %s is left there: %s", self.where, name, error)
            self.owed.discard((owner, name))

    def _on_lost(self) -> None:
        if self.kept:
            _log.warning("%s: the connection was lost; it is made again", self.where)
            self.renew()

    def renew(self) -> None:
        """Go on trying to connect for as long as there is a reason to."""
        if not self._is_renewing:
            self._is_renewing = True
            self._tasks.start_soon(self._try_again, name=f"lightwork ssh again {self.target.label}")

    async def _try_again(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while self.kept or self.owed:
                try:
                    await self.session()
                    return
                except RuntimeFailure as error:
                    _log.warning("%s; the next try in %.1f s", error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._is_renewing = False

    async def aclose(self) -> None:
        """End the connection; what runs there goes on."""
        for name in list(self._services):
            self.close_service(name)
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    # --- requests -------------------------------------------------------------------------------

    async def ask(self, op: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """One request; see `Session.request`."""
        return await (await self.session()).request(op, payload, **arguments)

    async def ask_until_answered(self, op: str, **arguments: Any) -> tuple[Any, bytes]:
        """One request that changes nothing, made again on the next connection when one breaks.

        Raises:
            RuntimeFailure: What the helper says. That it cannot be reached is no reason to give up.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self.ask(op, **arguments)
            except Unreachable as error:
                _log.info("%s; asked again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    # --- services of works ------------------------------------------------------------------------

    async def open_service(self, name: str, near: int, far: int) -> int:
        """Lead a port of this machine to one of the far side's, for as long as the launch is kept; gives the port.

        Over any number of connections. What nobody answers there is closed here.

        Args:
            name: The launch.
            near: Wanted here; another is taken where that is not free.
            far: Port of the service there.
        """

        def begin(factory: _tunnel.SessionFactory, refuse: Callable[[], None]) -> None:
            self._tasks.start_soon(self._open_channel, factory, far, refuse, name=f"lightwork ssh service {name}")

        self.close_service(name)
        server = await _tunnel.listen_here(near, begin)
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
        """Whether a port here leads to that launch's service."""
        return name in self._services

    def close_service(self, name: str) -> None:
        """Listen no longer. May be repeated."""
        server = self._services.pop(name, None)
        if server is not None:
            server.close()

    # --- making ready ---------------------------------------------------------------------------

    async def lead_to(self, listener: Address) -> None:
        """From now on workers there reach this listener, over the connection that is open too."""
        self.listener = listener
        if self._session is not None and self._session.is_open and not self._options.direct:
            try:
                await self._session.forward(self._ports, listener)
            except RuntimeFailure as error:  # the next launch raises it; all else can be done without
                _log.warning("%s", error)

    async def forward(self) -> None:
        """See to it that workers there reach the scheduler."""
        if self.listener is not None and not self._options.direct:
            await (await self.session()).forward(self._ports, self.listener)

    @contextlib.asynccontextmanager
    async def ready(self, spec: Spec, code: _code.Code) -> AsyncIterator[Prepared]:
        """Send what the spec needs, unless it is there; it stays there in the context.

        Raises:
            Rejected: It cannot be made ready, for instance because requirements cannot be installed.
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
        """Make what is at `path` there, unless it is; several launches wait for one that does."""
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
