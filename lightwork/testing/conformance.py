"""The conformance suite: checks that every runtime must pass.

Run all of them in one test:

    async def test_my_runtime():
        await check_runtime(lambda: MyRuntime("mine", MyRuntime.Options()))

or make one test for each check:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check):
        await run_check(check, lambda: MyRuntime("mine", MyRuntime.Options()))

The launches run `main` of this module, so it must be importable where works run. A check that fails raises
`AssertionError`. No check asserts how long anything takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lightwork.runtime import (
    Address,
    Cached,
    Caching,
    Cause,
    Conflict,
    Diagnosable,
    Health,
    Ref,
    Report,
    Runtime,
    Spec,
    Standing,
)

__all__ = [
    "CHECKS",
    "Case",
    "Check",
    "Traits",
    "another_spec_of_that_name_is_a_conflict",
    "cache_leaves_what_is_used",
    "cancelled_launch_is_found",
    "cancelled_wait_changes_nothing",
    "check_runtime",
    "checks_for",
    "context_left_leaves_it_alone",
    "diagnosis_agrees",
    "exception_is_exit_code_one",
    "exit_code_is_reported",
    "find_gives_the_owner_s_own",
    "launch_again_starts_nothing",
    "lifetime_ends_it",
    "main",
    "output_is_followed",
    "output_is_kept",
    "poll_answers_in_order",
    "ref_can_be_written_down",
    "release_ends_and_forgets",
    "routes_are_given",
    "run_check",
    "secret_is_nowhere_to_be_seen",
    "serve",
    "shorter_grace_shortens",
    "stop_at_once_after_launch",
    "stop_ends_it",
    "stop_forces_after_the_grace",
    "traceback_is_output",
    "unknown_ref_is_absent",
    "whole_tree_is_ended",
]

_LIMIT = 60.0
_FOREVER = 3600.0


def main() -> int:
    """Run one command, read from standard input. This is the entry of the launches that the checks make."""
    command, _, rest = sys.stdin.buffer.read().decode().partition(" ")
    match command:
        case "exit":
            return int(rest)
        case "say":
            print(rest)
            return 0
        case "raise":
            raise RuntimeError(rest)
        case "look":
            print(", ".join(_where_seen(rest.encode())) or "nowhere")
            return 0
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "family":
            # In its own session, like a daemon: killing the process group does not end it.
            subprocess.Popen([sys.executable, "-c", _HEIR], start_new_session=True)
    print("waiting", flush=True)
    while True:
        signal.pause()


_HEIR = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    print("here", flush=True)
    time.sleep(0.05)
"""
"""A program that outlives its parent unless it is ended, and prints a line every 0.05 s."""

_HEARD = 0.5
"""Seconds to wait for output of a process that should be dead; a living one would print ten lines in this time."""


def _where_seen(secret: bytes) -> list[str]:
    """Return the command lines and environments of this machine's processes that contain `secret`.

    The list is empty on a system without ``/proc``.
    """
    found: list[str] = []
    for pid in os.listdir("/proc") if os.path.isdir("/proc") else []:
        for file in ("cmdline", "environ") if pid.isdigit() else ():
            # The process has ended, or belongs to another user.
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as opened:
                if secret in opened.read():
                    found.append(f"{file} of process {pid}")
    return found


async def serve(ticket: bytes) -> int:
    """Run one command, as `main` does, for a runtime that runs works as tasks. There is no output and no signal."""
    command, _, rest = ticket.decode().partition(" ")
    match command:
        case "exit":
            return int(rest)
        case "raise":
            raise RuntimeError(rest)
    await asyncio.get_running_loop().create_future()
    return 0


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """The abilities of a runtime. The checks that need an ability that it lacks are left out.

    Attributes:
        has_output: Whether `Runtime.logs` returns what the launch prints.
        outlives: Whether launches go on when the runtime's context is left.
    """

    has_output: bool = True
    outlives: bool = True


