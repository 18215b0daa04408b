"""The cloud runtime on machines that are really created: containers with an sshd, see `cloud_machines`."""

from __future__ import annotations

import asyncio
import importlib
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightwork import App, CloudCompute, Flow
from lightwork.errors import CallTimeout, LaunchFailed, LightningPlatformException
from lightwork.runtime import Cause, NoCapacity, Ref, Rejected, RuntimeFailure, Spec, Standing, TimedOut
from lightwork.status import Reason
from tests.runtimes.cloud_machines import Cloud, cloud, entered, refusal
from tests.runtimes.docker_base import docker, require_engine
from tests.runtimes.sshd import needs_sshd
from tests.runtimes.support import output

require_engine()

pytestmark = [needs_sshd, pytest.mark.timeout(180)]

OWNER = "owner"
ENTRY = "lightwork.testing.conformance:main"

APP = """
    import os
    import socket

    from lightwork import Work


    class Echo(Work):
        def __init__(self, **options):
            super().__init__(**options)
            self.count = 0

        async def run(self, value: int) -> list:
            self.count += 1
            return [value, socket.gethostname(), os.getpid()]


    class Wait(Work):
        def __init__(self, **options):
            super().__init__(parallel=True, **options)
            self.hosts = []

        async def run(self) -> str:
            import asyncio

            self.hosts = [*self.hosts, os.environ["LW_INTERNAL_IP"]]
            if len(self.hosts) == 1:
                await asyncio.Event().wait()
            return "done"
"""


def spec(command: str, name: str = "a", **changes: Any) -> Spec:
    fields: dict[str, Any] = {"name": name, "owner": OWNER, "entry": ENTRY, "ticket": command.encode()}
    return Spec(**{**fields, **changes})


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path / "state") as account:
        yield account


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The app's module, imported from a folder that is the working directory and is sent as code."""
    folder = tmp_path / "app"
    folder.mkdir()
    name = f"app_{uuid.uuid4().hex[:8]}"
    (folder / f"{name}.py").write_text(textwrap.dedent(APP))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


class Holder(Flow):
    def __init__(self, work: Any) -> None:
        super().__init__()
        self.work = work

    async def run(self) -> None:
        await asyncio.Event().wait()


def app_of(account: Cloud, work: Any, **options: Any) -> App[Any]:
    runtime = account.runtime(**{"code": None, **options})
    return App(Holder(work), runtimes={"machines": runtime}, runtime="machines")


# --- works ----------------------------------------------------------------------------------------


async def test_app_runs_on_machines(account: Cloud, module: ModuleType) -> None:
    """A work has a machine, its addresses and its host name; a stop releases it, and the next call gets another one."""
    app = app_of(account, module.Echo())
    async with app:
        work = app.root.work
        assert (await work.run(1))[:2] == [1, "machine"]
        (machine,) = account.containers()
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", machine)
        assert (work.internal_ip, work.public_ip) == (address, address)
        await work.stop()
        await account.emptied()
        assert (work.internal_ip, work.public_ip) == ("", "")
        assert (await work.run(2))[0] == 2
        assert work.count == 2
        assert account.containers() != [machine]
    assert account.containers() == []


async def test_idle_machine_is_given_back(account: Cloud, module: ModuleType) -> None:
    """After idle_timeout without a call the machine is released, and the next call gets another one."""
    app = app_of(account, module.Echo(cloud_compute=CloudCompute(idle_timeout=0.2)))
    async with app:
        work = app.root.work
        first = await work.run(1)
        await app.wait_for(lambda: work.has_stopped)
        second = await work.run(2)
        assert (first[0], second[0]) == (1, 2)
        assert account.weather.calls.count("create") == 2


async def test_machine_taken_back_is_a_reason_and_the_next_try_gets_another(account: Cloud, module: ModuleType) -> None:
    """If the cloud takes an interruptible machine away, the try fails as spot_retrieval; the retry has a new one."""
    compute = CloudCompute("gpu", interruptible=True)
    app = app_of(account, module.Wait(cloud_compute=compute, retries=1, retry_delay=0.1))
    async with app:
        work = app.root.work
        call = work.submit()
        await app.wait_for(lambda: bool(work.hosts))
        (machine,) = account.running()
        labels = docker(
            "inspect", "--format", '{{index .Config.Labels "spot"}} {{index .Config.Labels "size"}}', machine
        )
        assert labels == "True large"
        account.weather.taken.add(machine)
        docker("kill", machine)
        assert await call == "done"
        assert Reason.SPOT_RETRIEVAL in [status.reason for status in work.statuses]
        (second,) = account.running()
        assert second != machine
    assert account.running() == []


