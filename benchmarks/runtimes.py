"""Works elsewhere: a warm call behind an SSH tunnel, and works in containers, each beside the bare thing.

The tunnel is that of the runtime `ssh`, to an sshd on the loopback. The bare echo goes through the same one: its
near end reads the channel itself, as the scheduler does, or is a listener that is dialled for each channel, as plain
forwarding has it. A container is started by ``docker run`` with the image that the runtime has made for the work, and
imports what the work's process has imported when it runs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.echo import Framed, ask, check, spawn
from benchmarks.harness import Batch, Budget, Report, Scale, take_turns
from benchmarks.starts import start_works
from benchmarks.works import Increment, Modules, Waiting
from lightwork import App
from lightwork.runtime import Door
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes import docker_base, sshd

TUNNEL = "a warm call through an SSH tunnel"
START = "start of a work on docker to running"
MANY = "20 works on docker, all at once, to running"
PARALLEL = 20

IMPORTS = "import sys; sys.path.insert(0, {folder!r}); import {modules}; print('ready', flush=True)"


# --- ssh ------------------------------------------------------------------------------------------


class SshCall:
    """`await work.run(n)` of a work behind a tunnel."""

    name = "lightwork, ssh"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lightwork-bench-"))
            server = await stack.enter_async_context(sshd.sshd(Path(folder)))
            work = Increment()
            await stack.enter_async_context(App(Waiting([work]), runtime="far", runtimes={"far": server.runtime()}))

            async def batch(count: int) -> float:
                start = time.perf_counter()
                for n in range(count):
                    if await work.run(n) != n + 1:
                        raise ValueError(f"a wrong answer to {n}")
                return time.perf_counter() - start

            yield batch


class SshEcho:
    """The bare echo of an asyncio Protocol behind a tunnel.

    Args:
        name: Of the row.
        dialled: Whether the near end is a listener, which the tunnel dials for each channel.
    """

    loop_factory = None

    def __init__(self, name: str, *, dialled: bool) -> None:
        self.name = name
        self._dialled = dialled

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        from lightwork_runtimes.ssh import _login, _tunnel

        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[bytes]] = []
        protocol = Framed(lambda own, body: waiting.pop().set_result(body))
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lightwork-bench-"))
            server = await stack.enter_async_context(sshd.sshd(Path(folder)))
            options = server.options()
            connection = await _login.log_in("bench", options.targets()[0], options)
            stack.callback(connection.abort)
            near = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
            stack.callback(near.close)
            host, near_port = near.sockets[0].getsockname()
            door = Door(host, near_port, None if self._dialled else lambda: protocol)
            port = sshd.free_port()
            if await _tunnel.forward(connection, [port], door) is None:
                raise OSError(f"port {port} cannot be forwarded")
            child = spawn("protocol", None, ("127.0.0.1", port))
            await protocol.connected

            async def batch(count: int) -> float:
                start = time.perf_counter()
                for n in range(count):
                    future: asyncio.Future[bytes] = loop.create_future()
                    waiting.append(future)
                    protocol.send(ask(n))
                    check(await future, n)
                return time.perf_counter() - start

            try:
                yield batch
            finally:
                protocol.transport.close()
                await protocol.closed
                await asyncio.to_thread(child.wait)


def measure_tunnel(report: Report, scale: Scale) -> None:
    """Warm calls and bare echoes, in turns."""
    os.environ.setdefault("LIGHTWORK_TEST_SESSION", "benchmarks")
    bare = SshEcho("bare echo, near end reads the channel", dialled=False)
    dialled = SshEcho("bare echo, near end is dialled", dialled=True)
    samples = take_turns([SshCall(), bare, dialled], scale.repeats, scale.calls)
    rows = {name: report.add(TUNNEL, name, "µs", [s * 1e6 for s in taken]) for name, taken in samples.items()}
    mine = rows[SshCall.name].median
    for reference in (bare, dialled):
        report.budgets.append(Budget(f"{TUNNEL}: {reference.name}", "×", 1.3, mine / rows[reference.name].median))


# --- docker ---------------------------------------------------------------------------------------


def profile() -> dict[str, Any]:
    """What makes an app run its works on docker."""
    runtime = DockerRuntime("docker", DockerOptions(image=docker_base.base_image(), pull="never"))
    return {"runtime": "docker", "runtimes": {"docker": runtime}, "host": "0.0.0.0", "launch_timeout": 60.0}


async def prepare() -> tuple[str, str]:
    """The image that works get, built by the first launch of one; and a program that imports what a worker does."""
    settings = profile()
    work = Modules()
    async with App(Waiting([work]), **settings):
        modules = await work.run()
        image = await settings["runtimes"]["docker"]._images.ready(None, os.getcwd())
    ours = [name for name in modules if name.partition(".")[0] in ("lightwork", "benchmarks", "asyncio", "ssl")]
    return str(image), IMPORTS.format(folder=os.getcwd(), modules=", ".join(ours))


def run_container(image: str, program: str) -> float:
    """Seconds from ``docker run`` to the first line of what it runs."""
    command = ["docker", "run", "--rm", "--init", "--workdir", os.getcwd(), "--entrypoint", "python3"]
    start = time.perf_counter()
    with subprocess.Popen([*command, image, "-P", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"docker run did not come to its end: {process.wait()}")
        return time.perf_counter() - start


async def run_many_containers(image: str, program: str) -> float:
    """Seconds until the engine alone, asked by its API and all at once, has all of them running that program."""
    names = [f"lightwork-bench-{os.getpid()}-{number}" for number in range(PARALLEL)]
    config = {
        "Image": image,
        "Entrypoint": ["python3", "-P", "-c", program],
        "WorkingDir": os.getcwd(),
        "HostConfig": {"Init": True},
    }
    async with profile()["runtimes"]["docker"] as runtime:
        engine = runtime._docker

        async def bring_up(name: str) -> None:
            await engine.create(name, config)
            await engine.start(name)
            async with aclosing(engine.output(name, follow=True)) as output:
                if await anext(output) != b"ready\n":
                    raise RuntimeError(f"{name} did not come to its end")

        try:
            start = time.perf_counter()
            await asyncio.gather(*map(bring_up, names))
            return time.perf_counter() - start
        finally:
            await asyncio.gather(*map(engine.remove, names))


async def run_many_works() -> float:
    """Seconds from the calls of that many fresh works to the last answer."""
    works = [Increment() for _ in range(PARALLEL)]
    warm = Increment()
    async with App(Waiting([warm, *works]), **profile()):
        await warm.run(0)  # the runtime is entered, and its images are known
        start = time.perf_counter()
        answers = await asyncio.gather(*[work.submit(n) for n, work in enumerate(works)])
        took = time.perf_counter() - start
    if answers != [n + 1 for n in range(PARALLEL)]:
        raise ValueError("a wrong answer")
    return took


def measure_docker(report: Report, scale: Scale) -> None:
    """Containers one by one and all at once; the engine's own in turns with works."""
    image, program = asyncio.run(prepare())
    mine, bare, many, bare_many = [], [], [], []
    for _ in range(max(3, scale.starts // 6)):
        mine += asyncio.run(start_works(4, **profile()))
        bare += [run_container(image, program) for _ in range(4)]
    for _ in range(3):
        many.append(asyncio.run(run_many_works()))
        bare_many.append(asyncio.run(run_many_containers(image, program)))
    start = report.add(START, "lightwork, docker", "ms", [s * 1e3 for s in mine])
    run = report.add(START, "docker run, to the same imports", "ms", [s * 1e3 for s in bare])
    report.budgets.append(Budget(f"{START} against docker run", "×", 1.3, start.median / run.median))
    start = report.add(MANY, "lightwork, docker, to the first answers", "s", many)
    run = report.add(MANY, "the engine alone, to the same imports", "s", bare_many)
    report.budgets.append(Budget(f"{MANY} against the engine alone", "×", 2.0, start.median / run.median))


def measure(report: Report, scale: Scale) -> None:
    """Whatever of the two this machine can do; what it cannot is told, and fails nothing."""
    if sshd.SSHD is None:
        print("  no sshd here: its tunnel is not measured", file=sys.stderr)
    else:
        measure_tunnel(report, scale)
    if reason := docker_base.why_not():
        print(f"  docker is not measured: {reason}", file=sys.stderr)
    else:
        measure_docker(report, scale)
