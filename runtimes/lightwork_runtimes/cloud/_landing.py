"""A running machine reached by SSH: its host key is read, a runtime of kind ``ssh`` connects, heartbeats are sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import asyncssh

from lightwork.runtime import Address, Rejected, RuntimeFailure, TimedOut
from lightwork_runtimes.cloud import _hostkeys
from lightwork_runtimes.cloud._account import Account
from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._providers import Machine, Phase
from lightwork_runtimes.ssh import FarOptions, HostOptions, SshOptions, SshRuntime

__all__ = ["Landing", "Ways", "machine_of"]

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
"""Seconds before the next try for a machine that is not ready; doubled from the first pause to the longest."""

_SIGN_EVERY = 5.0
"""Seconds between two heartbeats, unless the machine's watchdog needs them sooner."""

_CONSOLE_LINES = 15

_log = logging.getLogger("lightwork.runtimes.cloud")


class Ways:
    """The settings to reach the machines of one runtime.

    Args:
        profile: Name of the profile.
        options: Keys of the profile.
        account: The account that lists the machines.
        key_files: Private keys for the login.
        ports: See `SshOptions.ports`.
        tasks: The task group for tasks that outlive a request.

    Attributes:
        where: Name of the profile for messages.
        listener: Address of the scheduler, None until it is known.
    """

    def __init__(
        self,
        profile: str,
        options: CloudOptions,
        account: Account,
        key_files: list[str],
        ports: list[int],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.profile = profile
        self.where = f"runtimes.{profile}"
        self.options = options
        self.account = account
        self.tasks = tasks
        self.listener: Address | None = None
        self._key_files = key_files
        self._ports = ports

    def address(self, machine: Machine) -> str:
        """Return the address that the scheduler connects to, empty if the machine does not have it yet."""
        return machine.public if self.options.address == "public" else machine.private

    async def ssh_options(self, machine: Machine) -> SshOptions:
        """Return the options of an ``ssh`` profile for this machine alone, with its host keys.

        Raises:
            RuntimeFailure: The host keys are not known, or not yet.
        """
        options, host = self.options, self.address(machine)
        known = options.known_hosts
        if known is None:
            known = _hostkeys.known_hosts_file(options, machine.id)
            if not await anyio.Path(known).exists():
                keys = await self._learn(machine, host)
                await anyio.to_thread.run_sync(_hostkeys.remember, known, host, options.port, keys)
        shown = f"[{host}]" if ":" in host else host
        shared = {key: getattr(options, key) for key in FarOptions.__struct_fields__ if key != "ports"}
        return SshOptions(
            hosts=[HostOptions(host=f"{options.username}@{shown}:{options.port}")],
            slots=1,
            client_keys=self._key_files,
            known_hosts=known,
            config="",
            ports=self._ports,
            **shared,
        )

    async def _learn(self, machine: Machine, host: str) -> list[str]:
        if self.options.host_keys == "first-use":
            keys = await _hostkeys.first_use(self.where, host, self.options.port, self.options.connect_timeout)
            _log.warning(
                "%s: the host key of %s (%s) is trusted without proof (host_keys = 'first-use')",
                *(self.where, machine.id, host),
            )
        else:
            keys = _hostkeys.printed_keys(await self.account.console(machine.id))
        if not keys:
            raise RuntimeFailure(f"{self.where}: {machine.id} has not shown its host keys yet (host_keys)")
        return keys


class Landing:
    """A login to one machine. Created with `open`, ended with `aclose`, which leaves the machine alone.

    Attributes:
        ssh: The runtime that reaches the machine.
    """

    def __init__(
        self, ways: Ways, machine: Machine, owner: str, on_gone: Callable[[Machine | None], None], every: float
    ) -> None:
        self._ways = ways
        self._machine = machine
        self._owner = owner
        self._on_gone = on_gone
        self._every = every
        self._is_up = asyncio.Event()
        self._leave = asyncio.Event()
        self._left = asyncio.Event()
        self._left.set()
        self.ssh: SshRuntime

    @classmethod
    async def open(
        cls, ways: Ways, machine: Machine, owner: str, on_gone: Callable[[Machine | None], None], *, patience: float
    ) -> Landing:
        """Return when the login succeeds and the machine has the helper. Cancelling leaves nothing here.

        Args:
            ways: The settings to reach it.
            machine: The machine, with its addresses.
            owner: Its owner.
            on_gone: Called once when the cloud reports the machine's end, with what the cloud still lists of it.
            patience: Seconds that the login may take.

        Raises:
            TimedOut: It took longer. The message has the last error and the end of the machine's console.
            RuntimeFailure: The machine ended meanwhile.
            Rejected: The machine has another host key than the known one.
        """
        until = time.monotonic() + patience
        landing = cls(ways, machine, owner, on_gone, min(_SIGN_EVERY, ways.options.abandoned_after / 4))
        pause, last = _FIRST_PAUSE, "no address"
        entered = False
        try:
            while True:
                try:
                    if not entered:
                        await landing._enter(await ways.ssh_options(machine))
                        entered = True
                    await landing.ssh.touch()
                    landing._is_up.set()
                    return landing
                except RuntimeFailure as error:
                    if isinstance(error.__cause__, asyncssh.HostKeyNotVerifiable):
                        raise
                    last = str(error)
                left = until - time.monotonic()
                if left <= 0:
                    raise TimedOut(await landing._late(patience, last))
                await asyncio.sleep(min(pause, left))
                pause = min(pause * 2, _LONGEST_PAUSE)
                await landing._check_there()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await landing.aclose()
            raise

    async def _enter(self, options: SshOptions) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left.clear()
        self._ways.tasks.start_soon(self._hold, options, ready, name=f"lightwork cloud ssh {self._machine.id}")
        await ready

    async def _hold(self, options: SshOptions, ready: asyncio.Future[None]) -> None:
        """Enter and leave the SSH runtime. One task must do both."""
        try:
            async with SshRuntime(self._ways.profile, options) as ssh:
                if self._ways.listener is not None:
                    await ssh.routes(self._ways.listener)
                self.ssh = ssh
                if not ready.done():
                    ready.set_result(None)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._watch)
                    await self._leave.wait()
                    group.cancel_scope.cancel()  # before leaving the runtime, which it uses
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)
            elif not ready.cancelled():
                raise
            else:  # no task waits for it any more
                _log.debug("%s: %s", self._machine.id, error)
        finally:
            self._left.set()

    async def _watch(self) -> None:
        """Send heartbeats. When one fails, check whether the machine still exists."""
        await self._is_up.wait()
        while True:
            try:
                await self.ssh.touch()
            except RuntimeFailure as error:
                _log.debug("%s", error)
                if await self._is_gone():
                    self._leave.set()  # there is nothing left to reconnect to
                    return
            await asyncio.sleep(self._every)

    async def _is_gone(self) -> bool:
        try:
            found = await machine_of(self._ways.account, self._owner, self._machine.id)
        except RuntimeFailure as error:  # an unreachable cloud proves nothing
            _log.debug("%s", error)
            return False
        if found is not None and found.phase in (Phase.COMING, Phase.UP):
            return False
        self._on_gone(found)
        return True

    async def _check_there(self) -> None:
        try:
            found = await machine_of(self._ways.account, self._owner, self._machine.id)
        except RuntimeFailure as error:
            _log.debug("%s", error)
            return
        if found is None or found.phase in (Phase.DOWN, Phase.GONE):
            self._on_gone(found)
            state = "gone" if found is None else found.state
            raise RuntimeFailure(f"{self._ways.where}: {self._machine.id} is {state}: it ended before it could be used")

    async def _late(self, patience: float, last: str) -> str:
        text = f"{self._ways.where}: no login to {self._machine.id} succeeded within {patience:g} s (boot_timeout)"
        try:
            with anyio.move_on_after(self._ways.options.api_timeout):
                lines = (await self._ways.account.console(self._machine.id)).strip().splitlines()
                if lines:
                    last += "\nThe end of its console:\n" + "\n".join(lines[-_CONSOLE_LINES:])
        except Rejected:
            pass  # a driver without consoles
        except RuntimeFailure as error:
            last += f"\nIts console cannot be read: {error}"
        return f"{text}: {last}"

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        self._leave.set()
        await self._left.wait()


async def machine_of(account: Account, owner: str, machine: str) -> Machine | None:
    """Return the machine with this id, None if the cloud does not list it."""
    found: Any = [one for one in await account.machines(owner) if one.id == machine]
    return found[0] if found else None
