"""What the ssh runtime keeps on its machines, with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lightwork.runtime import Cached, Spec, Unreachable
from tests.runtimes.sshd import Server, needs_sshd, sshd
from tests.runtimes.support import first_output

from lightwork_runtimes.ssh import SshRuntime  # isort: skip -- after the imports that skip the module
from lightwork_runtimes.ssh._host import Host  # isort: skip

pytestmark = [needs_sshd, pytest.mark.timeout(180)]

ENTRY = "lightwork.testing.conformance:main"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's own cache out of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with sshd(tmp_path) as server:
        yield server


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "data.txt").write_text("data" * 10_000)
    return folder


def spec(command: str, name: str, code: Path) -> Spec:
    return Spec(name=name, owner="owner", entry=ENTRY, ticket=command.encode(), cwd=str(code))


async def run(runtime: SshRuntime, name: str, code: Path) -> None:
    ref = await runtime.launch(spec("exit 0", name, code))
    assert (await runtime.wait(ref)).exit_code == 0
    await runtime.release(ref)


def kinds(entries: list[Cached]) -> dict[str, Cached]:
    return {entry.kind: entry for entry in entries}


async def test_code_is_kept_while_a_work_has_it(server: Server, code: Path) -> None:
    """Code is in use as long as a work lives that it was sent for, also across a broken connection."""
    async with server.runtime(code=[str(code)]) as runtime:
        assert await runtime.cached() == []
        ref = await runtime.launch(spec("wait", "a", code))
        await first_output(runtime, ref)
        (entry,) = await runtime.cached()
        (folder,) = (path for path in server.far.glob("code/*") if path.is_dir())
        assert (entry.kind, entry.name, entry.in_use) == ("code", folder.name, True)
        assert entry.place == f"{server.host}:{server.far}"
        assert entry.size >= 40_000
        assert not await runtime.discard(entry)
        server.cut()
        async with server.runtime() as other:
            assert not await other.discard(entry)
        await runtime.release(ref)
        assert await runtime.discard(entry)
        assert list(server.far.glob("code/*")) == []
        await run(runtime, "b", code)
        (again,) = await runtime.cached()
        assert not again.in_use


async def test_environment_and_wheels_are_kept_and_discarded(server: Server, code: Path) -> None:
    """A running work's environment stays; then it can be removed with its wheels, and the next work makes it again."""
    async with server.runtime(code=[], prepare=True) as runtime:
        ref = await runtime.launch(spec("wait", "a", code))
        await first_output(runtime, ref)
        found = kinds(list(await runtime.cached()))
        assert sorted(found) == ["environment", "wheels"]
        assert found["environment"].in_use
        assert not found["wheels"].in_use
        assert not await runtime.discard(found["environment"])
        assert await runtime.discard(found["wheels"])
        await runtime.release(ref)
        assert await runtime.discard(found["environment"])
        assert [path for path in server.far.glob("venvs/*") if path.is_dir()] == []
        await run(runtime, "b", code)


async def test_downloaded_wheels_are_listed(server: Server, code: Path, tmp_path: Path) -> None:
    """Wheels downloaded on this machine are in its cache folder, and can be discarded as well."""
    async with server.runtime(code=[], prepare=True, wheels="always") as runtime:
        await run(runtime, "a", code)
        (here,) = (entry for entry in await runtime.cached() if entry.place.startswith(str(tmp_path / "cache")))
        assert (here.kind, here.in_use) == ("wheels", False)
        assert await runtime.discard(here)
        assert list((tmp_path / "cache").glob("lightwork/wheels/*")) == []


@pytest.mark.parametrize("prepare", [False, True])
async def test_works_start_while_everything_is_discarded(prepare: bool, server: Server, code: Path) -> None:
    """Successive launches succeed with their code while another scheduler discards without pause."""
    async with (
        server.runtime(code=[str(code)], prepare=prepare) as runtime,
        server.runtime(code=[]) as other,
    ):

        async def discard() -> None:
            while True:
                for entry in await other.cached():
                    await other.discard(entry)

        discarding = asyncio.ensure_future(discard())
        try:
            for number in range(2 if prepare else 10):
                await run(runtime, f"n{number}", code)
        finally:
            discarding.cancel()
            await asyncio.gather(discarding, return_exceptions=True)


async def test_launch_over_two_connections_makes_again_what_is_gone(
    server: Server, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is removed during a reconnect is sent again, and the work starts."""
    ask = Host.ask
    left = [True]

    async def cut_before(self: Host, op: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        if op == "start" and left:
            left.pop()
            session = await self.session()
            server.cut()
            async with server.runtime(code=[]) as other:
                for entry in await other.cached():
                    while not await other.discard(entry):  # noqa: ASYNC110 -- the kernel has no event for a lock
                        await asyncio.sleep(0)
            while session.is_open:  # noqa: ASYNC110 -- nor for this
                await asyncio.sleep(0)
        return await ask(self, op, payload, **arguments)

    monkeypatch.setattr(Host, "ask", cut_before)
    async with server.runtime(code=[str(code)]) as runtime:
        await run(runtime, "a", code)
    assert left == []


async def test_machine_that_cannot_be_asked_is_an_error(server: Server) -> None:
    """The list is never partial: a machine that does not answer is an error."""
    async with server.runtime(hosts=[server.host, "127.0.0.1:1"], code=[]) as runtime:
        with pytest.raises(Unreachable, match=r"host 127\.0\.0\.1:1"):
            await runtime.cached()
