"""The machine alone: events in, commands out, for each rule and for each row of the table."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, assert_never, get_args

import pytest

from lightwork.engine.rules import call_rules
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.events import Timer
from lightwork.engine.rules.machine import LATE, TABLE, Machine, MachineError
from lightwork.engine.rules.model import Contact, ModelCall, Phase
from lightwork.status import Reason, Stage
from tests.engine.rules import lifecycle_page
from tests.engine.rules.machine_watch import ERROR, Watch, only

pytestmark = pytest.mark.bare

PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED = (
    Stage.PENDING,
    Stage.RUNNING,
    Stage.SUCCEEDED,
    Stage.FAILED,
    Stage.STOPPED,
)
PATIENT = ev.Policy(timeout=10.0)
STUBBORN = ev.Policy(timeout=10.0, retries=2, retry_delay=4.0)
WIDE = ev.Policy(concurrency=2)


class Play:
    """One work, and a short method for each event; each returns the commands."""

    def __init__(self) -> None:
        self.watch = Watch()

    def __call__(self, event: ev.Event) -> list[ev.Command]:
        return self.watch.feed(event)

    @property
    def attempt(self) -> int:
        return self.watch.live_work(1).attempt

    @property
    def phase(self) -> Phase:
        return self.watch.phase()

    def add(self, policy: ev.Policy | None = None, **changes: Any) -> None:
        self(ev.WorkAdded(1, "root.w", policy or ev.Policy(**changes)))

    def submit(self, call: int, hash: str = "") -> list[ev.Command]:
        return self(ev.CallSubmitted(1, call, hash or f"hash {call}", b"args"))

    def launch(self, policy: ev.Policy | None = None, **changes: Any) -> None:
        self.add(policy, **changes)
        self(ev.StartRequested(1))

    def up(self, policy: ev.Policy | None = None, **changes: Any) -> None:
        self.launch(policy, **changes)
        self.ready()

    def run(self, policy: ev.Policy | None = None, **changes: Any) -> None:
        """Bring the worker up, and have call 1 run."""
        self.up(policy, **changes)
        self.submit(1)
        self.running(1)

    def ready(self) -> list[ev.Command]:
        return self(ev.WorkerReady(1, self.attempt))

    def running(self, call: int) -> list[ev.Command]:
        return self(ev.CallRunning(1, self.attempt, call))

    def succeed(self, call: int) -> list[ev.Command]:
        return self(ev.CallSucceeded(1, self.attempt, call, b"\x01"))

    def fail(self, call: int, reason: Reason = Reason.USER_EXCEPTION, *, swallowed: bool = False) -> list[ev.Command]:
        return self(ev.CallFailed(1, self.attempt, call, reason, ERROR, swallowed))

    def cancelled(self, call: int) -> list[ev.Command]:
        return self(ev.CallCancelled(1, self.attempt, call))

    def cancel(self, call: int) -> list[ev.Command]:
        return self(ev.CancelRequested(1, call))

    def start(self) -> list[ev.Command]:
        return self(ev.StartRequested(1))

    def stop(self, reason: Reason | None = None) -> list[ev.Command]:
        return self(ev.StopRequested(1, reason))

    def remove(self) -> list[ev.Command]:
        return self(ev.WorkRemoved(1))

    def fire(self, kind: Any, call: int = 0) -> list[ev.Command]:
        return self(ev.TimerFired(1, Timer(kind, 1, call)))

    def cut(self) -> list[ev.Command]:
        return self(ev.LinkLost(1, self.attempt))

    def restore(self) -> list[ev.Command]:
        return self(ev.LinkRestored(1, self.attempt))

    def leave(self, reason: Reason | None = Reason.SIGTERM_SIGNAL_HANDLER, error: Any = None) -> list[ev.Command]:
        return self(ev.WorkerStopping(1, self.attempt, reason, error))

    def exit(self, reason: Reason = Reason.CRASHED, message: str = "exit code 3") -> list[ev.Command]:
        return self(ev.WorkerExited(1, self.attempt, reason, message))

    def launch_fails(self, reason: Reason = Reason.LAUNCH_FAILED) -> list[ev.Command]:
        return self(ev.WorkerLaunchFailed(1, self.attempt, reason, "no room"))

    def resume(self) -> list[ev.Command]:
        return self(ev.SchedulerResumed(1))

    def returned(self, *calls: int) -> list[ev.Command]:
        """The worker is back with these calls, or with their outcomes on the way."""
        return self(ev.WorkerReturned(1, self.attempt, tuple((call, f"hash {call}") for call in calls)))

    def caught_up(self, *calls: int) -> list[ev.Command]:
        """All that it sent before has arrived; it still had these calls when it came."""
        return self(ev.WorkerCaughtUp(1, self.attempt, frozenset(calls)))

    def never_launched(self) -> list[ev.Command]:
        return self(ev.WorkerNeverLaunched(1, self.attempt))

    def add_again(self, policy: ev.Policy | None = None, **changes: Any) -> list[ev.Command]:
        """The code of a resumed app makes the work again."""
        return self(ev.WorkAdded(1, "root.w", policy or ev.Policy(**changes)))

    def add_uncached(self) -> list[ev.Command]:
        return self.add_again(cache_calls=False)

    def work_statuses(self) -> list[tuple[Stage, Reason | None]]:
        return [(one.stage, one.reason) for _, one in self.watch.published if one.call is None]

    def ended(self, call: int) -> tuple[Stage, Reason | None]:
        final = self.watch.final(call)
        return final.stage, final.reason


@pytest.fixture
def one() -> Iterator[Play]:
    """A play that is checked after each event. At its end every work is removed, and it is checked once more."""
    stage = Play()
    yield stage
    watch = stage.watch
    for number in list(watch.works):
        watch.feed(ev.WorkRemoved(number))
        if number in watch.works:
            watch.feed(ev.WorkerExited(number, watch.live_work(number).attempt, Reason.CRASHED, "the test has ended"))
    watch.check_settled()
    assert not watch.works


# --- calls ------------------------------------------------------------------------------------------


def test_first_call_launches_and_is_sent_when_the_worker_is_ready(one: Play) -> None:
    """A call of a work without a worker launches one, waits for it, and goes pending, running, succeeded."""
    one.add()
    assert only(one.submit(1), ev.LaunchWorker) == [ev.LaunchWorker(1, 1)]
    assert only(one.ready(), ev.SendCall) == [ev.SendCall(1, 1, b"args", "hash 1")]
    one.running(1)
    (settled,) = only(one.succeed(1), ev.SettleCall)
    assert settled.outcome.value == b"\x01"
    assert one.watch.stages(1) == [PENDING, RUNNING, SUCCEEDED]


def test_calls_are_sent_one_by_one_in_order(one: Play) -> None:
    """With a concurrency of 1 the next call is sent when the call before it has ended."""
    one.up()
    for call in (1, 2, 3):
        one.submit(call)
    assert only(one.succeed(1), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]
    assert only(one.fail(2), ev.SendCall) == [ev.SendCall(1, 3, b"args", "hash 3")]


def test_concurrency_bounds_the_calls_that_the_worker_has(one: Play) -> None:
    """With a concurrency of 2 the worker has two calls, and gets the third when one of them has ended."""
    one.up(WIDE)
    assert only(one.submit(1) + one.submit(2) + one.submit(3), ev.SendCall) == [
        ev.SendCall(1, 1, b"args", "hash 1"),
        ev.SendCall(1, 2, b"args", "hash 2"),
    ]
    assert only(one.succeed(2), ev.SendCall) == [ev.SendCall(1, 3, b"args", "hash 3")]


@pytest.mark.parametrize("cache_calls", [True, False])
def test_same_call_in_flight_is_joined(one: Play, cache_calls: bool) -> None:
    """A call joins the call in flight with the same arguments, whether results are kept or not; nothing is sent."""
    one.up(cache_calls=cache_calls)
    one.submit(1, "same")
    (adopt,) = one.submit(2, "same")
    assert adopt == ev.ResolveSubmit(1, 2, 1, "joined call 1, in flight with the same arguments", hash="same")


def test_success_answers_later_calls(one: Play) -> None:
    """The result of a call answers a later call with the same arguments at once, even after the worker has ended."""
    one.run()
    one.succeed(1)
    one.exit()
    (adopt,) = one.submit(2, "hash 1")
    assert isinstance(adopt, ev.ResolveSubmit)
    assert (adopt.to, adopt.outcome) == (1, one.watch.calls[1].outcome)
    assert adopt.reason == "answered by call 1, which succeeded with the same arguments"
    assert one.phase is Phase.ABSENT


def test_reasons_why_a_call_runs(one: Play) -> None:
    """A call that has to run says why: there was no such call before, or it did not succeed."""
    one.run()
    assert one.watch.adopted[1].reason == "runs: no call with these arguments has succeeded"
    one.fail(1)
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].reason == "runs: call 1 with the same arguments did not succeed"


def test_without_cache_every_call_runs(one: Play) -> None:
    """With cache_calls False a call that has succeeded runs again, and says so."""
    one.run(cache_calls=False)
    one.succeed(1)
    assert only(one.submit(2, "hash 1"), ev.SendCall)
    assert one.watch.adopted[2].reason == "runs: cache_calls is False"


def test_swallowed_failure_is_a_failure_and_not_tried_again(one: Play) -> None:
    """A failure that on_exception swallowed is final, even if tries are left."""
    one.run(STUBBORN)
    (settled,) = only(one.fail(1, swallowed=True), ev.SettleCall)
    assert settled.outcome.swallowed
    assert one.ended(1) == (FAILED, Reason.USER_EXCEPTION)


def test_failure_carries_the_error(one: Play) -> None:
    """The outcome of a call that raised holds the exception as data."""
    one.run()
    (settled,) = only(one.fail(1), ev.SettleCall)
    assert settled.outcome.error == ERROR
    assert settled.outcome.status.message == "broken"


# --- retries and timeouts -----------------------------------------------------------------------------


def test_retries_are_visible_delayed_and_bounded(one: Play) -> None:
    """Each retry is pending with the next attempt and the reason. Pauses double. A try that ends at once ran, too."""
    one.run(STUBBORN)
    (first,) = only(one.fail(1), ev.StartTimer)
    assert first.timer == Timer("retry", 1, 1)
    assert 2.0 <= first.delay <= 4.0
    one.fire("retry", 1)
    one.running(1)
    (second,) = only(one.fail(1), ev.StartTimer)
    assert 4.0 <= second.delay <= 8.0
    one.fire("retry", 1)
    assert not only(one.fail(1), ev.StartTimer)
    assert [(status.stage, status.attempt) for status in one.watch.calls[1].statuses] == [
        (PENDING, 1), (RUNNING, 1), (PENDING, 2), (RUNNING, 2), (PENDING, 3), (RUNNING, 3), (FAILED, 3),
    ]  # fmt: skip
    assert one.watch.calls[1].statuses[2].reason is Reason.USER_EXCEPTION


def test_unencodable_value_is_not_tried_again(one: Play) -> None:
    """A return value that cannot be encoded is a final failure: the next try would return it again."""
    one.run(STUBBORN)
    one.fail(1, Reason.INVALID_RETURN_VALUE)
    assert one.ended(1) == (FAILED, Reason.INVALID_RETURN_VALUE)


def test_others_run_while_a_retry_waits(one: Play) -> None:
    """No other call waits for the pause of a retry, and the same call joins the one that pauses."""
    one.run(STUBBORN)
    one.submit(2)
    assert only(one.fail(1), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]
    (adopt,) = one.submit(3, "hash 1")
    assert isinstance(adopt, ev.ResolveSubmit)
    assert adopt.to == 1


def test_timeout_counts_from_running(one: Play) -> None:
    """The timeout starts when run is entered. Then the call is cancelled and fails with the reason timeout."""
    one.up(PATIENT)
    assert not only(one.submit(1), ev.StartTimer)
    assert only(one.running(1), ev.StartTimer) == [ev.StartTimer(1, Timer("timeout", 1, 1), 10.0)]
    assert one.fire("timeout", 1) == [
        ev.SendCancel(1, 1),
        ev.StartTimer(1, Timer("cancel", 1, 1), PATIENT.grace),
    ]
    one.cancelled(1)
    assert one.ended(1) == (FAILED, Reason.TIMEOUT)
    assert one.phase is Phase.UP


def test_timeout_is_tried_again(one: Play) -> None:
    """A call that timed out is tried again where tries are left."""
    one.run(STUBBORN)
    one.fire("timeout", 1)
    one.cancelled(1)
    assert one.watch.stages(1)[-1] is PENDING
    assert only(one.fire("retry", 1), ev.SendCall)


def test_timeout_that_is_ignored_ends_the_process(one: Play) -> None:
    """The process of a run that ignores its timeout is ended, and the call fails with the reason timeout."""
    one.run(PATIENT)
    one.fire("timeout", 1)
    assert one.fire("cancel", 1)[-1] == ev.EndWorker(1, 1, 0.0)
    one.exit()
    assert one.ended(1) == (FAILED, Reason.TIMEOUT)


def test_result_after_the_timeout_counts(one: Play) -> None:
    """A result that crosses the cancellation is the outcome."""
    one.run(PATIENT)
    one.fire("timeout", 1)
    one.succeed(1)
    assert one.ended(1) == (SUCCEEDED, None)


# --- cancelling ---------------------------------------------------------------------------------------


def test_cancel_of_a_queued_call_is_immediate(one: Play) -> None:
    """A call that no worker has is stopped at once, and nothing is sent."""
    one.run()
    one.submit(2)
    assert not only(one.cancel(2), ev.SendCancel)
    assert one.ended(2) == (STOPPED, Reason.CANCELLED)
    assert one.cancel(2) == []


def test_cancel_of_a_running_call_waits_for_the_worker(one: Play) -> None:
    """A running call has ended when the worker says so; until then it counts as running."""
    one.run()
    one.submit(2)
    assert one.cancel(1) == [ev.SendCancel(1, 1), ev.StartTimer(1, Timer("cancel", 1, 1), 5.0)]
    assert one.cancel(1) == []
    assert only(one.cancelled(1), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_cancel_after_a_timeout_is_a_cancellation(one: Play) -> None:
    """A call that is cancelled after its timeout is stopped, and not tried again."""
    one.run(STUBBORN)
    one.fire("timeout", 1)
    assert one.cancel(1) == []
    one.cancelled(1)
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_failure_of_a_cancelled_call_is_not_tried_again(one: Play) -> None:
    """A cancelled run that raises another exception has failed with it, even if tries are left."""
    one.run(STUBBORN)
    one.cancel(1)
    one.fail(1)
    assert one.ended(1) == (FAILED, Reason.USER_EXCEPTION)


def test_ignored_cancellation_ends_the_process_and_queued_calls_go_on(one: Play) -> None:
    """After the grace period the process is ended; the waiting calls run in the next one."""
    one.run()
    one.submit(2)
    one.cancel(1)
    assert only(one.fire("cancel", 1), ev.EndWorker) == [ev.EndWorker(1, 1, 0.0)]
    assert only(one.exit(), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)
    assert one.work_statuses()[-1] == (STOPPED, Reason.CANCELLED)
    assert only(one.ready(), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]


def test_other_calls_of_an_ended_process_crash_or_are_tried_again(one: Play) -> None:
    """If a call ignores its cancellation, the other calls of its process fail with the reason crashed."""
    one.up(WIDE)
    one.submit(1)
    one.submit(2)
    one.cancel(1)
    one.fire("cancel", 1)
    assert one.ended(2) == (FAILED, Reason.CRASHED)
    assert "call 1 ignored its cancellation" in (one.watch.final(2).message or "")


def test_call_like_a_cancelled_one_is_a_new_one(one: Play) -> None:
    """A call does not join a call that is being cancelled."""
    one.run()
    one.cancel(1)
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].to is None


def test_late_result_answers_the_call_that_was_queued_for_it(one: Play) -> None:
    """If a cancelled call succeeds all the same, its result answers the same call that waits."""
    one.run()
    one.cancel(1)
    one.submit(2, "hash 1")
    assert not only(one.succeed(1), ev.SendCall)
    assert one.watch.stages(2) == [PENDING, SUCCEEDED]
    assert one.watch.final(2).message == "answered by call 1, which succeeded with the same arguments"


def test_run_that_cancels_itself_is_cancelled(one: Play) -> None:
    """A run that cancels itself stops the call with the reason cancelled."""
    one.up(WIDE)
    one.submit(1)
    one.cancelled(1)
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


# --- start and stop -----------------------------------------------------------------------------------


def test_start_launches_once(one: Play) -> None:
    """Two starts launch one worker; the start of a work that is up is done at once."""
    one.add()
    assert only(one.start() + one.start(), ev.LaunchWorker) == [ev.LaunchWorker(1, 1)]
    assert ev.WorkerUp(1) in one.ready()
    assert one.start() == [ev.WorkerUp(1)]
    assert one.work_statuses() == [(Stage.STARTED, None)]


def test_stop_of_an_absent_work_is_done_at_once(one: Play) -> None:
    """A stop of a work without a worker is answered at once, and changes no status."""
    one.add()
    assert only(one.stop(), ev.WorkerGone)
    assert one.work_statuses() == []


def test_stop_of_a_running_work(one: Play) -> None:
    """A stop stops waiting calls at once. Running calls stop with the worker, which has a deadline."""
    one.run()
    one.submit(2)
    commands = one.stop()
    assert commands[-2:] == [ev.SendStop(1, 5.0), ev.StartTimer(1, Timer("force", 1), 6.0)]
    assert one.ended(2) == (STOPPED, None)
    one.cancelled(1)
    one.leave(None)
    assert only(one.exit(), ev.WorkerGone)
    assert one.ended(1) == (STOPPED, None)
    assert one.work_statuses()[-1] == (STOPPED, None)


def test_stop_reason_is_that_of_the_calls_it_stops(one: Play) -> None:
    """The reason of a stop is in the statuses of waiting calls, of running calls and of the work."""
    one.run()
    one.submit(2)
    one.stop(Reason.SPOT_RETRIEVAL)
    one.exit()
    assert one.ended(1) == one.ended(2) == one.work_statuses()[-1] == (STOPPED, Reason.SPOT_RETRIEVAL)


def test_stop_that_takes_too_long_is_forced(one: Play) -> None:
    """The runtime ends a worker that does not end in time."""
    one.run()
    one.stop()
    assert one.fire("force") == [ev.EndWorker(1, 1, 0.0)]
    one.exit()
    assert one.ended(1) == (STOPPED, None)


def test_second_stop_adds_nothing(one: Play) -> None:
    """A second stop has no effect."""
    one.run()
    one.stop()
    assert one.stop() == []


def test_stop_while_starting_ends_the_launch_and_answers_the_start(one: Play) -> None:
    """A start that is followed by a stop fails when the worker is gone; nobody waits for ever."""
    one.launch()
    one.submit(1)
    assert only(one.stop(), ev.EndWorker) == [ev.EndWorker(1, 1, 5.0)]
    assert one.ended(1) == (STOPPED, None)
    (gone,) = only(one.launch_fails(Reason.CANCELLED), ev.WorkerGone)
    assert gone.failure == "it was stopped"


def test_ready_while_stopping_is_told_to_end(one: Play) -> None:
    """A worker that becomes ready after the stop gets no call, and is told to end as soon as it can be."""
    one.launch()
    one.submit(2)
    one.stop()
    assert one.ready() == [ev.SendStop(1, 5.0)]


def test_start_while_stopping_launches_again(one: Play) -> None:
    """A start after a stop launches the next worker when the old one is gone. That worker answers the start."""
    one.up()
    one.stop()
    one.start()
    commands = one.exit()
    assert only(commands, ev.WorkerGone) == [ev.WorkerGone(1, None)]
    assert only(commands, ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]
    assert ev.WorkerUp(1) in one.ready()


def test_stop_after_a_start_while_stopping_wins(one: Play) -> None:
    """After stop, start, stop the work stays stopped, and the start is answered with a failure."""
    one.up()
    one.stop()
    one.start()
    one.stop()
    (gone,) = only(one.exit(), ev.WorkerGone)
    assert gone.failure is not None
    assert one.phase is Phase.ABSENT


def test_call_after_a_stop_runs_in_the_next_worker(one: Play) -> None:
    """A call made while the work stops runs afterwards, even if the same call is being stopped."""
    one.run()
    one.stop()
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].to is None
    one.exit()
    assert only(one.ready(), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 1")]
    assert one.ended(1) == (STOPPED, None)


@pytest.mark.parametrize("how", ["result", "failure", "cancelled"])
def test_late_answer_while_stopping_counts(one: Play, how: str) -> None:
    """The worker's answer to a call is the outcome while the worker stops, too; a failure is not tried again."""
    one.run(STUBBORN)
    one.stop()
    {"result": one.succeed, "failure": one.fail, "cancelled": one.cancelled}[how](1)
    assert one.watch.final(1).stage is {"result": SUCCEEDED, "failure": FAILED, "cancelled": STOPPED}[how]
    one.exit()
    assert one.phase is Phase.ABSENT


