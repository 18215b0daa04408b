"""The account with the cloud: its drivers, each in a thread of its own, asked from the event loop."""

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
"""Calls that go on at once. They are few and slow, and clouds refuse those who ask too often."""

_MOST_SAID = 600
_URL = re.compile(r" with url: \S+")
"""A failed request's text repeats all that was sent."""

_T = TypeVar("_T")
_log = logging.getLogger("lightwork.runtimes.cloud")


class Account:
    """Asks the cloud. Drivers are not thread-safe, so each thread makes one for itself.

    Cancelling a request does not end it: it is answered in its thread, and nobody gets the answer. Where that must
    not happen, as when a machine is made, the caller must not be cancelled.

    Args:
        where: Names the profile in messages.
        options: The profile's.

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
        """Make the first driver, which tells whether the profile can be used; `tasks` holds what others wait for.

        Raises:
            ConfigError: It cannot.
        """
        self._tasks = tasks
        await self._in_thread(self._driver)

    async def create(self, order: Order) -> Machine:
        """Make a machine.

        Raises:
            Rejected, NoCapacity: Nothing was made.
            Unreachable: Nobody knows whether one was.
        """
        return await self._ask("for a machine", lambda driver: self._provider.create(driver, order))

    async def machines(self, owner: str | None) -> list[Machine]:
        """Every machine of an owner, or of all of them. Who asks while another waits for its turn gets its answer.

        Raises:
            RuntimeFailure: The cloud could not be asked, or refuses.
        """
        pending = self._listing.get(owner)
        if pending is None:
            pending = start(self._tasks, lambda: self._list(owner), f"lightwork cloud list {self._where}")
            self._listing[owner] = pending
        return await asyncio.shield(pending)

    async def _list(self, owner: str | None) -> list[Machine]:
        loop = asyncio.get_running_loop()

        def ask(driver: NodeDriver) -> list[Machine]:
            # From here on the answer may be too old for who asks next.
            loop.call_soon_threadsafe(self._listing.pop, owner, None)
            return self._provider.machines(driver, owner)

        return await self._ask("which machines there are", ask)

    async def destroy(self, machine: str) -> None:
        """Give a machine back.

        Raises:
            RuntimeFailure: The cloud could not be asked, or refuses.
        """
        await self._ask(f"to give {machine} back", lambda driver: self._provider.destroy(driver, machine))

    async def console(self, machine: str) -> str:
        """What a machine has printed on its console.

        Raises:
            RuntimeFailure: The cloud could not be asked, or cannot tell.
        """
        return await self._ask(f"for the console of {machine}", lambda driver: self._provider.console(driver, machine))

    async def aclose(self) -> None:
        """Wait for what is under way, each at most `CloudOptions.api_timeout`, and close the connections."""
        await anyio.to_thread.run_sync(self._threads.shutdown)
        for driver in self._drivers:
            connection = getattr(driver, "connection", None)
            with contextlib.suppress(AttributeError):  # a driver of one's own need not have any of it
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
            # Outside of the clause: the driver's error, whose text may hold a secret, is not even its context.
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
