"""The HTTP server: its cost for the scheduler, the delay of a change at a client, and a flood of output lines.

Each scheduler runs in a fresh process, ``python -m benchmarks.server PART CLIENTS``. The clients run in another
process, so that only the scheduler's own processor time counts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks.harness import Budget, Report, Scale
from benchmarks.works import Waiting
from lightwork import App, Work
from lightwork.logfiles import LogReader

_RATE = 5_000
_SECONDS = 6.0
_CLIENTS = 3
_LINES = 50_000


class Deltas(Work):
    """Sets an attribute that many times a second, each time to another value, in many small bursts per second."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.values = {str(number): 0 for number in range(100)}

    async def run(self, rate: int, seconds: float) -> int:
        made, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            while made < passed * rate:
                made += 1
                self.values[str(made % 100)] = made
            await asyncio.sleep(0.002)
        return made


class Stamp(Work):
    """Records the time of each assignment."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)
        self.at = 0.0

    async def run(self) -> None:
        self.at = time.time()


def print_lines(rate: int, count: int) -> tuple[float, float]:
    """Print `count` lines at that rate; return the total seconds, and the longest of one print."""
    longest, begun = 0.0, time.perf_counter()
    for number in range(count):
        before = time.perf_counter()
        print(f"line {number} of a work that prints a lot")
        longest = max(longest, time.perf_counter() - before)
        if number % 500 == 499:
            time.sleep(max(0.0, begun + number / rate - time.perf_counter()))
    return time.perf_counter() - begun, longest


class Prints(Work):
    """Prints that many lines a second, and returns the total and the longest time of one print."""

    def __init__(self) -> None:
        super().__init__(cache_calls=False, start_with_flow=False)

    def run(self, rate: int, count: int) -> tuple[float, float]:
        return print_lines(rate, count)


class Cost(msgspec.Struct):
    """Processor seconds of the scheduler for a number of deltas."""

    cpu: float
    made: int


async def follow(url: str) -> None:
    """Read the event stream to its end, as a page does."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/api/v1/feed", max_msg_size=0) as socket:
        await socket.send_str('{"type":"hello"}')
        async for message in socket:
            msgspec.json.decode(message.data)


async def run_deltas(clients: int) -> Cost:
    """Run an app whose work makes deltas, with clients in separate processes."""
    work = Deltas()
    settings: dict[str, Any] = {"http": True, "http_port": 0, "log_dir": ""} if clients else {}
    async with App(Waiting([work]), **settings) as app:
        readers = [
            await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.server", "follow", str(app.url))
            for _ in range(clients)
        ]
        await work.run(_RATE, 1.0)
        api = app._api() if clients else None
        while api is not None and api.feed.num_clients < clients:  # noqa: ASYNC110 -- nobody tells of who joins
            await asyncio.sleep(0.05)
        before = time.process_time()
        made = await work.run(_RATE, _SECONDS)
        cost = Cost(time.process_time() - before, made)
    for reader in readers:
        await reader.wait()
    return cost


async def run_latency(count: int) -> list[float]:
    """Return the seconds from each assignment of a work to the message at a client of the event stream."""
    work, late = Stamp(), []
    async with (
        App(Waiting([work]), http=True, http_port=0, log_dir="") as app,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{app.url}/api/v1/feed", max_msg_size=0) as socket,
    ):
        await socket.send_str('{"type":"hello"}')
        await socket.receive()
        for _ in range(count):
            await asyncio.sleep(0.03)
            call = work.submit()
            stamps: list[float] = []
            while not stamps:
                message = msgspec.json.decode(await socket.receive_str())
                now = time.time()
                stamps = [one["value"] for one in message["items"] if one.get("path") == ["at"]]
            late.append(now - stamps[-1])
            await call
    return late


