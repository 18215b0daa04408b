"""An app with a journal and one remote work, run as a process that is killed and resumed.

Arguments: a file for the journal, the runtime's class as ``module:Class``, its options and more settings of
the app in JSON, and ``resume`` or another word.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from typing import Any

import msgspec

from lightwork import App, Flow, Work


class Gate(Work):
    """Its service sends its pid to each client, until the work may end."""

    def __init__(self) -> None:
        super().__init__(parallel=True)
        self.pid = 0
        self.is_open = False

    async def run(self) -> int:
        self.pid = os.getpid()
        async with await asyncio.start_server(self._tell, self.host, self.port):
            while not self.is_open:  # noqa: ASYNC110 -- the flow's proposal sets it
                await asyncio.sleep(0.05)
        return self.pid

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d" % self.pid)
        writer.close()


class Root(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.work = Gate()

    async def run(self) -> None:
        print("result", await self.work.submit(), flush=True)
        self.stop()


async def asked(url: str) -> str:
    """Return the answer of the service at `url` as soon as there is one."""
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port))
            said = await reader.read()
            writer.close()
            if said:
                return said.decode()
        await asyncio.sleep(0.05)


async def main(journal: str, kind: str, options: str, settings: str, resume: bool) -> None:
    module, _, name = kind.partition(":")
    cls: Any = getattr(importlib.import_module(module), name)
    runtime = cls("far", msgspec.json.decode(options, type=cls.Options))
    root = Root()
    app = App(
        root,
        journal=journal,
        resume=resume,
        runtimes={"far": runtime},
        runtime="far",
        reconnect_window=60,
        grace=20,
        **(msgspec.json.decode(settings)),
    )
    async with app:
        await app.wait_for(lambda: bool(root.work.pid and root.work.url))
        print("running", root.work.pid, flush=True)
        print("url", root.work.url, flush=True)
        print("answer", await asked(root.work.url), flush=True)
        root.work.is_open = resume
        await app.wait_stopped()


if __name__ == "__main__":
    journal, kind, options, settings, *rest = sys.argv[1:]
    asyncio.run(main(journal, kind, options, settings, rest == ["resume"]))
