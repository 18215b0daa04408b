"""The launches of a profile: those that this process knows, and all others by the machines of the account."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lightwork.runtime import ABSENT, Cause, Holding, Ref, Report, RuntimeFailure, Standing
from lightwork_runtimes.cloud._landing import Ways
from lightwork_runtimes.cloud._launch import Launch
from lightwork_runtimes.cloud._lease import Leases, this_machine
from lightwork_runtimes.cloud._providers import Machine, Phase

__all__ = ["Register"]


class Register:
    """Finds launches and reports their state.

    Args:
        ways: The settings to reach machines, with their account.
        leases: The schedulers that live.

    Attributes:
        launches: By name, the launches that this process has made or found, until they are released.
    """

    def __init__(self, ways: Ways, leases: Leases) -> None:
        self.launches: dict[str, Launch] = {}
        self._ways = ways
        self._leases = leases

    # --- launches -----------------------------------------------------------------------------

    async def known(self, ref: Ref) -> Launch | None:
        """Return the launch of a ref, None if it certainly does not exist.

        Raises:
            RuntimeFailure: The cloud could not be reached.
        """
        launch = self.launches.get(ref.name)
        if launch is not None and (launch.is_released or launch.exists or launch.is_coming):
            return None if launch.is_released else launch
        owner = ref.hint.get("owner")
        for machine in await self._ways.account.machines(owner if isinstance(owner, str) else None):
            if machine.tags["name"] == ref.name and machine.phase is not Phase.GONE:
                return self._adopt(machine)
        return None

    def _adopt(self, machine: Machine) -> Launch:
        """Take over a launch that another process has made."""
        name = machine.tags["name"]
        launch = self.launches.get(name)
        if launch is None:
            tags = machine.tags
            launch = Launch(self._ways, tags.get("owner", ""), name, tags.get("spec", ""), machine=machine)
            self.launches[name] = launch
        if launch.machine is None:
            launch.machine = machine
        if machine.phase is Phase.DOWN and not launch.has_ended:
            launch.finish(launch.explain_end(machine))
            launch.dead.set()
        return launch

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return every launch of this owner that was not released, whichever process launched it.

        Raises:
            RuntimeFailure: The cloud cannot be reached.
        """
        refs: dict[str, Ref] = {}
        for machine in await self._ways.account.machines(owner):
            name = machine.tags["name"]
            launch = self.launches.get(name)
            if machine.phase is not Phase.GONE and (launch is None or not launch.is_released):
                refs[name] = self._ref(machine)
        # The list has neither machines that are ordered nor machines that have ended and were not released.
        for launch in self.launches.values():
            if launch.owner == owner and launch.exists:
                refs.setdefault(launch.name, launch.ref())
        return list(refs.values())

    async def holdings(self) -> Sequence[Holding]:
        """Return every machine of lightwork in the account, of all owners and profiles.

        Raises:
            RuntimeFailure: The cloud cannot be reached.
        """
        machines = await self._ways.account.machines(None)
        return [self._holding(machine) for machine in machines if machine.phase is not Phase.GONE]

    def _holding(self, machine: Machine) -> Holding:
        tags, options = machine.tags, self._ways.options
        owner, is_ours = tags.get("owner", ""), tags.get("scheduler") == this_machine()
        return Holding(
            ref=self._ref(machine),
            owner=owner,
            work=tags.get("work", ""),
            place=f"{options.provider} {options.region or ''}".strip(),
            id=machine.id,
            size=machine.size,
            state=machine.state,
            age=None if machine.created is None else max(0.0, time.time() - machine.created),
            is_wanted=self._leases.lives(owner) if is_ours else None,
        )

    def _ref(self, machine: Machine) -> Ref:
        tags = machine.tags
        return Ref(self._ways.profile, tags["name"], {"owner": tags.get("owner", ""), "machine": machine.id})

    # --- state -----------------------------------------------------------------------------------

    async def report(self, ref: Ref) -> Report:
        """Return the report of a launch. It is `Standing.UNKNOWN` if neither the machine nor the cloud answers."""
        try:
            launch = await self.known(ref)
            return ABSENT if launch is None else await self._look(launch)
        except RuntimeFailure as error:
            return Report(Standing.UNKNOWN, detail=str(error))

    async def _look(self, launch: Launch) -> Report:
        if not launch.has_ended and not launch.is_started:
            if launch.is_coming:
                return Report(Standing.PENDING, detail="its machine is being created")
            if launch.failure is not None:
                return Report(Standing.EXITED, cause=Cause.START_FAILED, detail=str(launch.failure))
            if launch.machine is None:
                # The launch was cancelled. Without an order nothing exists; an order that was sent continues.
                return Report(Standing.PENDING, detail="its machine was ordered") if launch.exists else ABSENT
            await launch.refresh()
        if launch.report is not None:
            return launch.report
        assert launch.machine is not None
        if not launch.is_started and launch.machine.phase is Phase.COMING:
            return Report(Standing.PENDING, detail=f"its machine {launch.machine.id} is {launch.machine.state}")
        landing = await launch.land(self._ways.options.connect_timeout)
        (report,) = await landing.ssh.poll([launch.inner()])
        if report.standing is Standing.UNKNOWN:
            await launch.refresh()
        return self.seen(launch, report)

    def seen(self, launch: Launch, report: Report) -> Report:
        """Record the machine's report of its worker if it is final. Return the launch's end if it is known already."""
        if launch.report is not None:
            return launch.report
        if report.standing is Standing.ABSENT:
            detail = "its machine exists, but its scheduler ended before starting a worker on it"
            report = Report(Standing.EXITED, cause=Cause.START_FAILED, detail=detail)
        if report.standing.is_over:
            launch.finish(report)
        elif report.standing is not Standing.UNKNOWN:
            launch.is_started = True
        return report
