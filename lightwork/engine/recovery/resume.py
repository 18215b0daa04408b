"""`Resume`, which continues a killed scheduler from a `Replay`: its works, their workers, its states and statuses.

The user's code makes the tree, as always. Each component gets back the state of the component that had its name.
Components that the flow makes while it runs come later, when the repeated ``run`` makes them again. Until then a
stand-in takes the frames of their workers. A component that the flow has not made again when its code has come to its
end is removed. A flow whose code does not end may still make it at any moment, and only a person who knows the flow can
say that it will not. Such works are named in the log and can be given up one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from lightwork._logging import get_logger
from lightwork.components.component import Component
from lightwork.components.flow import Flow
from lightwork.components.status_history import StatusHistory
from lightwork.components.work import Work
from lightwork.engine.calls import CallRegistry
from lightwork.engine.core import Core
from lightwork.engine.recovery.live_snapshot import load_worker
from lightwork.engine.recovery.recorder import Recorder
from lightwork.engine.recovery.replay import KnownComponent, Replay
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.connections import Connections
from lightwork.engine.workers.entries import Entries, WorkEntry
from lightwork.engine.workers.launcher import Launcher
from lightwork.engine.workers.runtimes import Runtimes
from lightwork.engine.workers.worker import Adoption
from lightwork.errors import StateError
from lightwork.runtime import Report
from lightwork.state.state import State

__all__ = ["Resume", "check_tree"]

_AT_LEAST = 10.0
"""Seconds that a timer has left at least: its event may have happened while there was no scheduler."""

_RETURN_WITHIN = 10.0
"""Seconds that the flow waits for the workers of a killed scheduler. Living workers dial about once a second."""

_SAY_AFTER = 10.0
"""Seconds that the flow has to make its children again. The missing ones are then named in the log."""

_log = get_logger("lightwork.engine")


class _Missing(Work):
    """A stand-in for a work that the flow has not made again."""

    def run(self) -> None:
        """Never called."""


class Resume:
    """What a killed scheduler has left, until every component and worker has its place again.

    Args:
        core, entries, calls, launcher, connections: Parts of the present engine.
        recorder: Writes the journal on.
        replay: What the journal holds.
    """

    def __init__(
        self,
        core: Core,
        entries: Entries,
        calls: CallRegistry,
        launcher: Launcher,
        connections: Connections,
        recorder: Recorder,
        replay: Replay,
    ) -> None:
        self._core = core
        self._entries = entries
        self._calls = calls
        self._launcher = launcher
        self._connections = connections
        self._recorder = recorder
        self._replay = replay
        self._known: dict[str, KnownComponent] = dict(replay.components)
        recorder.run_results.reopen()
        self._reports: dict[str, Report] = {}
        self._has_ended = False
        self._saying: asyncio.TimerHandle | None = None

    @property
    def was_over(self) -> bool:
        """Whether the app had ended gracefully."""
        return self._replay.is_over

    # --- what the killed one knew -----------------------------------------------------------------

    def restore(self) -> None:
        """Restore every work and every worker. Workers may dial from now on."""
        core, replay = self._core, self._replay
        core.resume(replay.machine, replay.now)
        self._entries.latest = replay.latest_work
        by_work = {known.work: known for known in self._known.values() if known.work}
        workers = {snapshot.work: snapshot for snapshot in replay.workers.values()}
        for work in replay.machine.works():
            known = by_work.get(work.id)
            stand_in = _Missing()
            stand_in.__dict__["_state"] = known.state if known is not None else State(work.name, {})
            stand_in.__dict__["_status_history"] = replay.records.get(work.id) or StatusHistory(
                core.config.statuses_kept
            )
            entry = self._entries.by_number[work.id] = WorkEntry(work.id, stand_in, work.name)
            entry.is_missing = True
            entry.due = replay.due.get(work.id, 0)
            if work.id in workers and not entry.due:
                self._launcher.adopt(entry, load_worker(workers[work.id]))
        self._start_timers()
        for work in replay.machine.works():
            core.feed(ev.SchedulerResumed(work.id))

    def _start_timers(self) -> None:
        """Start the timers with the time that they had left. The machine then starts those of workers again."""
        core = self._core
        now = core.tick()
        for timer, fires_at in self._replay.timers.items():
            core.start_timer(timer, max(fires_at - now, 0.0 if timer.kind == "retry" else _AT_LEAST))

    def profiles(self) -> list[str]:
        """Return the profiles of the runtimes that the killed scheduler used."""
        return list(self._replay.profiles)

    async def enter_runtimes(self, runtimes: Runtimes) -> None:
        """Enter every runtime that the killed scheduler used.

        Raises:
            ConfigError, PlatformError: A runtime cannot be entered.
        """
        await asyncio.gather(*[self._enter(runtimes, profile) for profile in self.profiles()])

    async def _enter(self, runtimes: Runtimes, profile: str) -> None:
        """Enter a runtime, and ask it for reports on the workers."""
        runtime = await runtimes.get(profile)
        try:
            await runtime.routes(self._launcher.address)  # a way that leads through the runtime is open again
        except Exception as error:
            _log.warning("works may not find their way back", profile=profile, error=str(error))
        workers = [worker for worker in self._entries.workers.values() if worker.profile == profile]
        placed = [(worker.name, worker.ref) for worker in workers if worker.ref is not None]
        reports = await runtime.poll([ref for _, ref in placed]) if placed else ()
        self._reports.update({name: report for (name, _), report in zip(placed, reports, strict=True)})

    def follow(self) -> None:
        """Follow every worker from now on, and release launches that nobody knows."""
        for entry in list(self._entries.by_number.values()):
            worker = entry.worker
            if worker is not None and worker.adoption is not Adoption.NONE:
                self._launcher.follow(entry, worker, self._reports.get(worker.name))
        for profile in self.profiles():
            self._launcher.clear_up(profile)

    async def wait_returned(self) -> None:
        """Return when it is known where every worker stands, or after a limit.

        The flow must not ask again for what a worker has done, or does, of which this scheduler has not heard yet.
        """
        adopted = [worker for worker in self._entries.workers.values() if worker.adoption is not Adoption.NONE]
        try:
            async with asyncio.timeout(min(_RETURN_WITHIN, self._core.config.reconnect_window)):
                for worker in adopted:
                    await worker.returned.wait()
        except TimeoutError:
            missing = [worker.name for worker in adopted if not worker.returned.is_set()]
            _log.warning("these works have not come back yet, and the flow begins without them", works=missing)
        self._saying = self._core.loop.call_later(_SAY_AFTER, self._say_unclaimed)

    # --- the tree ---------------------------------------------------------------------------------

    def take_back(self, work: Work) -> WorkEntry | None:
        """Return the entry of a work that the flow has made again; None for a new work.

        Raises:
            StateError: It has other attributes than it had; names them.
        """
        known = self._known.get(work.name)
        entry = None if known is None else self._entries.by_number.get(known.work)
        if known is None or entry is None or not entry.is_missing:
            return None
        _check_fits(known, work, self._known)
        del self._known[work.name]
        _give_back(known, work)
        work.__dict__["_status_history"] = entry.work._status_history
        entry.work, entry.is_missing = work, False
        if entry.worker is not None and entry.worker.replica is not None:
            self._connections.tie(entry, entry.worker, entry.worker.replica.latest)
        model = self._core.machine.work(entry.id)
        for call in model.calls.values():
            self._calls.restore(entry, call.id, call.hash)
        return entry

    def go_on(self, entry: WorkEntry) -> None:
        """Do what had to wait until the flow has made the work again and its policy is known."""
        if entry.due:
            attempt, entry.due = entry.due, 0
            self._launcher.launch(entry, attempt, is_again=True)
        on_returned, entry.on_returned = entry.on_returned, []
        for knock in on_returned:
            knock()

    def take_back_flow(self, flow: Flow) -> bool:
        """Give a flow back its state and progress. Return False for a new flow.

        Raises:
            StateError: It has other attributes than it had; names them.
        """
        known = self._known.get(flow.name)
        if known is None or known.work:
            return False
        _check_fits(known, flow, self._known)
        del self._known[flow.name]
        _give_back(known, flow)
        flow._load_calls(msgspec.msgpack.decode(known.progress) if known.progress else {})()
        self._recorder.watch(flow)
        return True

    def end(self) -> None:
        """Remove what the flow has not made again: its code has come to its end. A second call does nothing."""
        if self._has_ended:
            return
        self._has_ended = True
        self.close()
        for known in self._known.values():
            self._recorder.component_removed(known.name)
        self._known.clear()
        for entry in list(self._entries.by_number.values()):
            if entry.is_missing:
                self._core.feed(ev.WorkRemoved(entry.id))

    def close(self) -> None:
        """Log nothing any more. May be called again."""
        if self._saying is not None:
            self._saying.cancel()

    @property
    def unclaimed(self) -> list[str]:
        """Names of the running works that the flow has not made again."""
        return [
            entry.name for entry in self._entries.by_number.values() if entry.is_missing and entry.worker is not None
        ]

    def give_up(self, name: str) -> bool:
        """End a work that the flow has not made again. Return False if there is none. Made later, it is new."""
        found = [entry for entry in self._entries.by_number.values() if entry.is_missing and entry.name == name]
        if not found or name not in self._known:
            return False
        del self._known[name]
        self._recorder.component_removed(name)
        for entry in found:
            self._core.feed(ev.WorkRemoved(entry.id))
        return True

    def _say_unclaimed(self) -> None:
        if works := self.unclaimed:
            _log.warning(
                "these works run on, and the flow has not made them again: `lightwork stop WORK` ends them", works=works
            )

    def states(self) -> Iterator[KnownComponent]:
        """Yield what is known of the components that the flow has not made again."""
        return iter(self._known.values())


def check_tree(root: Flow, replay: Replay) -> None:
    """Check that the code makes the tree that the killed scheduler began with.

    Raises:
        StateError: It is another tree; names what differs.
    """
    here = {node.name: node for node in root._walk() if isinstance(node, (Flow, Work))}
    gone = [name for name in replay.components if name in replay.statics and name not in here]
    problems = [f"the journal has {name}, which the code does not make" for name in gone]
    problems += [f"the code makes {name}, which the journal has not" for name in here if name not in replay.statics]
    for name, component in here.items():
        known = replay.components.get(name)
        if known is not None:
            problems += _differences(known, component, replay.components)
            if bool(known.work) is not isinstance(component, Work):
                problems.append(f"{name} was a {'work' if known.work else 'flow'}")
    if problems:
        raise StateError(
            f"the journal does not fit this app: {'; '.join(problems)}. Run the code that it was written by, or begin "
            "again with another path; `lightwork checkpoint show` shows what it holds"
        )


def _differences(known: KnownComponent, component: Component, others: Iterable[str]) -> list[str]:
    """Return what differs between the attributes of a component and those in the journal.

    One that held nothing may have become a child since, and the other way round: `others` are all components' names.
    """
    place = f"{known.name}."
    there = {name.removeprefix(place).partition(".")[0] for name in others if name.startswith(place)}
    here = {node._key for node in component._child_nodes()}
    old, new = known.state.names.keys(), component._state.names.keys()
    empty = {name for name in new if component._state.values[name] in (None, [], {})}
    gone = [f"the journal has {place}{name}, which the code does not set" for name in old if name not in new | here]
    come = [
        f"the code sets {place}{name}, which the journal has not"
        for name in new
        if name not in old and not (name in there and name in empty)
    ]
    return gone + come


def _check_fits(known: KnownComponent, component: Component, others: Iterable[str]) -> None:
    problems = _differences(known, component, others)
    if problems:
        raise StateError(f"the journal does not fit {known.name}: {'; '.join(problems)}")


def _give_back(known: KnownComponent, component: Component) -> None:
    """Set the attributes to their values in the journal. An attribute that holds a component now stays as it is."""
    taken = {node._key for node in component._child_nodes()}
    for name, value in known.state.snapshot().items():
        if name not in taken:
            component._state.restore(name, value)
