"""Other frameworks, measured if they are installed. Nothing is imported before it is known to be installed."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.harness import Batch

MARK = "seconds of each call:"
LIGHTNING_CALLS = 4


class Adder:
    """The class that becomes an actor."""

    def increment(self, n: int) -> int:
        return n + 1


def start_ray() -> None:
    """Start Ray on this machine, with a token in the environment; otherwise Ray writes one into the home folder."""
    # Ray reads these variables when it is imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)


class RayCall:
    """A method call of a Ray actor, awaited from asyncio."""

    name = "ray actor"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        await asyncio.to_thread(start_ray)
        import ray

        try:
            actor: Any = ray.remote(Adder).remote()

            async def batch(count: int) -> float:
                start = time.perf_counter()
                for n in range(count):
                    if await actor.increment.remote(n) != n + 1:
                        raise ValueError(f"a wrong answer to {n}")
                return time.perf_counter() - start

            yield batch
        finally:
            await asyncio.to_thread(ray.shutdown)


class DaskCall:
    """A method call of an actor of distributed, awaited from asyncio."""

    name = "distributed actor"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        from distributed import Client, LocalCluster

        async with (
            LocalCluster(n_workers=1, threads_per_worker=1, asynchronous=True, dashboard_address=None) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            actor: Any = await client.submit(Adder, actor=True)

            async def batch(count: int) -> float:
                start = time.perf_counter()
                for n in range(count):
                    if await actor.increment(n) != n + 1:
                        raise ValueError(f"a wrong answer to {n}")
                return time.perf_counter() - start

            yield batch


class LightningCall:
    """A call of a lightning-app work, seen by its flow. One takes a third of a second, so a few stand for a batch."""

    name = "lightning-app work"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        async def batch(count: int) -> float:
            asked = min(count, LIGHTNING_CALLS)
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.lightning", str(asked + 1), stdout=PIPE, stderr=STDOUT
            )
            output = (await program.communicate())[0].decode()
            line = next((line for line in output.splitlines() if MARK in line), None)
            if line is None:
                raise RuntimeError(f"lightning-app did not answer:\n{output[-2000:]}")
            # The first call starts the work's process, which is another subject.
            return float(sum(json.loads(line.split(MARK)[1])[1:]) / asked * count)

        yield batch


def run_ray_actors(count: int) -> float:
    """Return the seconds to start `count` actors on a running Ray, call each once, and end them."""
    start_ray()
    import ray

    try:
        start = time.perf_counter()
        kind: Any = ray.remote(num_cpus=0)(Adder)
        actors = [kind.remote() for _ in range(count)]
        answers = ray.get([actor.increment.remote(n) for n, actor in enumerate(actors)])
        if answers != [n + 1 for n in range(count)]:
            raise ValueError("a wrong answer")
        for actor in actors:
            ray.kill(actor)
        return time.perf_counter() - start
    finally:
        ray.shutdown()
