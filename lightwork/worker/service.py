"""Watches a work's HTTP service: `Work.url` is set while the service answers, and empty otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lightwork._common.backoff import Backoff
from lightwork.components.ports import assigned_service

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["ServiceWatch"]

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5
_UP_PAUSE = 2.0
"""Seconds between two checks of a service that answers. The only check for a listener at a port is a connection."""


class ServiceWatch:
    """Checks the work's port while calls run and the port is known.

    Args:
        work: The work, in the worker.
        internal_ip: Address at which other machines reach a service that is bound to all addresses.

    Attributes:
        calls: Number of running calls; set by the agent.
    """

    def __init__(self, work: Work, internal_ip: str) -> None:
        self._work = work
        self._internal_ip = internal_ip
        self._calls = 0
        self._wake = asyncio.Event()

    @property
    def calls(self) -> int:
        """Number of running calls."""
        return self._calls

    @calls.setter
    def calls(self, number: int) -> None:
        # Most works have no port, and their calls must not wake the watch.
        if (number == 0) != (self._calls == 0) and self._work._state.values["_port"] is not None:
            self._wake.set()
        self._calls = number

    def port_changed(self) -> None:
        """Note that the work's port is now known."""
        self._wake.set()

    async def serve(self) -> None:
        """Set and clear the work's url, until cancelled. Sleep without a port, or without a call and a url."""
        assigned, url = _place(self._work)
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, factor=1.5)
        while True:
            state = self._work._state
            port: int | None = state.values["_port"]
            if port is None or not (self._calls or state.values["_url"]):
                self._wake.clear()
                await self._wake.wait()
                backoff.reset()
                continue
            host = self._work.host
            answers = await _answers("127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host, port)
            found = url if port == assigned and url else self._spell(host, port)
            state.set("_url", found if answers else "")
            pause = _UP_PAUSE if answers else backoff.advance()
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                backoff.reset()
            except TimeoutError:
                continue

    def _spell(self, host: str, port: int) -> str:
        if host in ("0.0.0.0", "", "::"):
            host = self._internal_ip or "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _place(work: Work) -> tuple[int | None, str]:
    """Set the host that the runtime has assigned to the work's service; return the assigned port and url, if known.

    A work that has set another host keeps it. The work gets the assigned port when it first requests a port.
    """
    host, port, url = assigned_service()
    if host and work.host in ("127.0.0.1", "localhost"):
        work._state.set("_host", host)
    return port, url


async def _answers(host: str, port: int) -> bool:
    """Return whether a listener accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return True
    return True
