"""Feeds a `Machine`, carries its orders out on paper, and fails as soon as one of them breaks a rule.

The rules are those of the outside: what a scheduler, a worker and a caller can see. `check_model` holds the machine's
own books against the docstring of `ModelWork`.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import LATE, TABLE, Machine
from lightwork.engine.rules.model import ModelWork, Phase
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, Stage, WorkStatus

CommandT = TypeVar("CommandT")

ERROR = ErrorInfo("builtins", "ValueError", "broken")


@dataclasses.dataclass
class SeenCall:
    """What was told of one call that is new."""

    work: int
    hash: str
    statuses: list[WorkStatus] = dataclasses.field(default_factory=list)
    cancelled: bool = False
    outcome: ev.Outcome | None = None


@dataclasses.dataclass
class SeenWork:
    """What was told of one work.

    Attributes:
        live: Attempt of the worker that was launched and is not over; 0 for none.
        is_up: Whether that worker was ready.
        sent: Calls that it has been sent and has not answered.
        end_asked: Whether something bounds the time until it is over: an order to the runtime.
        starts, stops: Whether one was asked for and is not answered.
        stopped: Whether a stop was asked for, and neither a start nor a call since.
        succeeded: Hashes of calls that have succeeded.
    """

    policy: ev.Policy
    live: int = 0
    is_up: bool = False
    sent: set[int] = dataclasses.field(default_factory=set)
    end_asked: bool = False
    starts: bool = False
    stops: bool = False
    stopped: bool = False
    succeeded: set[str] = dataclasses.field(default_factory=set)


class Watch:
    """A machine under watch.

    Attributes:
        works: Those that are not forgotten.
        calls: Every call that was not joined to another or answered from the cache.
        adopted: What was said of each call that was submitted.
        timers: Those that run.
        published: Every status, in order.
    """

    def __init__(self) -> None:
        self.machine = Machine()
        self.now = 0.0
        self.works: dict[int, SeenWork] = {}
        self.calls: dict[int, SeenCall] = {}
        self.adopted: dict[int, ev.ResolveSubmit] = {}
        self.timers: set[ev.Timer] = set()
        self.published: list[tuple[int, WorkStatus]] = []
        self.edges: set[tuple[Phase, type, Phase | None]] = set()

    def feed(self, event: ev.Event) -> list[ev.Command]:
        """Feed one event; check and note every command."""
        self.now += 1.0
        before = self._phase(event.work)
        self._note_event(event)
        commands = self.machine.handle(event, self.now)
        # A call that a worker can take at once is sent first: what becomes of it was decided before.
        for command in sorted(commands, key=lambda command: not isinstance(command, ev.ResolveSubmit)):
            self._note(command)
        self._check_edge(before, event)
        check_model(self.machine)
        self.check_bounded()
        return commands

    def phase(self, work: int = 1) -> Phase:
        """Where the work's worker stands."""
        return self.machine.phase(work)

    def live_work(self, number: int) -> ModelWork:
        """The machine's own view of a work."""
        return self.machine._works[number]

    def stages(self, call: int) -> list[Stage]:
        """The stages that a call went through."""
        return [status.stage for status in self.calls[call].statuses]

    def final(self, call: int) -> WorkStatus:
        """How a call ended."""
        outcome = self.calls[call].outcome
        assert outcome is not None, f"call {call} is not over"
        return outcome.status

    # --- events -----------------------------------------------------------------------------------

    def _phase(self, work: int) -> Phase | None:
        return self.machine.phase(work) if work in self.machine._works else None

    def _check_edge(self, before: Phase | None, event: ev.Event) -> None:
        after = self._phase(event.work)
        if before is None:
            return
        attempt = getattr(event, "attempt", None)
        row = TABLE.get((before, type(event)))
        fenced = attempt is not None and attempt != self.works_attempt(event.work)
        if row is None or fenced:
            assert after is before
            assert type(event) in LATE or fenced
            return
        assert after in row.to, f"{before} -{type(event).__name__}-> {after} is not in the table"
        self.edges.add((before, type(event), after))

    def works_attempt(self, work: int) -> int:
        """Attempt that the last event was compared with; -1 for a work that is forgotten."""
        return self._attempt_before if work in self._known_before else -1

    def _note_event(self, event: ev.Event) -> None:
        self._known_before = set(self.machine._works) | ({event.work} if isinstance(event, ev.WorkAdded) else set())
        self._attempt_before = self.machine._works[event.work].attempt if event.work in self.machine._works else 0
        match event:
            case ev.WorkAdded():
                self.works[event.work] = SeenWork(event.policy)
            case ev.StartRequested():
                self.works[event.work].starts = True
                self.works[event.work].stopped = False
            case ev.StopRequested() | ev.WorkRemoved():
                if event.work in self.works:
                    self.works[event.work].stops = True
                    self.works[event.work].stopped = True
            case ev.WorkerExited() | ev.WorkerLaunchFailed():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.live, work.is_up, work.end_asked = 0, False, False
                    work.sent.clear()
            case ev.WorkerReady():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.is_up = True
            case ev.CallSucceeded() | ev.CallFailed() | ev.CallCancelled():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.sent.discard(event.call)
            case ev.CancelRequested():
                if event.call in self.calls:
                    self.calls[event.call].cancelled = True
            case ev.TimerFired():
                assert event.timer in self.timers, "a timer that does not run cannot fire"
                self.timers.discard(event.timer)
            case _:
                pass

    # --- commands ---------------------------------------------------------------------------------

    def _note(self, command: ev.Command) -> None:
        work = self.works[command.work]
        match command:
            case ev.LaunchWorker():
                assert not work.live, "a worker was launched while another one lives"
                assert not work.stopped, "a worker was launched after a stop, and nobody asked for it"
                work.live = command.attempt
            case ev.SendCall():
                call = self.calls[command.call]
                assert work.live, "a call was sent to nobody"
                assert work.is_up, "a call was sent to a worker that is not up"
                assert command.call not in work.sent, "a call was sent twice"
                assert call.outcome is None, "a call that is over was sent"
                assert not (work.policy.cache_calls and call.hash in work.succeeded), "a known result is made again"
                work.sent.add(command.call)
                assert len(work.sent) <= work.policy.concurrency
            case ev.SendCancel():
                assert command.call in work.sent
            case ev.SendStop():
                assert work.live, "there is nobody to be told to end"
            case ev.EndWorker():
                assert command.attempt == work.live, "an order to end a worker that is over"
                work.end_asked = True
            case ev.StartTimer():
                assert command.delay >= 0
                self.timers.add(command.timer)
            case ev.StopTimer():
                self.timers.discard(command.timer)
            case ev.PublishStatus():
                assert command.status.call is None or not command.status.stage.is_final, "Settle brings that"
                self._note_status(command.work, command.status, command.hash)
            case ev.ResolveSubmit():
                assert command.call not in self.adopted
                self.adopted[command.call] = command
                assert command.reason
                if command.to is None:
                    self.calls[command.call] = SeenCall(command.work, "")
                    work.stopped = False
                    assert command.status is not None
                    self._note_status(command.work, command.status, command.hash)
                else:
                    assert command.status is None
                    earlier = self.calls[command.to]
                    assert (earlier.outcome is None) == (command.outcome is None)
                    assert command.outcome is None or command.outcome.status.stage is Stage.SUCCEEDED
            case ev.SettleCall():
                seen = self.calls[command.call]
                assert seen.outcome is None, "a call was settled twice"
                if command.ran is not None:
                    assert command.ran.stage is Stage.RUNNING
                    self._note_status(command.work, command.ran, command.hash)
                self._note_status(command.work, command.outcome.status, command.hash)
                assert command.outcome.status.stage.is_final
                assert (command.outcome.value is not None) == (command.outcome.status.stage is Stage.SUCCEEDED)
                seen.outcome = command.outcome
                if command.outcome.status.stage is Stage.SUCCEEDED:
                    work.succeeded.add(seen.hash)
            case ev.WorkerUp():
                assert work.is_up
                work.starts = False
            case ev.WorkerGone():
                assert not work.live
                work.stops = False
                work.starts = work.starts and command.failure is None
            case ev.Forget():
                assert not work.live
                del self.works[command.work]

    def _note_status(self, work: int, status: WorkStatus, hash: str | None) -> None:
        assert not self.published or self.published[-1][1].timestamp <= status.timestamp
        self.published.append((work, status))
        if status.call is None:
            assert status.stage in (Stage.STARTED, Stage.FAILED, Stage.STOPPED)
            return
        call = self.calls[status.call]
        assert call.outcome is None, "a status of a call that is over"
        assert hash is not None
        assert call.hash in ("", hash)
        call.hash = hash
        if not call.statuses:
            assert (status.stage, status.attempt) == (Stage.PENDING, 1)
        else:
            last = call.statuses[-1]
            assert not last.stage.is_final
            assert (status.stage is Stage.PENDING) == (status.attempt == last.attempt + 1)
            assert status.stage is not Stage.PENDING or not call.cancelled, "a cancelled call is tried again"
            assert status.stage is Stage.PENDING or status.attempt == last.attempt
            assert status.stage is not Stage.RUNNING or last.stage is Stage.PENDING
        assert status.attempt <= 1 + self.works[work].policy.retries
        call.statuses.append(status)

    # --- at any time ------------------------------------------------------------------------------

    def check_bounded(self) -> None:
        """Whatever the machine waits for is bounded by a timer or by an order to the runtime."""
        expected: set[ev.Timer] = set()
        allowed: set[ev.Timer] = set()
        for number, work in self.machine._works.items():
            seen = self.works[number]
            assert bool(seen.live) == (work.phase is not Phase.ABSENT)
            # A worker that is ended by force may still have calls that were given up with it.
            assert seen.sent == work.running.keys() or (seen.end_asked and seen.sent > work.running.keys())
            expected |= {ev.Timer("launch", number)} if work.phase is Phase.STARTING else set()
            expected |= {ev.Timer("window", number)} if work.phase is Phase.CUT else set()
            is_idle = work.phase is Phase.UP and not work.calls and work.policy.idle_timeout is not None
            expected |= {ev.Timer("idle", number)} if is_idle else set()
            if work.phase is Phase.STOPPING:
                allowed.add(ev.Timer("force", number))
                assert seen.end_asked or ev.Timer("force", number) in self.timers
            for call in work.calls.values():
                if call.delayed:
                    expected.add(ev.Timer("retry", number, call.id))
                if call.sent:
                    allowed.add(ev.Timer("timeout", number, call.id))
                if call.ending is not None:
                    allowed.add(ev.Timer("cancel", number, call.id))
                    assert seen.end_asked or ev.Timer("cancel", number, call.id) in self.timers
            assert not seen.starts or work.phase is Phase.STARTING or work.restart or seen.is_up or seen.live
        assert expected <= self.timers
        assert self.timers <= expected | allowed

    def check_settled(self) -> None:
        """Nothing that was asked for is unanswered: the environment has done all it can."""
        waiting = [number for number, call in self.calls.items() if call.outcome is None]
        assert not waiting, f"calls {waiting} hang:\n" + "\n".join(self.machine.story())
        for work in self.works.values():
            assert not work.starts
            assert not work.stops
        assert not self.timers


