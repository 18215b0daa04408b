"""Claims on folders of a remote machine. While a claim is held, no prune removes its folders."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import anyio

from lightwork.runtime import RuntimeFailure

if TYPE_CHECKING:
    from lightwork_runtimes.ssh._session import Session

__all__ = ["claimed"]

_LET_GO_WITHIN = 5.0


@contextlib.asynccontextmanager
async def claimed(session: Session, paths: Sequence[str]) -> AsyncIterator[None]:
    """Keep these folders from removal inside the context. Paths are relative to `folder`; they need not exist yet."""
    number, _ = await session.request("claim", paths=paths)
    try:
        yield
    finally:
        # A failure here does no harm: the claims end with the connection.
        with anyio.move_on_after(_LET_GO_WITHIN, shield=True), contextlib.suppress(RuntimeFailure):
            await session.request("unclaim", number=number)
