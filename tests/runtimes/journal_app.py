"""An app with a journal and one work elsewhere, as a process that is killed and goes on.

Arguments: a file for the journal, the runtime's class as ``module:Class``, its options in JSON, and ``resume`` or not.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from typing import Any

import msgspec

from lightwork import App, Flow, Work


class Gate(Work):
    def __init__(self) -> None:
        super().__init__(parallel=True)
        self.pid = 0
        self.is_open = False

    async def run(self) -> int:
        self.pid = os.getpid()
        while not self.is_open:  # noqa: ASYNC110 -- the flow's proposal sets it
            await asyncio.sleep(0.05)
        return self.pid


class Root(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.work = Gate()

    async def run(self) -> None:
        print("result", await self.work.submit(), flush=True)
        self.stop()


async def main(journal: str, kind: str, options: str, resume: bool) -> None:
    module, _, name = kind.partition(":")
    cls: Any = getattr(importlib.import_module(module), name)
    runtime = cls("far", msgspec.json.decode(options, type=cls.Options))
    root = Root()
    app = App(
        root, journal=journal, resume=resume, runtimes={"far": runtime}, runtime="far", reconnect_window=60, grace=20
    )
    async with app:
        await app.wait_for(lambda: bool(root.work.pid))
        print("running", root.work.pid, flush=True)
        root.work.is_open = resume
        await app.wait_stopped()


if __name__ == "__main__":
    journal, kind, options, *rest = sys.argv[1:]
    asyncio.run(main(journal, kind, options, rest == ["resume"]))