def test_stop_ends_the_pause_of_a_retry(one: Play) -> None:
    """A call that waits for its retry is stopped with the work, and so is its timer."""
    one.run(STUBBORN)
    one.fail(1)
    one.stop()
    assert one.ended(1) == (STOPPED, None)


def test_cancel_while_stopping_is_a_cancellation(one: Play) -> None:
    """A call that is cancelled while its worker stops ends as cancelled."""
    one.run()
    one.stop()
    assert only(one.cancel(1), ev.SendCancel) == []
    one.exit()
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_worker_that_stops_by_itself_stops_its_calls(one: Play) -> None:
    """A worker that gets SIGTERM from outside stops its calls with that reason; waiting calls get the next worker."""
    one.run()
    one.submit(2)
    assert only(one.leave(), ev.StartTimer) == [ev.StartTimer(1, Timer("force", 1), 6.0)]
    assert only(one.exit(), ev.LaunchWorker)
    assert one.ended(1) == (STOPPED, Reason.SIGTERM_SIGNAL_HANDLER)
    assert one.work_statuses()[-1] == (STOPPED, Reason.SIGTERM_SIGNAL_HANDLER)


def test_calls_of_a_machine_taken_back_are_tried_again(one: Play) -> None:
    """A call that stopped because its spot machine was taken back is tried again if tries are left."""
    one.run(STUBBORN)
    one.leave(Reason.SPOT_RETRIEVAL)
    one.exit(Reason.SPOT_RETRIEVAL)
    assert only(one.fire("retry", 1), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]


