"""The app of the chaos test, in a separate process: a flow of 20 works, and a watcher that checks every change.

SIGUSR1 ends the app. Then it compares both sides of every state, and writes its verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from lightwork import App, Flow
from lightwork.changes import Change, StateChanged, StatusChanged
from lightwork.errors import LightworkError
from lightwork.runtime import Address
from lightwork.status import Stage, WorkStatus
from lightwork_runtimes.local import LocalOptions
from tests.chaos.proxy import LocalThroughProxies
from tests.chaos.works import AsyncLedger, Ledger, PlainLedger, Trouble

__all__ = ["Settings", "Verdict"]

_TERMINAL = (Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED)


class Settings(msgspec.Struct, frozen=True):
    """Settings of the process.

    Attributes:
        seed: Seed of the choices that are not faults: the calls to cancel, the works to stop.
        folder: Folder of the ledgers and the verdict.
        home: Home folder of the local runtime.
        port: Port to listen on.
        routes: Addresses that workers dial.
        works: Number of works.
        options: Options of the configuration.
        environ: Environment of the workers.
        life: Number of this scheduler in the run, from 0.
    """

    seed: int
    folder: str
    home: str
    port: int
    routes: list[tuple[str, int]]
    works: int
    options: dict[str, Any]
    environ: dict[str, str] = {}
    life: int = 0


class Verdict(msgspec.Struct):
    """The findings of one scheduler.

    Attributes:
        violations: Broken promises.
        outcomes: Number of calls by outcome.
        seen: Number of the latest edit seen for each life of a work.
        edits: Number of edits seen.
        ordered: Number of the latest edit that each gracefully ended life reported.
        alive: Lives of the works at the end.
        adopted: Lives that went on with another scheduler, whose edits continue those of the previous scheduler.
    """

    violations: list[str] = []
    outcomes: dict[str, int] = {}
    seen: dict[str, int] = {}
    edits: int = 0
    ordered: dict[str, int] = {}
    alive: list[str] = []
    adopted: list[str] = []


class Watch:
    """Checks every change: edits are numbered without a gap, and a call has one end."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.life: dict[str, str] = {}  # for each work, the last token seen
        self.stages: dict[tuple[str, int], Stage] = {}
        self.inherited: set[str] = set()  # lives that an earlier scheduler has seen
        self.attempts: dict[tuple[str, int], int] = {}
        self.times: dict[str, float] = {}
        self.outcomes: Counter[str] = Counter()

    def take(self, change: Change) -> None:
        if isinstance(change, StatusChanged):
            self._status(change)
        elif isinstance(change, StateChanged) and change.path == ("entries",):
            if change.kind == "splice":
                self._edits(change.name, change.value[2])
            elif change.kind == "set":
                self._edits(change.name, [pair for pair in change.value if self._is_new(pair)])
        elif isinstance(change, StateChanged) and change.path == ("exits",) and change.value:
            token, number = change.value[-1]
            self.verdict.ordered[token] = number
            if self.verdict.seen.get(token, 0) < number:
                self.blame(f"{change.name}: life {token} ended gracefully at {number}, without its edits")

    def begin(self, work: Ledger) -> None:
        """Continue from the edits of the work that an earlier scheduler has seen."""
        for token, number in work.entries:
            self.inherited.add(token)
            self.life[work.name] = token
            self.verdict.seen[token] = number
        for status in work.statuses:
            self.times[work.name] = status.timestamp
            if status.call is not None:
                self.stages[work.name, status.call] = status.stage
                self.attempts[work.name, status.call] = status.attempt

    def _is_new(self, pair: list[Any]) -> bool:
        return bool(pair[1] > self.verdict.seen.get(pair[0], 0))

    def _edits(self, name: str, pairs: list[Any]) -> None:
        seen = self.verdict.seen
        for token, number in pairs:
            if token not in seen:
                self.life[name] = token
            elif self.life[name] != token:
                self.blame(f"{name}: edit {number} of life {token}, which had ended: {self.life[name]} had begun")
            if number != seen.get(token, 0) + 1:
                self.blame(f"{name}: edit {number} of life {token} came after {seen.get(token, 0)}")
            seen[token] = number
            self.verdict.edits += 1
            if token in self.inherited:
                self.inherited.discard(token)
                self.verdict.adopted.append(token)

    def _status(self, change: StatusChanged) -> None:
        name, status = change.name, change.status
        if status.timestamp < self.times.get(name, 0.0):
            self.blame(f"{name}: a status of {status.timestamp} after one of {self.times[name]}")
        self.times[name] = status.timestamp
        if status.call is None:
            return
        call = (name, status.call)
        before = self.stages.get(call)
        self.stages[call] = status.stage
        if not self._fits(before, self.attempts.get(call, 0), status):
            self.blame(f"{name}: call {status.call} is {status} after it was {before}")
        self.attempts[call] = status.attempt
        if status.stage in _TERMINAL:
            self.outcomes[f"{status.stage}:{status.reason}" if status.reason else str(status.stage)] += 1
        elif status.stage is Stage.PENDING and before is not None:
            self.outcomes[f"tried again:{status.reason}"] += 1

    def _fits(self, before: Stage | None, attempt: int, status: WorkStatus) -> bool:
        if status.stage is Stage.PENDING:
            return before not in _TERMINAL and status.attempt == attempt + 1
        if status.attempt != attempt:
            return False
        return before is Stage.PENDING or (before is Stage.RUNNING and status.stage in _TERMINAL)

    def blame(self, text: str) -> None:
        self.verdict.violations.append(text)