def check_model(machine: Machine) -> None:
    """Hold every work of the machine against what the attributes of `ModelWork` promise."""
    for work in machine._works.values():
        calls = set(work.calls.values())
        assert all(call is work.calls[call.id] for call in calls)
        queued = {call for call in calls if not call.sent and not call.delayed}
        assert queued == set(work.queue)
        assert len(queued) == len(work.queue)
        assert {call for call in calls if call.sent} == set(work.running.values())
        assert not any(call.sent and call.delayed for call in calls)
        assert len(work.running) <= work.policy.concurrency
        assert all(call.sent for call in calls if call.ending is not None)
        assert {call.ending for call in calls} <= {None, Reason.CANCELLED, Reason.TIMEOUT}
        for hash, call in work.in_flight.items():
            assert (work.calls.get(call.id), call.hash, call.ending) == (call, hash, None)
            assert not (call.sent and work.phase is Phase.STOPPING)
        if work.phase is Phase.ABSENT:
            assert not work.queue
            assert not work.removed
        if work.phase in (Phase.ABSENT, Phase.STARTING):
            assert not work.running
        if work.phase is Phase.UP:
            assert not work.queue or len(work.running) == work.policy.concurrency
        if work.phase is Phase.STOPPING:
            assert (work.verdict is None) == (work.failure is not None)
            assert work.verdict is not None or not work.running
        else:
            assert work.verdict is None
            assert work.failure is None
            assert not work.restart
        assert not (work.restart and work.removed)
        assert not work.removed or work.halted
        assert work.policy.cache_calls or not work.results


def only(commands: list[ev.Command], kind: type[CommandT]) -> list[CommandT]:
    """The commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]
