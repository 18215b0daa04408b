from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lightwork_runtimes.local._runtime import LocalRuntime
from tests.runtimes.support import OWNER, first_output, local, output, spec


async def test_output_comes_in_pieces_of_64_kb_at_most(tmp_path: Path) -> None:
    """A long output is read in bounded pieces without gaps, from the beginning and from the middle."""
    async with local(tmp_path / "home") as runtime:
        ref = await runtime.launch(spec("lines 20000"))
        pieces = [(offset, data) async for offset, data in runtime.logs(ref, follow=True)]
        assert max(len(data) for _, data in pieces) <= 65536
        whole = b"".join(data for _, data in pieces)
        assert whole == b"".join(b"line %06d\n" % number for number in range(20000))
        rest = [(offset, data) async for offset, data in runtime.logs(ref, 100_000)]
        assert rest[0][0] == 100_000
        assert b"".join(data for _, data in rest) == whole[100_000:]


async def test_many_followers_of_many_launches(tmp_path: Path) -> None:
    """Two followers of each of ten launches all get the complete output, and end when the launch ends."""
    async with local(tmp_path / "home") as runtime:
        refs = await asyncio.gather(*(runtime.launch(spec("graceful", f"n{number}")) for number in range(10)))
        following = [asyncio.ensure_future(output(runtime, ref)) for ref in refs * 2]
        await asyncio.gather(*(first_output(runtime, ref) for ref in refs))
        await asyncio.gather(*(runtime.stop(ref, 30) for ref in refs))
        assert set(await asyncio.gather(*following)) == {"waiting\nbye\n"}
        assert runtime._files._watchers == {}
        assert runtime._deaths._watched == {}


async def test_release_ends_who_follows(tmp_path: Path) -> None:
    """A follower of a launch that is released gets the output written so far and ends."""
    async with local(tmp_path / "home") as runtime:
        ref = await runtime.launch(spec("wait"))
        following = asyncio.ensure_future(output(runtime, ref))
        await first_output(runtime, ref)
        await runtime.release(ref)
        assert await following == "waiting\n"


async def test_without_inotify_and_pidfd_it_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inotify and pidfd, followers and waiters poll and get the same results."""
    monkeypatch.setattr("lightwork_runtimes.local._watch.HAS_PIDFD", False)
    async with local(tmp_path / "home") as runtime:
        _forget_inotify(runtime)
        ref = await runtime.launch(spec("graceful"))
        following = asyncio.ensure_future(output(runtime, ref))
        await first_output(runtime, ref)
        await runtime.stop(ref, 30)
        assert await following == "waiting\nbye\n"
        await runtime.release(ref)
        assert await runtime.find(OWNER) == []


def _forget_inotify(runtime: LocalRuntime) -> None:
    runtime._files.close()