class Chaos(Flow):
    """Keeps its works busy until SIGUSR1."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        kinds = [AsyncLedger, PlainLedger]
        self.crew = [kinds[n % 2](settings.folder, retries=n % 3, retry_delay=0.02) for n in range(settings.works)]
        self.turns: dict[str, int] = {}  # for each work, the latest one that has ended
        self._settings = settings
        self._is_ending = asyncio.Event()
        self._watch = Watch(Verdict())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number, work in enumerate(self.crew):
                group.create_task(self._drive(number, work))
        for work in self.crew:
            await self._compare(work)
        self._check_calls()
        self.stop("checked")

    async def _drive(self, number: int, work: Ledger) -> None:
        while not self._is_ending.is_set():
            # The actions of a turn depend only on its number, so that another scheduler continues with the same.
            turn = self.turns.get(work.name, 0) + 1
            await self._do(work, number, turn)
            self.turns[work.name] = turn

    async def _do(self, work: Ledger, number: int, turn: int) -> None:
        chance = random.Random(f"{self._settings.seed}/{number}/{turn}")
        what = chance.random()
        call = work.submit(turn + 1000 * number, chance.randrange(2, 12))
        if what < 0.2:
            work.told = turn
        elif what < 0.25:
            await asyncio.sleep(chance.uniform(0, 0.1))
            call.cancel()
        elif what < 0.3:
            await asyncio.sleep(chance.uniform(0, 0.1))
            await work.stop()
        try:
            value = await call
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if isinstance(error, Exception) and not isinstance(error, (Trouble, LightworkError)):
                self._watch.blame(f"{work.name}: {error!r}")
            await asyncio.sleep(0.05)  # not as fast as a work can fail while the disk is full
            return
        token, last = value
        if token == self._watch.life.get(work.name) and self._watch.verdict.seen.get(token, 0) < last:
            self._watch.blame(f"{work.name}: a call of life {token} succeeded at {last}, without its edits")

    async def _compare(self, work: Ledger) -> None:
        while True:
            try:
                life, there = await work.submit(-1, 0)
                break
            except LightworkError as error:
                if isinstance(error, Trouble):
                    raise
                await asyncio.sleep(0.05)
        here = work.whole()
        if here != there:
            names = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
            self._watch.blame(f"{work.name}: the two sides differ in {names}: {here} here, {there} there")
        self._watch.verdict.alive.append(life)

    def _check_calls(self) -> None:
        open_calls = [call for call, stage in self._watch.stages.items() if stage not in _TERMINAL]
        if open_calls:
            self._watch.blame(f"these calls have no end: {open_calls}")


async def main(settings: Settings) -> None:
    """Run the app, and write the verdict."""
    flow = Chaos(settings)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, flow._is_ending.set)
    reported: list[str] = []
    loop.set_exception_handler(lambda loop, context: reported.append(repr(context)))
    routes = [Address(*route) for route in settings.routes]
    runtime = LocalThroughProxies(LocalOptions(home=settings.home), routes, settings.environ)
    app = App(flow, runtimes={"local": runtime}, port=settings.port, **settings.options)
    async with app:
        for work in flow.crew:
            flow._watch.begin(work)
        app.watch(flow._watch.take)
        print("up", flush=True)
        await app.wait_stopped()
    verdict = flow._watch.verdict
    verdict.violations += reported
    verdict.outcomes = dict(flow._watch.outcomes)
    path = Path(settings.folder) / "verdict"
    path.with_suffix(".new").write_bytes(msgspec.json.encode(verdict))
    os.replace(path.with_suffix(".new"), path)


if __name__ == "__main__":
    print("there", flush=True)
    sys.stdin.read()  # ends when the app must start
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Settings)))
