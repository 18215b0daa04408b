"""The life of a worker as its runtime sees it: launched, followed until it is over, ended, given back.

A runtime is anybody's code, and a platform may be out of reach for a while. What it raises never decides over a
worker: while the link lives the worker is kept, and the machine gives it up when the link has been gone too long.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Coroutine
from typing import Any

import msgspec

from lightwork._logging import get_logger
from lightwork.engine.core import Core
from lightwork.engine.rules import events as ev
from lightwork.engine.workers.entries import Entries, WorkEntry
from lightwork.engine.workers.output import LineCutter, Output
from lightwork.engine.workers.queries import Queries
from lightwork.engine.workers.runtimes import Runtimes
from lightwork.engine.workers.worker import Worker, explain
from lightwork.link import messages
from lightwork.runtime import Address, ListenerAddress, Ref, Rejected, Report, Runtime, Spec, Standing, TimedOut
from lightwork.status import Reason

__all__ = ["Launcher"]

_ENTRY = "lightwork.worker:main"

_END_OF_LINK = 1.0
"""Seconds to wait for the rest of a dead worker's frames, which its kernel has sent already."""

_END_OF_OUTPUT = 5.0
"""Seconds in which a runtime has to give more of a dead worker's output, as long as there is more."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
"""Seconds before a runtime that could not be asked is asked again; doubled from the first to the longest."""

_log = get_logger("lightwork.engine")


class Launcher:
    """Starts and ends workers.

    Args:
        core: Given what becomes of them, as events.
        entries: Every work and worker.
        output: Takes what workers print.
        queries: Takes replies to queries out of what workers print.
    """

    def __init__(self, core: Core, entries: Entries, output: Output, queries: Queries) -> None:
        self._core = core
        self._entries = entries
        self._output = output
        self._queries = queries
        self._address = ListenerAddress("", 0)
        self._fingerprint = b""
        # Tasks of works must not look as if they belonged to the pass that happened to launch them.
        self._context = contextvars.copy_context()
        self._group: asyncio.TaskGroup | None = None
        self._runtimes: Runtimes | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self, group: asyncio.TaskGroup, runtimes: Runtimes, address: ListenerAddress, fingerprint: bytes = b""
    ) -> None:
        """From now on workers can be launched; their tasks go into `group`, and they dial `address`.

        `fingerprint` is that of the listener's certificate, empty where the link is plain.
        """
        self._group, self._runtimes, self._address, self._fingerprint = group, runtimes, address, fingerprint

    @property
    def address(self) -> Address:
        """Where workers dial."""
        return self._address

    # --- ending -----------------------------------------------------------------------------------

    async def wait_gone(self) -> None:
        """Return when no worker is left, and everything was given back."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def give_up(self) -> None:
        """Wait no longer for runtimes that do not end what they were told to end."""
        names = [worker.name for worker in self._entries.workers.values()]
        _log.error("these works could not be ended, and may be left behind", works=names)
        for task in self._tasks:
            task.cancel()
        await self.wait_gone()

    def end(self, worker: Worker, grace: float) -> None:
        """End it through its runtime, also while it is launched; 0 forces at once."""
        if worker.ref is not None:
            self._start_task(self._end(worker, worker.ref, grace), f"lightwork end {worker.name}")
        else:
            worker.is_unwanted = True
            if worker.launching is not None:
                worker.launching.cancel()

    async def _end(self, worker: Worker, ref: Ref, grace: float) -> None:
        assert worker.runtime is not None
        try:
            await worker.runtime.stop(ref, grace)
        except Exception as error:
            # It ends itself when it finds the link closed, or refused.
            _log.error("a worker could not be ended through its runtime", work=worker.name, error=str(error))
            worker.given_up.set()

    # --- launching --------------------------------------------------------------------------------

    def launch(self, entry: WorkEntry, attempt: int, *, is_again: bool = False) -> None:
        """Start a worker; what becomes of it is fed to the machine.

        `is_again` says that a killed scheduler may have begun this launch: what it has made, if it did, is another's.
        """
        journal = self._core.journal
        name = f"{journal.owner}-{entry.name}-{entry.id}-{attempt}"
        if is_again:
            name += f"-{journal.generation}"
        profile = self._core.config.runtime_for(entry.name, entry.work._runtime)
        worker = Worker(entry.id, attempt, name, profile)
        entry.worker = worker
        entry.start_error = None
        self._entries.workers[worker.launch] = worker
        journal.launch_begun(entry.id, attempt, name, worker.launch, worker.secret, profile)
        bring_up = self._bring_up(entry, worker)
        name = f"lightwork launch {worker.name}"
        worker.launching = self._core.loop.create_task(bring_up, name=name, context=self._context)
        self._start_task(self._supervise(entry, worker), f"lightwork {worker.name}")

    def _start_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(coroutine, name=name, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervise(self, entry: WorkEntry, worker: Worker) -> None:
        assert worker.launching is not None
        try:
            worker.ref = await worker.launching
        except (Exception, asyncio.CancelledError) as error:
            failure = error  # the clause takes its own name away
            await self._clean_up_launch(worker)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._core.external(lambda: self._on_failed(entry, worker, failure))
            return
        self._core.journal.placed(worker.work, worker.attempt, worker.ref)
        await self._serve(entry, worker)

    async def _serve(self, entry: WorkEntry, worker: Worker) -> None:
        """Follow a worker that was launched to its end, and give back what the launch has made."""
        if worker.is_unwanted:  # it was launched in the moment in which that was to be cancelled
            self.end(worker, 0.0)
        try:
            report = await self._follow(entry, worker)
            await self._wait_link_end(worker)
            self._core.external(lambda: self._on_over(entry, worker, report))
        finally:
            await self._release(worker)

    async def _bring_up(self, entry: WorkEntry, worker: Worker) -> Ref:
        assert self._runtimes is not None
        config = self._core.config
        runtime = await self._runtimes.get(worker.profile)
        worker.runtime = runtime
        routes = await runtime.routes(self._address)
        if not routes:
            here = f"{self._address.host}:{self._address.port}"
            raise Rejected(f"the runtime {runtime.name!r} has no route back to {here}")
        ticket = messages.Ticket(
            worker.launch,
            worker.secret,
            [(route.host, route.port) for route in routes],
            dial_within=config.launch_timeout,
            orphan_after=config.reconnect_window,
            fingerprint=self._fingerprint,
        )
        work = entry.work
        spec = Spec(
            name=worker.name,
            owner=self._core.journal.owner,
            entry=_ENTRY,
            ticket=msgspec.msgpack.encode(ticket),
            env={"LIGHTWORK_WORK": entry.name},
            cwd=os.getcwd(),
            lightningignore=work.lightningignore,
            port=work._port,
            build=work.cloud_build_config if runtime.is_remote else work.local_build_config,
            compute=work.cloud_compute,
            dial_within=config.launch_timeout,
            orphan_after=config.reconnect_window,
        )
        await self._core.journal.committed()  # a scheduler that resumes must know of the launch
        return await runtime.launch(spec)

    def _on_failed(self, entry: WorkEntry, worker: Worker, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            reason, text = Reason.CANCELLED, "stopped while it was launched"
        else:
            reason = Reason.TIMEOUT if isinstance(error, TimedOut) else Reason.LAUNCH_FAILED
            text = str(error) or repr(error)
            entry.start_error = error
        self._core.feed(ev.WorkerLaunchFailed(entry.id, worker.attempt, reason, text))

    async def _clean_up_launch(self, worker: Worker) -> None:
        """Give back what a launch that failed has made."""
        if worker.runtime is None:
            return
        try:
            async with asyncio.timeout(self._core.config.grace):
                await worker.runtime.release(Ref(worker.runtime.name, worker.name))
        except Exception as error:
            _log.warning("what a failed launch made may be left", work=worker.name, error=str(error))

    # --- after a killed scheduler -----------------------------------------------------------------

    def adopt(self, entry: WorkEntry, worker: Worker) -> Worker:
        """Take over a worker that a killed scheduler has launched. It may dial from now on; `follow` is due."""
        entry.worker = worker
        self._entries.workers[worker.launch] = worker
        return worker

    def follow(self, entry: WorkEntry, worker: Worker, report: Report | None) -> None:
        """Do for an adopted worker what is done for one that was launched here.

        `report` says what became of it while there was no scheduler, where that is known: if it is over, that is dealt
        with when this returns, and what the flow asks of the work from then on is new.
        """
        if report is None or not report.standing.is_over:
            self._start_task(self._follow_adopted(entry, worker), f"lightwork {worker.name}")
            return
        self._on_over(entry, worker, report)
        self._start_task(self._bury(entry, worker), f"lightwork {worker.name}")

    async def _bury(self, entry: WorkEntry, worker: Worker) -> None:
        assert self._runtimes is not None
        worker.runtime = await self._runtimes.get(worker.profile)
        try:
            async with asyncio.timeout(_END_OF_OUTPUT):
                await self._follow_output(entry, worker)
        except TimeoutError:
            _log.warning("the last output of a worker cannot be had", work=worker.name)
        finally:
            await self._release(worker)

    async def _follow_adopted(self, entry: WorkEntry, worker: Worker) -> None:
        assert self._runtimes is not None
        worker.runtime = await self._runtimes.get(worker.profile)
        await self._lead_here(worker.runtime)
        if worker.ref is None:
            worker.ref = (await self._find(worker.runtime)).get(worker.name)
            if worker.ref is None:
                self._core.external(lambda: self._on_never_launched(entry, worker))
                return
            self._core.journal.placed(worker.work, worker.attempt, worker.ref)
        await self._serve(entry, worker)

    async def _lead_here(self, runtime: Runtime) -> None:
        """Tunnels that end in this process lead here from now on: a worker dials where it did before."""
        try:
            await runtime.routes(self._address)
        except Exception as error:
            _log.warning("workers may not find back to this scheduler", profile=runtime.name, error=str(error))

    async def _find(self, runtime: Runtime) -> dict[str, Ref]:
        """What this scheduler and the killed ones before it have launched there, and not released, by name."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return {ref.name: ref for ref in await runtime.find(self._core.journal.owner)}
            except Exception as error:
                _log.warning("a runtime cannot say what runs", profile=runtime.name, error=str(error), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _on_never_launched(self, entry: WorkEntry, worker: Worker) -> None:
        """The scheduler was killed when it was about to launch it."""
        if entry.worker is not worker:
            return
        self._entries.workers.pop(worker.launch, None)
        worker.returned.set()
        entry.worker = None
        self._core.feed(ev.WorkerNeverLaunched(entry.id, worker.attempt))

    def clear_up(self, profile: str) -> None:
        """Give back what a killed scheduler has launched there and nobody knows, or has not released any more."""
        self._start_task(self._clear_up(profile), f"lightwork clear-up of {profile}")

    async def _clear_up(self, profile: str) -> None:
        assert self._runtimes is not None
        runtime = await self._runtimes.get(profile)
        found = await self._find(runtime)
        known = {worker.name for worker in self._entries.workers.values()}
        for name, ref in found.items():
            if name not in known:
                try:
                    await runtime.release(ref)
                except Exception as error:
                    _log.error("what a killed scheduler has launched may be left", work=name, error=str(error))

    # --- following --------------------------------------------------------------------------------

    async def _follow(self, entry: WorkEntry, worker: Worker) -> Report:
        """What became of it, when it is over and its output was told, or nobody can end it and tell."""
        async with asyncio.TaskGroup() as group:
            output = group.create_task(self._follow_output(entry, worker))
            over = group.create_task(self._wait_over(worker))
            given_up = group.create_task(worker.given_up.wait())
            await asyncio.wait({over, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                read = -1
                while not output.done() and worker.output_read != read:
                    read = worker.output_read
                    await asyncio.wait({output}, timeout=_END_OF_OUTPUT)
            for task in (output, over, given_up):
                task.cancel()
        if over.cancelled():
            return Report(Standing.UNKNOWN, detail="its runtime could neither end it nor say what became of it")
        return over.result()

    async def _wait_over(self, worker: Worker) -> Report:
        assert worker.runtime is not None
        assert worker.ref is not None
        pause = _FIRST_PAUSE
        while True:
            try:
                return await worker.runtime.wait(worker.ref)
            except Exception as error:
                _log.warning("a runtime cannot say how a worker is", work=worker.name, error=str(error), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _follow_output(self, entry: WorkEntry, worker: Worker) -> None:
        """Tell of each line that the worker writes, until it is over and everything was told."""
        assert worker.runtime is not None
        assert worker.ref is not None
        output, name, cutter = self._output, entry.name, LineCutter()
        journal = self._core.journal
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    async for offset, data in worker.runtime.logs(worker.ref, worker.output_read, follow=True):
                        lines = cutter.feed(data)
                        if messages.QUERY_REPLY_MARK in lines:
                            lines = self._queries.take_out(worker, lines)
                        output.take(name, lines)
                        worker.output_read, pause = offset + len(data), _FIRST_PAUSE
                        worker.offset = worker.output_read - cutter.waiting
                        journal.output_read(worker.work, worker.attempt, worker.offset)
                        await asyncio.sleep(0)  # a work that writes without end must leave the loop to others
                        await output.wait_room()
                    return
                except Exception as error:
                    _log.warning("a worker's output cannot be read", work=worker.name, error=str(error), again_in=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            output.take(name, cutter.rest())

    def _on_over(self, entry: WorkEntry, worker: Worker, report: Report) -> None:
        reason, message = explain(report)
        self._core.feed(ev.WorkerExited(entry.id, worker.attempt, reason, worker.refusal or message))

    async def _wait_link_end(self, worker: Worker) -> None:
        """What a dead worker has sent may still be on its way here."""
        try:
            async with asyncio.timeout(_END_OF_LINK):
                await worker.cut.wait()
        except TimeoutError:
            _log.warning("a worker is over, but its connection is not", work=worker.name)

    async def _release(self, worker: Worker) -> None:
        assert worker.runtime is not None
        assert worker.ref is not None
        try:
            await worker.runtime.release(worker.ref)
        except Exception as error:
            _log.error("what a worker's launch made may be left", work=worker.name, error=str(error))
