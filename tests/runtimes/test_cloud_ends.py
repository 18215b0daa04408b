"""Cancelled or killed schedulers leave no machine that cannot be found, and abandoned machines shut down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lightwork.runtime import Cause, Spec, Standing
from lightwork.testing.conformance import Case
from tests.runtimes.awaits import cancel_launch_at_every_await, killed_at
from tests.runtimes.cloud_machines import Cloud, ContainerDriver, cloud, machine_image
from tests.runtimes.docker_base import docker, require_engine
from tests.runtimes.sshd import needs_sshd
from tests.runtimes.support import first_output

from lightwork_runtimes.cloud._userdata import Watchdog, user_data  # isort: skip -- after the imports that skip the module

require_engine()

pytestmark = [needs_sshd, pytest.mark.timeout(600)]


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path / "state") as account:
        yield account


def spec(number: int, command: str = "wait") -> Spec:
    entry = "lightwork.testing.conformance:main"
    return Spec(name=f"owner-{number}", owner="owner", entry=entry, ticket=command.encode())


async def orders_done(account: Cloud) -> None:
    """Return when the cloud has carried out the orders of a killed scheduler."""
    while await asyncio.to_thread(_orders, account):  # noqa: ASYNC110 -- they are not this process's children
        await asyncio.sleep(0.05)


def _orders(account: Cloud) -> bool:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(account.account in part for part in process.cmdline()) and process.name() == "docker":
                return True
    return False


# --- schedulers -----------------------------------------------------------------------------------


async def test_launch_cancelled_at_every_await(account: Cloud) -> None:
    """A launch that is cancelled at any await leaves nothing, or a launch that `find` returns and `release` removes."""
    async with account.runtime() as runtime:
        assert await cancel_launch_at_every_await(runtime, Case(account.runtime, runtime)) > 5
        assert account.running() == []


@pytest.mark.parametrize(
    ("where", "number", "machines"),
    [("create", 1000, 0), ("created", 1000, 1), ("", 1, 0), ("", 6, 1), ("", 12, 1), ("", 1000, 1)],
    ids=["before the order", "before its answer", "await 1", "await 6", "await 12", "after the launch"],
)
async def test_machine_of_a_killed_scheduler_is_found_and_given_back(
    account: Cloud, where: str, number: int, machines: int
) -> None:
    """A scheduler that is killed at any point leaves at most one machine, listed as a dead app's, and releasable."""
    await killed_at(account.runtime(driver={"die": where}), spec(1), number)
    await orders_done(account)
    async with account.runtime() as runtime:
        holdings = await runtime.holdings()
        assert len(account.running()) == len(holdings)
        assert len(holdings) <= 1
        assert not where or len(holdings) == machines
        assert number < 1000 or len(holdings) == machines
        assert [one.is_wanted for one in holdings] == [False] * len(holdings)
        found = await runtime.find("owner")
        assert [ref.name for ref in found] == [one.ref.name for one in holdings]
        for one in holdings:
            await runtime.release(one.ref)
        assert not await runtime.find("owner")
    assert account.running() == []


async def test_next_scheduler_goes_on_with_the_machine(account: Cloud) -> None:
    """A waiting scheduler finds the launches of a killed one with their output, adopts them, and stops them."""
    await killed_at(account.runtime(), spec(1), 1000)
    async with account.runtime() as runtime:
        (ref,) = await runtime.find("owner")
        assert await first_output(runtime, ref) == "waiting\n"
        waiting = asyncio.ensure_future(runtime.wait(ref))
        assert await runtime.launch(spec(1)) == ref
        assert [one.is_wanted for one in await runtime.holdings()] == [True]
        await runtime.stop(ref, 1)
        assert (await waiting).cause is Cause.STOPPED
        await runtime.release(ref)


async def test_machine_without_a_worker_is_told(account: Cloud) -> None:
    """A machine without a worker, because its scheduler died before, is reported as a failed start."""
    await killed_at(account.runtime(driver={"die": "created"}), spec(1), 1000)
    async with account.runtime() as runtime:
        (ref,) = await runtime.find("owner")
        report = await runtime.wait(ref)
        assert (report.standing, report.cause) == (Standing.EXITED, Cause.START_FAILED)
        await runtime.release(ref)


# --- the watchdog ---------------------------------------------------------------------------------


def machine(account: Cloud, watchdog: Watchdog, **options: Any) -> str:
    """Create a machine without a scheduler and return its id."""
    script = user_data(watchdog, username="root", folder="far", public_keys=[], **options)
    driver = ContainerDriver(account=account.account, timeout=1.0)

    class Named:
        id = machine_image()

    class Small:
        id = "small"

    return str(driver.create_node("m", Small, Named, {}, script).id)


async def ended(name: str) -> str:
    """Wait until the machine has shut itself down and return its console."""
    await asyncio.to_thread(docker, "wait", name)
    return docker("logs", name)


async def test_machine_that_nobody_comes_to_ends_itself(account: Cloud) -> None:
    """A machine without a heartbeat from a scheduler in time shuts itself down."""
    name = machine(account, Watchdog(first=2, window=1000, lifetime=None))
    assert "no worker and no scheduler was here for 2 s" in await ended(name)


async def test_machine_is_left_on_while_it_is_needed(account: Cloud) -> None:
    """A scheduler's heartbeat counts only while it changes; a worker's process counts as long as it runs."""
    name = machine(account, Watchdog(first=1000, window=2, lifetime=None))
    worker = f"import time; time.sleep(6)  # {'0' * 32}"
    command = ["/root/far/helper/" + "0" * 32, "supervise"]
    await asyncio.to_thread(docker, "exec", name, "sh", "-c", "mkdir -p /root/far; echo 1 >/root/far/alive")
    # A process that looks like a worker's supervisor. It runs much longer than the watchdog's window.
    await asyncio.to_thread(docker, "exec", name, "python3", "-c", worker, *command)
    assert name in account.running()
    assert "no worker and no scheduler was here for 2 s" in await ended(name)


async def test_lifetime_ends_a_machine_whatever_it_does(account: Cloud) -> None:
    """After its lifetime a machine shuts itself down even if it is in use."""
    name = machine(account, Watchdog(first=1000, window=1000, lifetime=3))
    assert "its max_lifetime of 3 s has passed" in await ended(name)
