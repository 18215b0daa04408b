from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from lightwork.compute import CloudCompute, Mount
from lightwork.errors import PlatformError
from lightwork.runtime import Address, Cause, Rejected, Standing, Unreachable
from lightwork_runtimes.docker import DockerOptions, DockerRuntime, Machine
from tests.runtimes import docker_jobs
from tests.runtimes.docker_base import docker, require_engine
from tests.runtimes.docker_support import Folder, docker_runtime, forget_code_of, output

require_engine()

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


async def test_memory_that_runs_out_is_the_cause(folder: Folder) -> None:
    """A worker that needs more than its memory ends as `oom`, with the limit in the detail."""
    async with docker_runtime(folder.owner, memory=48) as runtime:
        report = await runtime.wait(await runtime.launch(folder.spec("eat 500")))
        assert (report.exit_code, report.cause) == (-signal.SIGKILL, Cause.OOM)
        assert "memory of 48 MB" in report.detail


async def test_memory_that_runs_out_in_a_child_is_not_the_end(folder: Folder) -> None:
    """If only a child is killed for its memory and the worker goes on, the report has the worker's own exit code."""
    async with docker_runtime(folder.owner, memory=48) as runtime:
        report = await runtime.wait(await runtime.launch(folder.spec("eat-in-child 500")))
        assert (report.standing, report.exit_code, report.cause) == (Standing.EXITED, 0, Cause.EXIT)


async def test_container_is_what_was_asked_for(folder: Folder, tmp_path: Path) -> None:
    """The container has the work's folder, variables, user, shared memory and mounts, and this copy of lightwork."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("from outside")
    compute = CloudCompute("big", shm_size=32, mounts=Mount(str(tmp_path / "data"), "/mounted"))
    async with docker_runtime(folder.owner, machines={"big": Machine(cpus=0.5, memory=256)}) as runtime:
        spec = folder.spec("facts", compute=compute)
        spec.env["LW_TEST"] = "a value, with = and ü"
        ref = await runtime.launch(spec)
        facts = json.loads(await output(runtime, ref))
        host = json.loads(docker("inspect", ref.name))[0]["HostConfig"]
    assert facts["cwd"] == str(folder.path)
    assert facts["env"] == "a value, with = and ü"
    assert facts["shm"] == 32 * 2**20
    assert facts["mounted"] == "from outside"
    assert facts["lightwork"] == "/opt/lightwork/code/lightwork/__init__.py"
    assert facts["argv"] == ["lightwork-worker"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (256 * 2**20, 256 * 2**20, 500_000_000)


async def test_mount_of_nothing_is_rejected(folder: Folder) -> None:
    """Mounting a missing folder is rejected. The folder is not created, and no container is left."""
    compute = CloudCompute(mounts=Mount("/no/such/folder", "/mounted"))
    async with docker_runtime(folder.owner) as runtime:
        with pytest.raises(Rejected, match="/no/such/folder"):
            await runtime.launch(folder.spec("facts", compute=compute))
        assert not await runtime.find(folder.owner)


async def test_secret_is_nowhere_to_be_seen(folder: Folder) -> None:
    """The ticket is in no description of the container, no layer of its file system, and no log."""
    secret = "s3cr3t-of-this-test"
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec(f"graceful {secret}"))
        await anext(runtime.logs(ref, follow=True))
        assert secret not in docker("inspect", ref.name)
        assert secret not in docker("top", ref.name)
        assert secret not in docker("diff", ref.name)
        assert secret not in docker("logs", ref.name)


async def test_output_is_whole(folder: Folder) -> None:
    """All text arrives as it was written, both streams in order, long lines complete, from any offset."""
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("text"))
        data = await output(runtime, ref)
        assert data.decode() == docker_jobs.TEXT
        assert await output(runtime, ref, 17_000) == data[17_000:]


async def test_second_controller_adopts_everything(folder: Folder) -> None:
    """After kill -9 another process finds the containers, starts none twice, and follows, stops and releases them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtimes.docker_controller",
        str(folder.path),
        folder.owner,
        "graceful",
        "say done",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
    finally:
        process.kill()
        await process.wait()
    async with docker_runtime(folder.owner) as runtime:
        first, second = await runtime.find(folder.owner)
        assert (await runtime.wait(second)).exit_code == 0
        assert await runtime.launch(folder.spec("graceful", "c0")) == first
        waiting = asyncio.ensure_future(runtime.wait(first))
        following = asyncio.ensure_future(output(runtime, first))
        await runtime.stop(first, 30)
        report = await waiting
        assert (report.exit_code, report.cause) == (7, Cause.STOPPED)
        assert await following == b"waiting\nbye\n"
    await forget_code_of(folder.path, DockerRuntime())