# --- workers without a call ---------------------------------------------------------------------------


def test_idle_worker_is_ended_and_the_next_call_gets_another(one: Play) -> None:
    """With an idle_timeout a worker that has no call for so long is told to end; the next call launches another."""
    one.up(idle_timeout=30.0)
    one.submit(1)
    one.running(1)
    idle = Timer("idle", 1)
    assert ev.StartTimer(1, idle, 30.0) in one.succeed(1)
    assert only(one.fire("idle"), ev.SendStop) == [ev.SendStop(1, 5.0)]
    one.submit(2)
    assert only(one.exit(), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]
    assert (STOPPED, None) in one.work_statuses()
    assert idle not in one.watch.timers


def test_idle_time_ends_with_a_call_and_counts_anew(one: Play) -> None:
    """The idle time stops with a call, a delayed one included, and with the connection; it starts anew after both."""
    one.up(ev.Policy(retries=1, idle_timeout=30.0))
    idle = Timer("idle", 1)
    assert ev.StopTimer(1, idle) in one.submit(1)
    one.running(1)
    one.fail(1)
    assert idle not in one.watch.timers
    assert ev.StartTimer(1, idle, 30.0) in one.cancel(1)
    one.cut()
    assert idle not in one.watch.timers
    one.restore()
    assert idle in one.watch.timers


# --- unexpected ends ------------------------------------------------------------------------------------


def test_crash_while_running(one: Play) -> None:
    """The calls of a worker that dies fail at once with the reason; waiting calls get the next worker."""
    one.run()
    one.submit(2)
    commands = one.exit(Reason.OOM, "memory ran out")
    assert one.ended(1) == (FAILED, Reason.OOM)
    assert one.work_statuses()[-1] == (FAILED, Reason.OOM)
    assert only(commands, ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]


def test_crash_is_tried_again(one: Play) -> None:
    """A call whose worker died is tried again in a new worker if tries are left."""
    one.run(STUBBORN)
    one.exit()
    assert one.phase is Phase.ABSENT
    one.fire("retry", 1)
    assert only(one.ready(), ev.SendCall) == [ev.SendCall(1, 1, b"args", "hash 1")]


def test_crash_between_calls(one: Play) -> None:
    """The death of a worker without a call fails the work; the next call launches another worker."""
    one.run()
    one.succeed(1)
    one.exit()
    assert one.work_statuses()[-1] == (FAILED, Reason.CRASHED)
    assert only(one.submit(2), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]


