"""Whole apps on docker: the scheduler runs here, each work in a container that connects back over the bridge."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lightwork import App
from lightwork.errors import LaunchFailed, WorkerDied
from lightwork.runtime import Ref, Spec
from lightwork.status import Reason
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes.docker_base import base_image, docker, require_engine
from tests.runtimes.docker_support import forget_images

require_engine()

pytestmark = pytest.mark.timeout(120)

APP = """
    import asyncio
    import os
    from pathlib import Path

    import helper  # from the app's own folder
    from lightwork import Work


    class Count(Work):
        def __init__(self):
            super().__init__()
            self.seen = []

        async def run(self, upto: int = 3) -> list:
            for number in range(upto):
                self.seen.append(number)
            return [helper.double(upto), os.path.exists("/opt/lightwork/start.py"), Path("data.txt").read_text()]


    class Serve(Work):
        def __init__(self):
            super().__init__(parallel=True, host="0.0.0.0")

        async def run(self) -> None:
            server = await asyncio.start_server(self.answer, self.host, self.port)
            async with server:
                await server.serve_forever()

        async def answer(self, reader, writer):
            await reader.readline()
            writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nfrom the container")
            await writer.drain()
            writer.close()


    class Eat(Work):
        def run(self) -> int:
            held = [bytearray(1 << 20) for _ in range(500)]
            return len(held)

"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The app's module, imported from a folder that is the working directory and is sent as code."""
    folder = tmp_path / "app"
    folder.mkdir()
    name = f"app_{uuid.uuid4().hex[:8]}"
    (folder / f"{name}.py").write_text(textwrap.dedent(APP))
    (folder / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "data.txt").write_text("bundled")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module(name)
    for loaded in (name, "helper"):
        sys.modules.pop(loaded, None)


class Recording(DockerRuntime):
    """Records the refs that it launched."""

    def __init__(self, **options: Any) -> None:
        super().__init__("docker", DockerOptions(**{"image": base_image(), "pull": "never", **options}))
        self.launched: list[str] = []

    async def launch(self, spec: Spec) -> Ref:
        ref = await super().launch(spec)
        self.launched.append(ref.name)
        return ref


@pytest.fixture
def make_app(module: ModuleType) -> Iterator[Callable[..., tuple[App[Any], Recording]]]:
    made: list[Recording] = []

    def make(work: Any, *, host: str = "0.0.0.0", **options: Any) -> tuple[App[Any], Recording]:
        runtime = Recording(**options)
        made.append(runtime)
        return App(work, runtimes={"docker": runtime}, runtime="docker", host=host, launch_timeout=30), runtime

    yield make
    for runtime in made:
        forget_images(runtime)


async def test_app_runs_in_containers(module: ModuleType, make_app: Callable[..., tuple[App[Any], Recording]]) -> None:
    """Calls, state and files work as on this machine, and no container is left."""
    app, runtime = make_app(module.Count())
    async with app:
        work = app.root.work
        assert await work.submit() == [6, True, "bundled"]
        assert work.seen == [0, 1, 2]
    assert len(runtime.launched) == 1
    assert not docker("ps", "--all", "--quiet", "--filter", f"name={runtime.launched[0]}")


async def test_url_works_from_here(module: ModuleType, make_app: Callable[..., tuple[App[Any], Recording]]) -> None:
    """A service in a container answers at the work's `url`, and `internal_ip` is the container's address."""
    app, _ = make_app(module.Serve())
    async with app:
        work = app.root.work
        call = work.submit()
        async with asyncio.timeout(60):
            await app.wait_for(lambda: bool(work.url))
        address, _, port = work.url.removeprefix("http://").partition(":")
        assert address == work.internal_ip
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"from the container" in await reader.read()
        writer.close()
        await writer.wait_closed()
        call.cancel()


async def test_memory_that_runs_out_is_a_reason(
    module: ModuleType, make_app: Callable[..., tuple[App[Any], Recording]]
) -> None:
    """A call whose container is killed for its memory fails with the reason `oom`."""
    app, _ = make_app(module.Eat(), memory=96)
    async with app:
        work = app.root.work
        with pytest.raises(WorkerDied, match="memory of 96 MB"):
            await work.submit()
        assert Reason.OOM in [status.reason for status in work.statuses]


ORPHAN = """
    import asyncio
    import os
    import sys

    from lightwork import App, Flow, Work
    from lightwork_runtimes.docker import DockerOptions, DockerRuntime


    class Sleeper(Work):
        async def run(self) -> None:
            await asyncio.sleep(3600)


    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.sleeper = Sleeper()

        async def run(self):
            await self.sleeper.run()


    class Telling(DockerRuntime):
        async def launch(self, spec):
            ref = await super().launch(spec)
            print(ref.name, flush=True)
            return ref


    async def main():
        runtime = Telling("docker", DockerOptions(image=sys.argv[1], pull="never"))
        settings = {"runtime": "docker", "host": "0.0.0.0", "reconnect_window": 1, "launch_timeout": 100}
        async with App(Root(), runtimes={"docker": runtime}, **settings) as app:
            await app.wait_for(lambda: app.root.sleeper.is_running)
            print("running", flush=True)
            await asyncio.sleep(3600)


    if __name__ == "__main__":
        asyncio.run(main())
"""


async def test_container_ends_itself_without_its_scheduler(tmp_path: Path) -> None:
    """After kill -9 of the scheduler, the container of a running worker ends by itself after the reconnect window."""
    folder = tmp_path / "orphan"
    folder.mkdir()
    (folder / "orphan.py").write_text(textwrap.dedent(ORPHAN))
    root = Path(__file__).parents[2]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "orphan.py", base_image()),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "runtimes")])},
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    name = ""
    try:
        name = (await program.stdout.readline()).decode().strip()
        assert name
        assert await program.stdout.readline() == b"running\n"
        image = docker("inspect", "--format", "{{.Config.Image}}", name)
        program.kill()
        await program.wait()
        await asyncio.to_thread(docker, "wait", name)
        assert docker("inspect", "--format", "{{.State.Status}}", name) == "exited"
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
        if name:
            docker("rm", "--force", name)
    docker("rmi", "--force", image)


async def test_listener_on_loopback_is_told(
    module: ModuleType, make_app: Callable[..., tuple[App[Any], Recording]]
) -> None:
    """With the default host no container reaches the scheduler: the call fails at once and names the setting."""
    app, runtime = make_app(module.Count(), host="127.0.0.1")
    async with app:
        with pytest.raises(LaunchFailed, match=r"set host = '0\.0\.0\.0'"):
            await app.root.work.submit()
    assert not runtime.launched
