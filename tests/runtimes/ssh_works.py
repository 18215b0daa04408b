"""Works of the SSH tests, and a scheduler in a separate process that is killed."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from lightwork import Work
from lightwork.runtime import Spec
from lightwork_runtimes.ssh import SshOptions, SshRuntime


class Echo(Work):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def run(self, value: int) -> list[object]:
        self.count += 1
        return [value, os.getpid(), os.getcwd(), __file__, sys.executable]


async def control(profile: str, options: SshOptions) -> None:
    """Launch a work that waits and a work that ends, report both, and wait to be killed."""
    async with SshRuntime(profile, options) as runtime:
        for number, ticket in enumerate([b"wait", b"say done"]):
            name = f"c{number}"
            ref = await runtime.launch(
                Spec(name=name, owner="owner", entry="lightwork.testing.conformance:main", ticket=ticket)
            )
            await anext(runtime.logs(ref, follow=True))
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(control(sys.argv[1], msgspec.json.decode(sys.argv[2], type=SshOptions)))