def test_crash_before_ready(one: Play) -> None:
    """If a worker dies before it is ready, its start and waiting calls fail with the reason launch_failed."""
    one.launch()
    one.submit(1)
    (gone,) = only(one.exit(), ev.WorkerGone)
    assert gone.failure == "the worker ended before it was ready: exit code 3"
    assert one.ended(1) == (FAILED, Reason.LAUNCH_FAILED)
    assert one.work_statuses() == [(FAILED, Reason.LAUNCH_FAILED)]


def test_launch_that_fails(one: Play) -> None:
    """If the runtime refuses a launch, the start and the waiting calls fail."""
    one.launch()
    one.submit(1)
    (gone,) = only(one.launch_fails(), ev.WorkerGone)
    assert gone.failure == "no room"
    assert one.ended(1) == (FAILED, Reason.LAUNCH_FAILED)


def test_launch_that_fails_is_tried_again(one: Play) -> None:
    """A failed launch counts as a try of the calls that waited for it, so they may be tried again."""
    one.add(STUBBORN)
    one.submit(1)
    one.launch_fails()
    assert only(one.fire("retry", 1), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]


def test_launch_that_takes_too_long(one: Play) -> None:
    """A worker that is not ready in time is ended. Its calls and its start fail once, with the reason timeout."""
    one.launch()
    one.submit(1)
    assert one.fire("launch")[-1] == ev.EndWorker(1, 1, 0.0)
    assert one.ended(1) == (FAILED, Reason.TIMEOUT)
    (gone,) = only(one.exit(), ev.WorkerGone)
    assert gone.failure == "not ready within 60 s"
    assert one.work_statuses() == [(FAILED, Reason.TIMEOUT)]


def test_on_start_that_raises(one: Play) -> None:
    """If on_start raises, the start and the waiting calls fail with that error, and the work stays failed."""
    one.launch()
    one.submit(1)
    (settled,) = only(one.leave(Reason.USER_EXCEPTION, ERROR), ev.SettleCall)
    assert settled.outcome.error == ERROR
    (gone,) = only(one.exit(), ev.WorkerGone)
    assert gone.failure == "broken"
    assert one.work_statuses() == [(FAILED, Reason.USER_EXCEPTION)]


def test_link_cut_and_restored(one: Play) -> None:
    """A connection that comes back within the window ends no call; calls made meanwhile are sent then."""
    one.run(WIDE)
    assert one.cut() == [ev.StartTimer(1, Timer("window", 1), 30.0)]
    assert not only(one.submit(2), ev.SendCall)
    commands = one.restore()
    assert ev.StopTimer(1, Timer("window", 1)) in commands
    assert only(commands, ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]
    one.succeed(1)
    assert one.ended(1) == (SUCCEEDED, None)


def test_answer_received_while_cut_counts(one: Play) -> None:
    """An answer that has arrived counts, even if the connection is known to be lost."""
    one.run()
    one.cut()
    one.succeed(1)
    assert one.ended(1) == (SUCCEEDED, None)


def test_link_gone_for_longer_than_the_window(one: Play) -> None:
    """A worker without a connection for too long is ended; then its calls fail with the reason lost."""
    one.run()
    one.cut()
    assert one.fire("window")[-1] == ev.EndWorker(1, 1, 0.0)
    one.exit()
    assert one.ended(1) == (FAILED, Reason.LOST)
    assert one.work_statuses()[-1] == (FAILED, Reason.LOST)


def test_stop_while_lost_keeps_the_work_stopped(one: Play) -> None:
    """After a stop no call of a lost worker is tried again."""
    one.run(STUBBORN)
    one.cut()
    one.fire("window")
    one.stop()
    one.exit()
    assert one.ended(1) == (FAILED, Reason.LOST)
    assert one.phase is Phase.ABSENT


def test_stop_while_cut_goes_through_the_runtime(one: Play) -> None:
    """The runtime stops a worker that has no connection, within its grace period."""
    one.run()
    one.cut()
    assert one.stop()[-2:] == [ev.EndWorker(1, 1, 5.0), ev.StartTimer(1, Timer("force", 1), 6.0)]
    one.exit()
    assert one.ended(1) == (STOPPED, None)


def test_timeout_runs_on_while_cut(one: Play) -> None:
    """A call times out without a connection; the connection keeps the cancellation until it is back."""
    one.run(PATIENT)
    one.cut()
    assert only(one.fire("timeout", 1), ev.SendCancel) == [ev.SendCancel(1, 1)]


# --- after a killed scheduler ---------------------------------------------------------------------------


def brief(command: ev.Command) -> str:
    """A command in a few words."""
    match command:
        case ev.StartTimer():
            return f"start {command.timer.kind} {command.delay:g}"
        case ev.StopTimer():
            return f"stop {command.timer.kind}"
        case ev.PublishStatus(status=status):
            return " ".join(["publish", *([str(status.call)] if status.call else []), status.stage])
        case ev.SettleCall(outcome=outcome):
            return f"settle {command.call} {outcome.status.stage} {outcome.status.reason}"
        case ev.SendCall() | ev.SendCancel() | ev.RestoreCall():
            return f"{type(command).__name__} {command.call}"
        case ev.LaunchWorker():
            return f"LaunchWorker {command.attempt}{' again' if command.again else ''}"
        case ev.ResolveSubmit() | ev.SendStop() | ev.EndWorker() | ev.WorkerUp() | ev.WorkerGone() | ev.Forget():
            return type(command).__name__
        case _:
            assert_never(command)


RECOVERY: dict[tuple[Phase, type], tuple[str, str]] = {
    (Phase.ABSENT, ev.SchedulerResumed): ("add; resume", ""),
    (Phase.STARTING, ev.SchedulerResumed): ("launch; resume", "start launch 60"),
    (Phase.UP, ev.SchedulerResumed): ("run; resume", "start window 30"),
    (Phase.CUT, ev.SchedulerResumed): ("run; cut; resume", "start window 30"),
    (Phase.STOPPING, ev.SchedulerResumed): ("run; stop; resume", "start force 30"),
    (Phase.ABSENT, ev.WorkerReturned): ("run; resume; exit; returned 1 9", ""),
    (Phase.STARTING, ev.WorkerReturned): (
        "launch; submit 1; resume; returned 1 9",
        "stop launch, publish started, WorkerUp, RestoreCall 9, publish 9 pending",
    ),
    (Phase.UP, ev.WorkerReturned): ("run; resume; returned 1; returned 1", ""),
    (Phase.CUT, ev.WorkerReturned): ("run; resume; returned 1 9", "stop window, RestoreCall 9, publish 9 pending"),
    (Phase.STOPPING, ev.WorkerReturned): ("run; stop; resume; returned 1 9", "RestoreCall 9, publish 9 pending"),
    (Phase.ABSENT, ev.WorkerCaughtUp): ("run; resume; returned 1; exit; caught_up 1", ""),
    (Phase.STARTING, ev.WorkerCaughtUp): ("launch; submit 1; resume; returned; caught_up", ""),
    (Phase.UP, ev.WorkerCaughtUp): ("run; resume; returned; caught_up", "SendCall 1"),
    (Phase.CUT, ev.WorkerCaughtUp): ("run; resume; returned; cut; caught_up", "SendCall 1"),
    (Phase.STOPPING, ev.WorkerCaughtUp): ("run; stop; resume; returned; caught_up", "SendStop, start force 6"),
    (Phase.ABSENT, ev.WorkerNeverLaunched): ("run; exit; never_launched", ""),
    (Phase.STARTING, ev.WorkerNeverLaunched): (
        "launch; submit 1; resume; never_launched",
        "LaunchWorker 1 again, start launch 60",
    ),
    (Phase.UP, ev.WorkerNeverLaunched): (
        "run; resume; returned 1; never_launched",
        "settle 1 failed lost, publish failed, WorkerGone",
    ),
    (Phase.CUT, ev.WorkerNeverLaunched): (
        "run; resume; never_launched",
        "stop window, settle 1 failed lost, publish failed, WorkerGone",
    ),
    (Phase.STOPPING, ev.WorkerNeverLaunched): (
        "run; stop; resume; never_launched",
        "stop force, settle 1 stopped None, publish stopped, WorkerGone",
    ),
    (Phase.ABSENT, ev.WorkAdded): ("run; succeed 1; exit; add_uncached", ""),
    (Phase.STARTING, ev.WorkAdded): ("run; succeed 1; exit; start; add_uncached", ""),
    (Phase.UP, ev.WorkAdded): ("run; succeed 1; add_uncached", "stop idle"),
    (Phase.CUT, ev.WorkAdded): ("run; succeed 1; cut; add_uncached", ""),
    (Phase.STOPPING, ev.WorkAdded): ("run; succeed 1; stop; add_uncached", ""),
}
"""Steps to a phase, the last of them the event; and what follows from it. An asterisk: calls are tried again."""


