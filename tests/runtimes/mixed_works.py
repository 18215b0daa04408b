"""The work of the app that is in several places. It says where it is."""

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
    """The runtime that this process was started by."""
    # Not /.dockerenv: the tests themselves may run in a container.
    if os.path.exists("/opt/lightwork/start.py"):
        return "docker"
    # The ssh runtime's variable for the paths of the code it has sent.
    return "ssh" if "LW_PATHS" in os.environ else "local"