async def test_container_that_never_started_can_be_ended(folder: Folder) -> None:
    """A container that its creator never started is pending, and a stop removes it."""
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("say x"))
        image = json.loads(docker("inspect", ref.name))[0]["Image"]
        docker("create", "--name", f"{folder.owner}-left", "--label", f"lightwork.owner={folder.owner}", image, "true")
        left = next(found for found in await runtime.find(folder.owner) if found.name.endswith("left"))
        (report,) = await runtime.poll([left])
        assert report.standing is Standing.PENDING
        waiting = asyncio.ensure_future(runtime.wait(left))
        await runtime.stop(left, 30)
        assert (await waiting).standing is Standing.ABSENT


async def test_foreign_container_is_not_ours(folder: Folder) -> None:
    """A container without lightwork's label is absent, whatever its name, and is never removed."""
    name = f"{folder.owner}-foreign"
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("say x"))
        image = json.loads(docker("inspect", ref.name))[0]["Image"]
        docker("create", "--name", name, image, "true")
        try:
            foreign = type(ref)("docker", name)
            assert (await runtime.wait(foreign)).standing is Standing.ABSENT
            await runtime.stop(foreign, 0)
            await runtime.release(foreign)
            assert docker("inspect", "--format", "{{.State.Status}}", name) == "created"
        finally:
            docker("rm", name)


async def test_engine_that_is_not_there() -> None:
    """Without an engine the error names the tried address and how to start the engine."""
    runtime = DockerRuntime("docker", DockerOptions(host="unix:///no/docker.sock"))
    with pytest.raises(PlatformError, match=r"(?s)unix:///no/docker.sock.*running\? Start it"):
        await runtime.__aenter__()


async def test_engine_that_goes_away_is_unknown(folder: Folder, tmp_path: Path) -> None:
    """While the engine does not answer, no work counts as dead: polls are unknown, waits raise `Unreachable`."""
    upstream = "/var/run/docker.sock"
    connections: set[asyncio.StreamWriter] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_unix_connection(upstream)
        connections.update((writer, other_writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, other_writer))
            group.create_task(pipe(other_reader, writer))

    path = str(tmp_path / "engine.sock")
    server = await asyncio.start_unix_server(serve, path)
    async with docker_runtime(folder.owner) as direct:
        ref = await direct.launch(folder.spec("graceful"))
        async with DockerRuntime("docker", DockerOptions(host=f"unix://{path}")) as runtime:
            waiting = asyncio.ensure_future(runtime.wait(ref))
            stream = runtime.logs(ref, follow=True)
            assert (await anext(stream))[1] == b"waiting\n"
            server.close()
            for writer in connections:
                writer.transport.abort()
            with pytest.raises(Unreachable):
                await waiting
            with pytest.raises(Unreachable):
                await anext(stream)
            (report,) = await runtime.poll([ref])
            assert report.standing is Standing.UNKNOWN
            with pytest.raises(Unreachable):
                await runtime.find(folder.owner)
        assert not (await direct.poll([ref]))[0].standing.is_over


async def test_loopback_is_no_route(folder: Folder) -> None:
    """A listener on the loopback is refused with the setting to change; on all addresses it has a route by name."""
    async with docker_runtime(folder.owner) as runtime:
        with pytest.raises(Rejected, match=r"127\.0\.0\.1.*host = '0\.0\.0\.0'"):
            await runtime.routes(Address("127.0.0.1", 1))
        assert Address("host.docker.internal", 1) in await runtime.routes(Address("0.0.0.0", 1))
        assert await runtime.routes(Address("10.1.2.3", 1)) == [Address("10.1.2.3", 1)]
    async with docker_runtime(folder.owner, network="host") as runtime:
        assert await runtime.routes(Address("0.0.0.0", 1)) == [Address("127.0.0.1", 1)]
    async with docker_runtime(folder.owner, network="no-such-network") as runtime:
        with pytest.raises(Rejected, match="no-such-network"):
            await runtime.routes(Address("0.0.0.0", 1))
    async with docker_runtime(folder.owner, address="me.example") as runtime:
        assert await runtime.routes(Address("127.0.0.1", 1)) == [Address("me.example", 1)]


async def test_published_port_is_reachable(folder: Folder) -> None:
    """With `publish` the container's service port answers here, at the address that the worker received."""
    async with docker_runtime(folder.owner, publish=True) as runtime:
        ref = await runtime.launch(folder.spec("facts"))
        facts = json.loads(await output(runtime, ref))
        bind, port, url = facts["environ"]["_LIGHTWORK_SERVICE"].split(",")
        bound = json.loads(docker("inspect", ref.name))[0]["HostConfig"]["PortBindings"][f"{port}/tcp"][0]
    assert bind == "0.0.0.0"
    assert url == f"http://127.0.0.1:{bound['HostPort']}"
    assert bound["HostIp"] == "127.0.0.1"