def play(one: Play, steps: str) -> list[ev.Command]:
    """Take the steps; return the commands of the last one."""
    commands: list[ev.Command] = []
    for step in steps.split("; "):
        name, *words = step.split()
        arguments: list[Any] = [int(word) if word.isdigit() else word for word in words]
        if name[-1] in "*?":
            arguments.append(STUBBORN if name[-1] == "*" else PATIENT)
        commands = getattr(one, name.rstrip("*?"))(*arguments)
    return commands


def test_every_recovery_event_has_a_row_for_every_phase() -> None:
    """The rows below leave no phase out."""
    kinds = {kind for _, kind in RECOVERY}
    assert {
        ev.SchedulerResumed, ev.WorkerReturned, ev.WorkerCaughtUp, ev.WorkerNeverLaunched, ev.WorkAdded,
    } == kinds  # fmt: skip
    assert RECOVERY.keys() == {(phase, kind) for phase in Phase for kind in kinds}


@pytest.mark.parametrize("row", RECOVERY, ids=lambda row: f"{row[0]}-{row[1].__name__}")
def test_recovery_event_in_each_phase(one: Play, row: tuple[Phase, type]) -> None:
    """A recovery event leads to these commands, in this order, and to a phase of the table."""
    phase, kind = row
    steps, expected = RECOVERY[row]
    before, _, event = steps.rpartition("; ")
    play(one, before)
    assert one.phase is phase
    assert ", ".join(map(brief, play(one, event))) == expected
    assert one.watch.latest is kind
    if kind is ev.WorkAdded:
        assert not one.watch.live_work(1).results


def test_returned_worker_runs_the_calls_that_it_has(one: Play) -> None:
    """A call that the worker has is not sent again, whether it is running, queued or delayed in the journal."""
    one.up(ev.Policy(concurrency=3, retries=1))
    one.submit(1)
    one.submit(2)
    one.fail(2)
    one.cut()
    one.submit(3)
    one.resume()
    assert StopRetry in one.returned(1, 2, 3)
    assert not one.watch.live_work(1).queue
    assert only(one.caught_up(1, 2, 3), ev.SendCall) == []
    for call in (1, 2, 3):
        one.succeed(call)
        assert one.ended(call) == (SUCCEEDED, None)


StopRetry = ev.StopTimer(1, Timer("retry", 1, 2))


def test_returned_worker_takes_no_more_than_its_concurrency(one: Play) -> None:
    """The calls that a worker has count before those of the queue: an older one waits behind a later one."""
    one.launch()
    one.submit(1)
    one.submit(2)
    one.resume()
    one.returned(2)
    assert only(one.caught_up(2), ev.SendCall) == []
    assert only(one.succeed(2), ev.SendCall) == [ev.SendCall(1, 1, b"args", "hash 1")]


def test_unknown_call_of_a_returned_worker_can_be_joined(one: Play) -> None:
    """A call that is in no journal begins as pending, in its first attempt, and the same call joins it."""
    one.up()
    one.resume()
    restored, published = one.returned(9)[1:]
    assert restored == ev.RestoreCall(1, 9, "hash 9")
    assert isinstance(published, ev.PublishStatus)
    assert (published.status.stage, published.status.attempt, published.hash) == (PENDING, 1, "hash 9")
    (adopt,) = one.submit(10, "hash 9")
    assert isinstance(adopt, ev.ResolveSubmit)
    assert adopt.to == 9
    one.succeed(9)
    assert one.ended(9) == (SUCCEEDED, None)


@pytest.mark.parametrize("how", ["fail", "exit"])
def test_unknown_call_of_a_returned_worker_is_not_tried_again(one: Play, how: str) -> None:
    """The arguments of a call that is in no journal are lost, so one failure is final, whatever the policy says."""
    one.up(STUBBORN)
    one.resume()
    one.returned(9)
    one.add_again(ev.Policy(retries=5))
    one.caught_up(9)
    play(one, {"fail": "fail 9", "exit": "exit"}[how])
    assert one.ended(9)[0] is FAILED
    assert Timer("retry", 1, 9) not in one.watch.timers


def test_call_of_a_stopping_worker_cannot_be_joined(one: Play) -> None:
    """No call joins a call that a stopping worker has: most likely it will not be done."""
    one.launch(STUBBORN)
    one.submit(1)
    one.fire("launch")
    one.resume()
    one.returned(1, 9)
    one.submit(2, "hash 1")
    one.submit(10, "hash 9")
    assert (one.watch.adopted[2].to, one.watch.adopted[10].to) == (None, None)


def test_call_of_a_worker_that_was_given_up_fails_with_it(one: Play) -> None:
    """A worker that returns after its launch timed out is ended; the calls that it has fail as its start did."""
    one.launch()
    one.fire("launch")
    one.resume()
    one.returned(9)
    one.exit()
    assert one.ended(9) == (FAILED, Reason.LAUNCH_FAILED)
    assert one.watch.final(9).message == "not ready within 60 s"
    assert one.work_statuses() == [(FAILED, Reason.TIMEOUT)]


def test_nothing_is_sent_before_a_returned_worker_has_caught_up(one: Play) -> None:
    """Calls and cancellations wait until everything that the worker had sent is here; then only the open ones go."""
    one.run(WIDE)
    one.submit(2)
    one.resume()
    assert not only(one.cancel(1), ev.SendCancel)
    one.returned(1, 2)
    assert one.watch.live_work(1).contact is Contact.BEHIND
    one.succeed(2)
    assert not only(one.submit(3), ev.SendCall)
    assert [brief(command) for command in one.caught_up(1)] == ["SendCancel 1", "SendCall 3"]
    assert one.watch.live_work(1).contact is Contact.LIVE


def test_cancelled_call_that_has_not_reached_the_worker_has_ended(one: Play) -> None:
    """A call is not sent to a returned worker to be cancelled there."""
    one.run()
    one.submit(2)
    one.cancel(1)
    one.resume()
    one.returned()
    assert only(one.caught_up(), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_result_that_a_returned_worker_brings_answers_the_same_call(one: Play) -> None:
    """A call that has not reached the worker does not run if a success with the same arguments has arrived."""
    one.run(WIDE)
    one.cancel(1)
    one.submit(2, "hash 1")
    one.resume()
    one.returned(1)
    one.succeed(1)
    assert not only(one.caught_up(), ev.SendCall)
    assert one.ended(2) == (SUCCEEDED, None)
    assert one.watch.final(2).message == "answered by call 1, which succeeded with the same arguments"


def test_stop_waits_until_a_returned_worker_has_caught_up(one: Play) -> None:
    """A worker that is told to end before its results are here could lose them: it is told after that."""
    one.run()
    one.resume()
    assert not only(one.stop(), ev.SendStop)
    one.returned(1)
    one.succeed(1)
    assert one.caught_up() == [ev.SendStop(1, 5.0), ev.StartTimer(1, Timer("force", 1), 6.0)]
    assert one.ended(1) == (SUCCEEDED, None)


def test_call_that_ended_while_the_worker_was_away_is_cancelled_there(one: Play) -> None:
    """A queued call that was cancelled has ended; the worker that has it after all cancels it, and nobody is told."""
    one.launch()
    one.submit(1)
    one.resume()
    one.cancel(1)
    commands = one.returned(1)
    assert not only(commands, ev.RestoreCall)
    assert one.watch.live_work(1).running
    assert only(one.caught_up(1), ev.SendCancel) == [ev.SendCancel(1, 1)]
    assert one.running(1) == []
    assert only(one.cancelled(1), ev.SettleCall) == []
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_success_of_a_call_that_ended_while_the_worker_was_away_is_kept(one: Play) -> None:
    """What has succeeded does not run again, even if its caller was told that it was cancelled."""
    one.launch()
    one.submit(1)
    one.resume()
    one.cancel(1)
    one.returned(1)
    assert only(one.succeed(1), ev.SettleCall) == []
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].to == 1
    assert one.ended(1) == (STOPPED, Reason.CANCELLED)


def test_worker_that_the_killed_scheduler_had_not_met_is_a_new_one(one: Play) -> None:
    """A worker that connects for the first time has no calls, and gets those of the queue when it is ready."""
    one.launch()
    one.submit(1)
    one.submit(2)
    one.resume()
    one.cancel(2)
    assert only(one.ready(), ev.SendCall) == [ev.SendCall(1, 1, b"args", "hash 1")]
    assert one.watch.live_work(1).contact is Contact.LIVE
    assert not one.watch.live_work(1).over


