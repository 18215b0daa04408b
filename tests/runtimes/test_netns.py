"""Two remote hosts, one of which loses its network for a while. Each is reachable only by its sshd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from lightwork import App, Flow
from lightwork.config import Config, WorkProfile
from lightwork.errors import WorkerDied
from lightwork.status import Reason
from tests.runtimes.netns import Island, islands, require_namespaces
from tests.runtimes.netns_works import ANSWER, Counter, Serve
from tests.runtimes.sshd import Server, needs_sshd, sshd

require_namespaces()

pytestmark = [needs_sshd, pytest.mark.timeout(180)]

KEEPALIVE = {"steady": 30.0, "shaken": 0.5}
"""Seconds. `shaken` must notice the lost network soon; `steady` must not take a slow machine for a lost network."""


class Two(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.steady = Counter()
        self.shaken = Counter()

    async def run(self) -> None:
        await asyncio.Event().wait()


class Serving(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.service = Serve()

    async def run(self) -> None:
        await asyncio.Event().wait()


class World:
    """An app with a work on each of two hosts."""

    def __init__(self, app: App[Two], island: Island, server: Server) -> None:
        self.app = app
        self.island = island
        self.server = server

    async def wait_more(self, work: Counter, count: int) -> None:
        """Return when `count` more numbers have arrived from the work."""
        goal = len(work.numbers) + count
        await self.app.wait_for(lambda: len(work.numbers) >= goal)

    def processes(self) -> list[psutil.Process]:
        """Return the works' processes on the host `shaken`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self.server.far) in f"{process.cmdline()} {process.environ().get('LW_PATHS', '')}":
                    found.append(process)
        return found


@contextlib.asynccontextmanager
async def world(tmp_path: Path, reconnect_window: float) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        hosts = stack.enter_context(islands(2))
        servers = []
        for name, host in zip(("steady", "shaken"), hosts, strict=True):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(await stack.enter_async_context(sshd(folder, address=host.address, prefix=host.prefix)))
        places = {name: WorkProfile(runtime=name) for name in ("steady", "shaken")}
        config = Config(
            works={f"root.{name}": place for name, place in places.items()},
            reconnect_window=reconnect_window,
            launch_timeout=120,
        )
        runtimes = {
            name: server.runtime(keepalive=KEEPALIVE[name]) for name, server in zip(places, servers, strict=True)
        }
        app = App(Two(), config=config, runtimes=runtimes)
        async with app:
            yield World(app, hosts[1], servers[1])
        assert [server.launches() for server in servers] == [[], []]


async def test_network_that_comes_back_in_time(tmp_path: Path) -> None:
    """Within the reconnect window no state is lost or duplicated, and the same worker goes on; other hosts go on."""
    async with world(tmp_path, reconnect_window=60) as hosts:
        root = hosts.app.root
        calls = [root.steady.submit(600), root.shaken.submit(600)]
        await hosts.wait_more(root.shaken, 20)
        hosts.island.pull()
        await hosts.wait_more(root.steady, 300)  # meanwhile the remote side notices, and the cut-off worker waits
        assert not calls[1].done
        hosts.island.plug()
        (_, steady), (pid, shaken) = [await call for call in calls]
        assert (steady, shaken) == (600, 600)
        assert root.steady.numbers == root.shaken.numbers == list(range(600))
        again, _ = await root.shaken.submit(0)
        assert again == pid


async def test_network_that_comes_back_too_late(tmp_path: Path) -> None:
    """After the window the call fails as lost, and all processes of the work end while the network is still lost."""
    async with world(tmp_path, reconnect_window=1) as hosts:
        root = hosts.app.root
        steady, shaken = root.steady.submit(100_000), root.shaken.submit(100_000)
        await hosts.wait_more(root.shaken, 20)
        assert hosts.processes()
        hosts.island.pull()
        with pytest.raises(WorkerDied, match="no connection for 1 s"):
            await shaken
        assert root.shaken.status.reason is Reason.LOST
        left = hosts.processes()
        await asyncio.to_thread(psutil.wait_procs, left)
        assert not hosts.processes()
        hosts.island.plug()
        # When the host is reachable again, the rest of the launch is removed there.
        while hosts.server.launches():
            await hosts.wait_more(root.steady, 1)
        assert not steady.done


async def ask(url: str) -> bytes:
    """Return the answer of the service at a url; empty if the connection is closed without an answer."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_service_of_a_work_is_reached_from_here(tmp_path: Path) -> None:
    """A service on the loopback of a remote host answers at the work's `url`, also after the connection was lost."""
    with islands(1) as (host,):
        async with sshd(tmp_path, address=host.address, prefix=host.prefix) as server:
            runtime = server.runtime()
            app = App(Serving(), config=Config(launch_timeout=120), runtimes={"host": runtime}, runtime="host")
            async with app:
                work = app.root.service
                call = work.submit()
                async with asyncio.timeout(100):
                    await app.wait_for(lambda: bool(work.url))
                url = work.url
                assert url.startswith("http://127.0.0.1:")
                assert await ask(url) == ANSWER
                server.cut()
                assert await ask(url) in (ANSWER, b"")  # the lost connection may not have been noticed yet
                assert await asyncio.wait_for(answered(url), 60) == ANSWER
                call.cancel()
                await work.stop()
                with pytest.raises(ConnectionRefusedError):
                    await ask(url)


async def answered(url: str) -> bytes:
    """Return the first answer that is not empty."""
    while not (found := await ask(url)):
        continue
    return found
