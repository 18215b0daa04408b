"""An app to kill. Run as a module it starts works of all kinds, prints their pids, and waits."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from lightwork import Work
from tests.app.support_calls import ignore_cancellation, running, spend


class Sits(Work):
    """Prints its pid, and then does what its argument selects."""

    def __init__(self, how: str) -> None:
        super().__init__(parallel=True)
        self.how = how
        self.pid = 0

    async def run(self) -> None:
        self.pid = os.getpid()
        if self.how == "waits":
            await asyncio.Event().wait()
        elif self.how == "ignores":
            await ignore_cancellation()
        elif self.how == "blocks":
            await asyncio.sleep(0)
            time.sleep(1000)  # noqa: ASYNC251 -- blocks the loop: what the test is about


class PlainSits(Sits):
    def run(self) -> None:  # type: ignore[override]
        self.pid = os.getpid()
        spend(self.how)


async def main() -> None:
    """Never return."""
    works: dict[str, Any] = {how: Sits(how) for how in ("idles", "waits", "ignores", "blocks")}
    works |= {how: PlainSits(how) for how in ("sleeps", "computes")}
    works["heedless"] = PlainSits("ignores")
    async with running("local", settings={"reconnect_window": 1.0, "grace": 0.5}, **works) as app:
        calls = [work.submit() for work in works.values()]
        await app.wait_for(lambda: all(work.pid for work in works.values()))
        print(*[work.pid for work in works.values()], flush=True)
        await asyncio.gather(*calls)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
