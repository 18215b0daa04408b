"""The runtime `local`: each work in a separate process on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

import anyio
import anyio.to_thread
import msgspec

from lightwork.errors import PlatformError
from lightwork.runtime import ABSENT, Address, Cached, Cause, Finding, Ref, Rejected, Report, Spec, Standing
from lightwork_runtimes.local import _diagnose
from lightwork_runtimes.local._launchdir import LaunchDir, View, check_name, open_home
from lightwork_runtimes.local._link import LauncherDied, LauncherLink
from lightwork_runtimes.local._process import Identity, all_pids, belongs, birth_of, send_signal
from lightwork_runtimes.local._venvs import Venvs
from lightwork_runtimes.local._watch import CONTENT, RECORD, Deaths, Files, Ticker

__all__ = ["LocalOptions", "LocalRuntime"]

_ENTRY_MODULE = "lightwork.worker"
_WARMUP = "lightwork.worker.warmup:warm_up"
# Imported once for all works: nearly every work's module imports `lightwork.app`, and cloudpickle unpacks the work.
_COMMON_MODULES = ["lightwork.app", "cloudpickle"]
_CHUNK = 65536
_REMOVED_AT_ONCE = 1 << 20
"""Size in bytes below which an output is removed in the event loop, not in a thread."""

_SWEEP_WITHIN = 5.0


class LocalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a profile of kind ``local``.

    Attributes:
        start_method: ``fork`` starts works as copies of a helper process that has imported lightwork and `preload`
            already. ``spawn`` starts a fresh interpreter for each work. ``auto`` is fork on Linux and spawn elsewhere.
        preload: Modules that the helper imports once, so that forked works need not. If a module starts threads, the
            helper spawns instead, and the report of a work says so.
        home: Folder for the files of each launch, with the output of works. Other users must not be able to enter it.
            None: ``lightwork-<uid>`` in the folder for temporary files. The disk must have space for the output.
        venvs: Folder for the virtual environments of works with requirements. None: ``lightwork/venvs`` in
            ``$XDG_CACHE_HOME``, or in ``~/.cache``. ``lightwork cache prune`` removes unused environments.
    """

    start_method: Literal["auto", "fork", "spawn"] = "auto"
    preload: list[str] = []
    home: str | None = None
    venvs: str | None = None


