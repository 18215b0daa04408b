"""A worker without its connection: it goes on, buffers, reconnects by any route, or is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightwork import App, Work
from lightwork.changes import Change, StateChanged
from lightwork.errors import WorkerDied
from lightwork.runtime import Address
from lightwork.state.ops import OpBuffer
from lightwork.state.values import packed
from lightwork.status import Reason
from lightwork.worker import stream
from lightwork_runtimes.local import LocalOptions
from tests.app.support_calls import running, stages
from tests.chaos.proxy import FaultProxy, LocalThroughProxies, ThroughProxies, proxies

GO, DONE = threading.Event(), threading.Event()
"""GO lets the runs continue, DONE is set when they have finished. The works run in this process."""


class Edits(Work):
    """Makes edits that cannot coalesce, in as many steps as requested; the test releases each step."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False)
        self.items: list[str] = []
        self.table: dict[str, Any] = {}
        self.count = 0

    def edit(self, n: int) -> None:
        self.count = n
        self.items.append(f"item {n}" * 10)
        self.table["last"] = {"n": [n] * 10}  # a container each time
        if len(self.items) > 20:
            self.items.pop(0)


class AsyncEdits(Edits):
    async def run(self, times: int) -> int:
        await asyncio.to_thread(GO.wait)
        for n in range(times):
            self.edit(n)
            if n % 10 == 0:
                await asyncio.sleep(0)
        DONE.set()
        return times


class PlainEdits(Edits):
    def run(self, times: int) -> int:
        GO.wait()
        for n in range(times):
            self.edit(n)
        DONE.set()
        return times


@pytest.fixture(autouse=True)
def _events() -> None:
    GO.clear()
    DONE.clear()


class Bounded(OpBuffer):
    """A buffer with small limits that checks that it keeps them."""

    most = 0
    held_back = 0

    def __init__(self) -> None:
        super().__init__(limit=200, limit_bytes=20_000)

    def compact(self, names: Container[str], values: Mapping[str, Any]) -> None:
        super().compact(names, values)
        size = len(msgspec.msgpack.encode(self._ops))
        Bounded.most = max(Bounded.most, size)
        Bounded.held_back += 1
        held = {name: value for name, value in values.items() if name in names}
        assert size <= 2 * len(msgspec.msgpack.encode(packed(held))) + 20_000 + 2000


def cut(proxy: FaultProxy) -> None:
    """Close all connections, and refuse new ones."""
    proxy.is_closed_to_new = True
    for line in proxy.lines:
        line.cut()


@asynccontextmanager
async def through(made: list[FaultProxy], work: Work, **settings: Any) -> AsyncIterator[App[Any]]:
    runtimes: Any = {"inprocess": ThroughProxies(made)}
    async with running(runtimes=runtimes, settings=settings, work=work) as app:
        yield app


