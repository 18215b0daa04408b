"""Any order of events leaves every rule of the machine true, and every request is answered in the end.

Schedulers are killed as well. What they had not written to their journal is forgotten, and the machine of the journal
goes on among the workers that they leave behind.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lightwork.engine.rules import events as ev
from lightwork.engine.rules.model import Contact, Phase
from lightwork.status import Reason
from tests.engine.rules.machine_watch import ERROR, Watch

# Hypothesis shrinks a run that fails before it reports it, which may take minutes. One that passes takes seconds.
pytestmark = [pytest.mark.bare, pytest.mark.timeout(600)]


@dataclasses.dataclass
class Worker:
    """One launched worker. To the machine it looks like a real one with its runtime.

    Attributes:
        begun: Length of the log when its launch was ordered.
        launched: Whether the runtime has a process.
        welcomed: Whether a scheduler has given it its work.
        linked: Whether there is a connection; without one, whatever is sent either way waits.
        ready: Whether it has said that it is ready.
        leaving: Whether it has said that it stops; it says nothing more then.
        killed: Whether the runtime was told to end it.
        is_ghost: Whether only the journal of a killed scheduler knows it: it was not launched, or has ended.
        is_away: Whether a killed scheduler has left it, and it has not returned to the next one.
        missing: How much of what it sent before its return has not arrived; -1 once the machine knows that all has.
        had: The calls that it had when it returned.
        inbox: What was sent to it and not read.
        outbox: What it has sent and nobody has received.
        unacked: What it has sent and a scheduler has received, each with the length of the log at that moment.
        calls: The calls that it has begun, and whether it was told to cancel each.
    """

    work: int
    attempt: int
    begun: int = 0
    launched: bool = False
    welcomed: bool = False
    linked: bool = False
    ready: bool = False
    leaving: bool = False
    killed: bool = False
    is_ghost: bool = False
    is_away: bool = False
    missing: int = -1
    had: frozenset[int] = frozenset()
    stop_read: bool = False
    inbox: deque[ev.Command] = dataclasses.field(default_factory=deque)
    outbox: deque[Any] = dataclasses.field(default_factory=deque)
    unacked: deque[tuple[Any, int]] = dataclasses.field(default_factory=deque)
    calls: dict[int, bool] = dataclasses.field(default_factory=dict)

    def say(self, fact: type, *args: Any) -> None:
        self.outbox.append(fact(self.work, self.attempt, *args))

    def read(self) -> None:
        """Handle one frame."""
        match self.inbox.popleft():
            case ev.SendCall(call=call):
                self.calls[call] = False
                self.say(ev.CallRunning, call)
            case ev.SendCancel(call=call):
                if call in self.calls:
                    self.calls[call] = True
            case ev.SendStop():
                self.stop_read = True

    def say_goodbye(self, reason: Reason | None) -> None:
        """Cancel the calls, report that, then report the end."""
        for call in self.calls:
            self.say(ev.CallCancelled, call)
        self.calls.clear()
        self.say(ev.WorkerStopping, reason)
        self.leaving = self.welcomed = True

    def lose_scheduler(self, committed: int, read: int) -> None:
        """The scheduler was killed, and its journal ends there. Only the first few commands have reached the worker."""
        for _ in range(read):
            if self.ready and not self.leaving:
                self.read()
        self.inbox.clear()
        again = [event for event, received in self.unacked if received >= committed]
        self.outbox.extendleft(reversed(again))
        self.unacked.clear()
        self.linked, self.is_away, self.missing = False, True, -1


POLICIES = st.builds(
    ev.Policy,
    cache_calls=st.booleans(),
    concurrency=st.integers(1, 3),
    timeout=st.none() | st.just(10.0),
    retries=st.integers(0, 2),
    idle_timeout=st.none() | st.just(20.0),
)
HASHES = st.sampled_from(["a", "b", "c", "d", "e"])
SEVERAL = st.lists(HASHES, min_size=1, max_size=4)
SELDOM = st.integers(0, 9).map(lambda number: number == 9)
"""For rules that end so much that little could happen between two of them."""
OUTCOMES = st.sampled_from(["value", "value", "error", "swallowed", "invalid", "cancelled"])
EXITS = st.sampled_from([Reason.CRASHED, Reason.OOM, Reason.LOST, Reason.SPOT_RETRIEVAL, Reason.TIMEOUT])


class AnyOrder(RuleBasedStateMachine):
    """Users, runtimes, workers, links, clocks and killed schedulers, each doing whatever it could do next."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch()
        self.workers: dict[int, Worker] = {}  # by work: the one that has not ended
        self.removed: set[int] = set()
        self.late: list[ev.Event] = []
        self.numbers = 0
        self.log: list[ev.Event] = []
        self.committed = 0  # how much of the log is on disk at least
        self.hashes: dict[int, str] = {}
        self.broken = False  # whether a rule was broken: more errors follow from that, and tell nothing

    def feed(self, event: ev.Event) -> None:
        self.broken = True
        self.log.append(event)
        commands = self.watch.feed(event)
        self.broken = False
        for command in commands:
            match command:
                case ev.LaunchWorker():
                    self.workers[command.work] = Worker(command.work, command.attempt, len(self.log))
                case ev.SendCall() | ev.SendCancel() | ev.SendStop():
                    assert not self.workers[command.work].is_away
                    self.workers[command.work].inbox.append(command)
                case ev.EndWorker():
                    self.workers[command.work].killed = True
                case _:
                    pass

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def some(self, data: st.DataObject, found: list[Any]) -> Any:
        return data.draw(st.sampled_from(found))

    def ours(self) -> list[int]:
        return sorted(self.watch.works.keys() - self.removed)

    # --- users ------------------------------------------------------------------------------------

    @initialize(policy=POLICIES, hashes=SEVERAL, count=st.integers(0, 12))
    def first(self, policy: ev.Policy, hashes: list[str], count: int) -> None:
        self.add(policy)
        self.submit_each(1, hashes)
        self.work_on(count, answers=False)

    def add(self, policy: ev.Policy) -> None:
        number = self.number()
        self.feed(ev.WorkAdded(number, f"root.w{number}", policy))

    @precondition(lambda self: len(self.ours()) < 1 or self.numbers % 16 == 0)
    @rule(policy=POLICIES)
    def add_work(self, policy: ev.Policy) -> None:
        self.add(policy)

    @precondition(lambda self: self.ours())
    @rule(data=st.data(), hashes=SEVERAL)
    def submit(self, data: st.DataObject, hashes: list[str]) -> None:
        self.submit_each(self.some(data, self.ours()), hashes)

    def submit_each(self, work: int, hashes: list[str]) -> None:
        seen = self.watch.works[work]
        for hash in hashes:
            call = self.new_call(work, hash)
            adopted = self.watch.adopted[call]
            assert adopted.to is not None or hash not in seen.succeeded or not seen.policy.cache_calls
            assert adopted.to is None or self.watch.calls[adopted.to].hash == hash

    def new_call(self, work: int, hash: str) -> int:
        call = self.number()
        self.hashes[call] = hash
        self.feed(ev.CallSubmitted(work, call, hash, b"args"))
        return call

    @precondition(lambda self: self.ours())
    @rule(data=st.data(), policy=POLICIES, really=SELDOM)
    def add_again(self, data: st.DataObject, policy: ev.Policy, really: bool) -> None:
        """The code of a resumed app makes a work again, with another policy."""
        if really:
            self.feed(ev.WorkAdded(self.some(data, self.ours()), "root.again", policy))

    @precondition(lambda self: self.watch.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = self.some(data, sorted(self.watch.calls))
        self.feed(ev.CancelRequested(self.watch.calls[call].work, call))

    @precondition(lambda self: self.ours())
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.feed(ev.StartRequested(self.some(data, self.ours())))

    @precondition(lambda self: self.watch.works)
    @rule(data=st.data(), reason=st.sampled_from([None, Reason.SPOT_RETRIEVAL]))
    def stop(self, data: st.DataObject, reason: Reason | None) -> None:
        self.feed(ev.StopRequested(self.some(data, sorted(self.watch.works)), reason))

    @precondition(lambda self: self.ours())
    @rule(data=st.data(), really=SELDOM)
    def remove(self, data: st.DataObject, really: bool) -> None:
        if not really:
            return
        work = self.some(data, self.ours())
        self.removed.add(work)
        self.feed(ev.WorkRemoved(work))

    # --- the runtime ------------------------------------------------------------------------------

    def having(self, **wanted: bool) -> list[Worker]:
        """Return the workers that have all these attributes; ghosts only if they are requested."""
        wanted.setdefault("is_ghost", False)
        return [
            worker
            for worker in self.workers.values()
            if all(bool(getattr(worker, name)) is value for name, value in wanted.items())
        ]

    @precondition(lambda self: self.having(launched=False, killed=False))
    @rule(data=st.data(), welcomed=st.booleans())
    def launch_done(self, data: st.DataObject, welcomed: bool) -> None:
        worker = self.some(data, self.having(launched=False, killed=False))
        self.finish_launch(worker)
        worker.welcomed = welcomed

    def finish_launch(self, worker: Worker) -> None:
        worker.launched = worker.linked = worker.welcomed = True
        self.committed = max(self.committed, worker.begun)  # a launch waits until it is in the journal

    @precondition(lambda self: self.having(launched=False))
    @rule(data=st.data())
    def launch_fails(self, data: st.DataObject) -> None:
        self.end_launch(self.some(data, self.having(launched=False)))

    def end_launch(self, worker: Worker) -> None:
        del self.workers[worker.work]
        self.feed(ev.WorkerLaunchFailed(worker.work, worker.attempt, Reason.LAUNCH_FAILED, "no room"))

    @precondition(lambda self: self.having(launched=True))
    @rule(data=st.data(), reason=EXITS, says_lost=st.booleans())
    def exit(self, data: st.DataObject, reason: Reason, says_lost: bool) -> None:
        """A worker ends at any time; a part of what it has sent is received before."""
        worker = self.some(data, self.having(launched=True))
        if worker.linked:
            for _ in range(data.draw(st.integers(0, len(worker.outbox)))):
                self.receive(worker)
            if says_lost:
                self.feed(ev.LinkLost(worker.work, worker.attempt))
        self.end(worker, reason)

    def end(self, worker: Worker, reason: Reason) -> None:
        del self.workers[worker.work]
        event = ev.WorkerExited(worker.work, worker.attempt, reason, "it has ended")
        self.late += [
            event,
            ev.LinkLost(worker.work, worker.attempt),
            ev.WorkerReturned(worker.work, worker.attempt, ()),
            ev.WorkerCaughtUp(worker.work, worker.attempt, frozenset()),
            ev.WorkerNeverLaunched(worker.work, worker.attempt),
        ]
        self.feed(event)

    # --- the worker -------------------------------------------------------------------------------

    @precondition(lambda self: self.having(launched=True, linked=True, ready=False, leaving=False))
    @rule(data=st.data(), starts=st.sampled_from([True, True, True, False]))
    def come_up(self, data: st.DataObject, starts: bool) -> None:
        worker = self.some(data, self.having(launched=True, linked=True, ready=False, leaving=False))
        worker.welcomed = True
        if starts:
            worker.ready = True
            worker.say(ev.WorkerReady)
        else:
            worker.leaving = True
            worker.say(ev.WorkerStopping, Reason.USER_EXCEPTION, ERROR)

    @precondition(lambda self: self.having(ready=True, linked=True, leaving=False, inbox=True))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.some(data, self.having(ready=True, linked=True, leaving=False, inbox=True)).read()

    @precondition(lambda self: self.having(calls=True))
    @rule(data=st.data(), outcomes=st.lists(OUTCOMES, min_size=1, max_size=4))
    def answer(self, data: st.DataObject, outcomes: list[str]) -> None:
        for outcome in outcomes:
            found = self.having(calls=True)
            if found:
                worker = self.some(data, found)
                self.say_outcome(worker, self.some(data, sorted(worker.calls)), outcome)
            self.work_on(6, answers=False)

    def say_outcome(self, worker: Worker, call: int, outcome: str) -> None:
        del worker.calls[call]
        match outcome:
            case "value":
                worker.say(ev.CallSucceeded, call, b"\x01")
            case "cancelled":
                worker.say(ev.CallCancelled, call)
            case _:
                reason = Reason.INVALID_RETURN_VALUE if outcome == "invalid" else Reason.USER_EXCEPTION
                worker.say(ev.CallFailed, call, reason, ERROR, outcome == "swallowed")

    @precondition(lambda self: self.having(launched=True, leaving=False))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A worker ends because it was told to, or because of a signal from elsewhere."""
        worker = self.some(data, self.having(launched=True, leaving=False))
        worker.say_goodbye(None if worker.stop_read else Reason.SIGTERM_SIGNAL_HANDLER)

    # --- the link ---------------------------------------------------------------------------------

    def receive(self, worker: Worker) -> None:
        event = worker.outbox.popleft()
        self.late.append(event)
        worker.unacked.append((event, len(self.log)))
        self.feed(event)
        if worker.missing > 0:
            worker.missing -= 1
            self.catch_up(worker)

    @precondition(lambda self: self.having(linked=True, outbox=True))
    @rule(data=st.data(), count=st.integers(1, 6))
    def deliver(self, data: st.DataObject, count: int) -> None:
        worker = self.some(data, self.having(linked=True, outbox=True))
        for _ in range(min(count, len(worker.outbox))):
            self.receive(worker)

    @precondition(lambda self: self.having(linked=True))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        worker = self.some(data, self.having(linked=True))
        worker.linked = False
        self.feed(ev.LinkLost(worker.work, worker.attempt))

    @precondition(lambda self: self.having(launched=True, linked=False))
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        self.link(self.some(data, self.having(launched=True, linked=False)))

    def link(self, worker: Worker) -> None:
        worker.linked = True
        if not worker.is_away:
            self.feed(ev.LinkRestored(worker.work, worker.attempt))
            return
        worker.is_away = False
        if not worker.welcomed:
            worker.welcomed = True
            return
        answered = [
            event.call
            for event in worker.outbox
            if isinstance(event, ev.CallSucceeded | ev.CallFailed | ev.CallCancelled)
        ]
        calls = tuple((call, self.hashes[call]) for call in [*answered, *worker.calls])
        worker.missing, worker.had = len(worker.outbox), frozenset(worker.calls)
        self.feed(ev.WorkerReturned(worker.work, worker.attempt, calls))
        self.catch_up(worker)

    def catch_up(self, worker: Worker) -> None:
        if not worker.missing:
            worker.missing = -1
            self.feed(ev.WorkerCaughtUp(worker.work, worker.attempt, worker.had))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """A message of an attempt that has ended changes nothing when it comes again."""
        event = self.some(data, self.late)
        worker = self.workers.get(event.work)
        if worker is None or worker.attempt != getattr(event, "attempt", 0):
            if worker is None and isinstance(event, ev.WorkerReady):
                return  # the scheduler itself drops the frames of a worker that has ended
            assert self.watch.feed(event) == []

    @rule(count=st.integers(1, 12), answers=st.booleans())
    def work_on(self, count: int, answers: bool) -> None:
        """Everybody does what they were told for a while, so that deep states are reached early."""
        for _ in range(count):
            if not self.step_worker(answers=answers):
                return

    @precondition(lambda self: self.ours())
    @rule(data=st.data(), outcome=OUTCOMES, like=st.booleans())
    def answer_while_it_ends(self, data: st.DataObject, outcome: str, like: bool) -> None:
        """An answer crosses the command to cancel or to stop, and the same call is made again in between."""
        self.submit_each(self.some(data, self.ours()), [data.draw(HASHES)])
        self.work_on(12, answers=False)
        if not self.having(leaving=False, calls=True):
            return
        worker = self.some(data, self.having(leaving=False, calls=True))
        call = self.some(data, sorted(worker.calls))
        if data.draw(st.booleans()):
            self.feed(ev.CancelRequested(worker.work, call))
        else:
            self.feed(ev.StopRequested(worker.work))
        if like and worker.work not in self.removed:
            self.new_call(worker.work, self.hashes[call])
        self.say_outcome(worker, call, outcome)

    # --- killed schedulers ------------------------------------------------------------------------

    @rule(data=st.data(), lost=st.integers(0, 30), really=SELDOM)
    def kill_scheduler(self, data: st.DataObject, lost: int, really: bool) -> None:
        """The scheduler is killed, and the end of its log is not on disk. Another one goes on from there."""
        if really:
            self.kill(data, lost)

    @precondition(lambda self: self.ours())
    @rule(data=st.data(), hashes=SEVERAL, outcome=OUTCOMES, lost=st.integers(0, 9), cancels=st.booleans())
    def kill_busy_scheduler(
        self, data: st.DataObject, hashes: list[str], outcome: str, lost: int, cancels: bool
    ) -> None:
        """The scheduler is killed while a worker has calls. Something happens before the worker is back."""
        work = self.some(data, self.ours())
        self.submit_each(work, hashes)
        self.work_on(12, answers=False)
        worker = self.workers.get(work)
        if cancels and worker is not None and worker.calls:
            self.feed(ev.CancelRequested(work, self.some(data, sorted(worker.calls))))
            self.work_on(2, answers=False)
        if worker is not None and worker.calls:
            self.say_outcome(worker, self.some(data, sorted(worker.calls)), outcome)
            self.work_on(data.draw(st.integers(0, 3)), answers=False)
        self.kill(data, lost)
        for _ in range(data.draw(st.integers(0, 2))):
            self.happen_while_away(data, work)
        if work in self.having_by_work(launched=True, linked=False):
            self.link(self.workers[work])

    def happen_while_away(self, data: st.DataObject, work: int) -> None:
        waiting = [number for number, call in self.watch.calls.items() if call.work == work and call.outcome is None]
        timers = sorted((timer for timer in self.watch.timers if timer.work == work), key=repr)
        match data.draw(st.sampled_from(["cancel", "cancel", "stop", "fire", "policy"])):
            case "cancel" if waiting:
                self.feed(ev.CancelRequested(work, self.some(data, waiting)))
            case "stop" if work in self.ours():
                self.feed(ev.StopRequested(work))
            case "fire" if timers:
                self.ring(self.some(data, timers))
            case "policy" if work in self.ours():
                self.feed(ev.WorkAdded(work, "root.again", data.draw(POLICIES)))

    def having_by_work(self, **wanted: bool) -> list[int]:
        return [worker.work for worker in self.having(**wanted)]

    def kill(self, data: st.DataObject, lost: int) -> None:
        self.broken = True
        del self.log[max(self.committed, len(self.log) - lost) :]
        before, self.watch = self.watch, Watch()
        for event in self.log:
            self.watch.feed(event)
        for number, seen in self.watch.works.items():
            # A policy that is forgotten may have allowed the worker more.
            if number in before.works:
                seen.concurrency, seen.retries = before.works[number].concurrency, before.works[number].retries
        self.broken = False
        self.late.clear()
        self.removed = {event.work for event in self.log if isinstance(event, ev.WorkRemoved)}
        self.workers = {number: worker for number, worker in self.workers.items() if worker.launched}
        for worker in self.workers.values():
            worker.lose_scheduler(len(self.log), data.draw(st.integers(0, len(worker.inbox))))
            worker.killed = worker.killed and data.draw(st.booleans())
        for work in self.watch.machine.works():
            if work.phase is Phase.ABSENT:
                assert work.id not in self.workers
            elif work.id not in self.workers:
                self.workers[work.id] = Worker(work.id, work.attempt, is_ghost=True)
            assert work.phase is Phase.ABSENT or self.workers[work.id].attempt == work.attempt
        for number in sorted(self.watch.works):
            self.feed(ev.SchedulerResumed(number))
        self.committed = len(self.log)

    @precondition(lambda self: self.having(is_ghost=True))
    @rule(data=st.data(), launched=st.booleans())
    def miss(self, data: st.DataObject, launched: bool) -> None:
        """The runtime says what became of a worker that the journal alone knows."""
        self.give_up_ghost(self.some(data, self.having(is_ghost=True)), launched)

    def give_up_ghost(self, worker: Worker, launched: bool) -> None:
        if launched:
            self.end(worker, Reason.LOST)
        else:
            del self.workers[worker.work]
            self.feed(ev.WorkerNeverLaunched(worker.work, worker.attempt))

    # --- the clock --------------------------------------------------------------------------------

    @precondition(lambda self: self.watch.timers)
    @rule(data=st.data())
    def fire(self, data: st.DataObject) -> None:
        self.ring(self.some(data, sorted(self.watch.timers, key=repr)))

    def ring(self, timer: ev.Timer) -> None:
        self.feed(ev.TimerFired(timer.work, timer))

    # --- the end ----------------------------------------------------------------------------------

    def settle_politely(self) -> None:
        """Let everybody do what they were told, until there is nothing left to do."""
        for _ in range(10_000):
            if not (self.step_worker() or self.step_timer(kinds=("retry", "idle"))):
                return
        raise AssertionError("it does not come to rest")

    def step_worker(self, *, answers: bool = True) -> bool:
        for worker in list(self.workers.values()):
            if worker.is_ghost:
                self.give_up_ghost(worker, launched=worker.attempt % 2 == 0)
            elif not worker.launched and not worker.killed:
                self.finish_launch(worker)
            elif worker.killed and not worker.launched:
                self.end_launch(worker)
            elif worker.killed:
                self.end(worker, Reason.CRASHED)
            elif not worker.linked:
                self.link(worker)
            elif worker.outbox:
                self.receive(worker)
            elif worker.leaving:
                self.end(worker, Reason.CRASHED)
            elif worker.stop_read:
                worker.say_goodbye(None)
            elif not worker.ready:
                worker.ready = True
                worker.say(ev.WorkerReady)
            elif worker.inbox:
                worker.read()
            elif worker.calls and answers:
                call, cancelled = worker.calls.popitem()
                worker.say(*((ev.CallCancelled, call) if cancelled else (ev.CallSucceeded, call, b"\x01")))
            else:
                continue
            return True
        return False

    def settle_rudely(self) -> None:
        """No worker says or does anything more. Only the clock runs, and a runtime does what it is told."""
        for _ in range(10_000):
            killed = [*self.having(killed=True), *self.having(killed=True, is_ghost=True)]
            if killed:
                end = self.end_launch if not killed[0].launched else lambda worker: self.end(worker, Reason.CRASHED)
                end(killed[0])
            elif not self.step_timer():
                return
        raise AssertionError("it does not come to rest")

    def step_timer(self, kinds: tuple[str, ...] = ()) -> bool:
        timers = sorted((one for one in self.watch.timers if not kinds or one.kind in kinds), key=repr)
        if timers:
            self.ring(timers[0])
        return bool(timers)

    @rule(really=SELDOM)
    def rest(self, really: bool) -> None:
        """If everybody does what they are told, every call is settled, and nothing is left to wait for."""
        if not really:
            return
        self.settle_politely()
        self.watch.check_settled()
        for number in self.watch.works:
            assert self.watch.phase(number) in (Phase.UP, Phase.ABSENT)
            assert self.watch.live_work(number).contact is Contact.LIVE

    @rule(really=SELDOM)
    def stop_all_rudely(self, really: bool) -> None:
        """A stop of works whose workers do nothing more ends everything by the clock alone."""
        if not really:
            return
        for number in sorted(self.watch.works):
            self.feed(ev.StopRequested(number))
        self.settle_rudely()
        self.watch.check_settled()
        assert self.machine_is_idle()

    def machine_is_idle(self) -> bool:
        return self.watch.machine.is_idle

    def teardown(self) -> None:
        """Stop every work, then remove it, and check that nothing of it is left."""
        if self.broken:
            return
        self.settle_politely()
        self.watch.check_settled()
        for number in self.ours():
            self.feed(ev.StopRequested(number))
        self.settle_politely()
        self.watch.check_settled()
        assert self.machine_is_idle()
        for number in self.ours():
            self.removed.add(number)
            self.feed(ev.WorkRemoved(number))
        assert not self.watch.works
        assert not self.watch.machine._works
        assert not self.workers


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
