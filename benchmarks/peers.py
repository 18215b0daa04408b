"""The peers, measured where they are installed. Nothing here is imported before it is known to be there."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.harness import Batch


class Adder:
    """What becomes an actor."""

    def increment(self, n: int) -> int:
        return n + 1


def start_ray() -> None:
    """Start Ray on this machine, with a token in the environment: else it writes one into the home folder."""
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)


class RayCall:
    """A method of a Ray actor, awaited from asyncio."""

    name = "ray actor"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        import ray

        await asyncio.to_thread(start_ray)
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
    """A method of an actor of distributed, awaited from asyncio."""

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


def run_ray_actors(count: int) -> float:
    """Seconds to start `count` actors on a running Ray, call each once, and end them."""
    import ray

    start_ray()
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
