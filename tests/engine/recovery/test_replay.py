"""A machine replayed from a journal equals the original, for any events and with a snapshot at any point."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.components.status_history import StatusHistory
from lightwork.engine.recovery import records as rec
from lightwork.engine.recovery.replay import Replay, abandon_workers
from lightwork.engine.recovery.snapshot import dump_machine, dump_values
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import Machine, MachineError
from lightwork.link import messages
from lightwork.remote_errors import ErrorInfo
from lightwork.state.ops import Op
from lightwork.state.state import State
from lightwork.status import Reason, Stage, WorkStatus

pytestmark = pytest.mark.bare

WORKS = st.integers(1, 2)
ATTEMPTS = st.integers(1, 2)
CALLS = st.integers(1, 6)
HASHES = st.sampled_from("abc")
ERROR = ErrorInfo("builtins", "ValueError", "no")
TIMERS = st.builds(
    ev.Timer, st.sampled_from(["launch", "window", "force", "timeout", "cancel", "retry"]), WORKS, st.integers(0, 6)
)

POLICIES = st.builds(
    ev.Policy,
    cache_calls=st.booleans(),
    concurrency=st.integers(1, 2),
    timeout=st.none() | st.just(10.0),
    retries=st.integers(0, 2),
)
EVENTS: st.SearchStrategy[ev.Event] = st.one_of(
    st.builds(ev.CallSubmitted, WORKS, CALLS, HASHES, st.just(b"\x90")),
    st.builds(ev.CallSubmitted, WORKS, CALLS, HASHES, st.just(b"\x90")),
    st.builds(ev.CancelRequested, WORKS, CALLS),
    st.builds(ev.StartRequested, WORKS),
    st.builds(ev.StopRequested, WORKS, st.none()),
    st.builds(ev.WorkRemoved, WORKS),
    st.builds(ev.WorkerReady, WORKS, ATTEMPTS),
    st.builds(ev.WorkerReady, WORKS, ATTEMPTS),
    st.builds(ev.CallRunning, WORKS, ATTEMPTS, CALLS),
    st.builds(ev.CallSucceeded, WORKS, ATTEMPTS, CALLS, st.just(b"\x01")),
    st.builds(ev.CallSucceeded, WORKS, ATTEMPTS, CALLS, st.just(b"\x01")),
    st.builds(ev.CallFailed, WORKS, ATTEMPTS, CALLS, st.just(Reason.USER_EXCEPTION), st.just(ERROR)),
    st.builds(ev.CallCancelled, WORKS, ATTEMPTS, CALLS),
    st.builds(ev.SchedulerResumed, WORKS),
    st.builds(ev.WorkerReturned, WORKS, ATTEMPTS, st.lists(st.tuples(CALLS, HASHES), max_size=2).map(tuple)),
    st.builds(ev.WorkerCaughtUp, WORKS, ATTEMPTS, st.frozensets(CALLS)),
    st.builds(ev.WorkerNeverLaunched, WORKS, ATTEMPTS),
    st.builds(ev.WorkAdded, WORKS, st.just("root.again"), POLICIES),
    st.builds(ev.WorkerStopping, WORKS, ATTEMPTS),
    st.builds(ev.LinkLost, WORKS, ATTEMPTS),
    st.builds(ev.LinkRestored, WORKS, ATTEMPTS),
    st.builds(ev.WorkerLaunchFailed, WORKS, ATTEMPTS, st.just(Reason.LAUNCH_FAILED), st.just("no room")),
    st.builds(ev.WorkerExited, WORKS, ATTEMPTS, st.just(Reason.CRASHED), st.just("gone")),
    TIMERS.map(lambda timer: ev.TimerFired(timer.work, timer)),
)


class Live:
    """A machine, and the effects of its commands, as in the scheduler."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.records: dict[int, StatusHistory] = {}
        self.timers: dict[ev.Timer, float] = {}
        self.submitted: set[int] = set()

    def feed(self, event: ev.Event, now: float) -> bool:
        """Handle an event; return whether a scheduler could have given it to the machine."""
        if isinstance(event, ev.CallSubmitted):
            if event.call in self.submitted:
                return False  # each number is used once
            self.submitted.add(event.call)
        if isinstance(event, ev.WorkAdded):
            self.records.setdefault(event.work, StatusHistory())  # a work that is made again keeps its statuses
        if isinstance(event, ev.TimerFired) and self.timers.pop(event.timer, None) is None:
            return False
        try:
            commands = self.machine.handle(event, now)
        except MachineError:
            return True  # the scheduler records the event before the machine raises
        for command in commands:
            match command:
                case ev.PublishStatus():
                    self.records[command.work].add(command.status, command.hash)
                case ev.ResolveSubmit(status=WorkStatus() as status, hash=hash):
                    self.records[command.work].add(status, hash)
                case ev.SettleCall():
                    if command.ran is not None:
                        self.records[command.work].add(command.ran, command.hash)
                    self.records[command.work].add(command.outcome.status, command.hash)
                case ev.StartTimer():
                    self.timers[command.timer] = now + command.delay
                case ev.StopTimer():
                    self.timers.pop(command.timer, None)
                case ev.Forget():
                    del self.records[command.work]
                case (
                    ev.ResolveSubmit()
                    | ev.LaunchWorker()
                    | ev.SendCall()
                    | ev.SendCancel()
                    | ev.SendStop()
                    | ev.EndWorker()
                    | ev.WorkerUp()
                    | ev.WorkerGone()
                    | ev.RestoreCall()
                ):
                    pass
                case _:
                    assert_never(command)
        return True


