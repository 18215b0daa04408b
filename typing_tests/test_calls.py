"""Calls: what `run`, `submit` and a `Call` return, and which arguments they take. Checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, assert_type

from lightwork import Call, Work, WorkStatus


class Train(Work):
    """Parallel, with an async run."""

    def __init__(self, lr: float) -> None:
        super().__init__(parallel=True)
        self.lr = lr

    async def run(self, epochs: int, *, name: str = "") -> float:
        return self.lr * epochs


class Plain(Work):
    """Not parallel, with a plain run."""

    def run(self, x: int) -> str:
        return str(x)


class Quiet(Work):
    """Not parallel, with an async run that takes and returns nothing."""

    async def run(self) -> None: ...


class ParallelPlain(Work):
    """Parallel, with a plain run of many arguments."""

    def __init__(self) -> None:
        super().__init__(parallel=True)

    def run(self, first: int, /, *rest: int, scale: float = 1.0, **names: str) -> list[float]:
        return [scale * one for one in (first, *rest)]


class Untyped(Work):
    """A run without annotations."""

    def run(self, x, y=1):  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
        return x + y  # pyright: ignore[reportUnknownVariableType]


class Mixin:
    """A run that comes from elsewhere."""

    async def run(self, text: str) -> int:
        return len(text)


class Mixed(Mixin, Work): ...


# --- submit: the Call, whatever the work is -------------------------------------------------------


async def test_submit_gives_the_call(train: Train, plain: Plain, quiet: Quiet, both: ParallelPlain) -> None:
    assert_type(train.submit(3), Call[float])
    assert_type(train.submit(3, name="x"), Call[float])
    assert_type(train.submit(epochs=3), Call[float])
    assert_type(plain.submit(3), Call[str])
    assert_type(plain.submit(x=3), Call[str])
    assert_type(quiet.submit(), Call[None])
    assert_type(both.submit(1, 2, 3, scale=0.5, key="value"), Call[list[float]])


async def test_await_submit_gives_the_result(train: Train, plain: Plain, quiet: Quiet, both: ParallelPlain) -> None:
    assert_type(await train.submit(3, name="x"), float)
    assert_type(await plain.submit(3), str)
    await quiet.submit()
    assert_type(await both.submit(1), list[float])
    assert_type(plain.submit(3).result(), str)


async def test_submit_of_classes_that_say_less(work: Work, mixed: Mixed, untyped: Untyped) -> None:
    assert_type(work.submit(1, "x", anything=2), Call[Any])
    assert_type(await work.submit(), Any)
    assert_type(mixed.submit("x"), Call[int])
    untyped.submit(1)  # pyright: ignore[reportUnknownMemberType]


def test_submit_takes_what_run_takes(train: Train, plain: Plain, quiet: Quiet, both: ParallelPlain) -> None:
    train.submit("three")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    train.submit("three", nonsense=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    train.submit(3, nmae="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    train.submit(3, "x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    train.submit()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    plain.submit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain.submit(3, 4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    plain.submit(y=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    quiet.submit(1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    both.submit(first=1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    both.submit(1, scale="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- run: typed as it is written, which is what it gives in place ------------------------------------


async def test_run_of_an_async_run(train: Train, quiet: Quiet) -> None:
    await quiet.run()
    # In place this is so. In an app, `await` of a parallel work's run gives the Call: see docs/typing.md.
    assert_type(await train.run(3), float)
    assert_type(await asyncio.wait_for(train.run(3), 1), float)
    assert_type(asyncio.create_task(train.run(3)), asyncio.Task[float])
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(train.run(3, name="x")), asyncio.Task[float])
    await train.run("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await train.run(3, nmae="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_run_of_a_plain_run(plain: Plain) -> None:
    assert_type(plain.run(3), str)
    # An app takes this `await`; a type checker does not, since in place it is a string. The way out is submit.
    await plain.run(3)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    assert_type(await plain.submit(3), str)


async def test_call_of_a_parallel_work(train: Train) -> None:
    # An app gives this Call; a type checker expects a float. The way out is submit, which needs no await.
    call: Call[float] = await train.run(3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    call = train.submit(3)
    assert_type(await call, float)


# --- Call ------------------------------------------------------------------------------------------


def test_call(call: Call[int]) -> None:
    assert_type(call.result(), int)
    assert_type(call.exception(), BaseException | None)
    assert_type(call.status, WorkStatus)
    assert_type(call.done, bool)
    assert_type(call.cancel(), bool)
    assert_type(call.hash, str)
    assert_type(call.id, int)
    assert_type(call.work, str)
    assert_type(call.cached, bool)
    assert_type(call.cache_reason, str)
    print(call.nonsense)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def takes_wider(call: Call[object]) -> None: ...


def test_call_is_covariant(call: Call[int]) -> None:
    takes_wider(call)
    narrower: Call[bool] = call  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert_type(narrower, Call[bool])


async def test_calls_together(trials: Sequence[Train], plain: Plain) -> None:
    assert_type(await asyncio.gather(*(one.submit(3) for one in trials)), list[float])
    assert_type(await asyncio.gather(trials[0].submit(3), plain.submit(4)), tuple[float, str])
    assert_type(await asyncio.wait_for(plain.submit(3), 1), str)
    async with asyncio.timeout(1):
        assert_type(await plain.submit(3), str)
