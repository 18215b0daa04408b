"""Feeds a `Machine`, carries its commands out on paper, and fails as soon as one of them breaks a rule.

The rules are those that a scheduler, a worker and a caller can see from outside. `check_model` compares the machine's
own state with the docstring of `ModelWork`.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar, assert_never

from lightwork.engine.rules import events as ev
from lightwork.engine.rules.machine import LATE, TABLE, Machine
from lightwork.engine.rules.model import Contact, ModelWork, Phase
from lightwork.remote_errors import ErrorInfo
from lightwork.status import Reason, Stage, WorkStatus

CommandT = TypeVar("CommandT")

ERROR = ErrorInfo("builtins", "ValueError", "broken")


@dataclasses.dataclass
class SeenCall:
    """What the machine has said about one new call."""

    work: int
    hash: str
    statuses: list[WorkStatus] = dataclasses.field(default_factory=list)
    cancelled: bool = False
    outcome: ev.Outcome | None = None


@dataclasses.dataclass
class SeenWork:
    """What the machine has said about one work.

    Attributes:
        live: Attempt of the worker that was launched and has not ended; 0 for none.
        is_up: Whether that worker was ready.
        sent: Calls that it has been sent and has not answered.
        end_asked: Whether the runtime was told to end it, which bounds the time until its end.
        is_resumed: Whether another scheduler goes on with it. Its calls may be unknown, and it may lack some.
        starts, stops: Whether one was requested and is not answered.
        stopped: Whether a stop was requested, and neither a start nor a call since.
        succeeded: Hashes of calls whose results are kept.
        concurrency, retries: The highest that its policies have had.
    """

    policy: ev.Policy
    live: int = 0
    is_up: bool = False
    sent: set[int] = dataclasses.field(default_factory=set)
    end_asked: bool = False
    is_resumed: bool = False
    starts: bool = False
    stops: bool = False
    stopped: bool = False
    succeeded: set[str] = dataclasses.field(default_factory=set)
    concurrency: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        self.change(self.policy)

    def change(self, policy: ev.Policy) -> None:
        """Take another policy."""
        self.policy = policy
        self.concurrency = max(self.concurrency, policy.concurrency)
        self.retries = max(self.retries, policy.retries)
        if not policy.cache_calls:
            self.succeeded.clear()

    def lose_worker(self) -> None:
        """The worker has ended."""
        self.live, self.is_up, self.end_asked, self.is_resumed = 0, False, False, False
        self.sent.clear()


class Watch:
    """A machine under watch.

    Attributes:
        works: The works that are not forgotten.
        calls: Every call that neither joined another nor was answered from the cache.
        adopted: The answer to each submitted call.
        timers: The timers that run.
        published: Every status, in order.
        edges: Every transition that was seen.
        latest: The kind of the last event.
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
        self.latest: type = object
        self._submitted = ""

    def feed(self, event: ev.Event) -> list[ev.Command]:
        """Feed one event; check and note every command."""
        self.now += 1.0
        self.latest = type(event)
        before = self._phase(event.work)
        self._note_event(event)
        commands = self.machine.handle(event, self.now)
        # A call that a worker can take at once is sent first, though `ResolveSubmit` was decided before.
        for command in sorted(commands, key=lambda command: not isinstance(command, ev.ResolveSubmit)):
            self._note(command)
        self._check_edge(before, event)
        check_model(self.machine)
        self.check_bounded()
        return commands

    def phase(self, work: int = 1) -> Phase:
        """Return the phase of the work's worker."""
        return self.machine.phase(work)

    def live_work(self, number: int) -> ModelWork:
        """Return the machine's own view of a work."""
        return self.machine._works[number]

    def stages(self, call: int) -> list[Stage]:
        """Return the stages that a call went through."""
        return [status.stage for status in self.calls[call].statuses]

    def final(self, call: int) -> WorkStatus:
        """Return the last status of a call."""
        outcome = self.calls[call].outcome
        assert outcome is not None, f"call {call} has not ended"
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
        """Return the attempt that the last event was compared with; -1 for a forgotten work."""
        return self._attempt_before if work in self._known_before else -1

    def _note_event(self, event: ev.Event) -> None:
        self._known_before = set(self.machine._works) | ({event.work} if isinstance(event, ev.WorkAdded) else set())
        self._attempt_before = self.machine._works[event.work].attempt if event.work in self.machine._works else 0
        match event:
            case ev.WorkAdded():
                if event.work in self.works:
                    self.works[event.work].change(event.policy)
                else:
                    self.works[event.work] = SeenWork(event.policy)
            case ev.SchedulerResumed():
                work = self.works.get(event.work)
                if work is not None and work.live:
                    work.is_resumed, work.end_asked = True, False
            case ev.WorkerReturned():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.sent |= {call for call, _ in event.calls}
                    work.is_up = work.is_up or bool(event.calls)
            case ev.WorkerCaughtUp():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.sent = set(event.calls)
            case ev.WorkerExited() | ev.WorkerLaunchFailed() | ev.WorkerNeverLaunched():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.lose_worker()
            case ev.WorkerReady():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.is_up = True
            case ev.CallSucceeded() | ev.CallFailed() | ev.CallCancelled():
                work = self.works.get(event.work)
                if work is not None and work.live == event.attempt:
                    work.sent.discard(event.call)
            case ev.CallSubmitted():
                self._submitted = event.hash
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
                assert not work.stopped, "a worker was launched after a stop, without a start or a call"
                work.live = command.attempt
            case ev.SendCall():
                call = self.calls[command.call]
                assert work.live, "a call was sent to nobody"
                assert self._contact(command.work) is Contact.LIVE, "a call was sent to a worker that is not back"
                assert work.is_up, "a call was sent to a worker that is not up"
                assert command.call not in work.sent, "a call was sent twice"
                assert call.outcome is None, "a call that has ended was sent"
                assert not (work.policy.cache_calls and call.hash in work.succeeded), "a known result is made again"
                work.sent.add(command.call)
                assert len(work.sent) <= (work.concurrency if work.is_resumed else work.policy.concurrency)
            case ev.SendCancel():
                assert command.call in work.sent
                assert self._contact(command.work) is Contact.LIVE
            case ev.SendStop():
                assert work.live, "there is nobody to be told to end"
                assert self._contact(command.work) is Contact.LIVE
            case ev.EndWorker():
                assert command.attempt == work.live, "a command to end a worker that has ended"
                work.end_asked = True
            case ev.StartTimer():
                assert command.delay >= 0
                self.timers.add(command.timer)
            case ev.StopTimer():
                self.timers.discard(command.timer)
            case ev.PublishStatus():
                assert command.status.call is None or not command.status.stage.is_final, "SettleCall brings that"
                self._note_status(command.work, command.status, command.hash)
            case ev.ResolveSubmit():
                assert command.call not in self.adopted
                self.adopted[command.call] = command
                assert command.reason
                assert command.hash == self._submitted
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
            case ev.RestoreCall():
                assert command.call not in self.calls, "a call that is known was restored"
                self.calls[command.call] = SeenCall(command.work, command.hash)
            case ev.SettleCall():
                seen = self.calls[command.call]
                assert seen.outcome is None, "a call was settled twice"
                if command.ran is not None:
                    assert command.ran.stage is Stage.RUNNING
                    self._note_status(command.work, command.ran, command.hash)
                self._note_status(command.work, command.outcome.status, command.hash)
                assert command.outcome.status.stage.is_final
                assert (command.outcome.value is not None) == (command.outcome.status.stage is Stage.SUCCEEDED)
                assert not command.outcome.swallowed or self.latest is ev.CallFailed
                seen.outcome = command.outcome
                if command.outcome.status.stage is Stage.SUCCEEDED and work.policy.cache_calls:
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
            case _:
                assert_never(command)

    def _contact(self, work: int) -> Contact:
        return self.machine._works[work].contact

    def _note_status(self, work: int, status: WorkStatus, hash: str | None) -> None:
        assert status.count == 1
        assert not self.published or self.published[-1][1].timestamp <= status.timestamp
        self.published.append((work, status))
        if status.call is None:
            assert status.stage in (Stage.STARTED, Stage.FAILED, Stage.STOPPED)
            return
        call = self.calls[status.call]
        assert call.outcome is None, "a status of a call that has ended"
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
        assert status.attempt <= 1 + self.works[work].retries
        call.statuses.append(status)

    # --- at any time ------------------------------------------------------------------------------

    def check_bounded(self) -> None:
        """A timer, or a command to the runtime, bounds everything that the machine waits for."""
        expected: set[ev.Timer] = set()
        allowed: set[ev.Timer] = set()
        for number, work in self.machine._works.items():
            seen = self.works[number]
            assert bool(seen.live) == (work.phase is not Phase.ABSENT)
            assert seen.is_resumed or work.contact is Contact.LIVE
            assert seen.is_resumed or not work.over
            if work.contact is Contact.LIVE and not (seen.is_resumed and work.phase is Phase.STOPPING):
                # A worker that is ended by force may still have calls that were given up with it.
                assert seen.sent == work.running.keys() or (seen.end_asked and seen.sent > work.running.keys())
                assert len(work.running) <= seen.concurrency
            assert seen.is_resumed or work.verdict is not None or not work.running or work.phase is not Phase.STOPPING
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
                    ends = {ev.Timer("cancel", number, call.id), ev.Timer("force", number)}
                    assert seen.end_asked or ends & self.timers
            assert not seen.starts or work.phase is Phase.STARTING or work.restart or seen.is_up or seen.live
        assert expected <= self.timers
        assert self.timers <= expected | allowed

    def check_settled(self) -> None:
        """Nothing that was requested is unanswered once everybody has done what they were told."""
        waiting = [number for number, call in self.calls.items() if call.outcome is None]
        assert not waiting, f"calls {waiting} hang:\n" + "\n".join(self.machine.story())
        for work in self.works.values():
            assert not work.starts
            assert not work.stops
        assert not self.timers


