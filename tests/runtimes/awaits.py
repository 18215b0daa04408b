"""Cancel a launch at its n-th await. As a program: launch, and kill this process at the n-th await of the launch."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import msgspec

from lightwork.runtime import Ref, Runtime, Spec
from lightwork.testing.conformance import Case

_T = TypeVar("_T")


class _AtAwait:
    """Awaits a coroutine, and calls `act` when it is suspended for the n-th time. `reached` is True after that."""

    def __init__(self, coroutine: Coroutine[Any, Any, _T], number: int, act: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._number = number
        self._act = act
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        count = 0
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            count += 1
            if count == self._number:
                self.reached = True
                self._act()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as raised:
                error = raised


async def cancelled_at(coroutine: Coroutine[Any, Any, _T], number: int) -> bool:
    """Run a coroutine and cancel it at the await of that number. Return whether it has so many awaits."""
    loop = asyncio.get_running_loop()
    # With `call_soon`: the coroutine is suspended then, so the cancellation hits the object that it waits for.
    waiting = _AtAwait(coroutine, number, lambda: loop.call_soon(task.cancel))

    async def run() -> None:
        await waiting

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return waiting.reached


async def cancel_launch_at_every_await(runtime: Runtime, case: Case) -> int:
    """Launch repeatedly, cancelled one await later each time, and check that the rest can be found and released.

    Return the number of awaits.
    """
    number = 1
    while await cancelled_at(runtime.launch(case.spec("wait")), number):
        await release_all(runtime, case.owner)
        number += 1
    await release_all(runtime, case.owner)
    return number - 1


async def release_all(runtime: Runtime, owner: str) -> list[Ref]:
    """Release every launch that `find` returns, and check that all are gone. Return them."""
    found = list(await runtime.find(owner))
    for ref in found:
        await runtime.release(ref)
    assert [report.standing for report in await runtime.poll(found)] == ["absent"] * len(found)
    assert not await runtime.find(owner)
    return found


async def launch_and_die(runtime: Runtime, spec: Spec, number: int) -> None:
    """Launch the spec and kill this process at the await of that number, at the latest after the launch."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async with runtime:
        await _AtAwait(runtime.launch(spec), number, die)
        die()


class Doom(msgspec.Struct):
    """The input of the program: how to make its runtime, what to launch, and at which await to die."""

    kind: str
    name: str
    options: msgspec.Raw
    spec: Spec
    number: int


async def killed_at(runtime: Any, spec: Spec, number: int) -> None:
    """Launch the spec from another process, which kills itself at the await of that number."""
    kind = f"{type(runtime).__module__}:{type(runtime).__name__}"
    doom = Doom(kind, runtime.name, msgspec.Raw(msgspec.json.encode(runtime.options)), spec, number)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runtimes.awaits"), stdin=asyncio.subprocess.PIPE
    )
    await program.communicate(msgspec.json.encode(doom))
    assert program.returncode == -signal.SIGKILL


def main() -> None:
    import importlib

    doom = msgspec.json.decode(sys.stdin.buffer.read(), type=Doom)
    module, _, name = doom.kind.partition(":")
    cls = getattr(importlib.import_module(module), name)
    runtime = cls(doom.name, msgspec.json.decode(doom.options, type=cls.Options))
    asyncio.run(launch_and_die(runtime, doom.spec, doom.number))


if __name__ == "__main__":
    main()