def written(records: list[rec.Record]) -> list[rec.Record]:
    """Return the records as they are read back from the disk."""
    return rec.decode_batch(rec.encode(records))


@given(policies=st.tuples(POLICIES, POLICIES), events=st.lists(EVENTS, max_size=60), data=st.data())
def test_a_replayed_machine_is_the_machine(
    policies: tuple[ev.Policy, ev.Policy], events: list[ev.Event], data: st.DataObject
) -> None:
    """The log, and a snapshot with the log after it, produce the same works, statuses and timers."""
    live, records = Live(), list[rec.Record]()
    added = [ev.WorkAdded(number, f"root.w{number}", policy) for number, policy in enumerate(policies, 1)]
    for now, event in enumerate([*added, *events]):
        if live.feed(event, float(now)):
            records.append(rec.Happened(float(now), event))
    cut = data.draw(st.integers(0, len(records)))
    whole = Replay()
    whole.take_all(written(records))
    first = Replay()
    first.take_all(written(records[:cut]))
    second = Replay(rec.decode_snapshot(rec.encode(first.snapshot())))
    second.take_all(written(records[cut:]))
    for replay in (whole, second):
        assert dump_machine(replay.machine) == dump_machine(live.machine)
        assert replay.timers == live.timers
        assert {work: list(one.statuses) for work, one in replay.records.items()} == {
            work: list(one.statuses) for work, one in live.records.items()
        }
    assert whole.snapshot() == second.snapshot()
    ended = Replay(abandon_workers(second))
    assert ended.machine.is_idle
    assert ended.is_over


# --- states -----------------------------------------------------------------------------------------


class Worker:
    """The worker's side of a work's state; it makes numbered frames of its edits."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.state = State("work", self.values)
        self.frames: list[rec.Record] = []
        for name, value in (("items", []), ("table", {}), ("n", 0)):
            self.state.set(name, value)
        self.start = self.state.snapshot()
        self.state.sink = self.send

    def send(self, op: Op) -> None:
        body = messages.encode(messages.Delta([op]))
        self.frames.append(rec.Framed(1, 1, len(self.frames) + 1, 1.0, body))


INTEGERS = st.integers(-(2**63), 2**63 - 1)
EDITS = st.one_of(
    st.tuples(st.just("append"), INTEGERS | st.lists(st.text(), max_size=2)),
    st.tuples(st.just("set"), st.sampled_from("abc"), st.none() | st.floats(allow_nan=False) | st.sets(INTEGERS)),
    st.tuples(st.just("pop")),
    st.tuples(st.just("n"), st.integers(0, 5)),
)


@given(edits=st.lists(EDITS, max_size=20), again=st.integers(0, 20))
def test_frames_make_the_state(edits: list[tuple[Any, ...]], again: int) -> None:
    """A work's frames reproduce its state; a frame that was recorded twice counts once."""
    worker = Worker()
    for edit in edits:
        match edit:
            case ("append", value):
                worker.values["items"].append(value)
            case ("set", key, value):
                worker.values["table"][key] = value
            case ("pop",):
                if worker.values["items"]:
                    worker.values["items"].pop()
            case (_, value):
                worker.state.set("n", value)
    replay = Replay()
    replay.take_all(
        written(
            [
                rec.Added("root.w", 1, dump_values(worker.start), b"", True),
                rec.Happened(0.0, ev.WorkAdded(1, "root.w", ev.Policy())),
                rec.LaunchBegun(1, 1, "x", b"l" * 16, b"s" * 32, "local"),
                *worker.frames,
                *worker.frames[-again:],
            ]
        )
    )
    assert replay.components["root.w"].state.snapshot() == worker.state.snapshot()
    assert replay.workers[1].received == len(worker.frames)


def test_a_call_goes_its_way_through_the_log() -> None:
    """A worker's result answers calls after the replay; an uncached result answers one call of the repeated run."""
    for cache_calls in (True, False):
        replay = Replay()
        replay.take_all(
            written(
                [
                    rec.Happened(0.0, ev.WorkAdded(1, "root.w", ev.Policy(cache_calls=cache_calls))),
                    rec.Happened(1.0, ev.CallSubmitted(1, 7, "h", b"\x90")),
                    rec.CallMade(1, 7, "h"),
                    rec.LaunchBegun(1, 1, "x", b"l" * 16, b"s" * 32, "local"),
                    rec.Framed(1, 1, 1, 2.0, messages.encode(messages.Ready())),
                    rec.Framed(1, 1, 2, 3.0, messages.encode(messages.Result(7, msgspec.Raw(b"\x2a")))),
                ]
            )
        )
        assert ("h" in replay.machine.work(1).results) is cache_calls
        assert replay.records[1].status.stage is Stage.SUCCEEDED
        assert replay.latest_call == 7
        replay.run_results.reopen()
        answer = replay.run_results.recall(1, "h")
        assert answer is not None
        assert (answer.call, answer.outcome.value) == (7, b"\x2a")
        assert replay.run_results.recall(1, "h") is None
        replay.take(rec.RunEnded())
        replay.run_results.reopen()
        assert replay.run_results.recall(1, "h") is None
