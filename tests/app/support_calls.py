"""Works that the tests of calls, hooks and worker deaths run, and an app around them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from lightwork import App, Flow, Work
from lightwork.changes import Change, LogLine
from lightwork.runtime import Runtime

RUNTIMES = ("inprocess", "local")


class Holder(Flow):
    """Holds works and does nothing; the tests call them from outside."""

    def __init__(self, **works: Work) -> None:
        super().__init__()
        for name, work in works.items():
            setattr(self, name, work)

    async def run(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def running(
    runtime: str = "inprocess",
    /,
    *,
    runtimes: dict[str, Runtime] | None = None,
    settings: dict[str, Any] | None = None,
    **works: Work,
) -> AsyncIterator[App[Any]]:
    """Run an app whose root has these works as attributes."""
    async with App(Holder(**works), runtime=runtime, runtimes=runtimes, **(settings or {})) as app:
        yield app


def stages(work: Work, call: int | None = None) -> list[str]:
    """Return the work's statuses as text: the stage, and the reason after a colon. With `call`, only its statuses."""
    return [
        one.stage.value if one.reason is None else f"{one.stage.value}:{one.reason.value}"
        for one in work.statuses
        if call is None or one.call == call
    ]


def lines(app: App[Any], work: Work) -> list[str]:
    """Return the work's output from now on; the list grows."""
    found: list[str] = []

    def take(change: Change) -> None:
        if isinstance(change, LogLine) and change.name == work.name:
            found.append(change.text)

    app.watch(take)
    return found


class Point(msgspec.Struct):
    x: int
    y: int


@dataclass
class Pair:
    left: str
    right: Point


class StrangeError(Exception):
    """Its ``__init__`` takes other arguments than it passes on."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"strange {code}")
        self.code, self.hint = code, hint


class Counted(Work):
    """Counts its runs; the subclasses decide what a run returns."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.runs = 0
        self.log: list[Any] = []


class Add(Counted):
    async def run(self, x: int, y: int = 1) -> int:
        self.runs += 1
        self.log.append([x, y])
        return x + y


class PlainAdd(Counted):
    def run(self, x: int, y: int = 1) -> int:
        self.runs += 1
        self.log.append([x, y])
        return x + y


class Gate(Counted):
    """Each run waits until the flow lets its key pass."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open: list[str] = []
        self.inside: list[str] = []
        self.ended: list[str] = []
        self._changed: asyncio.Event | None = None

    def apply_flow_delta(self, delta: Any) -> None:
        super().apply_flow_delta(delta)
        if self._changed is not None:
            self._changed.set()

    async def run(self, key: str) -> str:
        self.runs += 1
        self.inside.append(key)
        self._changed = self._changed or asyncio.Event()
        try:
            while key not in self.open:
                self._changed.clear()
                await self._changed.wait()
        finally:
            self.ended.append(key)
        return key


class Returns(Work):
    """Returns the value that its argument selects."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    async def run(self, what: str) -> Any:
        return _VALUES[what]()


class PlainReturns(Work):
    def run(self, what: str) -> Any:
        return _VALUES[what]()


_VALUES: dict[str, Callable[[], Any]] = {
    "object": object,
    "lambda": lambda: {"inner": [lambda: 1]},
    "large": lambda: "x" * 200_000,
    "integer": lambda: 2**70,
    "fine": lambda: "fine",
}


class GivesPoint(Work):
    async def run(self, x: int) -> Point:
        return Point(x, -x)


class GivesPairs(Work):
    def run(self, names: list[str]) -> dict[str, Pair]:
        return {name: Pair(name, Point(len(name), 0)) for name in names}


class Raises(Counted):
    """Fails in the way that its argument selects."""

    async def run(self, what: str) -> str:
        self.runs += 1
        return fail(what)


class PlainRaises(Counted):
    def run(self, what: str) -> str:
        self.runs += 1
        return fail(what)


