"""A scheduler whose work is in a container is killed, and the next one adopts the container."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.engine.recovery.support import Scheduler
from tests.runtimes.docker_base import base_image, docker, require_engine

require_engine()
pytest.importorskip("cryptography")

pytestmark = pytest.mark.timeout(300)

APP = """
    import asyncio
    import socket
    import sys

    from lightwork import App, Flow, Work
    from lightwork_runtimes.docker import DockerOptions, DockerRuntime


    class Sit(Work):
        def __init__(self):
            super().__init__(parallel=True)
            self.is_free = False
            self.container = ""
            self.runs = 0

        async def run(self) -> str:
            self.runs += 1
            self.container = socket.gethostname()
            while not self.is_free:
                await asyncio.sleep(0.02)
            return "done"


    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.work = Sit()

        async def run(self):
            call = self.work.submit()
            while not self.work.container:
                await asyncio.sleep(0.02)
            await self._driver._core.journal.committed()
            print("waiting", self.work.container, flush=True)
            if "resume" in sys.argv:
                self.work.is_free = True
            print("found", await call, self.work.runs, self.work.container, flush=True)
            self.stop()


    async def main():
        runtime = DockerRuntime("docker", DockerOptions(image=sys.argv[1], pull="never"))
        settings = dict(runtime="docker", host="0.0.0.0", launch_timeout=60.0, reconnect_window=60.0)
        settings |= dict(journal="journal", resume="resume" in sys.argv)
        await App(Root(), runtimes={"docker": runtime}, **settings).run()


    asyncio.run(main())
"""


@asynccontextmanager
async def scheduler(folder: Path, *more: str) -> AsyncIterator[Scheduler]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "app.py",
        base_image(),
        *more,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Scheduler(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_container_is_adopted(tmp_path: Path) -> None:
    """The call continues in the same container, over TLS, and the container is gone when the app has ended."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    container = image = ""
    try:
        async with scheduler(tmp_path) as first:
            (container,) = await first.said("waiting")
            image = docker("inspect", "--format", "{{.Config.Image}}", container)
            await first.kill()
        async with scheduler(tmp_path, "resume") as second:
            assert await second.said("waiting") == [container]
            assert await second.said("found") == ["done", "1", container]
            assert await second.ended() == 0
        assert not docker("ps", "--all", "--quiet", "--filter", f"id={container}")
    finally:
        if container and docker("ps", "--all", "--quiet", "--filter", f"id={container}"):
            docker("rm", "--force", container)
        if image.startswith("lightwork-app:") and docker("images", "--quiet", image):
            docker("rmi", "--force", image)  # it has the code of the test's folder, so no other test uses it
