"""One launch and its machine, as this process knows it: ordered, running, logged in to, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import anyio
import anyio.to_thread
import msgspec

from lightwork.runtime import (
    Backoff,
    Cause,
    Conflict,
    NoCapacity,
    Ref,
    Rejected,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
    TimedOut,
    Unreachable,
)
from lightwork_runtimes.cloud import _hostkeys
from lightwork_runtimes.cloud._account import Account
from lightwork_runtimes.cloud._landing import Landing, Ways, machine_of
from lightwork_runtimes.cloud._providers import Machine, Order, Phase
from lightwork_runtimes.cloud._tasks import start

__all__ = ["Launch"]

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
"""Seconds before the cloud is queried again for a machine; doubled from the first pause to the longest."""

_GONE_WITHIN = 60.0
"""Seconds in which the cloud must stop listing a deleted machine."""

_SEEN_WITHIN = 10.0
"""Seconds in which the cloud lists a machine whose order got no answer, if it was created."""

_log = logging.getLogger("lightwork.runtimes.cloud")


class Launch:
    """A launch, created by `launch` or when its machine is found.

    Args:
        ways: The settings to reach machines, with their account.
        owner, name: Owner and name from the spec.
        digest: Digest of the spec. Two launches of one name must have the same digest.
        machine: The machine, None if there is none yet.

    Attributes:
        lock: Held by the task that brings the machine up.
        scope: Cancel scope of the running `bring_up`, otherwise None.
        machine: The last known description of the machine.
        landing: The login to the machine, None until it succeeds.
        is_started: Whether the worker was started, as far as this process knows.
        failure: Why `bring_up` failed, None if it has not.
        report: The final report, None while the launch has not ended.
        over: Set when there is a report.
        settled: Set when the launch has started, ended or failed.
        dead: Set when the machine has ended or is being deleted. Nothing can be read from it any more.
    """

    def __init__(self, ways: Ways, owner: str, name: str, digest: str, machine: Machine | None = None) -> None:
        self.owner = owner
        self.name = name
        self.digest = digest
        self.machine = machine
        self.lock = anyio.Lock()
        self.scope: anyio.CancelScope | None = None
        self.landing: Landing | None = None
        self.is_started = False
        self.is_released = False
        self.failure: RuntimeFailure | None = None
        self.report: Report | None = None
        self.over = asyncio.Event()
        self.settled = asyncio.Event()
        self.dead = asyncio.Event()
        self._ways = ways
        self._account: Account = ways.account
        self._making: asyncio.Future[Machine] | None = None
        self._landing_lock = anyio.Lock()

    @property
    def exists(self) -> bool:
        """Whether something may exist that must be released."""
        return not self.is_released and (
            self.machine is not None or self.report is not None or (self._making is not None)
        )

    @property
    def has_ended(self) -> bool:
        """Whether there is a report."""
        return self.over.is_set()

    @property
    def is_coming(self) -> bool:
        """Whether this process is bringing the machine up."""
        return self.lock.locked() and not self.is_started and self.report is None

    def ref(self) -> Ref:
        """Return the launch's ref, with the machine as a hint."""
        machine = {} if self.machine is None else {"machine": self.machine.id}
        return Ref(self._ways.profile, self.name, {"owner": self.owner, **machine})

    def inner(self) -> Ref:
        """Return the ref of the launch in the SSH runtime of its machine."""
        return Ref(self._ways.profile, self.name, {"owner": self.owner})

    def finish(self, report: Report) -> None:
        """Record that the launch has ended. Only the first report counts."""
        if self.report is None:
            self.report = report
        self.over.set()
        self.settled.set()

    def _on_gone(self, left: Machine | None) -> None:
        self.dead.set()
        self.finish(self.explain_end(left))

    def explain_end(self, left: Machine | None) -> Report:
        """Return the report of a launch whose machine has ended by itself.

        Args:
            left: What the cloud still lists of the machine.
        """
        known = left or self.machine
        assert known is not None
        state = "gone" if left is None else left.state
        detail = f"its machine {known.id} is {state}"
        if left is not None and left.taken_back:
            return Report(Standing.EXITED, None, Cause.PREEMPTED, f"{detail}: the cloud took it away")
        lifetime = known.tags.get("lifetime", "")
        age = None if known.created is None else time.time() - known.created
        if lifetime and age is not None and age >= float(lifetime):
            return Report(Standing.EXITED, None, Cause.LIFETIME, f"{detail}, after its lifetime of {lifetime} s")
        if known.tags.get("interruptible") == "yes":
            # Not every cloud reports that it took the machine away.
            return Report(Standing.EXITED, None, Cause.PREEMPTED, detail)
        return Report(Standing.EXITED, detail=detail)

    # --- bringing up ----------------------------------------------------------------------------

    async def bring_up(self, spec: Spec, order: Order) -> None:
        """Create the machine and start the worker on it. A repeated call skips the steps that were done.

        After cancelling, a running order continues until the cloud has answered; `release` waits for it.

        Raises:
            RuntimeFailure: As its subclasses say. A machine that was created still exists.
        """
        options = self._ways.options
        if self.machine is None:
            if self._making is None:
                self._making = start(self._ways.tasks, lambda: self._order(order), f"lightwork cloud {order.name}")
            self.machine = await asyncio.shield(self._making)
        landing = await self.land(options.boot_timeout)
        assert self.machine is not None
        inner = msgspec.structs.replace(spec, env={**spec.env, **self._addresses(self.machine)})
        try:
            async with asyncio.timeout(options.prepare_timeout):
                await landing.ssh.launch(inner)
        except TimeoutError:
            raise TimedOut(
                f"{self._ways.where}: {self.machine.id} was not ready for works within {options.prepare_timeout:g} s "
                "(prepare_timeout)"
            ) from None
        self.is_started = True
        self.settled.set()

    def _addresses(self, machine: Machine) -> dict[str, str]:
        """Return the variables with the worker's addresses. Its service binds all interfaces; clouds have firewalls."""
        address, port = self._ways.address(machine), self._ways.options.service_port
        url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        return {
            "LW_INTERNAL_IP": machine.private,
            "LW_PUBLIC_IP": machine.public,
            "_LIGHTWORK_SERVICE": f"0.0.0.0,{port},{url}",
        }

    async def _order(self, order: Order) -> Machine:
        found = await self._find()
        if found is not None:
            if found.tags.get("spec") != self.digest:
                raise Conflict(f"{self.name}: a launch with this name exists from another spec; use names only once")
            return found
        try:
            return await self._account.create(order)
        except Unreachable:
            # The machine may have been created all the same. Then the cloud lists it, possibly later.
            until = time.monotonic() + _SEEN_WITHIN
            while True:
                with contextlib.suppress(RuntimeFailure):  # the first failure is the one to raise
                    if (found := await self._find()) is not None:
                        return found
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(_FIRST_PAUSE)

    async def _find(self) -> Machine | None:
        """Return the machine of this launch, a running one if there are several."""
        found = [one for one in await self._account.machines(self.owner) if one.tags.get("name") == self.name]
        found.sort(key=lambda one: one.phase in (Phase.DOWN, Phase.GONE))
        return found[0] if found else None

    async def _wait_up(self) -> None:
        """Wait until the machine runs and has its address."""
        options = self._ways.options
        until = time.monotonic() + options.create_timeout
        backoff, was_listed = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), False
        assert self.machine is not None
        while not (self.machine.phase is Phase.UP and self._ways.address(self.machine)):
            if self.machine.phase in (Phase.DOWN, Phase.GONE):
                raise NoCapacity(
                    f"{self._ways.where}: the cloud created {self.machine.id} and ended it again: {self.machine.state}"
                )
            if time.monotonic() >= until:
                raise TimedOut(
                    f"{self._ways.where}: {self.machine.id} is {self.machine.state} after {options.create_timeout:g} s "
                    f"(create_timeout){'' if self._ways.address(self.machine) else ', without an address'}"
                )
            await asyncio.sleep(backoff.advance())
            try:
                found = await machine_of(self._account, self.owner, self.machine.id)
            except Unreachable as error:
                _log.info("%s", error)
                continue
            if found is None and was_listed:
                raise NoCapacity(f"{self._ways.where}: the cloud created {self.machine.id} and ended it again")
            was_listed = found is not None  # a new machine may not be listed yet
            self.machine = found or self.machine

    async def land(self, patience: float) -> Landing:
        """Wait until the machine runs and return the login to it. Concurrent calls share one login.

        Raises:
            NoCapacity: The cloud has ended the machine.
            TimedOut, RuntimeFailure: The machine does not come up; see also `Landing.open`.
        """
        async with self._landing_lock:
            if self.landing is None:
                await self._wait_up()
                assert self.machine is not None
                self.landing = await Landing.open(
                    self._ways, self.machine, self.owner, self._on_gone, patience=patience
                )
            return self.landing

    async def refresh(self) -> None:
        """Query the machine's state.

        Raises:
            RuntimeFailure: The cloud could not be reached.
        """
        assert self.machine is not None
        found = await machine_of(self._account, self.owner, self.machine.id)
        if found is None or found.phase in (Phase.DOWN, Phase.GONE):
            self._on_gone(found)
        else:
            self.machine = found

    def order_again(self) -> None:
        """Allow another order after one that failed."""
        if self._making is not None and self._making.done() and self.machine is None:
            self._making = None

    async def leave(self) -> None:
        """Wait for a running order and close the connection. The machine is left alone."""
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
        if self.landing is not None:
            landing, self.landing = self.landing, None
            await landing.aclose()

    # --- ending ---------------------------------------------------------------------------------

    def break_off(self, report: Report) -> None:
        """Record the report as the end and cancel the running `bring_up`, if any."""
        self.finish(report)
        if self.scope is not None:
            self.scope.cancel()

    async def give_back(self) -> None:
        """Delete the machine, whatever runs on it. Continue after errors and raise them at the end.

        Must not be cancelled: it waits for the answer to a running order.

        Raises:
            ExceptionGroup: The errors.
        """
        errors: list[Exception] = []
        self.dead.set()
        if self._making is not None:
            with contextlib.suppress(Exception):  # `launch` has raised it
                self.machine = await asyncio.shield(self._making)
        if self.landing is not None:
            landing, self.landing = self.landing, None
            await landing.aclose()
        ids = set() if self.machine is None else {self.machine.id}
        try:
            found = await self._account.machines(self.owner or None)
            ids.update(one.id for one in found if one.tags.get("name") == self.name and one.phase is not Phase.GONE)
            ids.difference_update(one.id for one in found if one.phase is Phase.GONE)
        except RuntimeFailure as error:
            errors.append(error)
        for machine in sorted(ids):
            try:
                await self._destroy(machine)
            except RuntimeFailure as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"{self.name} could not be released", errors)

    async def _destroy(self, machine: str) -> None:
        try:
            await self._account.destroy(machine)
        except Rejected as error:
            # Some clouds answer that a deleted machine does not exist.
            if await self._is_there(machine):
                raise
            _log.debug("%s", error)
        await self._see_gone(machine)
        await anyio.to_thread.run_sync(_hostkeys.forget, _hostkeys.known_hosts_file(self._ways.options, machine))

    async def _see_gone(self, machine: str) -> None:
        until, backoff = time.monotonic() + _GONE_WITHIN, Backoff(_FIRST_PAUSE / 4, _LONGEST_PAUSE)
        while await self._is_there(machine):
            if time.monotonic() >= until:
                raise RuntimeFailure(
                    f"{self._ways.where}: {machine} was deleted, but the cloud still lists it after {_GONE_WITHIN:g} s"
                )
            await asyncio.sleep(backoff.advance())

    async def _is_there(self, machine: str) -> bool:
        found = [one for one in await self._account.machines(self.owner or None) if one.id == machine]
        return bool(found) and found[0].phase is not Phase.GONE
