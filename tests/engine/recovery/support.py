"""Schedulers in processes that are killed and resumed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

WITHIN = 80.0


class Scheduler:
    """One process that runs one of `tests.engine.recovery.apps`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[list[str]] = []

    async def said(self, word: str) -> list[str]:
        """Wait for the line that begins with this word, and return the rest of it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN):
            while True:
                line = (await self.process.stdout.readline()).decode()
                words = line.split()
                self.lines.append(words)
                if words and words[0] == word:
                    return words[1:]
                if not line:
                    raise AssertionError(f"the app ended without saying {word!r}: {self.lines}")

    async def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def ended(self) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN):
            self.lines += [line.split() for line in (await self.process.stdout.read()).decode().splitlines()]
            return await self.process.wait()


@asynccontextmanager
async def scheduler(
    app: str, folder: Path, *, resume: bool = False, die: str = "", host: str = "", grace: float = 1.0
) -> AsyncIterator[Scheduler]:
    """Run an app, and kill it at the end of the block if it has not ended."""
    env = {
        **os.environ,
        "LW_TEST_GRACE": f"{grace:g}",
        **({"LW_TEST_DIE": die} if die else {}),
        **({"LW_TEST_HOST": host} if host else {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.engine.recovery.apps",
        app,
        str(folder),
        *(["resume"] if resume else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        limit=1 << 20,
    )
    one = Scheduler(process)
    try:
        yield one
    finally:
        if process.returncode is None:
            await one.kill()


def runs(folder: Path) -> list[str]:
    """Return the calls that were run, one name for each run."""
    return (folder / "runs").read_text().split("\n")[:-1]


def open_gate(folder: Path, gate: str = "gate") -> None:
    """Let the calls that wait at the gate continue."""
    (folder / gate).touch()
