"""Tells when the work's own service answers, so that `Work.url` is there once it does and gone when it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lightwork.components.ports import assigned_service

if TYPE_CHECKING:
    from lightwork.components.work import Work

__all__ = ["ServiceWatch"]

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5
_UP_PAUSE = 2.0
"""Seconds between two looks at a service that answers. Whether somebody listens at a port can only be tried."""


class ServiceWatch:
    """Tries the work's port while calls run and the port is known.

    Args:
        work: The work, in the worker.
        internal_ip: Address that others reach it at, for a service bound to all addresses.

    Attributes:
        calls: Calls that run; set by the agent.
    """

    def __init__(self, work: Work, internal_ip: str) -> None:
        self._work = work
        self._internal_ip = internal_ip
        self._calls = 0
        self._wake = asyncio.Event()

    @property
    def calls(self) -> int:
        """Calls that run now."""
        return self._calls

    @calls.setter
    def calls(self, number: int) -> None:
        # Most works have no port, and their calls must not wake anybody.
        if (number == 0) != (self._calls == 0) and self._work._state.values["_port"] is not None:
            self._wake.set()
        self._calls = number

    def port_changed(self) -> None:
        """The work's port is known from now on."""
        self._wake.set()

    async def serve(self) -> None:
        """Set and clear the work's url, until cancelled. With no port, or no call and no url, it sleeps."""
        assigned, url = _place(self._work)
        pause = _FIRST_PAUSE
        while True:
            state = self._work._state
            port: int | None = state.values["_port"]
            if port is None or not (self._calls or state.values["_url"]):
                self._wake.clear()
                await self._wake.wait()
                pause = _FIRST_PAUSE
                continue
            host = self._work.host
            answers = await _answers("127.0.0.1" if host in ("0.0.0.0", "") else "::1" if host == "::" else host, port)
            found = url if port == assigned and url else self._spell(host, port)
            state.set("_url", found if answers else "")
            pause = _UP_PAUSE if answers else min(pause * 1.5, _LONGEST_PAUSE)
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                pause = _FIRST_PAUSE
            except TimeoutError:
                continue

    def _spell(self, host: str, port: int) -> str:
        if host in ("0.0.0.0", "", "::"):
            host = self._internal_ip or "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _place(work: Work) -> tuple[int | None, str]:
    """Put the work's service where its runtime wants it; gives the port and the url of that, as far as they are known.

    A work that names a host of its own keeps it. The port becomes the work's when it first asks for one.
    """
    host, port, url = assigned_service()
    if host and work.host in ("127.0.0.1", "localhost"):
        work._state.set("_host", host)
    return port, url


async def _answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
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