class Case:
    """The environment of one check: an entered runtime and a unique owner.

    Attributes:
        factory: Return another runtime like `runtime`, not entered.
        runtime: The runtime to check, entered.
        owner: Id that nothing else uses.
    """

    def __init__(self, factory: Callable[[], Runtime], runtime: Runtime) -> None:
        self.factory = factory
        self.runtime = runtime
        self.owner: str = f"check-{uuid.uuid4().hex[:12]}"
        self._count = 0

    def spec(self, command: str, **changes: Any) -> Spec:
        """Return a spec with an unused name. Its launch runs `command`."""
        self._count += 1
        fields: dict[str, Any] = {
            "name": f"{self.owner}-{self._count}",
            "owner": self.owner,
            "entry": f"{__name__}:main",
            "ticket": command.encode(),
        }
        return Spec(**{**fields, **changes})

    async def report(self, ref: Ref) -> Report:
        """Return the runtime's report for one ref."""
        (report,) = await self.runtime.poll([ref])
        return report

    async def output(self, ref: Ref, start: int = 0, *, follow: bool = False) -> bytes:
        """Return the output from `start` on. Check that the offsets have no gaps."""
        data = b""
        async for offset, piece in self.runtime.logs(ref, start, follow=follow):
            assert offset == start + len(data), f"expected a piece at offset {start + len(data)}, got one at {offset}"
            data += piece
        return data


Check = Callable[[Case], Awaitable[None]]


async def check_runtime(factory: Callable[[], Runtime], traits: Traits | None = None) -> None:
    """Run every check, each with a new runtime.

    Args:
        factory: Return a new runtime. Called at least once for each check.
        traits: Abilities of the runtime (default: all).

    Raises:
        ExceptionGroup: The errors of all checks that failed, each with a note that names the check.
    """
    failures: list[Exception] = []
    for check in checks_for(traits or Traits()):
        try:
            await run_check(check, factory)
        except Exception as error:
            error.add_note(f"in check {_name(check)}")
            failures.append(error)
    if failures:
        raise ExceptionGroup("the runtime does not keep its contract", failures)


async def run_check(check: Check, factory: Callable[[], Runtime]) -> None:
    """Run one check, release what it launched, and verify that nothing is left."""
    async with asyncio.timeout(_LIMIT), factory() as runtime:
        case = Case(factory, runtime)
        try:
            await check(case)
        finally:
            for ref in await runtime.find(case.owner):
                await runtime.release(ref)
        left = await runtime.find(case.owner)
        assert not left, f"find() must return nothing after the release, got {left}"


def checks_for(traits: Traits) -> list[Check]:
    """Return the checks that a runtime with these traits must pass."""
    left_out = (() if traits.has_output else _NEED_OUTPUT) + (() if traits.outlives else _NEED_TO_OUTLIVE)
    return [check for check in CHECKS if check not in left_out]


def _name(check: Check) -> str:
    return getattr(check, "__name__", repr(check))


# --- launching ----------------------------------------------------------------------------------


async def exit_code_is_reported(case: Case) -> None:
    """`wait`, a second `wait` and `poll` return the same exit code and cause."""
    ref = await case.runtime.launch(case.spec("exit 3"))
    report = await case.runtime.wait(ref)
    assert (report.standing, report.exit_code, report.cause) == (Standing.EXITED, 3, Cause.EXIT), report
    assert await case.runtime.wait(ref) == report
    assert await case.report(ref) == report


async def exception_is_exit_code_one(case: Case) -> None:
    """An entry that raises ends with exit code 1, and other launches go on."""
    other = await case.runtime.launch(case.spec("wait"))
    report = await case.runtime.wait(await case.runtime.launch(case.spec("raise oops")))
    assert (report.standing, report.exit_code) == (Standing.EXITED, 1), report
    assert not (await case.report(other)).standing.is_over


async def launch_again_starts_nothing(case: Case) -> None:
    """Launching the same spec again returns the same ref: concurrently, while it runs, and after its end."""
    spec = case.spec("wait")
    refs = await asyncio.gather(*(case.runtime.launch(spec) for _ in range(5)))
    refs.append(await case.runtime.launch(spec))
    await case.runtime.stop(refs[0], 0)
    refs.append(await case.runtime.launch(spec))
    assert all(ref == refs[0] for ref in refs), refs
    assert (await case.report(refs[0])).standing.is_over
    assert len(await case.runtime.find(case.owner)) == 1