def test_worker_that_the_killed_scheduler_had_not_met_can_be_stopped(one: Play) -> None:
    """A worker that connects for the first time while it is to end is told so when it is ready."""
    one.launch()
    one.resume()
    one.stop()
    assert one.ready() == [ev.SendStop(1, 5.0)]


def test_ready_of_a_returned_worker_may_follow_its_calls(one: Play) -> None:
    """A worker that returns with calls was ready. Its own message, which comes later, changes nothing."""
    one.launch()
    one.submit(1)
    one.resume()
    assert ev.WorkerUp(1) in one.returned(1)
    assert one.ready() == []
    one.cut()
    assert one.ready() == []
    one.restore()
    one.caught_up(1)
    with pytest.raises(MachineError, match="while its worker is up"):
        one.watch.machine.handle(ev.WorkerReady(1, 1), 100.0)


def test_returned_worker_without_calls_is_up_when_it_says_so(one: Play) -> None:
    """A worker that returns before it was ready gets its first call when it has caught up."""
    one.launch()
    one.submit(1)
    one.resume()
    assert one.returned() == []
    assert not only(one.ready(), ev.SendCall)
    assert only(one.caught_up(), ev.SendCall) == [ev.SendCall(1, 1, b"args", "hash 1")]


def test_stopping_worker_is_told_to_end_when_it_has_caught_up(one: Play) -> None:
    """A worker that becomes ready too late is told to end when it has caught up, and not before."""
    one.launch()
    one.stop()
    one.resume()
    one.returned()
    assert one.ready() == []
    assert only(one.caught_up(), ev.SendStop) == [ev.SendStop(1, 5.0)]


def test_end_of_a_stopping_worker_is_bounded_after_a_resume(one: Play) -> None:
    """The end of a worker has a new bound: the longer of the reconnect window and the grace period."""
    one.run(grace=60.0)
    one.stop()
    one.fire("force")
    assert one.resume() == [ev.StartTimer(1, Timer("force", 1), 61.0)]
    assert one.fire("force") == [ev.EndWorker(1, 1, 0.0)]


def test_second_scheduler_that_is_killed_knows_what_ended(one: Play) -> None:
    """A call that has ended is not restored, even if two schedulers were killed before the worker was back."""
    one.launch(WIDE)
    one.submit(1)
    one.submit(2)
    one.resume()
    one.cancel(1)
    one.resume()
    one.cancel(2)
    assert not only(one.returned(1, 2), ev.RestoreCall)


def test_worker_that_was_never_launched_is_launched_unless_it_was_stopped(one: Play) -> None:
    """A worker that was never launched is launched in the same attempt, or in the next one if it was to end."""
    one.launch()
    one.submit(1)
    one.resume()
    assert only(one.never_launched(), ev.LaunchWorker) == [ev.LaunchWorker(1, 1, again=True)]
    assert one.watch.live_work(1).contact is Contact.LIVE
    one.stop()
    one.submit(2)
    assert only(one.never_launched(), ev.LaunchWorker) == [ev.LaunchWorker(1, 2)]
    assert ev.WorkerUp(1) in one.ready()


def test_messages_of_a_worker_that_was_never_launched(one: Play) -> None:
    """The statuses say why: it was stopped, or its runtime does not know it."""
    one.run()
    one.resume()
    one.never_launched()
    assert one.watch.final(1).message == "its runtime does not know it any more"
    one.start()
    one.stop()
    (gone,) = only(one.never_launched(), ev.WorkerGone)
    assert gone.failure == "it was stopped"
    assert one.work_statuses()[-1] == (STOPPED, None)


# --- another policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["up", "cut"])
def test_results_are_forgotten_if_the_new_policy_does_not_keep_them(one: Play, state: str) -> None:
    """A call that had succeeded runs again, also if the next policy keeps results again."""
    one.run()
    one.succeed(1)
    if state == "cut":
        one.cut()
    one.add_again(cache_calls=False)
    one.add_again(cache_calls=True)
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].to is None


def test_results_are_kept_if_the_new_policy_keeps_them(one: Play) -> None:
    """Another policy alone makes no call run again."""
    one.run()
    one.succeed(1)
    one.add_again(retries=3)
    one.submit(2, "hash 1")
    assert one.watch.adopted[2].to == 1


def test_timeout_that_is_taken_away_does_not_fire(one: Play) -> None:
    """Without a timeout a run goes on; one that is being ended for it has taken too long all the same."""
    one.run(ev.Policy(timeout=10.0, concurrency=2))
    one.submit(2)
    one.running(2)
    one.fire("timeout", 2)
    assert ev.StopTimer(1, Timer("timeout", 1, 1)) in one.add_again(concurrency=2)
    assert Timer("timeout", 1, 1) not in one.watch.timers
    one.cancelled(2)
    assert one.ended(2) == (FAILED, Reason.TIMEOUT)
    assert one.watch.final(2).message == "the run took too long"


def test_timeout_that_is_new_counts_from_then(one: Play) -> None:
    """A run that goes on has the new timeout from now on, unless it is being ended; a call that waits has its own."""
    one.run(concurrency=3)
    one.submit(2)
    one.submit(3)
    one.running(3)
    one.cancel(3)
    started = only(one.add_again(concurrency=3, timeout=20.0), ev.StartTimer)
    assert started == [ev.StartTimer(1, Timer("timeout", 1, 1), 20.0)]
    assert only(one.add_again(concurrency=3, timeout=20.0), ev.StartTimer) == []
    assert only(one.running(2), ev.StartTimer) == [ev.StartTimer(1, Timer("timeout", 1, 2), 20.0)]


def test_idle_timeout_that_changes(one: Play) -> None:
    """An idle timeout that is taken away does not fire; a new one counts from now on."""
    one.up(idle_timeout=30.0)
    assert one.add_again() == [ev.StopTimer(1, Timer("idle", 1))]
    assert one.add_again(idle_timeout=40.0) == [ev.StartTimer(1, Timer("idle", 1), 40.0)]


def test_concurrency_that_grows_sends_more(one: Play) -> None:
    """Calls that wait are sent as soon as the new policy lets them."""
    one.run()
    one.submit(2)
    assert only(one.add_again(WIDE), ev.SendCall) == [ev.SendCall(1, 2, b"args", "hash 2")]


# --- removed works, late events, bugs -------------------------------------------------------------------


def test_removed_work_is_forgotten_when_its_worker_is_gone(one: Play) -> None:
    """A removed work stops like any other, and is forgotten then; later events about it are ignored."""
    one.run()
    one.submit(2)
    assert only(one.remove(), ev.SendStop)
    assert one.ended(2) == (STOPPED, None)
    assert one.exit()[-1] == ev.Forget(1)
    assert one.watch.feed(ev.CallSucceeded(1, 1, 1, b"")) == []
    assert one.watch.feed(ev.CancelRequested(1, 1)) == []


def test_start_of_a_removed_work_comes_to_nothing(one: Play) -> None:
    """A start after the removal is answered with a failure when the worker is gone."""
    one.up()
    one.remove()
    one.start()
    (gone,) = only(one.exit(), ev.WorkerGone)
    assert gone.failure is not None


def test_call_of_a_removed_work_is_a_bug(one: Play) -> None:
    """A call of a removed work raises, since nothing would ever settle it."""
    one.up()
    one.remove()
    with pytest.raises(
        MachineError, match=r"CallSubmitted\(.*\) cannot come for root\.w after it was removed\nthe story"
    ):
        one.watch.machine.handle(ev.CallSubmitted(1, 1, "hash", b""), 100.0)


def test_facts_of_an_old_attempt_are_fenced_off(one: Play) -> None:
    """A message of an earlier worker changes nothing, even if the same call runs again."""
    one.run(STUBBORN)
    one.exit()
    one.fire("retry", 1)
    one.ready()
    one.running(1)
    assert one(ev.CallSucceeded(1, 1, 1, b"old")) == []
    assert one(ev.WorkerExited(1, 1, Reason.CRASHED, "again")) == []
    one.succeed(1)
    assert one.ended(1) == (SUCCEEDED, None)


def test_unknown_work_is_a_bug() -> None:
    """A call of a work that was never added raises, and names the event."""
    with pytest.raises(MachineError, match="CallSubmitted"):
        Machine().handle(ev.CallSubmitted(7, 1, "hash", b""), 0.0)