async def run_lines(count: int) -> tuple[float, float, int]:
    """Return the work's time for its lines, its longest print, and the number of lines on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        work = Prints()
        settings: dict[str, Any] = {"log_dir": folder, "log_max_bytes": 1 << 30, "http": True, "http_port": 0}
        async with App(Waiting([work]), **settings) as app:
            took, longest = await work.submit(_LINES, count)
            run = app._running().id
        found, after = 0, 0
        reader = LogReader(Path(folder) / run)
        while page := reader.read(after=after, limit=10_000).items:
            for line in page:
                if not line.text.startswith(f"line {found} "):
                    raise ValueError(f"found {line.text!r} where line {found} was due")
                found += 1
            after = page[-1].seq
        return took, longest, found


def run_bare(count: int) -> tuple[float, float]:
    """Do the same in a bare process whose output is a file."""
    with tempfile.TemporaryFile() as file:
        command = [sys.executable, "-m", "benchmarks.server", "print", str(count)]
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stderr, type=tuple[float, float])


def _part(*arguments: str) -> bytes:
    command = [sys.executable, "-m", "benchmarks.server", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, env=dict(os.environ)).stdout


def measure(report: Report, scale: Scale) -> None:
    """Measure schedulers with and without clients in turns."""
    repeats = max(2, scale.repeats // 5)
    costs: dict[int, list[float]] = {0: [], _CLIENTS: []}
    for _ in range(repeats):
        for clients in costs:
            cost = msgspec.json.decode(_part("deltas", str(clients)), type=Cost)
            costs[clients].append(cost.cpu / cost.made * 1e6)
    subject = f"processor time of the scheduler for one of {_RATE} deltas a second"
    alone = report.add(subject, "no HTTP side", "µs", costs[0])
    with_clients = report.add(subject, f"{_CLIENTS} clients of the feed", "µs", costs[_CLIENTS])
    # "Slower" means: the same number of deltas takes that much more of the scheduler's one core.
    slower = (with_clients.median - alone.median) * _RATE / 1e6 * 100
    report.budgets.append(Budget(f"{_CLIENTS} clients, {_RATE} deltas a second: of the core", "%", 10.0, slower))
    late = msgspec.json.decode(_part("latency", str(scale.latencies)), type=list[float])
    report.add("one change, work to a client of the feed", "lightwork", "ms", [one * 1e3 for one in late])
    worst = statistics.quantiles(late, n=100)[98] * 1e3
    report.budgets.append(Budget("a change is at a client, 99 of 100", "ms", 100.0, worst))
    lines = 6 * _LINES if scale.repeats > 5 else 2 * _LINES
    times: dict[str, list[float]] = {"the work": [], "a bare process into a file": []}
    longest: dict[str, list[float]] = {who: [] for who in times}
    kept = 0
    for _ in range(repeats):
        took, most, found = msgspec.json.decode(_part("lines", str(lines)), type=tuple[float, float, int])
        kept += found
        bare = run_bare(lines)
        for who, (seconds, one) in zip(times, ((took, most), bare), strict=True):
            times[who].append(seconds)
            longest[who].append(one * 1e3)
    subject = f"{lines:,} lines at {_LINES:,} a second"
    works, bares = (report.add(subject, who, "s", samples) for who, samples in times.items())
    for who, samples in longest.items():
        report.add("the longest that one of these lines took", who, "ms", samples)
    report.budgets.append(Budget("a work that prints, against a bare process", "×", 1.1, works.median / bares.median))
    report.budgets.append(Budget("lines on the disk, of those printed", "", lines * repeats, kept, at_least=True))


def main(part: str, argument: str) -> None:
    """Run one part in this process; print the result to standard output."""
    if part == "follow":
        asyncio.run(follow(argument))
        return
    if part == "print":
        sys.stderr.buffer.write(msgspec.json.encode(print_lines(_LINES, int(argument))))
        return
    outcome: Any
    if part == "deltas":
        outcome = asyncio.run(run_deltas(int(argument)))
    elif part == "latency":
        outcome = asyncio.run(run_latency(int(argument)))
    else:
        outcome = asyncio.run(run_lines(int(argument)))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