async def another_spec_of_that_name_is_a_conflict(case: Case) -> None:
    """Launching another spec with a used name is a conflict, even if only the ticket differs; the first runs on."""
    spec = case.spec("wait")
    ref = await case.runtime.launch(spec)
    with contextlib.suppress(Conflict):
        await case.runtime.launch(case.spec("exit 0", name=spec.name))
        raise AssertionError("launch() must raise Conflict for another spec of the same name, but it returned")
    assert not (await case.report(ref)).standing.is_over


async def cancelled_launch_is_found(case: Case) -> None:
    """At whatever point a launch is cancelled, `find` returns what was made, and it can be released."""
    for turns in range(12):
        spec = case.spec("wait")
        launching = asyncio.ensure_future(case.runtime.launch(spec))
        for _ in range(turns):
            await asyncio.sleep(0)
        launching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await launching
        report = await case.report(Ref(case.runtime.name, spec.name))
        found = await case.runtime.find(case.owner)
        lives = report.standing in (Standing.PENDING, Standing.RUNNING)
        assert not lives or [ref.name for ref in found] == [spec.name], (
            f"{spec.name} lives, but find() returned {found}"
        )
        for ref in found:
            await case.runtime.release(ref)
            assert (await case.report(ref)).standing is Standing.ABSENT
    assert not await case.runtime.find(case.owner)


async def routes_are_given(case: Case) -> None:
    """There is at least one route, with a host and a valid port."""
    routes = await case.runtime.routes(Address("127.0.0.1", 4321))
    assert routes, "routes() must return at least one address, got none"
    assert all(route.host and 0 < route.port < 65536 for route in routes), routes


async def diagnosis_agrees(case: Case) -> None:
    """The diagnosis of a runtime that works finds no problem with its options, and also works without options."""
    kind: Any = type(case.runtime)
    if isinstance(kind, Diagnosable):
        for options in (getattr(case.runtime, "options", None), None):
            findings = await kind.diagnose(case.runtime.name, options)
            assert all(finding.what and finding.detail for finding in findings), findings
            problems = [finding for finding in findings if finding.health is Health.PROBLEM]
            assert options is None or not problems, problems


async def cache_leaves_what_is_used(case: Case) -> None:
    """A runtime with a cache lists each entry once, and does not discard entries that a launch uses."""
    if not isinstance(case.runtime, Caching):
        return
    before = {_cache_key(entry) for entry in await case.runtime.cached() if entry.in_use}
    ref = await case.runtime.launch(case.spec("wait"))
    entries = await case.runtime.cached()
    keys = [_cache_key(entry) for entry in entries]
    assert len(set(keys)) == len(keys), keys
    assert all(all(key) for key in keys), keys
    assert all(entry.size >= 0 and (entry.unused_for or 0.0) >= 0 for entry in entries), entries
    for entry in entries:
        if entry.in_use and _cache_key(entry) not in before:
            assert not await case.runtime.discard(entry), f"{entry} was discarded while {ref.name} uses it"
    strange = Cached(kind="strange", name=f"{case.owner}-never", place="nowhere", size=0, unused_for=None, in_use=False)
    assert await case.runtime.discard(strange), "discard() of an entry that does not exist must return True"
    assert not (await case.report(ref)).standing.is_over


def _cache_key(entry: Cached) -> tuple[str, str, str]:
    return entry.place, entry.kind, entry.name


# --- asking -------------------------------------------------------------------------------------


async def unknown_ref_is_absent(case: Case) -> None:
    """A ref that was never launched is absent. It can be waited for, stopped and released, and has no output."""
    ref = Ref(case.runtime.name, f"{case.owner}-never")
    assert (await case.report(ref)).standing is Standing.ABSENT
    assert (await case.runtime.wait(ref)).standing is Standing.ABSENT
    assert await case.output(ref, follow=True) == b""
    await case.runtime.stop(ref, 5)
    await case.runtime.release(ref)


async def poll_answers_in_order(case: Case) -> None:
    """One poll returns the reports of many refs in their order, also with unknown refs among them."""
    ended = await case.runtime.launch(case.spec("exit 4"))
    running = await case.runtime.launch(case.spec("wait"))
    await case.runtime.wait(ended)
    never = Ref(case.runtime.name, f"{case.owner}-never")
    reports = await case.runtime.poll([ended, never, running, ended])
    assert [report.exit_code for report in reports] == [4, None, None, 4], reports
    assert reports[1].standing is Standing.ABSENT
    assert not reports[2].standing.is_over
    assert not await case.runtime.poll([])


