"""EC2's wire format: with a moto server, and with answers that moto does not give."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lightwork import CloudCompute
from lightwork.runtime import Address, Cause, Health, NoCapacity, Rejected, Spec, TimedOut, Unreachable
from tests.runtimes.sshd import free_port

pytest.importorskip("libcloud")
pytest.importorskip("asyncssh")
if importlib.util.find_spec("moto") is None:
    pytest.skip("moto is not installed", allow_module_level=True)

from libcloud.compute.drivers import ec2

from lightwork_runtimes.cloud import CloudOptions, CloudRuntime
from lightwork_runtimes.cloud._providers import Machine

pytestmark = pytest.mark.timeout(120)

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@contextlib.asynccontextmanager
async def moto() -> AsyncIterator[int]:
    """Run a moto server in a separate process and yield its port."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    try:
        said = b""
        while b"Running on" not in said:
            line = await process.stdout.readline()
            assert line, f"moto does not start: {said.decode()}"
            said += line
        draining = asyncio.ensure_future(process.stdout.read())
        yield port
    finally:
        process.kill()
        await process.wait()
    await draining


@contextlib.asynccontextmanager
async def answering(*answers: tuple[int, str, str]) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that refuses to create machines with these status codes, codes and texts, in turn, as EC2 does."""
    left, asked = list(answers), []

    async def answer(request: web.Request) -> web.Response:
        action = request.query["Action"]
        asked.append(action)
        if action != "RunInstances":
            return web.Response(text=f'<{action}Response xmlns="{ec2.NAMESPACE}"/>')
        status, code, text = left.pop(0)
        body = f"<Response><Errors><Error><Code>{code}</Code><Message>{text}</Message></Error></Errors></Response>"
        return web.Response(status=status, text=body)

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


def runtime(port: int, folder: Path, **changes: Any) -> CloudRuntime:
    fields: dict[str, Any] = {
        "provider": "ec2",
        "region": "us-east-1",
        "driver": {"host": "127.0.0.1", "port": port, "secure": False, "signature_version": "4"},
        "image": "ami-12c6146b",
        "username": "admin",
        "sizes": {"default": "t3.small", "gpu": "g5.xlarge"},
        "root_device": "/dev/sda1",
        "state": str(folder),
        "create_timeout": 30.0,
        "boot_timeout": 0.5,
        "connect_timeout": 0.5,
    }
    return CloudRuntime("aws", CloudOptions(**{**fields, **changes}))


def spec(name: str = "lw1-root.train-1-1", **changes: Any) -> Spec:
    fields: dict[str, Any] = {"name": name, "owner": "lw1", "entry": "a:b", "ticket": b"ticket of 1"}
    return Spec(**{**fields, "env": {"LIGHTWORK_WORK": "root.train"}, **changes})


async def raw(one: CloudRuntime, machine: str) -> Any:
    """Return the node as the driver has it."""
    account = one._account
    nodes = await account._ask("", lambda driver: driver.list_nodes(ex_node_ids=[machine]))
    return nodes[0]


async def test_diagnosis_asks_the_account(tmp_path: Path) -> None:
    """A diagnosis makes one request for the list of machines, creates none, and reports that the cloud answers."""
    async with answering() as (port, asked):
        options = runtime(port, tmp_path).options
        findings = {finding.what: finding for finding in await CloudRuntime.diagnose("aws", options)}
    assert findings["account"].health is Health.OK, findings
    assert "0 machines" in findings["account"].detail
    assert set(asked) == {"DescribeInstances"}


async def test_order_find_and_give_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order has tags, size, spot and disk in one call; only its owner finds it, and it ends as terminated."""
    # moto leaves out the slash at the end of its namespace.
    monkeypatch.setattr(ec2, "NAMESPACE", ec2.NAMESPACE.rstrip("/"))
    async with moto() as port, runtime(port, tmp_path) as one:
        await one.routes(Address("127.0.0.1", 4321))
        compute = CloudCompute("gpu", disk_size=50, interruptible=True)
        with pytest.raises(TimedOut, match="boot_timeout"):  # there is no machine behind moto's address
            await one.launch(spec(compute=compute))
        (ref,) = await one.find("lw1")
        assert ref.name == "lw1-root.train-1-1"
        assert not await one.find("lw2")
        machine = str(ref.hint["machine"])
        node = await raw(one, machine)
        assert node.name.startswith("lightwork-root-train-")
        assert node.extra["instance_type"] == "g5.xlarge"
        assert node.extra["instance_lifecycle"] == "spot"
        assert node.extra["client_token"]
        tags = node.extra["tags"]
        assert (tags["lightwork-owner"], tags["lightwork-work"]) == ("lw1", "root.train")
        assert tags["lightwork-interruptible"] == "yes"
        assert b"ticket" not in repr(tags).encode()
        (holding,) = await one.holdings()
        assert (holding.id, holding.size, holding.state, holding.is_wanted) == (machine, "g5.xlarge", "running", True)
        assert holding.place == "ec2 us-east-1"
        (report,) = await one.poll([ref])
        assert report.cause is Cause.START_FAILED
        await one.release(ref)
        assert not await one.find("lw1")
        assert not await one.holdings()
        assert (await raw(one, machine)).extra["status"] == "terminated"