class LocalRuntime:
    """Runs works as processes of this machine, each the leader of its own session.

    Entering starts a helper process, the launcher. Leaving releases the launcher, which stays until the last worker has
    ended. All facts about a launch are in files below `LocalOptions.home`. So any later runtime with the same `home`
    can adopt the launch, even if this process was killed.

    A worker inherits the environment that this process had on entering. If its `Spec.build` has requirements or
    commands, the worker is spawned in a virtual environment. The environment is made once for each set of requirements
    and commands; the packages of this process stay importable after those of the environment. Images, Dockerfiles and
    `Spec.compute` are not used.
    """

    Options: ClassVar[type[msgspec.Struct]] = LocalOptions
    is_remote: ClassVar[bool] = False

    def __init__(self, name: str = "local", options: LocalOptions | None = None) -> None:
        self.name = name
        self.options = options or LocalOptions()
        self._ticker = Ticker()
        self._files = Files(self._ticker)
        self._deaths = Deaths(self._ticker)
        self._venvs = Venvs(self.options.venvs)
        self._link: LauncherLink | None = None
        self._starting = anyio.Lock()
        self._asked: set[str] = set()
        self._home = Path()
        self._self = Identity(0, "")

    async def __aenter__(self) -> Self:
        """Start the launcher. Return while it still imports its modules.

        Raises:
            PlatformError: This platform has no POSIX processes.
            Rejected: `home` belongs to another user, or others can enter it.
        """
        if os.name != "posix":
            raise PlatformError(
                f"the runtime `local` needs a POSIX platform, got {sys.platform}; use Linux, macOS or WSL"
            )
        self._home = open_home(self.options.home)
        self._self = Identity(os.getpid(), birth_of(os.getpid()) or "")
        self._files.open()
        try:
            self._link = await self._start_link()
        except BaseException:
            self._files.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the launcher. Workers run on. Tasks that wait for a launch must have ended before."""
        try:
            if self._link is not None:
                with anyio.CancelScope(shield=True):
                    await self._link.finish()
        finally:
            self._link = None
            self._deaths.close()
            self._files.close()
            self._ticker.close()

    @classmethod
    async def diagnose(cls, name: str, options: LocalOptions | None) -> Sequence[Finding]:
        """Check what this machine lacks; see `lightwork.runtime.Diagnosable`."""
        options = options or LocalOptions()
        return list(_diagnose.look(options.home, options.start_method))

    async def routes(self, listener: Address) -> Sequence[Address]:
        """Return the listener's Unix socket, then its address: the loopback if it listens on every interface."""
        return listener.from_here

    # --- launching ------------------------------------------------------------------------------

    async def launch(self, spec: Spec) -> Ref:
        """Start a process for the spec; see `lightwork.runtime.Runtime.launch`.

        Return when the process exists. A launcher that has died is replaced. The first launch with a new set of
        requirements takes as long as their installation. Cancelling leaves either nothing or a launch that `find`
        returns. It also aborts and removes an installation; another launch that waits for the same environment then
        makes it.

        Raises:
            Rejected: Also if requirements cannot be installed; the message has the last lines of pip or uv.
        """
        _check(spec)
        async with self._venvs.held(spec.build, spec.cwd) as venv:
            while True:
                try:
                    await self._launch(spec, venv)
                except LauncherDied:
                    continue  # nothing was made; the next round starts another launcher or raises its error
                return self._ref(spec.name, spec.owner)

    async def _launch(self, spec: Spec, venv: str | None) -> None:
        link = await self._ready_link()
        # No await from here to `submit`: a folder must not exist without a launch request.
        folder, is_new = LaunchDir.create(self._home, spec, link.identity, self._self, venv)
        if not is_new:
            known = link.answer_to(folder.path)
            if known is not None:
                await known.wait()
            return
        try:
            answer = link.submit(folder.path, spec.ticket)
        except BaseException:
            folder.discard()
            raise
        await answer.wait()

    def _ref(self, name: str, owner: str) -> Ref:
        return Ref(self.name, name, {"owner": owner})

    async def _start_link(self) -> LauncherLink:
        method = self.options.start_method
        fork = method == "fork" or (method == "auto" and sys.platform == "linux")
        preload = [*_COMMON_MODULES, *self.options.preload]
        link = LauncherLink(fork=fork, entry_module=_ENTRY_MODULE, preload=preload, warmup=_WARMUP)
        with anyio.CancelScope(shield=True):  # a few milliseconds; a cancellation would leave a launcher without owner
            await link.start()
        return link

    async def _ready_link(self) -> LauncherLink:
        """Return the launcher when it is ready. Start another one if it has died."""
        async with self._starting:
            if self._link is None:
                raise RuntimeError("the runtime is not entered; use `async with runtime:`")
            if self._link.is_lost:
                await self._link.finish()
                self._link = await self._start_link()
            link = self._link
        await link.wait_ready()
        return link

    # --- asking ---------------------------------------------------------------------------------

    def _locate(self, ref: Ref) -> LaunchDir | None:
        return LaunchDir.locate(self._home, ref.name, ref.hint.get("owner"))

    async def poll(self, refs: Sequence[Ref]) -> Sequence[Report]:
        """Return a report for each ref, from the files and processes as they are now."""
        return [self._report(ref) for ref in refs]

    def _report(self, ref: Ref) -> Report:
        try:
            folder = self._locate(ref)
            return ABSENT if folder is None else folder.look().report
        except (OSError, msgspec.DecodeError) as error:
            return Report(Standing.UNKNOWN, detail=f"{type(error).__name__}: {error}")

    async def wait(self, ref: Ref) -> Report:
        """Return the report when the launch has ended. Waiting for a launch of another process adopts it.

        The old launcher does not end an adopted launch as an orphan while this process lives.
        """
        folder = self._locate(ref)
        if folder is None:
            return ABSENT
        spec = folder.spec()
        if spec is not None and spec.maker != self._self and not folder.look().report.standing.is_over:
            folder.mark_keeper(self._self)
        return await self._wait_over(folder)

    async def find(self, owner: str) -> Sequence[Ref]:
        """Return the ref of every launch of this owner that was not released, launched by any process."""
        return [self._ref(name, owner) for name in LaunchDir.names(self._home, owner)]

    async def _wait_over(self, folder: LaunchDir) -> Report:
        view = await self._wait_until(folder, lambda view: view.report.standing.is_over)
        record = folder.record()
        if record.started is not None and record.ended is None:
            await self._clear_tree(os.path.basename(folder.path), record.started.worker)
            folder.write_ended(view.report.exit_code, view.report.cause, view.report.detail)
        return view.report

    async def _wait_until(self, folder: LaunchDir, done: Callable[[View], bool]) -> View:
        changed = asyncio.Event()
        with ExitStack() as watches:
            watches.enter_context(self._files.watch(folder.record_path, RECORD, changed))
            watched: set[Identity] = set()
            while True:
                changed.clear()
                view = folder.look()
                if done(view):
                    return view
                self._watch_also(view, watched, watches, changed)
                await changed.wait()

    def _watch_also(self, view: View, watched: set[Identity], watches: ExitStack, changed: asyncio.Event) -> None:
        process = view.depends_on
        if process is not None and process not in watched:
            watched.add(process)
            watches.enter_context(self._deaths.watch(process, changed))

    # --- ending ---------------------------------------------------------------------------------

    async def stop(self, ref: Ref, grace: float) -> None:
        """End the whole process tree: send SIGTERM to the worker, and SIGKILL to the tree after `grace` seconds.

        Return when no process of the tree is left. Cancelling does not undo the request to stop.
        """
        folder = self._locate(ref)
        if folder is None:
            return
        if not folder.look().report.standing.is_over:
            folder.mark_stop(Cause.STOPPED)
            if folder.claim():  # before the launcher, so it does not start the worker
                folder.write_ended(None, Cause.STOPPED, "stopped before it was started")
                return
            await self._wait_until(folder, lambda view: view.report.standing != Standing.PENDING)
            if grace > 0 and await self._ends_within(folder, grace):
                return
            self._signal(folder, signal.SIGKILL)
        await self._wait_over(folder)

    async def _ends_within(self, folder: LaunchDir, grace: float) -> bool:
        # Only once: to many programs a second SIGTERM means "now".
        if folder.path not in self._asked:
            self._asked.add(folder.path)
            self._signal(folder, signal.SIGTERM)
        with anyio.move_on_after(grace):
            await self._wait_over(folder)
            return True
        return False

    def _signal(self, folder: LaunchDir, number: signal.Signals) -> None:
        started = folder.record().started
        if started is not None:
            send_signal(started.worker, number)

    async def _clear_tree(self, name: str, worker: Identity) -> None:
        """Kill the rest of a tree. The launcher does this, unless it has died."""
        if sys.platform != "linux":
            return
        with anyio.move_on_after(_SWEEP_WITHIN):
            while left := await anyio.to_thread.run_sync(lambda: belongs(all_pids(), name, worker.pid)):
                for process in left:
                    send_signal(process, signal.SIGKILL)
                for process in left:
                    await self._wait_dead(process)

    async def _wait_dead(self, process: Identity) -> None:
        dead = asyncio.Event()
        with self._deaths.watch(process, dead):
            while process.is_alive:
                dead.clear()
                await dead.wait()

    async def release(self, ref: Ref) -> None:
        """Remove the launch's folder with its output; end the launch first if it still runs. Idempotent."""
        owner = ref.hint.get("owner")
        folder = self._locate(ref)
        if folder is not None:
            try:
                await self.stop(ref, 0)
            except (OSError, msgspec.DecodeError) as error:  # it may still run, so keep its folder
                raise ExceptionGroup(f"{ref.name} could not be ended", [error]) from None
            owner = os.path.basename(os.path.dirname(folder.path))
            self._asked.discard(folder.path)
        if not isinstance(owner, str):
            return
        try:
            if folder is None or folder.log_size < _REMOVED_AT_ONCE:
                LaunchDir.remove(self._home, owner, ref.name)
            else:  # freeing it may take long
                await anyio.to_thread.run_sync(LaunchDir.remove, self._home, owner, ref.name)
        except OSError as error:
            raise ExceptionGroup(f"{ref.name} could not be released", [error]) from None

    # --- the cache ------------------------------------------------------------------------------

    async def cached(self) -> Sequence[Cached]:
        """Return the environments in `LocalOptions.venvs`; see `lightwork.runtime.Caching`."""
        return await self._venvs.cached()

    async def discard(self, entry: Cached) -> bool:
        """Remove an environment, unless a work uses it or it is being made. Return whether it is gone."""
        return await self._venvs.discard(entry)

    # --- output ---------------------------------------------------------------------------------

    async def logs(self, ref: Ref, start: int = 0, *, follow: bool = False) -> AsyncIterator[tuple[int, bytes]]:
        """Yield standard output and error of the whole tree, in pieces of at most 64 kB.

        With `follow` it reads when the kernel reports a change (inotify); on platforms without inotify it reads every
        0.2 s.
        """
        folder = self._locate(ref)
        if folder is None:
            return
        try:
            fd = os.open(folder.log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # released meanwhile
            return
        try:
            changed = asyncio.Event()
            with ExitStack() as watches:
                if follow:
                    watches.enter_context(self._files.watch(folder.log, CONTENT, changed))
                    watches.enter_context(self._files.watch(folder.record_path, RECORD, changed))
                watched: set[Identity] = set()
                while True:
                    changed.clear()
                    view = folder.look()  # before the read: a launch that has ended writes nothing more
                    while data := os.pread(fd, _CHUNK, start):
                        yield start, data
                        start += len(data)
                    if not follow or view.report.standing.is_over:
                        return
                    self._watch_also(view, watched, watches, changed)
                    await changed.wait()
        finally:
            os.close(fd)


def _check(spec: Spec) -> None:
    check_name(spec.name, "the launch's name")
    check_name(spec.owner, "the owner's id")
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry must be `package.module:function`, got {spec.entry!r}")
    for key, value in spec.env.items():
        if not key or "=" in key or "\0" in key + value:
            raise Rejected(f"env {key!r}: a name must not be empty or contain '=', name and value must not contain NUL")
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise Rejected(f"env {key!r}: {error}") from None
