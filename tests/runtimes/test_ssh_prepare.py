"""Environments that are really created, from the packages that this machine has or downloads."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lightwork import App, BuildConfig, Flow
from lightwork.runtime import Rejected, Runtime, Spec
from tests.runtimes.sshd import Server, needs_sshd, sshd
from tests.runtimes.support import output

from lightwork_runtimes.ssh import _packages  # isort: skip -- after the imports that skip the module
from lightwork_runtimes.ssh._environment import Environment  # isort: skip
from tests.runtimes.ssh_works import Echo  # isort: skip

pytestmark = [needs_sshd, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    async with sshd(folder) as server:
        yield server


class Holder(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.echo = Echo()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def said(runtime: Runtime, entry: str, name: str, build: BuildConfig | None = None) -> str:
    """Run a launch, release it and return its output."""
    ref = await runtime.launch(Spec(name=name, owner="owner", entry=entry, ticket=b"say done", build=build))
    try:
        return await output(runtime, ref)
    finally:
        await runtime.release(ref)


def wait_makers(server: Server) -> None:
    """Return when no environment is being created: each creation holds a lock."""
    for lock in server.far.glob("venvs/*.lock"):
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)


async def test_work_runs_in_a_made_environment(server: Server) -> None:
    """A work runs in an environment with lightwork in it; a second start creates and sends nothing."""
    seen: list[dict[Path, int]] = []
    for _ in range(2):
        root = Holder()
        async with App(root, runtime="far", runtimes={"far": server.runtime(prepare=True)}):
            *_, python = await root.echo.run(1)
        (venv,) = [path for path in server.far.glob("venvs/*") if path.is_dir()]
        assert python == str(venv / "bin" / "python")
        sent = [venv / "lightwork.json", *server.far.glob("wheels/*/*")]
        seen.append({path: path.stat().st_mtime_ns for path in sent})
    assert seen[0] == seen[1]


async def test_failed_build_is_rejected(server: Server) -> None:
    """Missing requirements and failing commands are rejected with the last lines of output; nothing is left."""

    class Failing(BuildConfig):
        def build_commands(self) -> list[str]:
            return ["echo something went wrong; exit 9"]

    async with server.runtime(prepare=True, code=[], wheels="never") as runtime:
        for build, text in [
            (BuildConfig(requirements=["lightwork-no-such-thing==1"]), "lightwork-no-such-thing"),
            (Failing(), "exit code 9\nsomething went wrong"),
        ]:
            with pytest.raises(Rejected, match=r"runtimes\.test.*: host") as caught:
                await said(runtime, "a:b", "failing", build)
            assert text in str(caught.value)
            for ref in await runtime.find("owner"):
                await runtime.release(ref)
    assert len([path for path in server.far.glob("venvs/*") if path.is_dir()]) <= 1


async def test_cancelled_build_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """Cancelling a launch that creates its environment ends the running command and removes the rest."""
    fifo = tmp_path / "started"
    os.mkfifo(fifo)

    class Slow(BuildConfig):
        def build_commands(self) -> list[str]:
            return [f"echo > {fifo}; exec sleep 3600"]

    before = set(server.far.glob("venvs/*"))
    started = asyncio.Event()
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    asyncio.get_running_loop().add_reader(fd, started.set)
    try:
        async with server.runtime(prepare=True, code=[]) as runtime:
            launching = asyncio.ensure_future(said(runtime, "a:b", "slow", Slow()))
            going_on = asyncio.ensure_future(started.wait())
            await asyncio.wait([launching, going_on], return_when=asyncio.FIRST_COMPLETED)
            assert started.is_set()
            launching.cancel()
            await asyncio.wait([launching])
            for ref in await runtime.find("owner"):
                await runtime.release(ref)
    finally:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
    await asyncio.to_thread(wait_makers, server)
    assert {path for path in set(server.far.glob("venvs/*")) - before if path.is_dir()} == set()


async def test_wheels_are_sent_where_there_is_no_registry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that cannot be installed from a registry are downloaded here, once, and sent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(server.folder / "cache"))
    tried: list[Any] = []
    download = _packages.download_wheels

    async def counted(*args: Any) -> Path:
        tried.append(args)
        return await download(*args)

    monkeypatch.setattr(_packages, "download_wheels", counted)
    far = str(server.folder / "isolated")
    async with server.runtime(prepare=True, code=[], wheels="always", folder=far) as runtime:
        assert await said(runtime, "lightwork.testing.conformance:main", "a") == "done\n"
        assert await said(runtime, "lightwork.testing.conformance:main", "b") == "done\n"
    assert len(tried) == 1
    assert list(server.folder.glob("isolated/wheels/*/msgspec-*.whl"))


async def test_wheel_is_reproducible() -> None:
    """The same lightwork makes the same wheel, with all files of both packages in it."""
    name, data = _packages.lightwork_wheel()
    _packages.lightwork_wheel.cache_clear()
    assert _packages.lightwork_wheel() == (name, data)
    assert name.startswith("lightwork-")


async def test_pins_are_what_is_installed() -> None:
    """The dependencies of lightwork are pinned to the scheduler's versions, without those of extras."""
    names = {line.partition("==")[0] for line in _packages.pins()}
    assert {"msgspec", "anyio", "aiohttp", "cloudpickle"} <= names
    assert "asyncssh" not in names


async def test_other_minor_version_is_rejected(server: Server) -> None:
    """An interpreter of another minor version cannot read what the scheduler sends, and is refused beforehand."""
    environment = Environment("runtimes.gpu: host a", server.options())
    with pytest.raises(Rejected, match=r"runtimes.gpu: host a: /usr/bin/python3 is Python 3.9"):
        environment.check_as_is({"python": [3, 9, 2], "executable": "/usr/bin/python3"}, None)