async def test_terminated_machines_that_are_listed_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was terminated by others is noticed while it boots, although EC2 still lists it."""
    monkeypatch.setattr(ec2, "NAMESPACE", ec2.NAMESPACE.rstrip("/"))
    async with moto() as port, runtime(port, tmp_path, boot_timeout=60.0) as one:
        launching = asyncio.ensure_future(one.launch(spec()))
        while not (found := [ref for ref in await one.find("lw1") if "machine" in ref.hint]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # EC2 has no event for it
        machine = str(found[0].hint["machine"])
        await one._account.destroy(machine)
        with pytest.raises(Exception, match=r"terminated|ended it again"):
            await launching
        await one.release(found[0])
        listed: list[Machine] = await one._account.machines("lw1")
        assert [each.id for each in listed] == [machine]
        assert not await one.find("lw1")


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (500, "InsufficientInstanceCapacity", "We currently do not have sufficient g5 capacity", NoCapacity),
        (400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your limit of 0", NoCapacity),
        (400, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", NoCapacity),
        (503, "RequestLimitExceeded", "Request limit exceeded.", NoCapacity),
        (400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", Rejected),
        (400, "InvalidParameterValue", "Invalid value 't9' for InstanceType.", Rejected),
        (401, "AuthFailure", "AWS was not able to validate the provided access credentials", Rejected),
        (403, "UnauthorizedOperation", f"User {KEY} is not authorized; {SECRET}", Rejected),
    ],
)
async def test_refusals(tmp_path: Path, status: int, code: str, text: str, kind: type[Exception]) -> None:
    """A refusal has EC2's text and the right class, without a secret; nothing is left to release."""
    async with answering((status, code, text)) as (port, asked), runtime(port, tmp_path) as one:
        with pytest.raises(kind) as caught:
            await one.launch(spec())
        shown = "".join(traceback.format_exception(caught.value))
        assert type(caught.value) is kind
        assert code in str(caught.value)
        assert KEY not in shown
        assert SECRET not in shown
        assert asked.count("RunInstances") == 1
        assert not await one.find("lw1")


async def test_no_answer_is_unreachable_and_has_no_address(tmp_path: Path) -> None:
    """If no server answers, the error is one line, without the request and its secrets."""
    async with runtime(free_port(), tmp_path) as one:
        with pytest.raises(Unreachable, match="could not be reached") as caught:
            await one.launch(spec())
        assert "UserData" not in str(caught.value)
        assert "Action=" not in str(caught.value)


async def test_unknown_region_is_told(tmp_path: Path) -> None:
    """An unknown region is a configuration error that names the profile."""
    with pytest.raises(Exception, match=r"runtimes\.aws: .*Invalid region: mars"):
        async with runtime(1, tmp_path, region="mars"):
            pass
