"""A scheduler is killed by SIGKILL, and another one continues from its journal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.engine.recovery.apps import until
from tests.engine.recovery.support import open_gate, runs, scheduler

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("opened", ["while there is no scheduler", "by the next one's time"])
async def test_calls_in_flight_go_on(tmp_path: Path, opened: str) -> None:
    """The works are adopted, no call runs twice, and the states are the same as without the kill."""
    async with scheduler("Calls", tmp_path) as first:
        pids = await first.said("waiting")
        await first.kill()
    if opened == "while there is no scheduler":
        open_gate(tmp_path)
    async with scheduler("Calls", tmp_path, resume=True) as second:
        if opened != "while there is no scheduler":
            assert await second.said("waiting") == pids
            open_gate(tmp_path)
        found = " ".join(await second.said("found"))
        assert found == "one is done one is done two is done three is done in 2"
        assert " ".join(await second.said("steps")) == f"{[-1, 0, 1, 2, 3, 4, -1]} {[*range(10), -1]}"
        assert await second.said("pids") == pids
        assert await second.ended() == 0
    assert sorted(runs(tmp_path)) == ["one", "three", "two"]
    assert not any(psutil.pid_exists(int(pid)) for pid in pids)


async def test_over_tls(tmp_path: Path) -> None:
    """Off loopback the next scheduler has the certificate that the workers trust."""
    pytest.importorskip("cryptography")
    async with scheduler("Calls", tmp_path, host="0.0.0.0") as first:
        pids = await first.said("waiting")
        await first.kill()
    async with scheduler("Calls", tmp_path, resume=True, host="0.0.0.0") as second:
        assert await second.said("waiting") == pids
        open_gate(tmp_path)
        assert await second.ended() == 0
    assert sorted(runs(tmp_path)) == ["one", "three", "two"]


async def test_worker_that_died_meanwhile(tmp_path: Path) -> None:
    """If a work's process died while no scheduler ran, its call runs again, and only that call."""
    async with scheduler("Calls", tmp_path) as first:
        pids = await first.said("waiting")
        await first.kill()
    os.kill(int(pids[1]), signal.SIGKILL)
    async with scheduler("Calls", tmp_path, resume=True) as second:
        again = await second.said("waiting")
        assert again[0] == pids[0]
        open_gate(tmp_path)
        assert await second.ended() == 0
    assert sorted(runs(tmp_path)) == ["one", "three", "two", "two"]


async def test_worker_that_is_told_to_go_meanwhile(tmp_path: Path) -> None:
    """Within its grace period a worker waits for the next scheduler, and delivers its frames before it exits."""
    async with scheduler("Leaving", tmp_path, grace=60.0) as first:
        (pid,) = await first.said("waiting")
        await first.kill()
    open_gate(tmp_path)
    await until(lambda: "over" in runs(tmp_path))
    os.kill(int(pid), signal.SIGTERM)
    await until(lambda: "left" in runs(tmp_path))
    async with scheduler("Leaving", tmp_path, resume=True, grace=60.0) as second:
        assert " ".join(await second.said("found")) == f"one is done {[0, 1, 2, -1]} True"
        assert await second.ended() == 0
    assert runs(tmp_path) == ["one", "over", "left"]
    assert not psutil.pid_exists(int(pid))


async def test_worker_that_is_told_to_go_and_has_nobody_to_tell(tmp_path: Path) -> None:
    """After its grace period the worker exits, and the next scheduler's worker runs the call again."""
    async with scheduler("Leaving", tmp_path, grace=0.1) as first:
        (pid,) = await first.said("waiting")
        await first.kill()
    os.kill(int(pid), signal.SIGTERM)
    await until(lambda: not psutil.pid_exists(int(pid)))
    open_gate(tmp_path)
    async with scheduler("Leaving", tmp_path, resume=True) as second:
        await second.said("found")
        assert await second.ended() == 0
    assert runs(tmp_path) == ["one", "left", "one", "over", "left"]


