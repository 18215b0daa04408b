"""The cache of the local runtime: entries are listed, discarded if unused, and made again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lightwork.runtime import Cached, Ref
from lightwork_runtimes.local import LocalOptions, LocalRuntime
from tests.runtimes.support import OWNER, first_output, local, spec
from tests.runtimes.test_local_build import Commands, folders, read_pids, slow_command

BUILD = Commands(commands=["true"])


async def only_entry(runtime: LocalRuntime) -> Cached:
    (entry,) = await runtime.cached()
    return entry


async def test_environment_is_kept_while_a_work_runs_in_it(tmp_path: Path) -> None:
    """An environment is in use while a work of any profile runs in it, and can be discarded after that."""
    venvs = str(tmp_path / "venvs")
    async with local(tmp_path / "a", venvs=venvs) as one, local(tmp_path / "b", venvs=venvs) as two:
        assert await one.cached() == []
        ref = await one.launch(spec("wait", build=BUILD))
        await first_output(one, ref)
        entry = await only_entry(two)
        (folder,) = folders(tmp_path / "venvs")
        assert (entry.kind, entry.name, entry.place) == ("environment", folder.name, venvs)
        assert (entry.detail, entry.in_use, entry.unused_for) == ("true", True, 0)
        assert entry.size > 10_000
        assert not await two.discard(entry)
        await one.stop(ref, 0)
        entry = await only_entry(two)
        assert not entry.in_use
        assert await two.discard(entry)
        assert list((tmp_path / "venvs").iterdir()) == []
        assert await two.discard(entry)
        assert await two.cached() == []


async def test_work_without_its_scheduler_holds_its_environment(tmp_path: Path) -> None:
    """A work whose scheduler has left still holds its environment."""
    options = LocalOptions(home=str(tmp_path / "home"), venvs=str(tmp_path / "venvs"))
    async with LocalRuntime("local", options) as first:
        ref = await first.launch(spec("wait", build=BUILD))
        await first_output(first, ref)
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as second:
        assert [found.name for found in await second.find(OWNER)] == [ref.name]
        assert not await second.discard(await only_entry(second))
        await second.release(ref)
        assert await second.discard(await only_entry(second))


async def test_environment_is_kept_while_it_is_made(tmp_path: Path) -> None:
    """An environment that is being made is in use and cannot be discarded."""
    build = Commands(commands=[slow_command(tmp_path)])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        launching = asyncio.ensure_future(runtime.launch(spec("exit 0", build=build)))
        await read_pids(tmp_path / "fifo")
        entry = await only_entry(runtime)
        assert entry.in_use
        assert not await runtime.discard(entry)
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching


async def test_works_start_while_everything_is_discarded(tmp_path: Path) -> None:
    """Launches one after another succeed while another runtime discards environments without pause."""
    venvs = str(tmp_path / "venvs")
    async with local(tmp_path / "a", venvs=venvs) as runtime, local(tmp_path / "b", venvs=venvs) as other:

        async def discard() -> None:
            while True:
                for entry in await other.cached():
                    await other.discard(entry)

        discarding = asyncio.ensure_future(discard())
        try:
            for number in range(4):
                ref: Ref = await runtime.launch(spec(f"exit {number}", f"n{number}", build=BUILD))
                assert (await runtime.wait(ref)).exit_code == number
        finally:
            discarding.cancel()
            await asyncio.gather(discarding, return_exceptions=True)


@pytest.mark.parametrize("change", [{"name": ".."}, {"name": ""}, {"place": "/elsewhere"}, {"kind": "image"}])
async def test_what_is_not_its_own_is_left(change: dict[str, Any], tmp_path: Path) -> None:
    """Discarding an entry that is not this runtime's removes nothing, whatever its name is."""
    kept = tmp_path / "venvs" / "kept"
    kept.mkdir(parents=True)
    fields: dict[str, Any] = {"kind": "environment", "name": "kept", "place": str(tmp_path / "venvs"), **change}
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        assert await runtime.discard(Cached(size=0, unused_for=None, in_use=False, **fields))
    assert kept.is_dir()
