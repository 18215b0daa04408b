"""The work of the app that runs in several places. It reports the runtime that runs it."""

from __future__ import annotations

import os

from lightwork import Work


class Relay(Work):
    def __init__(self) -> None:
        super().__init__(cache_calls=False)
        self.count = 0

    async def run(self, text: str) -> str:
        self.count += 1
        return f"{text} > {where()}"


def where() -> str:
    """Return the kind of the runtime that started this process."""
    # Not /.dockerenv: the tests themselves may run in a container.
    if os.path.exists("/opt/lightwork/start.py"):
        return "docker"
    # The ssh runtime sets this variable to the paths of the code that it sent.
    return "ssh" if "LW_PATHS" in os.environ else "local"
