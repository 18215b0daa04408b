"""The runtime `docker`: each work in a container of its own.

All that is known of a launch is with the engine: the container's name and labels, its state, its output. So any
runtime with the same engine finds what another has launched, whatever became of that one. Only that a stop was asked
for is remembered here alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, ClassVar, Self

import anyio
import anyio.abc
import msgspec

from lightwork.runtime import (
    Address,
    Cached,
    Conflict,
    Finding,
    NoCapacity,
    Ref,
    Rejected,
    Report,
    RuntimeFailure,
    Spec,
    Standing,
)
from lightwork_runtimes.docker import _cache, _diagnose
from lightwork_runtimes.docker._address import find_engine
from lightwork_runtimes.docker._container import check_spec, describe, digest_of
from lightwork_runtimes.docker._engine import Engine, EngineError
from lightwork_runtimes.docker._events import Events
from lightwork_runtimes.docker._images import Images
from lightwork_runtimes.docker._options import DockerOptions
from lightwork_runtimes.docker._report import DIGEST, OWNER, report_of, start_failure
from lightwork_runtimes.docker._routes import find_routes, publish_address

__all__ = ["DockerRuntime"]

_POLLED_AT_ONCE = 50
_PORTS_TRIED = 5
_PORT_TAKEN = ("port is already allocated", "address already in use")
_ANSWERED_WITHIN = 10.0
"""Seconds that an engine has to answer a request which is not to be given up."""

_TERM, _KILL = "SIGTERM", "SIGKILL"


class DockerRuntime:
    """Runs works as containers of one engine.

    Entering it connects to the engine. The app's folder, lightwork and the work's requirements are put into an image,
    which is built when one of them has changed. A worker gets its ticket by its standard input, which the engine
    does not keep, and dials back to the address that `routes` finds.
    """

    Options: ClassVar[type[msgspec.Struct]] = DockerOptions
    is_remote: ClassVar[bool] = True

    def __init__(self, name: str = "docker", options: DockerOptions | None = None) -> None:
        self.name = name
        self.options = options or DockerOptions()
        self._engine: Engine | None = None
        self._stack = AsyncExitStack()
        self._events: Events
        self._images: Images
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._stopped: set[str] = set()
        self._asked: set[str] = set()

    async def __aenter__(self) -> Self:
        """Connect to the engine.

        Raises:
            PlatformError: aiodocker is not installed; the engine cannot be found, or does not answer.
        """
        engine = Engine(find_engine(self.options))
        await engine.open()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            self._stack = stack.pop_all()
        self._engine = engine
        self._events = Events(engine, tasks)
        self._images = Images(engine, self.options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the engine go. Containers are left alone; who waits for one must have ended before."""
        self._engine = None
        await self._stack.aclose()

    @classmethod
    async def diagnose(cls, name: str, options: DockerOptions | None) -> Sequence[Finding]:
        """What is missing here; see `lightwork.runtime.Diagnosable`."""
        return await _diagnose.look(options or DockerOptions())

    @property
    def launch_within(self) -> float:
        """Seconds that a launch may take beyond the usual; see `DockerOptions.launch_within`."""
        return self.options.launch_within

    @property
    def _docker(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("use the runtime in its context: `async with runtime:`")
        return self._engine

    async def routes(self, listener: Address) -> Sequence[Address]:
        """The listener as containers see it: by the network's gateway, and by ``host.docker.internal``.

        Raises:
            Rejected: It listens on the loopback only, and the containers have networks of their own.
        """
        return await find_routes(self._docker, self.options, listener)

    # --- launching ------------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Create and start a container; see `lightwork.runtime.Runtime.launch`.

        The first launch with an image, a set of requirements or a state of the code takes as long as pulling or
        building takes. Cancelled, it leaves nothing, or a container that `find` gives; a pull or a build that was
        begun goes on with the engine, and its result is used later.

        Raises:
            Rejected: Also if an image is nowhere, cannot be built, or has another Python; has the last lines.
            NoCapacity: The engine could not start it now: a port, an address, a device is missing.
        """
        check_spec(spec)
        engine = self._docker
        known = await engine.inspect(spec.name)
        if known is not None and known["State"]["Status"] != "created":
            return self._same(spec, known)
        image = await self._images.ready(spec.build, spec.cwd, spec.lightningignore)
        async with self._locks[spec.name]:
            for tries_left in reversed(range(_PORTS_TRIED)):
                try:
                    image = await self._create(spec, image)
                    await self._start(spec, image)
                except EngineError as error:
                    if not tries_left or not any(text in str(error) for text in _PORT_TAKEN):
                        raise _launch_failed(error, image, self.options.python) from error
                    await engine.remove(spec.name)  # the next one draws another port
                else:
                    break
        return self._ref(spec.name)

    async def _create(self, spec: Spec, image: str) -> str:
        """Create the container if it is not there; returns the image, which is another if that one was gone."""
        engine = self._docker
        while True:
            config = describe(spec, self.options, image, publish_address(engine, self.options))
            try:
                await _to_its_end(engine.create(spec.name, config))
            except EngineError as error:
                if error.status == 409:
                    return image  # `_start` looks whose it is
                if error.status != 404 or "image" not in str(error).lower():
                    raise
                self._images.forget()  # somebody has removed it
                image = await self._images.ready(spec.build, spec.cwd, spec.lightningignore)
            else:
                return image

    async def _start(self, spec: Spec, image: str) -> None:
        found = await self._docker.inspect(spec.name)
        if found is None:
            raise RuntimeFailure(f"{spec.name}: its container was removed while it was launched")
        self._same(spec, found)
        if found["State"]["Status"] == "created":
            await self._docker.start(spec.name, spec.ticket)

    def _same(self, spec: Spec, container: dict[str, object]) -> Ref:
        labels = container["Config"].get("Labels") or {}  # type: ignore[attr-defined]
        if labels.get(DIGEST) != digest_of(spec):
            raise Conflict(f"{spec.name}: there is a container of this name from another spec; names are used once")
        return self._ref(spec.name)

    def _ref(self, name: str) -> Ref:
        return Ref(self.name, name)

    # --- asking ---------------------------------------------------------------------------------

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """What became of each, as the engine says now."""
        limit = anyio.CapacityLimiter(_POLLED_AT_ONCE)

        async def ask(ref: Ref) -> Report:
            async with limit:
                try:
                    return await self._look(ref.name)
                except RuntimeFailure as error:
                    return Report(Standing.UNKNOWN, detail=str(error))

        return await asyncio.gather(*(ask(ref) for ref in refs))

    async def _look(self, name: str) -> Report:
        found = await self._docker.inspect(name)
        if found is None and name in await self._docker.names(OWNER, name):
            # While the engine creates it, it is listed for a moment before it can be inspected.
            return Report(Standing.PENDING, detail="being created")
        return report_of(found, name in self._stopped)

    async def wait(self, ref: Ref) -> Report:
        """Return once it is over.

        Raises:
            Unreachable: The engine does not answer any more.
        """
        return await self._wait_until(ref.name, over=True)

    async def _wait_until(self, name: str, *, over: bool) -> Report:
        """Return when it is over, or, if that is not asked, no longer pending."""
        changed = asyncio.Event()
        with self._events.watch(name, changed):
            while True:
                await self._events.ready()
                changed.clear()
                report = await self._look(name)
                if report.standing.is_over or (not over and report.standing is Standing.RUNNING):
                    return report
                await changed.wait()

    async def find(self, owner: str) -> Sequence[Ref]:
        """Every container of this owner that was not removed, whichever process launched it."""
        return [self._ref(name) for name in await self._docker.names(f"{OWNER}={owner}")]

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the container: SIGTERM to the worker, and after `grace` seconds SIGKILL to all of it.

        One that was created and never started is removed. Cancelling leaves it asked to stop.
        """
        name = ref.name
        report = await self._look(name)
        if report.standing is Standing.PENDING:
            async with self._locks[name]:  # whoever launches it has started it then, or never will
                report = await self._look(name)
                if report.standing is Standing.PENDING:
                    await self._docker.remove(name)
                    return
        if report.standing.is_over:
            return
        self._stopped.add(name)
        if grace > 0 and await self._ends_within(name, grace):
            return
        await self._docker.kill(name, _KILL)
        await self._wait_until(name, over=True)

    async def _ends_within(self, name: str, grace: float) -> bool:
        # Once: to many programs a second SIGTERM means "now".
        if name not in self._asked:
            self._asked.add(name)
            await self._docker.kill(name, _TERM)
        with anyio.move_on_after(grace):
            await self._wait_until(name, over=True)
            return True
        return False

    async def release(self, ref: Ref) -> None:
        """Remove the container, its output included, whether it runs or not. Idempotent.

        Images stay, see `cached`: the next launch needs them.
        """
        name = ref.name
        try:
            async with self._locks[name]:
                if report_of(await self._docker.inspect(name), False).standing is Standing.ABSENT:
                    return
                if not await self._docker.remove(name):
                    await self._wait_absent(name)  # another process removes it
        except RuntimeFailure as error:
            raise ExceptionGroup(f"{name} could not be released", [error]) from None
        finally:
            self._stopped.discard(name)
            self._asked.discard(name)
            if not self._locks[name].locked():
                del self._locks[name]

    async def _wait_absent(self, name: str) -> None:
        changed = asyncio.Event()
        with self._events.watch(name, changed):
            while True:
                await self._events.ready()
                changed.clear()
                if await self._docker.inspect(name) is None:
                    return
                await changed.wait()

    # --- what is kept ---------------------------------------------------------------------------

    async def cached(self) -> Sequence[Cached]:
        """The images that were built on this engine, whoever built them; see `lightwork.runtime.Caching`.

        What was launched from other machines counts as used when the image was made, or while there is a container.
        """
        return await _cache.cached(self._docker)

    async def discard(self, entry: Cached) -> bool:
        """Remove an image that no container and no other image uses."""
        self._images.forget()
        return await _cache.discard(self._docker, entry)

    # --- output ---------------------------------------------------------------------------------

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Standard output and error of the container, in pieces as it wrote them.

        The engine gives output from its beginning only, so what is before `start` is read and passed over. It keeps
        text: a byte that is not part of any UTF-8 character becomes a replacement character.

        Raises:
            Unreachable: The engine does not answer any more; go on from the last offset when it does.
        """
        if (await self._look(ref.name)).standing is Standing.PENDING:
            if not follow:
                return
            await self._wait_until(ref.name, over=False)
        while True:
            position = 0
            # Asked before. The end of a followed stream says neither that all of it came (engine 20.10 drops what a
            # container wrote last), nor that the container is over (the engine may have been restarted under it).
            is_rest = not follow or (await self._look(ref.name)).standing.is_over
            try:
                async for data in self._docker.output(ref.name, follow=not is_rest):
                    position += len(data)
                    if position > start:
                        piece = data[len(data) - (position - start) :] if position - start < len(data) else data
                        yield start, piece
                        start += len(piece)
            except EngineError as error:
                if error.status in (404, 409):  # released, or about to be
                    return
                raise
            if is_rest:
                return


async def _to_its_end(request: Coroutine[Any, Any, None]) -> None:
    """Make a request of milliseconds that is not given up half-way: nobody would know whether it was done.

    A cancellation, a task's own or a scope's, goes on when it is over, or after `_ANSWERED_WITHIN`.
    """
    task = asyncio.ensure_future(request)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        give_up = asyncio.get_running_loop().time() + _ANSWERED_WITHIN
        while not task.done() and asyncio.get_running_loop().time() < give_up:
            with contextlib.suppress(asyncio.CancelledError), anyio.CancelScope(shield=True):
                await asyncio.wait([task], timeout=1.0)
        if not task.cancel() and not task.cancelled():
            task.exception()  # seen: the cancellation is what counts
        raise


def _launch_failed(error: EngineError, image: str, python: str) -> RuntimeFailure:
    text = start_failure(str(error), image, python)
    if error.status < 500:
        return Rejected(text)
    if "could not select device driver" in text:
        return Rejected(f"the engine has no GPUs to give: {text}")
    return NoCapacity(text)