def fail(what: str) -> str:
    """Raise the error that the word selects; ``fine`` raises nothing."""
    match what:
        case "value":
            raise ValueError("no such epoch", 7)
        case "strange":
            raise StrangeError(3, hint="try again")
        case "chained":
            try:
                os.environ["LIGHTWORK_MISSING"]
            except KeyError as error:
                raise RuntimeError("outer") from error
        case "unknown":
            namespace: dict[str, Any] = {}
            exec("class Local(Exception): pass", namespace)
            raise namespace["Local"]("only there")
        case "exit":
            sys.exit(3)
        case "cancelled":
            raise asyncio.CancelledError
        case "timeout":
            raise TimeoutError("the user's own")
    return what


class Swallows(Counted):
    """``on_exception`` swallows a ValueError, replaces a KeyError, and raises any other again."""

    async def run(self, what: str) -> str:
        raise {"value": ValueError, "key": KeyError, "type": TypeError}[what](what)

    async def on_exception(self, exception: BaseException) -> None:
        self.log.append(type(exception).__name__)
        _on_exception(exception)


class PlainSwallows(Swallows):
    def run(self, what: str) -> str:  # type: ignore[override]
        raise {"value": ValueError, "key": KeyError, "type": TypeError}[what](what)

    def on_exception(self, exception: BaseException) -> None:  # type: ignore[override]
        self.log.append(type(exception).__name__)
        _on_exception(exception)


def _on_exception(exception: BaseException) -> None:
    if isinstance(exception, ValueError):
        return
    if isinstance(exception, KeyError):
        raise LookupError("another") from exception
    raise exception


class Flaky(Counted):
    """Fails until it has been tried this many times."""

    def __init__(self, needed: int, **options: Any) -> None:
        super().__init__(retry_delay=0.001, **options)
        self.needed = needed

    async def run(self) -> int:
        self.runs += 1
        if self.runs < self.needed:
            raise ValueError(f"try {self.runs}")
        return self.runs


class PlainFlaky(Flaky):
    def run(self) -> int:  # type: ignore[override]
        self.runs += 1
        if self.runs < self.needed:
            raise ValueError(f"try {self.runs}")
        return self.runs


class Waits(Counted):
    """An async run that waits forever and records how it ended."""

    async def run(self, how: str = "well") -> str:
        self.runs += 1
        if how == "at once":
            return how
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            if how == "raises":
                raise ValueError("in the middle of it") from None
            if how == "returns":
                return "all the same"
            if how == "ignores":
                await ignore_cancellation()
            raise
        finally:
            self.log.append("finally")
        return how


