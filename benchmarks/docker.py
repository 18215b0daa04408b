"""Works in containers, one by one and all at once, beside bare containers of the engine.

A bare container is started by ``docker run`` with the image that the runtime made for the work. It imports the modules
that the work's process imports.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import aclosing
from typing import Any

from benchmarks.harness import Budget, Report, Scale
from benchmarks.starts import start_works
from benchmarks.works import Increment, Modules, Waiting
from lightwork import App
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes import docker_base

START = "start of a work on docker to running"
MANY = "20 works on docker, all at once, to running"
PARALLEL = 20

IMPORTS = "import sys; sys.path.insert(0, {folder!r}); import {modules}; print('ready', flush=True)"


def profile() -> dict[str, Any]:
    """Return the settings that make an app run its works on docker."""
    runtime = DockerRuntime("docker", DockerOptions(image=docker_base.base_image(), pull="never"))
    return {"runtime": "docker", "runtimes": {"docker": runtime}, "host": "0.0.0.0", "launch_timeout": 60.0}


async def prepare() -> tuple[str, str]:
    """Return the image of a work, built by its first launch, and a program that imports what a worker imports."""
    settings = profile()
    work = Modules()
    async with App(Waiting([work]), **settings):
        modules = await work.run()
        image = await settings["runtimes"]["docker"]._images.ready(None, os.getcwd())
    ours = [name for name in modules if name.partition(".")[0] in ("lightwork", "benchmarks", "asyncio", "ssl")]
    return str(image), IMPORTS.format(folder=os.getcwd(), modules=", ".join(ours))


def run_container(image: str, program: str) -> float:
    """Return the seconds from ``docker run`` to the first line of the program's output."""
    command = ["docker", "run", "--rm", "--init", "--workdir", os.getcwd(), "--entrypoint", "python3"]
    start = time.perf_counter()
    with subprocess.Popen([*command, image, "-P", "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"docker run did not come to its end: {process.wait()}")
        return time.perf_counter() - start


async def run_many_containers(image: str, program: str) -> float:
    """Return the seconds until all containers run the program, started at once by the engine's API."""
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
    """Return the seconds from the calls of `count` new works to the last result."""
    works = [Increment() for _ in range(PARALLEL)]
    warm = Increment()
    async with App(Waiting([warm, *works]), **profile()):
        await warm.run(0)  # the runtime has started and has the images
        start = time.perf_counter()
        answers = await asyncio.gather(*[work.submit(n) for n, work in enumerate(works)])
        took = time.perf_counter() - start
    if answers != [n + 1 for n in range(PARALLEL)]:
        raise ValueError("a wrong answer")
    return took


def measure(report: Report, scale: Scale) -> None:
    """Measure containers one by one and all at once, the engine's in turns with works. Skip without an engine."""
    if reason := docker_base.why_not():
        print(f"  docker is not measured: {reason}", file=sys.stderr)
        return
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