async def test_quota_is_a_platform_exception(account: Cloud, module: ModuleType) -> None:
    """A used-up quota fails the call with the cloud's message, as LightningPlatformException."""

    def full(name: str) -> None:
        raise refusal(400, "VcpuLimitExceeded: You have requested more vCPU capacity than your current limit of 0")

    account.weather.on_create = full
    app = app_of(account, module.Echo())
    async with app:
        with pytest.raises(LightningPlatformException, match="your current limit of 0") as caught:
            await app.root.work.run(1)
        assert isinstance(caught.value, LaunchFailed)
        assert isinstance(caught.value.__cause__, NoCapacity)
    assert account.containers() == []


async def test_machine_that_never_comes_up_is_a_timeout(account: Cloud, module: ModuleType) -> None:
    """A machine without a login in time fails the call as a timeout, and is released."""
    options = {"driver": {"boot": "echo kernel panic; exec sleep 1000"}, "boot_timeout": 1.0}
    app = app_of(account, module.Echo(), **options)
    async with app:
        work = app.root.work
        with pytest.raises(CallTimeout, match=r"boot_timeout(.|\n)*kernel panic"):
            await work.run(1)
        assert work.has_timeout
    assert account.containers() == []


# --- ends of machines -----------------------------------------------------------------------------


async def test_machine_that_was_removed_is_told(account: Cloud) -> None:
    """When the machine is removed by others, the wait returns and its output ends."""
    async with entered(account, OWNER) as runtime:
        ref = await runtime.launch(spec("wait"))
        logs = asyncio.ensure_future(output(runtime, ref))
        docker("rm", "--force", *account.containers())
        report = await runtime.wait(ref)
        assert (report.standing, report.exit_code, report.cause) == (Standing.EXITED, None, None)
        assert "is gone" in report.detail
        assert (await logs) in ("", "waiting\n")
        assert [found.name for found in await runtime.find(OWNER)] == [ref.name]
        await runtime.release(ref)
        assert not await runtime.find(OWNER)


async def test_machine_ends_itself_after_its_lifetime(account: Cloud) -> None:
    """With max_lifetime the machine shuts itself down, whatever runs on it, and that is the reported cause."""
    async with entered(account, OWNER, max_lifetime=20.0) as runtime:
        ref = await runtime.launch(spec("stubborn"))
        report = await runtime.wait(ref)
        assert (report.standing, report.cause) == (Standing.EXITED, Cause.LIFETIME), report
        assert "max_lifetime of 20 s has passed" in account.console()


async def test_stop_of_a_machine_out_of_reach_gives_it_back(account: Cloud) -> None:
    """If SSH does not reach the worker to stop it, its machine is released instead."""
    async with entered(account, OWNER, connect_timeout=2.0, keepalive=0.5) as runtime:
        ref = await runtime.launch(spec("wait"))
        docker("pause", *account.containers())
        await runtime.stop(ref, 0.1)
        assert account.containers() == []
        (report,) = await runtime.poll([ref])
        assert (report.standing, report.cause) == (Standing.EXITED, Cause.STOPPED)


async def test_cloud_out_of_reach_is_unknown(account: Cloud) -> None:
    """If the cloud does not answer, neither a poll nor a find takes its machines for gone."""

    def down() -> None:
        raise OSError("the network is down")

    async with entered(account, OWNER) as runtime:
        ref = await runtime.launch(spec("wait"))
        docker("pause", *account.containers())
        account.weather.on_list = down
        reports = await runtime.poll([Ref(runtime.name, "other")])
        assert [report.standing for report in reports] == [Standing.UNKNOWN]
        with pytest.raises(RuntimeFailure, match="the network is down"):
            await runtime.find(OWNER)
        with pytest.raises(ExceptionGroup) as caught:
            await runtime.release(Ref(runtime.name, "other"))
        assert "the network is down" in str(caught.value.exceptions[0])
        account.weather.clear()
        docker("unpause", *account.containers())
        (report,) = await runtime.poll([ref])
        assert not report.standing.is_over


# --- launching ------------------------------------------------------------------------------------


async def test_lost_answer_to_an_order_makes_no_second_machine(account: Cloud) -> None:
    """If the answer to an order is lost, the machine that it created is found and used."""

    def lost(name: str) -> None:
        raise OSError("connection reset")

    account.weather.on_created = lost
    async with entered(account, OWNER) as runtime:
        ref = await runtime.launch(spec("exit 3"))
        assert (await runtime.wait(ref)).exit_code == 3
        assert account.weather.calls.count("create") == 1
        assert len(account.containers()) == 1


