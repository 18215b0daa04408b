"""The life of a worker as its runtime sees it: launched, followed to its end, stopped and released.

A runtime is anybody's code, and a platform may be out of reach for a while. An exception of a runtime never decides
about a worker. While its link lives, the worker is kept. The machine gives it up when the link is gone for too long.
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
from lightwork.runtime import (
    Address,
    Backoff,
    ListenerAddress,
    Ref,
    Rejected,
    Report,
    Runtime,
    Spec,
    Standing,
    TimedOut,
)
from lightwork.status import Reason

__all__ = ["Launcher"]

_ENTRY = "lightwork.worker:main"

_END_OF_LINK = 1.0
"""Seconds to wait for the last frames of a dead worker, which its kernel has sent already."""

_END_OF_OUTPUT = 5.0
"""Seconds in which a runtime must yield more of a dead worker's output, while there is more."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
"""Seconds before a runtime that did not answer is asked again. The pause doubles from the first to the longest."""

_log = get_logger("lightwork.engine")


class Launcher:
    """Starts and ends workers.

    Args:
        core: Takes what happens to workers, as events.
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
        # Tasks of works must not run in the context of the pass that launched them.
        self._context = contextvars.copy_context()
        self._group: asyncio.TaskGroup | None = None
        self._runtimes: Runtimes | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self, group: asyncio.TaskGroup, runtimes: Runtimes, address: ListenerAddress, fingerprint: bytes = b""
    ) -> None:
        """Allow launches from now on. The tasks of workers go into `group`, and workers dial `address`.

        `fingerprint` is the fingerprint of the listener's certificate, empty for a plain link.
        """
        self._group, self._runtimes, self._address, self._fingerprint = group, runtimes, address, fingerprint

    @property
    def address(self) -> Address:
        """The address that workers dial."""
        return self._address

    # --- ending -----------------------------------------------------------------------------------

    async def wait_gone(self) -> None:
        """Return when no worker is left and everything was released."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def give_up(self) -> None:
        """Stop waiting for runtimes that have not ended their workers."""
        names = [worker.name for worker in self._entries.workers.values()]
        _log.error("these works could not be ended, and may be left behind", works=names)
        for task in self._tasks:
            task.cancel()
        await self.wait_gone()

    def end(self, worker: Worker, grace: float) -> None:
        """End a worker through its runtime, or cancel its launch. A grace period of 0 forces the end at once."""
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
            # The worker ends itself when its link is closed or refused.
            _log.error("a worker could not be ended through its runtime", work=worker.name, error=str(error))
            worker.given_up.set()

    # --- launching --------------------------------------------------------------------------------

    def launch(self, entry: WorkEntry, attempt: int, *, is_again: bool = False) -> None:
        """Start a worker and feed what happens to it to the machine.

        `is_again`: a killed scheduler may have begun this launch. The new launch has another name, so the two cannot
        be confused.
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
        """Follow a launched worker to its end, and release what the launch has made."""
        if worker.is_unwanted:  # the launch completed before its cancellation arrived
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
        """Release what a failed launch has made."""
        if worker.runtime is None:
            return
        try:
            async with asyncio.timeout(self._core.config.grace):
                await worker.runtime.release(Ref(worker.runtime.name, worker.name))
        except Exception as error:
            _log.warning("the resources of a failed launch may be left behind", work=worker.name, error=str(error))

    # --- after a killed scheduler -----------------------------------------------------------------

    def adopt(self, entry: WorkEntry, worker: Worker) -> None:
        """Take over a worker that a killed scheduler has launched. It may dial from now on; `follow` is due."""
        entry.worker = worker
        self._entries.workers[worker.launch] = worker

    def follow(self, entry: WorkEntry, worker: Worker, report: Report | None) -> None:
        """Follow an adopted worker as one that was launched here.

        `report` is the runtime's report on the worker after the scheduler was killed, or None. If the worker has ended,
        the machine knows that when this returns, and later calls go to a new worker.
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
            _log.warning("the last output of a worker cannot be read", work=worker.name)
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
        """Lead tunnels of the runtime to this scheduler: workers dial the same address as before."""
        try:
            await runtime.routes(self._address)
        except Exception as error:
            _log.warning("workers may not find this scheduler", profile=runtime.name, error=str(error))

    async def _find(self, runtime: Runtime) -> dict[str, Ref]:
        """Return by name what this scheduler and the killed ones before it launched there and have not released."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                return {ref.name: ref for ref in await runtime.find(self._core.journal.owner)}
            except Exception as error:
                _log.warning(
                    "a runtime cannot list its launches", profile=runtime.name, error=str(error), again_in=backoff.pause
                )
            await asyncio.sleep(backoff.advance())

    def _on_never_launched(self, entry: WorkEntry, worker: Worker) -> None:
        """Handle a launch that a killed scheduler had recorded and not begun."""
        if entry.worker is not worker:
            return
        self._entries.workers.pop(worker.launch, None)
        worker.returned.set()
        entry.worker = None
        self._core.feed(ev.WorkerNeverLaunched(entry.id, worker.attempt))

    def clear_up(self, profile: str) -> None:
        """Release launches of killed schedulers that nobody follows any more."""
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
                    _log.error("a launch of a killed scheduler may be left behind", work=name, error=str(error))

    # --- following --------------------------------------------------------------------------------

    async def _follow(self, entry: WorkEntry, worker: Worker) -> Report:
        """Return the report on a worker that has ended and whose output was read, or that its runtime has given up."""
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
            return Report(Standing.UNKNOWN, detail="its runtime could neither end it nor report on it")
        return over.result()

    async def _wait_over(self, worker: Worker) -> Report:
        assert worker.runtime is not None
        assert worker.ref is not None
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                return await worker.runtime.wait(worker.ref)
            except Exception as error:
                _log.warning(
                    "a runtime cannot report on a worker", work=worker.name, error=str(error), again_in=backoff.pause
                )
            await asyncio.sleep(backoff.advance())

    async def _follow_output(self, entry: WorkEntry, worker: Worker) -> None:
        """Publish each line that the worker writes, until the worker has ended and everything was published."""
        assert worker.runtime is not None
        assert worker.ref is not None
        output, name, cutter = self._output, entry.name, LineCutter()
        journal = self._core.journal
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        try:
            while True:
                try:
                    async for offset, data in worker.runtime.logs(worker.ref, worker.output_read, follow=True):
                        lines = cutter.feed(data)
                        if messages.QUERY_REPLY_MARK in lines:
                            lines = self._queries.take_out(worker, lines)
                        output.take(name, lines)
                        worker.output_read = offset + len(data)
                        backoff.reset()
                        worker.offset = worker.output_read - cutter.waiting
                        journal.output_read(worker.work, worker.attempt, worker.offset)
                        await asyncio.sleep(0)  # a work that writes all the time must not block the loop
                        await output.wait_room()
                    return
                except Exception as error:
                    _log.warning(
                        "a worker's output cannot be read", work=worker.name, error=str(error), again_in=backoff.pause
                    )
                await asyncio.sleep(backoff.advance())
        finally:
            output.take(name, cutter.rest())

    def _on_over(self, entry: WorkEntry, worker: Worker, report: Report) -> None:
        reason, message = explain(report)
        self._core.feed(ev.WorkerExited(entry.id, worker.attempt, reason, worker.refusal or message))

    async def _wait_link_end(self, worker: Worker) -> None:
        """Wait for the frames of a dead worker that are still on their way."""
        try:
            async with asyncio.timeout(_END_OF_LINK):
                await worker.cut.wait()
        except TimeoutError:
            _log.warning("a worker has ended, but its connection is still open", work=worker.name)

    async def _release(self, worker: Worker) -> None:
        assert worker.runtime is not None
        assert worker.ref is not None
        try:
            await worker.runtime.release(worker.ref)
        except Exception as error:
            _log.error("the resources of a worker may be left behind", work=worker.name, error=str(error))