async def test_killed_between_two_schedulers(tmp_path: Path) -> None:
    """If a scheduler is killed right after it has resumed, another one can resume."""
    async with scheduler("Calls", tmp_path) as first:
        pids = await first.said("waiting")
        await first.kill()
    for _ in range(2):
        async with scheduler("Calls", tmp_path, resume=True) as one:
            assert await one.said("waiting") == pids
            await one.kill()
    open_gate(tmp_path)
    async with scheduler("Calls", tmp_path, resume=True) as last:
        assert await last.ended() == 0
    assert sorted(runs(tmp_path)) == ["one", "three", "two"]


@pytest.mark.parametrize(
    ("app", "expected"), [("Uncached", ["same"] * 5), ("PlainFlow", ["item 0", "item 1", "item 2", "last"])]
)
async def test_calls_that_are_not_cached(tmp_path: Path, app: str, expected: list[str]) -> None:
    """Their results in the interrupted pass answer the same calls of the repeated pass, once each."""
    async with scheduler(app, tmp_path) as first:
        await first.said("waiting")
        await first.kill()
    async with scheduler(app, tmp_path, resume=True) as second:
        await second.said("waiting")
        await second.kill()
    open_gate(tmp_path)
    async with scheduler(app, tmp_path, resume=True) as third:
        assert await third.said("successes") == [str(len(expected))]
        assert await third.ended() == 0
    assert runs(tmp_path) == expected


async def test_children_made_while_running(tmp_path: Path) -> None:
    """A child that the flow makes again gets its worker back; the worker of any other child is ended."""
    async with scheduler("Dynamic", tmp_path) as first:
        kept, extra = await first.said("waiting")
        await first.kill()
    async with scheduler("Dynamic", tmp_path, resume=True) as second:
        assert await second.said("waiting") == [kept, "0"]
        assert psutil.pid_exists(int(extra))
        open_gate(tmp_path)
        assert " ".join(await second.said("kept")) == f"{[0, 1, 2, -1]} {kept}"
        assert await second.ended() == 0
    assert not psutil.pid_exists(int(extra))
    assert sorted(runs(tmp_path)) == ["extra", "kept"]


async def test_child_that_a_run_without_end_does_not_make_again(tmp_path: Path) -> None:
    """Its worker keeps running and the log names it, until `give_up` ends the worker and frees the name."""
    async with scheduler("Unending", tmp_path) as first:
        (pid,) = await first.said("waiting")
        await first.kill()
    async with scheduler("Unending", tmp_path, resume=True) as second:
        assert await second.said("unclaimed") == ["root.extra"]
        if not any(line[:1] == ["these"] for line in second.lines):  # otherwise it was logged before
            assert await second.said("these")
        assert psutil.pid_exists(int(pid))
        open_gate(tmp_path)
        assert await second.said("given") == ["False", "True", "False"]
        assert " ".join(await second.said("again")) == "again is done 1"
        assert await second.ended() == 0
    assert not psutil.pid_exists(int(pid))
    assert runs(tmp_path) == ["extra", "again"]


@pytest.mark.parametrize("kind", ["die", "dies"])
async def test_killed_at_any_moment(tmp_path: Path, kind: str) -> None:
    """If it is killed again and again, right before or after a write, each call that succeeded ran only once."""
    for count, number in enumerate((1, 2, 3, 4, 6)):
        async with scheduler("Steps", tmp_path, resume=count > 0, die=f"{kind}={number}") as one:
            if await one.ended() == 0:
                break
            assert one.process.returncode == -signal.SIGKILL, one.lines
    else:
        async with scheduler("Steps", tmp_path, resume=True) as one:
            assert await one.ended() == 0, one.lines
    assert ["successes", "[4,", "4]"] in one.lines
    assert ["steps", "[True,", "True]", "[0,", "1,", "2,", "3]"] in one.lines
    assert sorted(runs(tmp_path)) == sorted(f"{key}-{number}" for key in range(2) for number in range(4))
