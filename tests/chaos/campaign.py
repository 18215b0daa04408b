"""Applies one stream of faults to one app, then heals everything and checks the result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from lightwork.runtime import Address
from lightwork_runtimes.local._launchdir import Record
from tests.chaos import faults as f
from tests.chaos.flow import Settings, Verdict
from tests.chaos.proxy import FaultProxy, Line, proxies
from tests.disks import fill, small_disk

__all__ = ["Campaign", "Outcome", "campaign", "faketime"]

ROOT = Path(__file__).parents[2]

OPTIONS: dict[str, Any] = {
    "reconnect_window": 4.0,
    "heartbeat": 0.25,
    "grace": 1.0,
    "launch_timeout": 20.0,
    "statuses_kept": 100,
}

_HEAL_WITHIN = 60.0
_STORY = 60


class Outcome(msgspec.Struct):
    """The outcome of a campaign.

    Attributes:
        seed: Seed of the faults.
        faults: Number of faults of each kind.
        verdict: Verdict of the app.
        violations: Violations that the app found, and those found from outside.
        story: The latest faults.
        seconds: Duration.
    """

    seed: int
    faults: dict[str, int]
    verdict: Verdict
    violations: list[str]
    story: list[str]
    seconds: float


class Campaign:
    """One app, its proxies, and the faults injected into them.

    Args:
        folder: Folder for all files.
        made: The proxies, one for each route.
        seed: Seed of the faults.
        works: Number of works of the app.

    Attributes:
        kinds: Kinds of faults that can occur here.
    """

    def __init__(self, folder: Path, made: list[FaultProxy], seed: int, works: int) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        self.home = self.disk / "home"
        self.ledgers = folder / "ledgers"
        self.proxies = made
        self.seed = seed
        self.story: deque[str] = deque(maxlen=_STORY)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.kinds: set[type[f.Base]] = set(f.KINDS)
        if faketime() is None:
            self.kinds.discard(f.ClockBack)
        self._begun = time.monotonic()
        self._port = _free_port()
        self._scheduler: asyncio.subprocess.Process | None = None
        self._works = works
        self._processes: list[asyncio.subprocess.Process] = []
        self._lives = 0
        self._is_restarting = False
        self._healing: set[asyncio.Task[None]] = set()
        self._stopped: set[int] = set()  # processes that got SIGSTOP
        self._ballast = self.disk / "ballast"
        self._clock = folder / "clock"
        self._set_clock(0.0)
        for path in (self.home, self.ledgers):
            path.mkdir(mode=0o700, exist_ok=True)
        for one in made:
            one.upstream = Address("127.0.0.1", self._port)

    # --- the app ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the app, and return when it runs."""
        await self._go(await self._spawn())

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start a process that has imported everything and waits for the start signal."""
        settings = Settings(
            seed=self.seed,
            folder=str(self.ledgers),
            home=str(self.home),
            port=self._port,
            routes=[(one.route.host, one.route.port) for one in self.proxies],
            works=self._works,
            options={**OPTIONS, "journal": str(self.disk / "journal"), "resume": self._lives > 0},
            environ=self._fake_clock(),
            life=self._lives,
        )
        self._lives += 1
        with (self.folder / "output").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.flow",
                msgspec.json.encode(settings).decode(),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtimes'}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self._processes.append(process)
        await self._await_word(process, b"there\n")
        return process

    async def _go(self, process: asyncio.subprocess.Process) -> None:
        self._scheduler = process
        assert process.stdin is not None
        process.stdin.close()
        await self._await_word(process, b"up\n")

    async def _await_word(self, process: asyncio.subprocess.Process, word: bytes) -> None:
        assert process.stdout is not None
        if await process.stdout.readline() != word:
            raise RuntimeError(f"the app did not come up:\n{self.output()}")

    def _fake_clock(self) -> dict[str, str]:
        """Return the variables that give the workers a separate wall clock; empty if libfaketime is missing."""
        library = faketime()
        if library is None:
            return {}
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    @property
    def _has_died(self) -> bool:
        """Return whether the app has ended by itself, or cannot be started again."""
        return not self._is_restarting and (self._scheduler is None or self._scheduler.returncode is not None)

    async def _restart(self, pause: float) -> None:
        """Kill the app, and start another one that resumes."""
        if self._scheduler is None or self._is_restarting:
            return
        self._is_restarting = True
        try:
            # It waits already: on a busy machine the window would have passed before the imports were done.
            following = await self._spawn()
            with contextlib.suppress(ProcessLookupError):
                self._scheduler.kill()
            await self._scheduler.wait()
            await asyncio.sleep(pause)
            await self._start_again(following)
        finally:
            self._is_restarting = False

    async def _start_again(self, process: asyncio.subprocess.Process) -> None:
        """Act as a supervisor: start the app again if it fails while the disk is full."""
        while True:
            was_full, filled = self._ballast.exists(), self.counts["FullDisk"]
            try:
                await self._go(process)
                return
            except RuntimeError as error:
                if not was_full and filled == self.counts["FullDisk"]:
                    self.blame(str(error))
                    return
                await process.wait()
            await asyncio.sleep(0.2)
            process = await self._spawn()

    def output(self) -> str:
        """Return the end of the app's output."""
        return (self.folder / "output").read_text(errors="replace")[-4000:]

    async def finish(self) -> Outcome:
        """Heal everything, let the app compare both sides and end; then check what is left."""
        await self._heal()
        assert self._scheduler is not None
        verdict = Verdict()
        try:
            self._scheduler.send_signal(signal.SIGUSR1)
            async with asyncio.timeout(_HEAL_WITHIN):
                code = await self._scheduler.wait()
        except TimeoutError:
            self.blame(f"the app did not end within {_HEAL_WITHIN:g} s of the last fault")
            self._scheduler.send_signal(signal.SIGABRT)
            await self._scheduler.wait()
        except ProcessLookupError:
            self.blame(f"the app had ended:\n{self.output()}")
        else:
            if code:
                self.blame(f"the app ended with code {code}:\n{self.output()}")
            path = self.ledgers / "verdict"
            if path.exists():
                verdict = msgspec.json.decode(path.read_bytes(), type=Verdict)
            self._check_ledgers(verdict)
            self._check_left()
        return Outcome(
            self.seed,
            dict(self.counts),
            verdict,
            [*verdict.violations, *self.violations],
            list(self.story),
            time.monotonic() - self._begun,
        )

    async def end(self) -> None:
        """End every process, whatever its state."""
        for task in self._healing:
            task.cancel()
        self._resume_all()
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def _heal(self) -> None:
        while self._healing:
            await asyncio.wait(set(self._healing))
        self._resume_all()
        for one in self.proxies:
            one.plans.clear()
            for line in one.lines:
                line.release()

    def _resume_all(self) -> None:
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    # --- the judgement ----------------------------------------------------------------------------

    def blame(self, text: str) -> None:
        """Record a violation."""
        self.violations.append(text)

    def _check_ledgers(self, verdict: Verdict) -> None:
        """Check that the flow has seen a prefix of each life's edits, and all of them if the life goes on."""
        for path in self.ledgers.glob("*-*"):
            token = path.name.rpartition("-")[2]
            done = int(path.read_bytes().split()[-1]) if path.stat().st_size else 0
            seen = verdict.seen.get(token, 0)
            if seen > done:
                self.blame(f"{path.name}: {seen} edits were seen, and {done} were made")
            if token in verdict.alive and seen != done:
                self.blame(f"{path.name}: it lives, and of its {done} edits {seen} were seen")

    def _check_left(self) -> None:
        left = [str(path.relative_to(self.home)) for path in self.home.rglob("*")]
        if left:
            self.blame(f"files are left behind: {left[:20]}")

    # --- the faults -------------------------------------------------------------------------------

    async def suffer(self, number: int) -> None:
        """Inject that many faults, one after the other."""
        stream = f.faults(self.seed, self.kinds)
        for _, fault in zip(range(number), stream, strict=False):
            await asyncio.sleep(fault.wait)
            if self._has_died:
                return
            self.counts[type(fault).__name__] += 1
            self.story.append(f"{time.monotonic() - self._begun:.3f} {fault}")
            self._happen(fault)

    def _happen(self, fault: f.Fault) -> None:
        match fault:
            case f.Cut():
                for line in self._line(fault.target):
                    line.is_reset = fault.reset
                    line.pipe(fault.way).fuse = fault.after
            case f.CutNext():
                self._plan(fault, lambda line: _light(line, fault))
            case f.Delay():
                for line in self._line(fault.target):
                    line.pipe(fault.way).late = fault.late
                    self._later(fault.seconds, line.pipe(fault.way).be_in_time)
            case f.Trickle():
                for line in self._line(fault.target):
                    line.pipe(fault.way).one_by_one = fault.size
            case f.Silence():
                for line in self._line(fault.target):
                    line.hold()
                    self._later(fault.seconds, line.release)
            case f.HalfOpen():
                for line in self._line(fault.target):
                    line.hold()
                    line.is_reset = True
                    line.cut_worker() if fault.side == "worker" else line.cut_scheduler()
                    self._later(fault.seconds, line.cut)
            case f.Reorder():
                self._plan(fault, lambda line: _detain(line, fault))
            case f.Kill():
                for pid in self._worker(fault.target):
                    self._signal(pid, signal.SIGKILL)
            case f.Pause():
                for pid in self._worker(fault.target):
                    self._pause(pid, fault.seconds)
            case f.PauseScheduler():
                if self._scheduler is None or self._is_restarting:
                    return
                self._pause(self._scheduler.pid, fault.seconds)
            case f.FullDisk():
                fill(self._ballast)
                self._later(fault.seconds, lambda: self._ballast.unlink(missing_ok=True))
            case f.ClockBack():
                self._set_clock(fault.by)
            case f.KillScheduler():
                self._heal_with(self._restart(fault.seconds))

    def _line(self, target: int) -> Iterator[Line]:
        """Return the line that the fault targets, if there is a line."""
        lines = [line for one in self.proxies for line in one.lines]
        if lines:
            yield lines[target % len(lines)]

    def _plan(self, fault: f.CutNext | f.Reorder, plan: Callable[[Line], None]) -> None:
        for one in self.proxies:
            if not one.plans:
                one.plans.append(plan)
        for line in self._line(fault.target):
            line.cut()

    def _worker(self, target: int) -> Iterator[int]:
        """Return the worker process that the fault targets, if there is a worker."""
        pids = []
        for path in sorted(self.home.glob("*/*/record")):
            try:
                record = Record(path.read_bytes())
                if record.started is None or record.ended is not None:
                    continue
                process = psutil.Process(record.started.worker.pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
            except (OSError, msgspec.DecodeError, psutil.Error):
                continue  # released meanwhile, or ended
            pids.append(process.pid)
        if pids:
            yield pids[target % len(pids)]

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _pause(self, pid: int, seconds: float) -> None:
        self._signal(pid, signal.SIGSTOP)
        self._stopped.add(pid)

        def go_on() -> None:
            self._stopped.discard(pid)
            self._signal(pid, signal.SIGCONT)

        self._later(seconds, go_on)

    def _set_clock(self, by: float) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(f"{by:+.1f}\n")
        new.replace(self._clock)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()

        self._heal_with(wait())

    def _heal_with(self, healing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(healing)
        self._healing.add(task)
        task.add_done_callback(self._healing.discard)


def _light(line: Line, fault: f.CutNext) -> None:
    line.is_reset = fault.reset
    line.pipe(fault.way).fuse = fault.after


def _detain(line: Line, fault: f.Reorder) -> None:
    """Pass that many bytes upwards, close the line towards the worker, and let the scheduler notice later."""
    line.up.fuse = fault.after
    line.linger = fault.seconds


def faketime() -> str | None:
    """Return the library that gives a process a separate wall clock, if it is installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def campaign(folder: Path, seed: int, works: int) -> AsyncIterator[Campaign]:
    """Run an app with that many works behind two proxies."""
    with small_disk(folder / "disk") as has_disk:
        async with proxies(2) as made:
            one = Campaign(folder, made, seed, works)
            if not has_disk:
                one.kinds.discard(f.FullDisk)
            try:
                await one.start()
                yield one
            finally:
                await one.end()