def test_machine_error_survives_pickling(one: Play) -> None:
    """The error of an impossible event can be sent to another process with its story."""
    one.up()
    with pytest.raises(MachineError) as caught:
        one.watch.machine.handle(ev.WorkerReady(1, 1), 100.0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_several_works_do_not_disturb_each_other(one: Play) -> None:
    """The crash of one work leaves the calls of another alone."""
    one.run()
    one(ev.WorkAdded(2, "root.v", ev.Policy()))
    one(ev.CallSubmitted(2, 9, "hash 1", b""))
    one.exit()
    assert one.watch.calls[9].outcome is None
    one(ev.WorkRemoved(1))
    assert one.watch.phase(2) is Phase.STARTING


# --- the table ------------------------------------------------------------------------------------------

EVENTS: dict[type, ev.Event] = {
    type(event): event
    for event in (
        ev.WorkAdded(1, "root.w", ev.Policy()),
        ev.WorkRemoved(1),
        ev.StartRequested(1),
        ev.StopRequested(1),
        ev.CallSubmitted(1, 50, "hash 50", b""),
        ev.CancelRequested(1, 1),
        ev.WorkerLaunchFailed(1, 1, Reason.LAUNCH_FAILED, "no room"),
        ev.WorkerReady(1, 1),
        ev.CallRunning(1, 1, 1),
        ev.CallSucceeded(1, 1, 1, b"\x01"),
        ev.SchedulerResumed(1),
        ev.WorkerReturned(1, 1, ()),
        ev.WorkerCaughtUp(1, 1, frozenset()),
        ev.WorkerNeverLaunched(1, 1),
        ev.CallFailed(1, 1, 1, Reason.USER_EXCEPTION, ERROR),
        ev.CallCancelled(1, 1, 1),
        ev.WorkerStopping(1, 1),
        ev.LinkLost(1, 1),
        ev.LinkRestored(1, 1),
        ev.WorkerExited(1, 1, Reason.CRASHED, "exit code 3"),
        ev.TimerFired(1, Timer("timeout", 1, 99)),
    )
}
"""One event of each kind about the first attempt of work 1 and its call 1."""


def bring_to(one: Play, phase: Phase) -> None:
    """Bring the first attempt to a phase, where there is a worker with call 1 sent."""
    one.up()
    one.submit(1)
    match phase:
        case Phase.ABSENT:
            one.exit()
        case Phase.STARTING:
            one.watch = Watch()
            one.launch()
        case Phase.CUT:
            one.cut()
        case Phase.STOPPING:
            one.stop()
        case Phase.UP:
            pass


def test_every_event_has_an_example() -> None:
    """The walk below covers each kind of event."""
    assert EVENTS.keys() == set(get_args(ev.Event))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", Phase)
def test_table_is_walked(one: Play, phase: Phase, kind: type) -> None:
    """In each phase each event is in the table, or is late and changes nothing, or raises with the recent story."""
    bring_to(one, phase)
    event = EVENTS[kind]
    if isinstance(event, ev.TimerFired):
        one.watch.timers.add(event.timer)
    if kind in (ev.WorkerReady, ev.WorkerCaughtUp) and phase in (Phase.UP, Phase.CUT):
        one.resume()  # possible only from a worker that has returned
        one.returned(1)
        if phase is Phase.CUT:
            one.cut()
    elif kind in (ev.WorkerReturned, ev.WorkerCaughtUp) and phase is not Phase.UP:
        one.resume()
    if (phase, kind) in TABLE:
        one(event)  # the watch compares the phase after it with the table
    elif kind in LATE:
        assert one(event) == []
        assert one.phase is phase
    else:
        why = rf"{kind.__name__}\(.*\) cannot come for root\.w while its worker is {phase}\nthe story so far:\n"
        why += r"(.*\n)*.*: StartRequested\n"
        with pytest.raises(MachineError, match=why):
            one.watch.machine.handle(event, 100.0)
        assert one.phase is phase


EDGES: dict[tuple[Phase, type, Phase | None], str] = {
    (Phase.ABSENT, ev.CallSubmitted, Phase.STARTING): "add; submit 1",
    (Phase.ABSENT, ev.StartRequested, Phase.STARTING): "add; start",
    (Phase.ABSENT, ev.TimerFired, Phase.STARTING): "run*; exit; fire retry 1",
    (Phase.ABSENT, ev.WorkRemoved, None): "add; remove",
    (Phase.STARTING, ev.StopRequested, Phase.STOPPING): "launch; stop",
    (Phase.STARTING, ev.WorkRemoved, Phase.STOPPING): "launch; remove",
    (Phase.STARTING, ev.TimerFired, Phase.STOPPING): "launch; fire launch",
    (Phase.STARTING, ev.WorkerLaunchFailed, Phase.ABSENT): "launch; launch_fails",
    (Phase.STARTING, ev.WorkerExited, Phase.ABSENT): "launch; exit",
    (Phase.STARTING, ev.WorkerReady, Phase.UP): "launch; ready",
    (Phase.STARTING, ev.WorkerStopping, Phase.STOPPING): "launch; leave",
    (Phase.UP, ev.StopRequested, Phase.STOPPING): "up; stop",
    (Phase.UP, ev.WorkRemoved, Phase.STOPPING): "up; remove",
    (Phase.UP, ev.TimerFired, Phase.STOPPING): "run; cancel 1; fire cancel 1",
    (Phase.UP, ev.WorkerExited, Phase.ABSENT): "up; exit",
    (Phase.UP, ev.WorkerExited, Phase.STARTING): "run; submit 2; exit",
    (Phase.UP, ev.LinkLost, Phase.CUT): "up; cut",
    (Phase.UP, ev.WorkerStopping, Phase.STOPPING): "up; leave",
    (Phase.CUT, ev.StopRequested, Phase.STOPPING): "up; cut; stop",
    (Phase.CUT, ev.WorkRemoved, Phase.STOPPING): "up; cut; remove",
    (Phase.CUT, ev.TimerFired, Phase.STOPPING): "up; cut; fire window",
    (Phase.CUT, ev.WorkerExited, Phase.ABSENT): "up; cut; exit",
    (Phase.CUT, ev.WorkerExited, Phase.STARTING): "up; cut; submit 1; exit",
    (Phase.CUT, ev.LinkRestored, Phase.UP): "up; cut; restore",
    (Phase.CUT, ev.WorkerStopping, Phase.STOPPING): "up; cut; leave",
    (Phase.STOPPING, ev.WorkerLaunchFailed, Phase.ABSENT): "launch; stop; launch_fails",
    (Phase.STOPPING, ev.WorkerLaunchFailed, Phase.STARTING): "launch; stop; start; launch_fails",
    (Phase.STOPPING, ev.WorkerLaunchFailed, None): "launch; remove; launch_fails",
    (Phase.STOPPING, ev.WorkerExited, Phase.ABSENT): "up; stop; exit",
    (Phase.STOPPING, ev.WorkerExited, Phase.STARTING): "up; stop; submit 1; exit",
    (Phase.STOPPING, ev.WorkerExited, None): "up; remove; exit",
    (Phase.UP, ev.SchedulerResumed, Phase.CUT): "up; resume",
    (Phase.STARTING, ev.WorkerReturned, Phase.UP): "launch; resume; returned 1",
    (Phase.CUT, ev.WorkerReturned, Phase.UP): "up; resume; returned",
    (Phase.UP, ev.WorkerNeverLaunched, Phase.ABSENT): "up; resume; returned; never_launched",
    (Phase.UP, ev.WorkerNeverLaunched, Phase.STARTING): "run; submit 2; resume; returned 1; never_launched",
    (Phase.CUT, ev.WorkerNeverLaunched, Phase.ABSENT): "up; resume; never_launched",
    (Phase.CUT, ev.WorkerNeverLaunched, Phase.STARTING): "up; resume; submit 1; never_launched",
    (Phase.STOPPING, ev.WorkerNeverLaunched, Phase.ABSENT): "launch; resume; stop; never_launched",
    (Phase.STOPPING, ev.WorkerNeverLaunched, Phase.STARTING): "launch; resume; stop; start; never_launched",
    (Phase.STOPPING, ev.WorkerNeverLaunched, None): "launch; resume; remove; never_launched",
}
"""Steps that take each arrow; with an asterisk, calls are tried again."""


def test_every_arrow_has_a_way() -> None:
    """The test below walks all arrows of the table, and no others."""
    arrows = {(phase, kind, to) for (phase, kind), row in TABLE.items() for to in row.to if to is not phase}
    assert EDGES.keys() == arrows


@pytest.mark.parametrize("arrow", EDGES, ids=lambda arrow: f"{arrow[0]}-{arrow[1].__name__}-{arrow[2]}")
def test_every_arrow_can_be_taken(one: Play, arrow: tuple[Phase, type, Phase | None]) -> None:
    """The table promises no transition that the machine cannot make."""
    play(one, EDGES[arrow])
    assert arrow in one.watch.edges


# --- texts, numbers, books --------------------------------------------------------------------------------

NOT_READY, NO_LINK, UNSEEN = "not ready within 60 s", "no connection for 30 s", "its runtime does not know it any more"
EARLY, TOLD = "the worker ended before it was ready", "the worker was asked to end"

MESSAGES: dict[str, tuple[str, str | None, str | None]] = {
    "call_timeout": ("run?; fire timeout 1; cancelled 1", "the run took longer than 10 s", "-"),
    "cancel_of_a_queued_call": ("add; submit 1; cancel 1", "cancelled before it ran", "-"),
    "cancel_of_a_running_call": ("run; cancel 1; cancelled 1", None, "-"),
    "stop_of_a_queued_call": ("add; submit 1; stop; launch_fails", "stopped before it ran", None),
    "stop_of_a_running_call": ("run; stop; exit", None, None),
    "ignored_cancellation": ("run; cancel 1; fire cancel 1; exit", None, "call 1 ignored its cancellation"),
    "launch_timeout": ("add; submit 1; fire launch; exit", NOT_READY, NOT_READY),
    "launch_fails": ("add; submit 1; launch_fails", "no room", "no room"),
    "exit_before_ready": ("add; submit 1; exit", f"{EARLY}: exit code 3", f"{EARLY}: exit code 3"),
    "leave_before_ready": ("add; submit 1; leave; exit", EARLY, EARLY),
    "leave": ("run; leave; exit", TOLD, TOLD),
    "exit": ("run; exit", "exit code 3", "exit code 3"),
    "window": ("run; cut; fire window; exit", NO_LINK, NO_LINK),
    "unknown_to_its_runtime": ("run; resume; never_launched", UNSEEN, UNSEEN),
    "never_launched_and_stopped": ("run; stop; resume; never_launched", None, None),
    "retry": ("run*; exit", "exit code 3", "exit code 3"),
}
"""Steps, then the messages of the last status of call 1 and of the work; a dash: the work has none.

An asterisk stands for a work whose calls are tried again, a question mark for one whose calls have a timeout.
"""


@pytest.mark.parametrize("name", MESSAGES)
def test_last_statuses_say_why(one: Play, name: str) -> None:
    """The last status of a call, and of its work, says in words why it is the last."""
    steps, of_call, of_work = MESSAGES[name]
    play(one, steps)
    assert one.watch.calls[1].statuses[-1].message == of_call
    statuses = [
        status for _, status in one.watch.published if status.call is None and status.stage is not Stage.STARTED
    ]
    assert [status.message for status in statuses[-1:]] == ([] if of_work == "-" else [of_work])


def test_commands_of_a_new_call_come_in_this_order(one: Play) -> None:
    """A worker that is up gets the call first, and then the caller its answer; a launch follows the answer."""
    one.add()
    assert [type(command) for command in one.submit(1)] == [ev.ResolveSubmit, ev.LaunchWorker, ev.StartTimer]
    one.ready()
    one.succeed(1)
    assert [type(command) for command in one.submit(2)] == [ev.SendCall, ev.ResolveSubmit]


def test_success_ends_the_memory_of_a_failure(one: Play) -> None:
    """A failure explains a later call until the same call succeeds; the success of another call leaves it alone."""
    one.run()
    one.fail(1)
    one.submit(2)
    one.succeed(2)
    one.submit(3, "hash 1")
    assert one.watch.adopted[3].reason == "runs: call 1 with the same arguments did not succeed"
    one.succeed(3)
    assert not one.watch.live_work(1).failed


def test_a_hundred_failures_are_remembered(one: Play) -> None:
    """The oldest failure is forgotten when there is one more than a hundred."""
    one.up()
    for call in range(1, 101):
        one.submit(call)
        one.fail(call)
    assert list(one.watch.live_work(1).failed.values()) == list(range(1, 101))
    one.submit(101)
    one.fail(101)
    assert list(one.watch.live_work(1).failed.values()) == list(range(2, 102))


@pytest.mark.parametrize("kind", ["launch", "window", "force", "idle", "timeout", "cancel", "retry"])
@pytest.mark.parametrize("phase", Phase)
def test_timer_without_a_reason_does_nothing(one: Play, phase: Phase, kind: Any) -> None:
    """A timer that fires when its phase has passed, or its call has ended, changes nothing."""
    bring_to(one, phase)
    expected = {"launch": Phase.STARTING, "window": Phase.CUT, "force": Phase.STOPPING}
    if expected.get(kind) is not phase:
        assert one.watch.machine.handle(ev.TimerFired(1, Timer(kind, 1, 99)), 100.0) == []
        assert one.phase is phase


def test_idle_worker_says_why_it_has_ended(one: Play) -> None:
    """The last status of an idle worker names the setting."""
    one.up(idle_timeout=30.0)
    one.fire("idle")
    one.exit()
    assert one.watch.published[-1][1].message == "no call for 30 s (idle_timeout)"


def test_without_an_idle_timeout_no_timer_is_touched(one: Play) -> None:
    """A call that is cancelled while it waits has nothing to do with the idle time of the worker."""
    one.run()
    one.submit(2)
    assert [brief(command) for command in one.cancel(2)] == ["settle 2 stopped cancelled"]


def test_story_has_a_line_for_each_event(one: Play) -> None:
    """Each line says when, which work, its phase and attempt, which event, and of which call."""
    one.add()
    one.submit(1)
    one.ready()
    assert one.watch.machine.story() == [
        "2.000 root.w absent #0: CallSubmitted of call 1",
        "3.000 root.w starting #1: WorkerReady",
    ]
    with pytest.raises(MachineError) as caught:
        one.watch.machine.handle(ev.WorkerReady(1, 1), 100.0)
    assert str(caught.value).splitlines() == [
        "WorkerReady(work=1, attempt=1) cannot come for root.w while its worker is up",
        "the story so far:",
        *one.watch.machine.story(),
    ]


def test_story_has_the_latest_sixty_events(one: Play) -> None:
    """Older events are forgotten, so a machine that runs for long needs no more memory."""
    one.add()
    for _ in range(70):
        one.cancel(1)
    assert len(one.watch.machine.story()) == 60
    assert one.watch.machine.story()[-1].startswith("71.000 ")


def test_delay_of_a_retry_is_spread_and_bounded() -> None:
    """A delay lies between half of its limit and the limit, differs between calls, and doubles at most 20 times."""
    policy = ev.Policy(retry_delay=4.0)
    first = [call_rules._delay(policy, ModelCall(number, "", b"", 2)) for number in range(200)]
    assert 2.0 <= min(first) < 2.1
    assert 3.9 < max(first) <= 4.0
    for attempt, limit in ((3, 8.0), (22, 4.0 * 2**20), (23, 4.0 * 2**20), (90, 4.0 * 2**20)):
        delays = [call_rules._delay(policy, ModelCall(number, "", b"", attempt)) for number in range(200)]
        assert limit * 0.95 < max(delays) <= limit


def test_works_of_a_machine_can_be_taken_to_another(one: Play) -> None:
    """A machine that is given the works of another one goes on with them, and forgets its own."""
    one.run()
    other = Machine()
    other.handle(ev.WorkAdded(7, "root.v", ev.Policy()), 0.0)
    other.restore(one.watch.machine.works())
    assert other.works() == [one.watch.live_work(1)]
    assert other.work(1) is one.watch.live_work(1)
    assert other.phase(1) is Phase.UP
    assert not other.is_idle


def test_page_is_drawn_from_the_table() -> None:
    """docs/lifecycle.md is what the table says; `python -m tests.engine.rules.lifecycle_page` writes it anew."""
    assert lifecycle_page.PAGE.read_text() == lifecycle_page.draw()


def test_an_end_without_a_running_says_that_it_ran(one: Play) -> None:
    """If the first message about a call is its end, the call is published as running before that."""
    one.up()
    one.submit(1)
    one.succeed(1)
    assert [status.stage for status in one.watch.calls[1].statuses] == [PENDING, RUNNING, SUCCEEDED]
