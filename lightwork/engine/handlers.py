"""Carries out the machine's commands. No policy: each command has one function, and the table has every command."""

from __future__ import annotations

from lightwork.engine.calls import CallRegistry
from lightwork.engine.core import Core, Handlers
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.connections import Connections
from lightwork.engine.workers.entries import Entries, WorkEntry, finish_all
from lightwork.engine.workers.launcher import Launcher
from lightwork.engine.workers.worker import Worker
from lightwork.errors import LaunchFailed
from lightwork.link import messages

__all__ = ["CommandHandlers"]


class CommandHandlers:
    """What is done for each command of the machine. Belongs to the loop's thread.

    Args:
        core: Keeps the timers.
        entries: The works that commands are about.
        calls: Settles calls.
        launcher: Starts and ends workers.
        connections: Send frames to workers.
    """

    def __init__(
        self, core: Core, entries: Entries, calls: CallRegistry, launcher: Launcher, connections: Connections
    ) -> None:
        self._core = core
        self._entries = entries
        self._by_number = entries.by_number
        self._calls = calls
        self._launcher = launcher
        self._connections = connections

    def table(self) -> Handlers:
        """Return the function that carries out each command, by the command's type."""
        return {
            ev.LaunchWorker: self._launch_worker,
            ev.SendCall: self._send_call,
            ev.SendCancel: self._send_cancel,
            ev.SendStop: self._send_stop,
            ev.EndWorker: self._end_worker,
            ev.StartTimer: self._start_timer,
            ev.StopTimer: self._stop_timer,
            ev.PublishStatus: self._calls.publish,
            ev.ResolveSubmit: self._calls.resolve,
            ev.RestoreCall: self._calls.recover,
            ev.SettleCall: self._calls.settle,
            ev.WorkerUp: self._worker_up,
            ev.WorkerGone: self._worker_gone,
            ev.Forget: self._forget,
        }

    def _launch_worker(self, command: ev.LaunchWorker) -> None:
        entry = self._by_number[command.work]
        if entry.is_missing:
            entry.due = command.attempt
        else:
            self._launcher.launch(entry, command.attempt, is_again=command.again)

    def _send_call(self, command: ev.SendCall) -> None:
        frame = messages.Call(command.call, command.args, command.hash)
        self._connections.send(self._by_number[command.work], frame)

    def _send_cancel(self, command: ev.SendCancel) -> None:
        self._connections.send(self._by_number[command.work], messages.Cancel(command.call))

    def _send_stop(self, command: ev.SendStop) -> None:
        self._connections.stop(self._by_number[command.work], command.grace)

    def _end_worker(self, command: ev.EndWorker) -> None:
        entry = self._by_number[command.work]
        if entry.worker is not None:
            self._launcher.end(entry.worker, command.grace)
        elif entry.due:
            attempt, entry.due = entry.due, 0
            self._core.loop.call_soon(self._core.feed, ev.WorkerNeverLaunched(entry.id, attempt))

    def _start_timer(self, command: ev.StartTimer) -> None:
        self._core.start_timer(command.timer, command.delay)

    def _stop_timer(self, command: ev.StopTimer) -> None:
        self._core.stop_timer(command.timer)

    def _worker_up(self, command: ev.WorkerUp) -> None:
        finish_all(self._by_number[command.work].starts)

    def _worker_gone(self, command: ev.WorkerGone) -> None:
        entry = self._by_number[command.work]
        worker, entry.worker = entry.worker, None
        if worker is not None:
            self._connections.close(entry, worker)
            self._forget_address(entry, worker)
        self._connections.check_confirmed(entry)
        finish_all(entry.stops)
        if entry.starts and command.failure is not None:
            error = LaunchFailed(f"{entry.name} did not start: {command.failure}", work=entry.name)
            error.__cause__ = entry.start_error
            finish_all(entry.starts, error)

    def _forget_address(self, entry: WorkEntry, worker: Worker) -> None:
        """Nothing answers for a work without a worker."""
        if not self._entries.is_in_tree(entry):
            return  # the work was removed and added again: another entry's worker may answer for it already
        state = entry.work._state
        gone = {"_url": "", "_internal_ip": "", "_public_ip": "", **({"_port": None} if worker.picks_port else {})}
        for name, value in gone.items():
            if state.values[name] != value:
                state.set(name, value)

    def _forget(self, command: ev.Forget) -> None:
        self._entries.forget(command.work)