def check_model(machine: Machine) -> None:
    """Compare every work of the machine with what `ModelWork` says about its attributes."""
    for work in machine._works.values():
        calls = set(work.calls.values())
        assert all(call is work.calls[call.id] for call in calls)
        queued = {call for call in calls if not call.sent and not call.delayed}
        assert queued == set(work.queue)
        assert len(queued) == len(work.queue)
        assert {call for call in calls if call.sent} == set(work.running.values())
        assert not any(call.sent and call.delayed for call in calls)
        assert all(call.sent for call in calls if call.ending is not None)
        assert {type(flag) for call in calls for flag in (call.sent, call.ran, call.delayed)} <= {bool}
        assert {type(flag) for flag in (work.halted, work.restart, work.removed)} == {bool}
        assert {call.ending for call in calls} <= {None, Reason.CANCELLED, Reason.TIMEOUT}
        for hash, call in work.in_flight.items():
            assert (work.calls.get(call.id), call.hash, call.ending) == (call, hash, None)
            assert not (call.sent and work.phase is Phase.STOPPING)
        if work.phase is Phase.ABSENT:
            assert not work.queue
            assert not work.removed
            assert not work.over
            assert work.contact is Contact.LIVE
        if work.phase in (Phase.ABSENT, Phase.STARTING):
            assert not work.running
        if work.phase is Phase.UP:
            assert not work.queue or len(work.running) >= work.policy.concurrency
        if work.phase is Phase.STOPPING:
            assert (work.verdict is None) == (work.failure is not None)
        else:
            assert work.verdict is None
            assert work.failure is None
            assert not work.restart
        assert not (work.restart and work.removed)
        assert not work.removed or work.halted
        assert work.policy.cache_calls or not work.results


def only(commands: list[ev.Command], kind: type[CommandT]) -> list[CommandT]:
    """Return the commands of one kind."""
    return [command for command in commands if isinstance(command, kind)]
