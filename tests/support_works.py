"""Flows and works that several test folders use."""

from __future__ import annotations

import asyncio
from typing import Any

from lightwork import Flow, FlowDelta, Work

__all__ = ["Root", "Told"]


class Root(Flow):
    """Holds the works; the tests call them."""

    def __init__(self, *works: Work) -> None:
        super().__init__()
        self.works_ = list(works)

    async def run(self) -> None:
        await asyncio.Event().wait()


class Told(Work):
    """Waits for the flow to set one of its attributes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def on_start(self) -> None:
        self._told = asyncio.Event()

    def apply_flow_delta(self, delta: FlowDelta) -> None:
        super().apply_flow_delta(delta)
        self._told.set()

    async def until(self, name: str) -> None:
        """Wait until the flow has set the attribute."""
        while not getattr(self, name):
            self._told.clear()
            await self._told.wait()
