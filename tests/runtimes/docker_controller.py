"""A scheduler in a separate process. It launches the given commands on docker and then waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.runtimes.docker_support import Folder, docker_runtime, first_output


async def main(path: Path, owner: str, commands: list[str]) -> None:
    folder = Folder(path)
    folder.owner = owner
    async with docker_runtime(owner) as runtime:
        for number, command in enumerate(commands):
            await first_output(runtime, await runtime.launch(folder.spec(command, f"c{number}")))
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