async def ignore_cancellation() -> None:
    """Go on although the task is cancelled."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


class Blocks(Counted):
    """A coroutine that blocks the loop."""

    async def run(self, how: str) -> str:
        if how == "blocks":
            time.sleep(1000)  # noqa: ASYNC251 -- what the test is about
        if how == "takes its time":
            await asyncio.sleep(0.01)
        return how


class PlainWaits(Counted):
    """A plain run that never ends by itself."""

    def run(self, how: str) -> str:
        self.runs += 1
        self.log.append(os.getpid())
        if how == "at once":
            return how
        try:
            spend(how, lambda: self.log.append("cancelled"))
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        finally:
            self.log.append("finally")
        return how


def spend(how: str, heard: Callable[[], None] | None = None) -> None:
    """Never return: sleep, compute, or ignore every exception and report it to `heard`."""
    while True:
        try:
            if how == "sleeps":
                time.sleep(1000)
            elif how == "computes":
                count = 0
                while True:
                    count += 1
            else:
                time.sleep(1000)
        except BaseException:
            if how != "ignores":
                raise
            if heard is not None:
                heard()


class Dies(Counted):
    """Ends its own process in the way that its argument selects."""

    async def run(self, how: str) -> int:
        self.runs += 1
        die(how)
        return os.getpid()


class PlainDies(Counted):
    def run(self, how: str) -> int:
        self.runs += 1
        die(how)
        return os.getpid()


def die(how: str) -> None:
    """End this process; ``lives`` does not."""
    match how:
        case "exit":
            print("last words", flush=True)
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segv":
            ctypes.string_at(0)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1000)


class DiesOnce(Counted):
    """Ends its process at the first attempt and leaves a mark for the next attempt."""

    def __init__(self, mark: str, **options: Any) -> None:
        super().__init__(retry_delay=0.001, **options)
        self.mark = mark

    def run(self) -> str:
        if not os.path.exists(self.mark):
            with open(self.mark, "w"):
                os._exit(9)
        return "second"


# --- hooks ----------------------------------------------------------------------------------------


class Hooks(Counted):
    """Records which hook was called in which process."""

    def __init__(self, how: str = "well", **options: Any) -> None:
        super().__init__(**options)
        self.how = how
        self.pid = 0

    async def on_start(self) -> None:
        self.log.append("start")
        self.pid = os.getpid()
        if self.how == "start hangs":
            await asyncio.Event().wait()
        if self.how == "start raises":
            raise ValueError("no data")
        if self.how == "start dies":
            os._exit(4)

    async def run(self, what: str = "value") -> str:
        self.log.append("run")
        if what == "waits":
            await asyncio.Event().wait()
        return fail(what)

    async def on_exception(self, exception: BaseException) -> None:
        self.log.append("exception")
        raise exception

    async def on_exit(self) -> None:
        self.log.append("exit")
        if self.how == "exit hangs":
            await asyncio.Event().wait()
        if self.how == "exit blocks":
            time.sleep(1000)  # noqa: ASYNC251 -- blocks the loop: what the test is about
        if self.how == "exit raises":
            raise ValueError("no way out")
        if self.how == "exit exits":
            sys.exit(5)


class PlainHooks(Hooks):
    def on_start(self) -> None:  # type: ignore[override]
        self.log.append("start")
        self.pid = os.getpid()
        if self.how == "start hangs":
            time.sleep(1000)
        if self.how == "start raises":
            raise ValueError("no data")
        if self.how == "start dies":
            os._exit(4)

    def run(self, what: str = "value") -> str:  # type: ignore[override]
        self.log.append("run")
        if what == "waits":
            spend("sleeps")
        return fail(what)

    def on_exception(self, exception: BaseException) -> None:  # type: ignore[override]
        self.log.append("exception")
        raise exception

    def on_exit(self) -> None:  # type: ignore[override]
        self.log.append("exit")
        if self.how in ("exit hangs", "exit blocks"):
            time.sleep(1000)
        if self.how == "exit raises":
            raise ValueError("no way out")
        if self.how == "exit exits":
            sys.exit(5)


class CountsOn(Work):
    """Changes its state forever."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = 0
        self.count = 0
        self.ended = False

    def run(self) -> None:
        self.pid = os.getpid()
        try:
            while True:
                self.count += 1
        finally:
            self.ended = True


# --- processes that a work starts, and what it prints ---------------------------------------------


class Starts(Work):
    """Starts processes and leaves them running, some in a separate session."""

    def run(self, how: str) -> list[int]:
        sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
        pids = [subprocess.Popen(sleep, start_new_session=own).pid for own in (False, True)]
        die(how)
        return [os.getpid(), *pids]


class StartsAndDies(Work):
    """Prints the pids, because it dies before it can return them."""

    def __init__(self) -> None:
        super().__init__()
        self.started = False

    def run(self, how: str) -> None:
        sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
        print(*[subprocess.Popen(sleep, start_new_session=own).pid for own in (False, True)])
        self.started = True
        spend("sleeps") if how == "waits" else die(how)


class Prints(Work):
    """Writes to its output in every way."""

    def run(self, what: str) -> None:
        libc = ctypes.CDLL(None)
        match what:
            case "lines":
                print("from python")
                print("to stderr", file=sys.stderr)
                libc.puts(b"from C")
                os.write(1, b"raw\n")
                subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
                print("last")
            case "long":
                print("é" * 100_000)
                print("after")
            case "bytes":
                os.write(1, b"\xff\xfe ok\n")
            case "crash":
                print("one")
                libc.puts(b"two")
                print("three", end="", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            case "many":
                for number in range(2000):
                    print(number)


# --- things that cannot be sent -------------------------------------------------------------------


class OnlyHere:
    """Can be pickled but not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _missing, ("no_such_module",)


def _missing(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class HoldsOnlyHere(Add):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._thing = OnlyHere()


class HoldsLock(Add):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lock = threading.Lock()
