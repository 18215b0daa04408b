"""The runtime `docker`: each work in a separate container.

The engine holds all facts of a launch: the container's name and labels, its state, its output. So any runtime with the
same engine finds the launches of another runtime, even if that one has ended. Only this object's memory tells whether
a stop was requested.
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
from lightwork_runtimes.docker._engine import DockerEngine, EngineError
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
"""Seconds that an engine has to answer a request that must not be interrupted."""

_TERM, _KILL = "SIGTERM", "SIGKILL"


class DockerRuntime:
    """Runs works as containers of one engine.

    Entering the context connects to the engine. The app's folder, lightwork and the work's requirements go into an
    image, which is built again when one of them has changed. A worker receives its ticket on its standard input, which
    the engine does not store, and connects to one of the addresses from `routes`.
    """

    Options: ClassVar[type[msgspec.Struct]] = DockerOptions
    is_remote: ClassVar[bool] = True

    def __init__(self, name: str = "docker", options: DockerOptions | None = None) -> None:
        self.name = name
        self.options = options or DockerOptions()
        self._engine: DockerEngine | None = None
        self._stack = AsyncExitStack()
        self._events: Events
        self._images: Images
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._stopped: set[str] = set()
        self._asked: set[str] = set()

    async def __aenter__(self) -> Self:
        """Connect to the engine.

        Raises:
            PlatformError: aiodocker is not installed, or the engine is not found or does not answer.
        """
        engine = DockerEngine(find_engine(self.options))
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
        """Disconnect from the engine and leave the containers alone. Tasks that wait for one must have ended before."""
        self._engine = None
        await self._stack.aclose()

    @classmethod
    async def diagnose(cls, name: str, options: DockerOptions | None) -> Sequence[Finding]:
        """Check what is missing on this machine; see `lightwork.runtime.Diagnosable`."""
        return await _diagnose.look(options or DockerOptions())

    @property
    def launch_within(self) -> float:
        """Seconds that a launch may take in addition to `launch_timeout`; see `DockerOptions.launch_within`."""
        return self.options.launch_within

    @property
    def _docker(self) -> DockerEngine:
        if self._engine is None:
            raise RuntimeError("use the runtime in its context: `async with runtime:`")
        return self._engine

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the listener's addresses as containers see them: the network's gateway and ``host.docker.internal``.

        Raises:
            Rejected: The listener is on the loopback only, which containers with a separate network do not reach.
        """
        return await find_routes(self._docker, self.options, listener)

    # --- launching ------------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Create and start a container; see `lightwork.runtime.Runtime.launch`.

        The first launch of an image, a set of requirements or a state of the code also waits for its pull or build.
        Cancelling leaves no container, or one that `find` returns. A pull or build that has begun continues on the
        engine, and a later launch uses its result.

        Raises:
            Rejected: Also if an image is not found, cannot be built, or has another Python. The message has the last
                lines of the build.
            NoCapacity: The engine cannot start the container now: it lacks a port, an address or a device.
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
                    await engine.remove(spec.name)  # the next try draws another port
                else:
                    break
        return self._ref(spec.name)

    async def _create(self, spec: Spec, image: str) -> str:
        """Create the container if it does not exist. Return its image, a new one if `image` was removed meanwhile."""
        engine = self._docker
        while True:
            config = describe(spec, self.options, image, publish_address(engine, self.options))
            try:
                await _to_its_end(engine.create(spec.name, config))
            except EngineError as error:
                if error.status == 409:
                    return image  # `_start` checks its spec
                if error.status != 404 or "image" not in str(error).lower():
                    raise
                self._images.forget()  # the image was removed
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
            raise Conflict(f"{spec.name}: a container with this name exists from another spec; use names only once")
        return self._ref(spec.name)

    def _ref(self, name: str) -> Ref:
        return Ref(self.name, name)

    # --- state ----------------------------------------------------------------------------------

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return the current report of each container."""
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
            # A container that is being created is listed shortly before it can be inspected.
            return Report(Standing.PENDING, detail="being created")
        return report_of(found, name in self._stopped)

    async def wait(self, ref: Ref) -> Report:
        """Wait until the container has ended and return its report.

        Raises:
            Unreachable: The engine stopped answering.
        """
        return await self._wait_until(ref.name, over=True)

    async def _wait_until(self, name: str, *, over: bool) -> Report:
        """Return when the container has ended or, with `over=False`, as soon as it is no longer pending."""
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
        """Return every container of this owner that was not removed, whichever process launched it."""
        return [self._ref(name) for name in await self._docker.names(f"{OWNER}={owner}")]

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the container: send SIGTERM to the worker and, after `grace` seconds, SIGKILL to all its processes.

        A container that was created and never started is removed. After cancelling, the stop stays requested.
        """
        name = ref.name
        report = await self._look(name)
        if report.standing is Standing.PENDING:
            async with self._locks[name]:  # a concurrent launch has then started it, or never will
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
        # Only once: many programs take a second SIGTERM as "now".
        if name not in self._asked:
            self._asked.add(name)
            await self._docker.kill(name, _TERM)
        with anyio.move_on_after(grace):
            await self._wait_until(name, over=True)
            return True
        return False

    async def release(self, ref: Ref) -> None:
        """Remove the container with its output, whether it runs or not. Idempotent.

        Images stay for the next launch; see `cached`.
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

    # --- cached images --------------------------------------------------------------------------

    async def cached(self) -> Sequence[Cached]:
        """Return the images that any lightwork has built on this engine; see `lightwork.runtime.Caching`.

        Launches from other machines leave no record here. For them an image counts as used when it was built, and while
        it has a container.
        """
        return await _cache.cached(self._docker)

    async def discard(self, entry: Cached) -> bool:
        """Remove an image unless a container or another image uses it."""
        self._images.forget()
        return await _cache.discard(self._docker, entry)

    # --- output ---------------------------------------------------------------------------------

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Yield standard output and error of the container, in pieces as it wrote them.

        The engine returns output only from its beginning, so the part before `start` is read and dropped. The engine
        stores text: invalid UTF-8 bytes become replacement characters.

        Raises:
            Unreachable: The engine stopped answering; call again with the last offset when it answers.
        """
        if (await self._look(ref.name)).standing is Standing.PENDING:
            if not follow:
                return
            await self._wait_until(ref.name, over=False)
        while True:
            position = 0
            # Query the state before the output. The end of a followed stream proves neither that the output is complete
            # (engine 20.10 drops the last output) nor that the container has ended (the engine may have restarted).
            is_rest = not follow or (await self._look(ref.name)).standing.is_over
            try:
                async for data in self._docker.output(ref.name, follow=not is_rest):
                    position += len(data)
                    if position > start:
                        piece = data[len(data) - (position - start) :] if position - start < len(data) else data
                        yield start, piece
                        start += len(piece)
            except EngineError as error:
                if error.status in (404, 409):  # released, or being released
                    return
                raise
            if is_rest:
                return


async def _to_its_end(request: Coroutine[Any, Any, None]) -> None:
    """Make a short request that is not cancelled halfway, because nobody would know whether it was done.

    A cancellation, of the task or of a scope, continues when the request has ended, or after `_ANSWERED_WITHIN`.
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
            task.exception()  # mark it as retrieved: the cancellation is raised instead
        raise


def _launch_failed(error: EngineError, image: str, python: str) -> RuntimeFailure:
    text = start_failure(str(error), image, python)
    if error.status < 500:
        return Rejected(text)
    if "could not select device driver" in text:
        return Rejected(f"the engine has no GPUs for this container: {text}")
    return NoCapacity(text)
