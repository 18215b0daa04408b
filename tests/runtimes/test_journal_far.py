"""An app with a journal continues after its scheduler was killed, with its work behind a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runtimes import journal_app
from tests.runtimes.cloud_machines import cloud
from tests.runtimes.docker_base import base_image, require_engine
from tests.runtimes.docker_support import forget_code_of
from tests.runtimes.sshd import needs_sshd, sshd

from lightwork_runtimes.docker import DockerOptions, DockerRuntime  # isort: skip -- after the imports that skip the module

pytestmark = [needs_sshd, pytest.mark.timeout(240)]


@contextlib.asynccontextmanager
async def app(
    journal: Path, runtime: Any, settings: dict[str, Any], *args: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    kind = f"{type(runtime).__module__}:{type(runtime).__name__}"
    options = msgspec.json.encode(runtime.options).decode()
    more = msgspec.json.encode(settings).decode()
    command = [sys.executable, "-m", "tests.runtimes.journal_app", str(journal), kind, options, more, *args]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process, word: str) -> str:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith(f"{word} "):
            return line.split()[1]
    raise AssertionError(f"the app ended without saying {word!r}")


async def killed_and_resumed(journal: Path, runtime: Any, **settings: Any) -> str:
    """Kill and resume the app. Return the url at which the work's service answers before and after."""
    async with app(journal, runtime, settings) as first:
        pid = await said(first, "running")
        url = await said(first, "url")
        assert await said(first, "answer") == pid
        first.kill()
        await first.wait()
    async with app(journal, runtime, settings, "resume") as second:
        assert await said(second, "running") == pid
        assert await said(second, "url") == url
        assert await said(second, "answer") == pid
        assert await said(second, "result") == pid
        assert await second.wait() == 0
    return url


async def test_work_behind_a_tunnel_is_adopted(tmp_path: Path) -> None:
    """The next scheduler opens the tunnel again, the same process reconnects through it, and its call continues.

    Its service continues at the same url.
    """
    async with sshd(tmp_path) as server:
        await killed_and_resumed(tmp_path / "journal", server.runtime())
        assert server.launches() == []


async def test_work_in_a_container_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next scheduler adopts the container of a killed one; its service answers at the same published port."""
    require_engine()
    folder = tmp_path / "app"
    (folder / "tests" / "runtimes").mkdir(parents=True)
    shutil.copy(journal_app.__file__, folder / "tests" / "runtimes")
    monkeypatch.chdir(folder)  # the folder that is sent
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "runtimes")]))
    runtime = DockerRuntime("far", DockerOptions(image=base_image(), pull="never", publish=True))
    try:
        url = await killed_and_resumed(tmp_path / "journal", runtime, host="0.0.0.0")
    finally:
        await forget_code_of(folder, runtime)
    assert url.startswith("http://127.0.0.1:")


async def test_work_on_a_machine_of_a_cloud_is_adopted(tmp_path: Path) -> None:
    """The next scheduler adopts the machine of a killed one, and releases it at the end."""
    require_engine()
    with cloud(tmp_path / "state") as account:
        await killed_and_resumed(tmp_path / "journal", account.runtime(code=[str(Path(__file__).parents[2] / "tests")]))
        assert account.running() == []
