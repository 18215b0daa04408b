"""Apps with a journal, each run in a separate process: ``python -m tests.engine.recovery.apps NAME FOLDER [resume]``.

Their works write a line to ``FOLDER/runs`` for each run of a call. A call with a gate continues when that file
exists. The flow prints its results. With ``die=N`` in the environment variable ``LW_TEST_DIE`` the scheduler kills
itself right before it writes its journal for the Nth time, with ``dies=N`` right after that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightwork import App, Flow, Work
from lightwork.engine.recovery import resume as resume_module
from lightwork.journal.store import Store


def say(*words: Any) -> None:
    """Print a line for the test that runs the app."""
    print(*words, flush=True)


def note(folder: str, name: str) -> None:
    """Note that a call runs."""
    with Path(folder, "runs").open("a") as file:
        file.write(f"{name}\n")


async def written(flow: Flow) -> None:
    """Return when everything that was recorded so far is on disk."""
    driver: Any = flow._driver
    await driver._core.journal.committed()


class Job(Work):
    """A work that notes each run, appends its steps to a list, and waits for a gate."""

    def __init__(self, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.folder = folder
        self.steps: list[int] = []
        self.pid = 0

    async def run(self, name: str, steps: int = 0, gate: str = "") -> str:
        note(self.folder, name)
        self.pid = os.getpid()
        for step in range(steps):
            self.steps.append(step)
            if step % 100 == 0:
                await asyncio.sleep(0)
        await until(lambda: not gate or Path(self.folder, gate).exists())
        self.steps.append(-1)
        return f"{name} is done"


class PlainJob(Job):
    """The same as a plain ``def run``."""

    def run(self, name: str, steps: int = 0, gate: str = "") -> str:  # type: ignore[override]
        note(self.folder, name)
        self.pid = os.getpid()
        self.steps.extend(range(steps))
        while gate and not Path(self.folder, gate).exists():
            time.sleep(0.005)
        self.steps.append(-1)
        return f"{name} is done"


async def until(is_true: Callable[[], object]) -> None:
    """Return when `is_true` returns true, by polling."""
    while not is_true():  # noqa: ASYNC110 -- another process makes it true
        await asyncio.sleep(0.005)


class Calls(Flow):
    """Makes one call after another, then two at once that wait at a gate."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.first = Job(folder)
        self.second = PlainJob(folder, parallel=True)
        self.passes = 0
        self.found: list[str] = []

    async def run(self) -> None:
        self.passes += 1
        self.found.append(await self.first.run("one"))
        call = self.second.submit("two", 10, "gate")
        slow = self.first.submit("three", 5, "gate")
        await until(lambda: len(self.second.steps) >= 10 and (self.first.steps[-1] == 4 or slow.done))
        await written(self)
        say("waiting", self.first.pid, self.second.pid)
        self.found += [await call, await slow]
        say("found", *self.found, "in", self.passes)
        say("steps", self.first.steps, self.second.steps)
        say("pids", self.first.pid, self.second.pid)
        self.stop()


class Uncached(Flow):
    """Makes equal uncached calls in one pass."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.job = Job(folder, cache_calls=False)

    async def run(self) -> None:
        for _ in range(3):
            await self.job.run("same")
        say("waiting")
        await self.job.run("same", 0, "gate")
        await self.job.run("same")
        say("successes", self.job.num_successes)
        self.stop()


class PlainFlow(Flow):
    """The same in interrupted passes."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.job = Job(folder, cache_calls=False)
        self.rounds = 0

    def run(self) -> None:
        for number in self.iterate(range(3)):
            self.job.run(f"item {number}")  # type: ignore[unused-coroutine]
        say("waiting")
        self.job.run("last", 0, "gate")  # type: ignore[unused-coroutine]
        say("successes", self.job.num_successes)
        self.stop()