async def cancelled_wait_changes_nothing(case: Case) -> None:
    """Cancelling a `wait` does not change the launch, and other waiters still get their report."""
    ref = await case.runtime.launch(case.spec("wait"))
    impatient, patient = (asyncio.ensure_future(case.runtime.wait(ref)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    assert not (await case.report(ref)).standing.is_over
    await case.runtime.stop(ref, 0)
    assert (await patient).standing.is_over


async def find_gives_the_owner_s_own(case: Case) -> None:
    """`find` returns every ref of one owner in any standing, and no ref of another owner."""
    ended = await case.runtime.launch(case.spec("exit 0"))
    await case.runtime.wait(ended)
    running = await case.runtime.launch(case.spec("wait"))
    found = await case.runtime.find(case.owner)
    assert {ref.name for ref in found} == {ended.name, running.name}, found
    assert not await case.runtime.find(f"{case.owner}x")


async def ref_can_be_written_down(case: Case) -> None:
    """A ref that was encoded and decoded, or has no hint, still identifies the launch."""
    ref = await case.runtime.launch(case.spec("exit 5"))
    copy = msgspec.json.decode(msgspec.json.encode(ref), type=Ref)
    assert (await case.runtime.wait(copy)).exit_code == 5
    assert (await case.report(Ref(ref.runtime, ref.name))).exit_code == 5


async def context_left_leaves_it_alone(case: Case) -> None:
    """A launch runs on when the context is left, and another runtime can find it, wait for it and stop it."""
    async with case.factory() as first:
        ref = await first.launch(case.spec("wait"))
    async with case.factory() as second:
        assert [found.name for found in await second.find(case.owner)] == [ref.name]
        waiting = asyncio.ensure_future(second.wait(ref))
        (report,) = await second.poll([ref])
        assert not report.standing.is_over, report
        await second.stop(ref, 0)
        assert (await waiting).cause is Cause.STOPPED


# --- ending -------------------------------------------------------------------------------------


async def stop_ends_it(case: Case) -> None:
    """A stop returns when the launch has ended, sets the cause `STOPPED`, and may be repeated."""
    ref = await case.runtime.launch(case.spec("wait"))
    await case.runtime.stop(ref, 0.2)
    report = await case.report(ref)
    assert (report.standing, report.cause) == (Standing.EXITED, Cause.STOPPED), report
    await case.runtime.stop(ref, 5)
    assert await case.report(ref) == report


async def stop_forces_after_the_grace(case: Case) -> None:
    """A launch that ignores SIGTERM is killed."""
    ref = await case.runtime.launch(case.spec("stubborn"))
    await case.runtime.stop(ref, 0.2)
    assert (await case.report(ref)).standing.is_over


async def shorter_grace_shortens(case: Case) -> None:
    """A second stop without grace ends the launch while the first stop still waits."""
    ref = await case.runtime.launch(case.spec("stubborn"))
    patient = asyncio.ensure_future(case.runtime.stop(ref, _FOREVER))
    await asyncio.sleep(0)
    await case.runtime.stop(ref, 0)
    await patient
    assert (await case.report(ref)).standing.is_over


async def stop_at_once_after_launch(case: Case) -> None:
    """A stop during the launch ends it too."""
    spec = case.spec("wait")
    launching = asyncio.ensure_future(case.runtime.launch(spec))
    while not (found := await case.runtime.find(case.owner)):  # noqa: ASYNC110 -- the platform gives no event
        await asyncio.sleep(0)
    await case.runtime.stop(found[0], 0)
    assert (await case.runtime.wait(await launching)).standing.is_over


async def whole_tree_is_ended(case: Case) -> None:
    """A stop also ends the processes that the launch started, in any session: they write no output afterwards."""
    ref = await case.runtime.launch(case.spec("family"))
    data = b""
    async for _, piece in case.runtime.logs(ref, follow=True):
        data += piece
        if b"here\n" in data:
            break
    await case.runtime.stop(ref, 0.2)
    assert (await case.report(ref)).standing.is_over
    before = await case.output(ref)
    await asyncio.sleep(_HEARD)
    after = await case.output(ref)
    assert after == before, f"{len(after) - len(before)} bytes were written after the end"


async def release_ends_and_forgets(case: Case) -> None:
    """A release ends a running launch. Afterwards it is absent, has no output, and can be released again."""
    ref = await case.runtime.launch(case.spec("wait"))
    waiting = asyncio.ensure_future(case.runtime.wait(ref))
    await asyncio.sleep(0)
    await asyncio.gather(case.runtime.release(ref), case.runtime.release(ref))
    assert (await waiting).standing.is_over
    assert (await case.report(ref)).standing is Standing.ABSENT
    assert await case.output(ref) == b""
    await case.runtime.release(ref)


async def lifetime_ends_it(case: Case) -> None:
    """A launch is ended after its `max_lifetime`, with the cause `LIFETIME`."""
    report = await case.runtime.wait(await case.runtime.launch(case.spec("wait", max_lifetime=0.2)))
    assert (report.standing, report.cause) == (Standing.EXITED, Cause.LIFETIME), report


# --- output -------------------------------------------------------------------------------------


async def output_is_kept(case: Case) -> None:
    """After the exit the complete output can be read, from any offset, also from one beyond its end."""
    ref = await case.runtime.launch(case.spec("say some words"))
    await case.runtime.wait(ref)
    assert await case.output(ref) == b"some words\n"
    assert await case.output(ref, 5) == b"words\n"
    assert await case.output(ref, 11) == b""
    assert await case.output(ref, 1000, follow=True) == b""


async def output_is_followed(case: Case) -> None:
    """With `follow` a line arrives while the launch runs, and the stream ends when the launch ends."""
    ref = await case.runtime.launch(case.spec("wait"))
    stream = case.runtime.logs(ref, follow=True)
    offset, data = await anext(stream)
    assert (offset, data) == (0, b"waiting\n")
    assert not (await case.report(ref)).standing.is_over
    await case.runtime.stop(ref, 0)
    assert [piece async for piece in stream] == []


async def traceback_is_output(case: Case) -> None:
    """The traceback of an exception is part of the output."""
    ref = await case.runtime.launch(case.spec("raise some reason"))
    assert b"RuntimeError: some reason\n" in await case.output(ref, follow=True)


async def secret_is_nowhere_to_be_seen(case: Case) -> None:
    """The ticket is in no command line and no environment on the worker's machine, and in no repr of the runtime."""
    secret = uuid.uuid4().hex
    spec = case.spec(f"look {secret}")
    ref = await case.runtime.launch(spec)
    report = await case.runtime.wait(ref)
    output = await case.output(ref)
    assert output == b"nowhere\n", output
    given = (repr(spec), repr(report), repr(await case.runtime.find(case.owner)), repr(case.runtime))
    assert not any(secret in text for text in given), given


_NEED_OUTPUT: tuple[Check, ...] = (
    whole_tree_is_ended,
    output_is_kept,
    output_is_followed,
    traceback_is_output,
    secret_is_nowhere_to_be_seen,
)
_NEED_TO_OUTLIVE: tuple[Check, ...] = (context_left_leaves_it_alone,)

CHECKS: tuple[Check, ...] = (
    exit_code_is_reported,
    exception_is_exit_code_one,
    launch_again_starts_nothing,
    another_spec_of_that_name_is_a_conflict,
    cancelled_launch_is_found,
    routes_are_given,
    diagnosis_agrees,
    cache_leaves_what_is_used,
    unknown_ref_is_absent,
    poll_answers_in_order,
    cancelled_wait_changes_nothing,
    find_gives_the_owner_s_own,
    ref_can_be_written_down,
    context_left_leaves_it_alone,
    stop_ends_it,
    stop_forces_after_the_grace,
    shorter_grace_shortens,
    stop_at_once_after_launch,
    release_ends_and_forgets,
    lifetime_ends_it,
    *_NEED_OUTPUT,
)
"""Every check. `checks_for` leaves out those that a runtime's `Traits` exclude."""
