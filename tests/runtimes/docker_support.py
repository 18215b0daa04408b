"""Helpers of the docker tests: a runtime on the test image, and specs that send a folder with `docker_jobs`."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lightwork.runtime import Ref, Runtime, Spec
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes.docker_base import base_image, docker

JOBS = Path(__file__).with_name("docker_jobs.py")


class Folder:
    """An app's folder, and specs that run its jobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = f"test-{uuid.uuid4().hex[:12]}"
        self._count = 0
        path.mkdir(exist_ok=True)
        shutil.copy(JOBS, path / "jobs.py")

    def spec(self, command: str, name: str | None = None, **changes: Any) -> Spec:
        self._count += 1
        fields: dict[str, Any] = {
            "name": f"{self.owner}-{name or self._count}",
            "owner": self.owner,
            "entry": "jobs:main",
            "ticket": command.encode(),
            "cwd": str(self.path),
            "env": {"PYTHONPATH": str(self.path)},
        }
        return Spec(**{**fields, **changes})


@contextlib.asynccontextmanager
async def docker_runtime(owner: str, *, keep_images: bool = False, **options: Any) -> AsyncIterator[DockerRuntime]:
    """A docker runtime. At the end all containers of the owner are released and the images of its code are removed."""
    fields = {"image": base_image(), "pull": "never", **options}
    async with DockerRuntime("docker", DockerOptions(**fields)) as runtime:
        try:
            yield runtime
        finally:
            for ref in await runtime.find(owner):
                await runtime.release(ref)
            if not keep_images:
                forget_images(runtime)


@contextlib.asynccontextmanager
async def counted_engine(folder: Path) -> AsyncIterator[tuple[str, bytearray]]:
    """Forward a new socket to the local engine. Yield its address, and all bytes that are sent through it."""
    sent = bytearray()
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray | None) -> None:
        try:
            while data := await reader.read(65536):
                if copy is not None:
                    copy += data
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        other_reader, other_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, other_writer, sent))
            group.create_task(pipe(other_reader, writer, None))

    server = await asyncio.start_unix_server(serve, folder / "docker.sock")
    try:
        yield f"unix://{folder}/docker.sock", sent
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks)


def forget_images(runtime: DockerRuntime) -> None:
    """Remove the images with the code of a test's folder, which no other test needs."""
    for image in runtime._images._known.values():
        if str(image).startswith("lightwork-app:") and docker("images", "--quiet", str(image)):
            docker("rmi", "--force", str(image))


async def forget_code_of(folder: Path, runtime: DockerRuntime) -> None:
    """Remove the images with the code of a folder that another process has built."""
    async with runtime:
        for entry in await runtime.cached():
            if str(folder) in entry.detail.split(", "):
                assert await runtime.discard(entry)


async def output(runtime: Runtime, ref: Ref, start: int = 0) -> bytes:
    return b"".join([data async for _, data in runtime.logs(ref, start, follow=True)])


async def first_output(runtime: Runtime, ref: Ref) -> bytes:
    """Wait until the container has printed something."""
    stream = runtime.logs(ref, follow=True)
    try:
        _, data = await anext(stream)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return data