@pytest.mark.parametrize(
    ("changes", "asked", "kind", "says"),
    [
        ({"image": "nobody/knows:it"}, {}, Rejected, r"refused to create a machine: InvalidAMIID\.NotFound"),
        ({"sizes": {"default": "huge"}}, {}, Rejected, "InvalidParameterValue: unknown size huge"),
        ({}, {"compute": CloudCompute("tpu")}, Rejected, "unknown size 'tpu'; the table `sizes` has default, gpu"),
        ({}, {"compute": CloudCompute(shm_size=1)}, Rejected, "shm_size"),
        ({}, {"compute": CloudCompute(colocation_group_id="x")}, Rejected, "colocation_group_id"),
        ({}, {"compute": CloudCompute(disk_size=9)}, Rejected, "disk_size"),
        ({"interruptible": {}}, {"compute": CloudCompute(interruptible=True)}, Rejected, "interruptible"),
        ({}, {"entry": "nowhere"}, Rejected, "package.module:function"),
        ({"setup": ["x" * 20000]}, {}, Rejected, "setup is too long"),
    ],
)
async def test_what_cannot_be_had_is_rejected(
    account: Cloud, changes: dict[str, Any], asked: dict[str, Any], kind: type[Exception], says: str
) -> None:
    """Requests that the profile or the cloud cannot fulfil are refused with the reason; nothing is created."""
    async with account.runtime(**changes) as runtime:
        with pytest.raises(kind, match=says):
            await runtime.launch(spec("wait", **asked))
        assert not await runtime.find(OWNER)
        (report,) = await runtime.poll([Ref(runtime.name, "a")])
        assert report.standing is Standing.ABSENT
    assert account.containers() == []


async def test_machine_without_an_address_is_too_late(account: Cloud) -> None:
    """A machine without an address is an error after create_timeout; it is found, and can be released."""
    account.weather.hides = True
    async with entered(account, OWNER, create_timeout=0.5) as runtime:
        with pytest.raises(TimedOut, match=r"create_timeout\), without an address"):
            await runtime.launch(spec("wait"))
        (ref,) = await runtime.find(OWNER)
        (report,) = await runtime.poll([ref])
        assert report.cause is Cause.START_FAILED
        account.weather.hides = False
        assert await runtime.launch(spec("wait")) == ref, "the machine exists: the next try uses it"


async def test_setup_that_fails_lets_nobody_in(account: Cloud) -> None:
    """If a command of `setup` fails, the machine allows no login, and the error has the command's output."""
    async with entered(account, OWNER, setup=["echo no such package", "false"], boot_timeout=3.0) as runtime:
        with pytest.raises(TimedOut, match=r"the setup failed(.|\n)*no such package"):
            await runtime.launch(spec("wait"))


async def test_two_apps_in_one_account_do_not_meet(account: Cloud) -> None:
    """Of two owners in one account each finds only its own machines, and a release leaves those of the other."""
    async with entered(account, "other") as second, entered(account, OWNER) as first:
        refs = await asyncio.gather(first.launch(spec("wait")), second.launch(spec("wait", "b", owner="other")))
        assert [found.name for found in await first.find(OWNER)] == ["a"]
        assert [found.name for found in await first.find("other")] == ["b"]
        holdings = await first.holdings()
        assert {(one.owner, one.ref.name, one.is_wanted) for one in holdings} == {
            (OWNER, "a", True),
            ("other", "b", True),
        }
        await first.release(refs[0])
        (report,) = await second.poll([refs[1]])
        assert report.standing is Standing.RUNNING


# --- host keys ------------------------------------------------------------------------------------


async def test_machine_with_another_key_is_refused_at_once(account: Cloud, tmp_path: Path) -> None:
    """A wrong host key ends the launch at once, without waiting for the end of boot_timeout."""
    other = tmp_path / "known"
    other.write_text("* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFD1LPTczrzHtO9vcjUf12pmKdL5cfkoJ4u/GJX6ScxY\n")
    changes = {"host_keys": "known", "known_hosts": str(other), "boot_timeout": 3600.0}
    async with entered(account, OWNER, **changes) as runtime:
        with pytest.raises(Rejected, match="host key"):
            await runtime.launch(spec("wait"))


async def test_first_use_is_said_aloud_and_kept(account: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """With first-use the first key is trusted and logged; its file is removed with the machine."""
    async with entered(account, OWNER, host_keys="first-use") as runtime:
        ref = await runtime.launch(spec("exit 0"))
        assert (await runtime.wait(ref)).exit_code == 0
        assert "trusted without proof" in caplog.text
        assert len(list((account.folder / "hosts").iterdir())) == 1
    assert list((account.folder / "hosts").iterdir()) == []
