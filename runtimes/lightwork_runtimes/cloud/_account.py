"""Requests to the cloud account. Each thread has a separate driver; the event loop waits for their answers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio.abc
import anyio.to_thread

from lightwork.errors import ConfigError
from lightwork.runtime import RuntimeFailure
from lightwork_runtimes.cloud._credentials import Credentials
from lightwork_runtimes.cloud._errors import explain
from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._providers import Machine, Order, provider_for
from lightwork_runtimes.cloud._tasks import start

if TYPE_CHECKING:
    from libcloud.compute.base import NodeDriver

__all__ = ["Account"]

_THREADS = 4
"""Number of concurrent calls. Calls are few and slow, and clouds throttle frequent callers."""

_MOST_SAID = 600
_URL = re.compile(r" with url: \S+")
"""Part of a failed request's text that repeats all the data sent."""

_T = TypeVar("_T")
_log = logging.getLogger("lightwork.runtimes.cloud")


class Account:
    """Makes requests to the cloud. Drivers are not thread-safe, so each thread has its own driver.

    Cancelling a request does not stop it: its thread completes it and the answer is dropped. A caller that must not
    lose the answer, such as the creation of a machine, must not be cancelled.

    Args:
        where: Name of the profile for messages.
        options: The profile's options.

    Raises:
        Rejected: The credentials cannot be read.
    """

    def __init__(self, where: str, options: CloudOptions) -> None:
        self._where = where
        self._provider = provider_for(where, options)
        self._credentials = Credentials(where, options.credentials)
        self._threads = concurrent.futures.ThreadPoolExecutor(_THREADS, "lightwork-cloud")
        self._own = threading.local()
        self._drivers: list[NodeDriver] = []
        self._listing: dict[str | None, asyncio.Future[list[Machine]]] = {}
        self._tasks: anyio.abc.TaskGroup

    async def open(self, tasks: anyio.abc.TaskGroup) -> None:
        """Create the first driver, which checks the profile. Shared requests run in `tasks`.

        Raises:
            ConfigError: The profile cannot be used.
        """
        self._tasks = tasks
        await self._in_thread(self._driver)

    async def create(self, order: Order) -> Machine:
        """Create a machine.

        Raises:
            Rejected, NoCapacity: No machine was created.
            Unreachable: A machine may have been created.
        """
        return await self._ask("to create a machine", lambda driver: self._provider.create(driver, order))

    async def machines(self, owner: str | None) -> list[Machine]:
        """Return every machine of an owner, or of all owners. Requests that arrive before its turn share one call.

        Raises:
            RuntimeFailure: The cloud cannot be reached, or refuses.
        """
        pending = self._listing.get(owner)
        if pending is None:
            pending = start(self._tasks, lambda: self._list(owner), f"lightwork cloud list {self._where}")
            self._listing[owner] = pending
        return await asyncio.shield(pending)

    async def _list(self, owner: str | None) -> list[Machine]:
        loop = asyncio.get_running_loop()

        def ask(driver: NodeDriver) -> list[Machine]:
            # From here on the answer may be too old for the next caller.
            loop.call_soon_threadsafe(self._listing.pop, owner, None)
            return self._provider.machines(driver, owner)

        return await self._ask("to list the machines", ask)

    async def destroy(self, machine: str) -> None:
        """Delete a machine.

        Raises:
            RuntimeFailure: The cloud cannot be reached, or refuses.
        """
        await self._ask(f"to delete {machine}", lambda driver: self._provider.destroy(driver, machine))

    async def console(self, machine: str) -> str:
        """Return the console output of a machine.

        Raises:
            RuntimeFailure: The cloud cannot be reached, or the console cannot be read.
        """
        request = f"to read the console of {machine}"
        return await self._ask(request, lambda driver: self._provider.console(driver, machine))

    async def aclose(self) -> None:
        """Wait for running calls, each at most `CloudOptions.api_timeout`, and close the connections."""
        await anyio.to_thread.run_sync(self._threads.shutdown)
        for driver in self._drivers:
            connection = getattr(driver, "connection", None)
            with contextlib.suppress(AttributeError):  # a custom driver need not have these attributes
                connection.connection.session.close()  # type: ignore[union-attr]
        self._drivers.clear()

    # --- threads --------------------------------------------------------------------------------

    def _driver(self) -> NodeDriver:
        driver: NodeDriver | None = getattr(self._own, "driver", None)
        if driver is None:
            driver = self._own.driver = self._provider.open(self._credentials.arguments())
            self._drivers.append(driver)
        return driver

    async def _ask(self, doing: str, request: Callable[[NodeDriver], _T]) -> _T:
        def run() -> _T:
            try:
                return request(self._driver())
            except RuntimeFailure:
                raise
            except Exception as error:
                failure = self._explain(doing, error)
            # Raised outside of the `except` clause: the driver's error may hold a secret and must not be its context.
            raise failure

        return await self._in_thread(run)

    async def _in_thread(self, run: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _explain(self, doing: str, error: Exception) -> RuntimeFailure:
        said = self._credentials.scrub(_URL.sub("", str(error) or repr(error))).strip()
        if isinstance(error, ConfigError):
            return RuntimeFailure(said)
        if len(said) > _MOST_SAID:
            said = f"{said[:_MOST_SAID]}..."
        failure = explain(self._where, doing, error, said)
        _log.debug("%s", failure)
        return failure
