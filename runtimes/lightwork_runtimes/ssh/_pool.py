"""Choice of the machine for a launch: the one with the most room, or the first that gets room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import anyio

from lightwork.runtime import RuntimeFailure, Unreachable
from lightwork_runtimes.ssh._host import Host

__all__ = ["Pool"]

_log = logging.getLogger("lightwork.runtimes.ssh")


class Pool:
    """The machines of a profile.

    Each machine counts its slots, over all schedulers that use the same folder there. Launches that find no free slot
    wait in the order of their requests.

    Args:
        profile: Name of the profile.
        hosts: The machines.
    """

    def __init__(self, profile: str, hosts: Sequence[Host]) -> None:
        self._profile = profile
        self._hosts = hosts
        self._queue = anyio.Lock()

    async def place(self, owner: str, name: str, digest: str) -> tuple[Host, bool]:
        """Take a slot for a launch. Wait until one is free.

        Returns:
            The machine, and whether the launch is new there. A launch that exists takes no slot.

        Raises:
            Conflict: A launch with this name exists from another spec.
            Unreachable: No machine can be reached.
        """
        async with self._queue:
            told = False
            while True:
                full, failures = [], []
                for host in sorted(self._hosts, key=lambda host: (host.failed_lately, len(host.kept))):
                    try:
                        state = await self._reserve(host, owner, name, digest)
                    except Unreachable as error:
                        failures.append(error)
                        continue
                    if state != "full":
                        return host, state == "new"
                    full.append(host)
                if not full:
                    raise self._none(failures)
                if not told:
                    told = True
                    _log.info("runtimes.%s: no slot is free; %s waits for one", self._profile, name)
                await _wait_any_free(full)

    async def _reserve(self, host: Host, owner: str, name: str, digest: str) -> str:
        session = await host.session()
        slots = host.slots(session.facts)
        state, _ = await session.request("reserve", owner=owner, name=name, digest=digest, slots=slots)
        return str(state)

    def _none(self, failures: Sequence[Unreachable]) -> Unreachable:
        if len(failures) == 1:
            return failures[0]
        lines = "\n".join(str(error) for error in failures)
        return Unreachable(f"runtimes.{self._profile}: none of the {len(failures)} hosts can be reached:\n{lines}")


async def _wait_any_free(hosts: Sequence[Host]) -> None:
    """Return when one of the machines has a free slot or stops answering."""
    tasks = [asyncio.ensure_future(_wait_free(host)) for host in hosts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait_free(host: Host) -> None:
    try:
        session = await host.session()
        await session.request("wait_free", slots=host.slots(session.facts))
    except RuntimeFailure as error:
        _log.info("%s", error)