@pytest.mark.parametrize("kind", [AsyncEdits, PlainEdits])
async def test_a_work_goes_on_while_it_is_cut_off(kind: type[Edits], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends while it is cut off, in bounded memory; then both sides are equal and the call has its result."""
    monkeypatch.setattr(stream, "OpBuffer", Bounded)
    Bounded.most = Bounded.held_back = 0
    work = kind()
    changes: list[Change] = []
    async with proxies() as (proxy,), through([proxy], work) as app:
        app.watch(changes.append)
        call = work.submit(4000)
        await app.wait_for(lambda: stages(work)[-1] == "running")
        came = proxy.came
        cut(proxy)
        while proxy.came == came:  # noqa: ASYNC110 -- nobody tells that the worker has noticed, and dials again
            await asyncio.sleep(0)
        GO.set()
        await asyncio.to_thread(DONE.wait)
        assert (work.count, list(work.items)) == (0, [])
        assert not call.done
        proxy.is_closed_to_new = False
        assert await call == 4000
        assert work.count == 3999
        assert work.items == [f"item {n}" * 10 for n in range(3980, 4000)]
        assert work.table == {"last": {"n": [3999] * 10}}
        assert stages(work, call.id) == ["pending", "running", "succeeded"]
    assert Bounded.held_back > 10
    assert 0 < Bounded.most < 100_000
    edits = [one for one in changes if isinstance(one, StateChanged)]
    assert len(edits) < 1000  # of 4000 × 4: the waiting edits have coalesced


async def test_a_worker_comes_back_by_any_of_its_routes() -> None:
    """A worker connects by the second route while the first is closed, and reconnects by the first when it opens."""
    work = PlainEdits()
    async with proxies(2) as made, through(made, work) as app:
        first, second = made
        first.is_closed_to_new = True
        GO.set()
        assert await work.submit(1) == 1
        assert [len(one.lines) for one in made] == [0, 1]
        first.is_closed_to_new = False
        cut(second)
        assert await work.submit(2) == 2
        assert [len(one.lines) for one in made] == [1, 0]
        assert stages(work).count("started") == 1
        assert app.is_running


async def test_a_route_that_is_somebody_elses_is_passed_over() -> None:
    """A peer that does not know the secret, or sends nothing, delays the worker a moment and learns nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        writer.close()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    heard: list[bytes] = []
    work = PlainEdits()
    GO.set()
    async with (
        await asyncio.start_server(talk, "127.0.0.1", 0) as talks,
        await asyncio.start_server(listen, "127.0.0.1", 0) as listens,
    ):
        others = [Address(*one.sockets[0].getsockname()) for one in (talks, listens)]

        class Elsewhere(ThroughProxies):
            async def routes(self, listener: Address) -> list[Address]:
                return [*others, Address(listener.host, listener.port)]

        runtimes: Any = {"inprocess": Elsewhere([])}
        async with running(runtimes=runtimes, settings={"launch_timeout": 6.0}, work=work):
            assert await work.submit(1) == 1
    assert len(heard) >= 2
    assert {len(data) for data in heard} == {52}  # the magic, the launch's public id and a nonce


async def test_past_the_window_a_worker_is_lost_and_its_process_over() -> None:
    """After the window the scheduler reports `lost`, the process ends, and a retry runs in the next process."""
    work, other = PlainEdits(), Twice()
    async with proxies() as (proxy,):
        runtime = LocalThroughProxies(LocalOptions(), [proxy.route], {})
        settings = {"reconnect_window": 0.3, "grace": 0.5}
        async with running("local", runtimes={"local": runtime}, settings=settings, work=work, other=other) as app:
            proxy.upstream = app.address
            lost, again = work.submit(1), other.submit()
            await app.wait_for(lambda: "running" in stages(work) and other.pid)
            first = other.pid
            cut(proxy)
            await app.wait_for(lambda: lost.done and "pending:lost" in stages(other, again.id))
            # Not earlier: of two windows one ends first, and the other may still be saved.
            proxy.is_closed_to_new = False
            with pytest.raises(WorkerDied, match=r"no connection for (0\.3 s|too long)"):
                await lost
            assert lost.status.reason is Reason.LOST
            assert await again != first
            assert stages(other, again.id) == ["pending", "running", "pending:lost", "running", "succeeded"]
            assert [one.attempt for one in other.statuses if one.call == again.id] == [1, 1, 2, 2, 2]


class Twice(Work):
    """Waits forever in its first process; returns in the second."""

    def __init__(self) -> None:
        super().__init__(parallel=True, cache_calls=False, retries=1, retry_delay=0.001)
        self.pid = 0

    async def run(self) -> int:
        if not self.pid:
            self.pid = os.getpid()
            await asyncio.Event().wait()
        return os.getpid()


class Leaves(Work):
    """Waits for a file, returns, and records its exit in its state and in another file."""

    def __init__(self, folder: str) -> None:
        super().__init__(parallel=True, start_with_flow=False)
        self.folder = folder
        self.pid = 0
        self.has_left = False

    async def run(self) -> str:
        self.pid = os.getpid()
        await exists(Path(self.folder, "go"))
        Path(self.folder, "over").touch()  # noqa: ASYNC240 -- nothing may come between this and the return
        return "over"

    def on_exit(self) -> None:
        self.has_left = True
        Path(self.folder, "left").touch()


async def exists(path: Path) -> None:
    """Return when another process has made the file."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240 -- a file tells nobody
        await asyncio.sleep(0.005)


async def test_a_worker_that_is_told_to_go_while_it_is_cut_off(tmp_path: Path) -> None:
    """On SIGTERM while cut off a worker stays for its grace period, reconnects, and delivers its last changes."""
    work = Leaves(str(tmp_path))
    async with proxies() as (proxy,):
        runtime = LocalThroughProxies(LocalOptions(), [proxy.route], {})
        async with running("local", runtimes={"local": runtime}, settings={"grace": 30.0}, work=work) as app:
            proxy.upstream = app.address
            call = work.submit()
            await app.wait_for(lambda: work.pid)
            cut(proxy)
            (tmp_path / "go").touch()
            await exists(tmp_path / "over")
            os.kill(work.pid, signal.SIGTERM)
            await exists(tmp_path / "left")
            assert not call.done
            proxy.is_closed_to_new = False
            assert await call == "over"
            await app.wait_for(lambda: work.has_stopped)
            assert work.has_left
            assert stages(work)[-1] == "stopped:sigterm_signal_handler"


async def test_a_worker_of_another_version_is_told_to_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version mismatch fails the call with both versions and a remedy; the worker gets the same text and ends."""
    from lightwork.errors import LaunchFailed
    from lightwork.worker import agent

    monkeypatch.setattr(agent, "__version__", "0.0.1")
    work = PlainEdits()
    async with proxies() as (proxy,), through([proxy], work):
        with pytest.raises(LaunchFailed, match=r"the worker has lightwork 0\.0\.1 .* install the same version"):
            await work.submit(1)