class Dynamic(Flow):
    """Makes children while it runs, one of them only in the first pass."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.passes = 0
        self.kept: Job | None = None
        self.extra: Job | None = None

    async def run(self) -> None:
        self.passes += 1
        if self.passes == 1:
            self.extra = Job(self.folder, parallel=True)
            self.extra.submit("extra", 0, "never")
            extra = self.extra
            await until(lambda: extra.pid)
        if self.kept is None:
            self.kept = Job(self.folder)
        kept = self.kept
        call = kept.submit("kept", 3, "gate")
        await until(lambda: kept.pid)
        say("waiting", kept.pid, self.extra.pid if self.extra is not None else 0)
        await call
        say("kept", kept.steps, kept.pid)
        if self.passes > 2:
            self.stop()


class Steps(Flow):
    """Two works that stream, call by call, for a scheduler that is killed again and again."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.jobs = [Job(folder), PlainJob(folder)]
        self.edits: list[int] = []

    async def run(self) -> None:
        for number in range(4):
            if len(self.edits) <= number:
                self.edits.append(number)
            await asyncio.gather(*[job.run(f"{key}-{number}", 50) for key, job in enumerate(self.jobs)])
        say("steps", [job.steps == [*range(50), -1] * 4 for job in self.jobs], self.edits)
        say("successes", [job.num_successes for job in self.jobs])
        self.stop()


class Stopped(Flow):
    """Makes a call that succeeds, then stops."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.job = Job(folder)
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        await self.job.run("once")
        say("runs", self.runs)
        self.stop()


class Leaver(Job):
    """A work that also notes the end of each run, and notes its exit in its state."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.has_left = False

    async def run(self, name: str, steps: int = 0, gate: str = "") -> str:
        result = await super().run(name, steps, gate)
        note(self.folder, "over")
        return result

    def on_exit(self) -> None:
        self.has_left = True
        note(self.folder, "left")


class Leaving(Flow):
    """Makes a call whose result is the worker's last frame before it exits."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.job = Leaver(folder)

    async def run(self) -> None:
        call = self.job.submit("one", 3, "gate")
        await until(lambda: len(self.job.steps) >= 3)
        await written(self)
        say("waiting", self.job.pid)
        found = await call
        await self.job.stop()
        say("found", found, self.job.steps, self.job.has_left)
        self.stop()


class Unending(Flow):
    """Makes a child in its first run, and again after the child of the first run was given up. Never returns."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.has_begun = False
        self.extra: Job | None = None

    async def run(self) -> None:
        driver: Any = self._driver
        if not self.has_begun:
            self.has_begun = True
            self.extra = extra = Job(self.folder, parallel=True)
            extra.submit("extra", 0, "never")
            await until(lambda: extra.pid)
            await written(self)
            say("waiting", extra.pid, *driver.unclaimed)
            await asyncio.Event().wait()
        say("unclaimed", *driver.unclaimed)
        await until(lambda: Path(self.folder, "gate").exists())
        say("given", *[driver.give_up(name) for name in ("root.no", "root.extra", "root.extra")])
        await until(lambda: not driver.unclaimed)
        self.extra = again = Job(self.folder)
        say("again", await again.run("again"), again.num_successes)
        self.stop()


APPS: dict[str, Callable[[str], Flow]] = {
    cls.__name__: cls for cls in (Calls, Uncached, PlainFlow, Dynamic, Steps, Stopped, Leaving, Unending)
}


def die_at_a_commit(when: str) -> None:
    """Kill this process at the commit of the given number."""
    kind, _, number = when.partition("=")
    left = [int(number)]
    append = Store.append

    def appended(store: Store, data: bytes) -> None:
        left[0] -= 1
        if not left[0] and kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        append(store, data)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.append = appended  # type: ignore[method-assign, assignment]


async def main(name: str, folder: str, *, resume: bool) -> None:
    """Run the app to its end."""
    root = APPS[name](folder)
    resume_module._SAY_AFTER = 0.1
    settings: dict[str, Any] = {"grace": float(os.environ.get("LW_TEST_GRACE", "1"))}
    if "LW_TEST_HOST" in os.environ:
        settings |= {"host": os.environ["LW_TEST_HOST"]}
    app = App(root, journal=Path(folder, "journal"), resume=resume, **settings)
    await app.run()


if __name__ == "__main__":
    if "LW_TEST_DIE" in os.environ:
        die_at_a_commit(os.environ["LW_TEST_DIE"])
    asyncio.run(main(sys.argv[1], sys.argv[2], resume="resume" in sys.argv))
