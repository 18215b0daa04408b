"""What is kept for later launches, on the profile's machines and on this one; see `lightwork.runtime.Caching`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

from lightwork.runtime import Cached
from lightwork_runtimes.remote import kept

if TYPE_CHECKING:
    from lightwork_runtimes.ssh._host import Host

__all__ = ["cached", "discard"]

_WHEELS = "wheels"


async def cached(hosts: Sequence[Host]) -> list[Cached]:
    """Return everything that is kept.

    Raises:
        RuntimeFailure: A machine cannot be queried.
    """
    answers = await asyncio.gather(*(_ask(host) for host in hosts))
    folder = kept.cache_folder(_WHEELS)
    here = await anyio.to_thread.run_sync(kept.entries, folder, _WHEELS)
    return [entry for entries in (*answers, _at(folder, here)) for entry in entries]


async def _ask(host: Host) -> list[Cached]:
    found, _ = await host.ask("cached")
    return _at(_place(host), found)


def _place(host: Host) -> str:
    return f"{host.target.label}:{host.target.folder}"


def _at(place: str, entries: Sequence[dict[str, Any]]) -> list[Cached]:
    return [msgspec.convert({**entry, "place": place}, Cached) for entry in entries]


async def discard(hosts: Sequence[Host], entry: Cached) -> bool:
    """Remove an entry unless it is in use. Return whether it is gone.

    Raises:
        RuntimeFailure: Its machine cannot be queried, or the entry cannot be removed.
    """
    folder = kept.cache_folder(_WHEELS)
    if (entry.kind, entry.place) == (_WHEELS, folder):
        return await anyio.to_thread.run_sync(kept.discard, folder, entry.name)
    for host in hosts:
        if entry.place == _place(host):
            return bool((await host.ask("discard", kind=entry.kind, name=entry.name))[0])
    return True
