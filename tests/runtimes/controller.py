"""A scheduler in a separate process. It launches the given commands and then waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.runtimes.support import Method, first_output, local, spec


async def main(home: Path, method: Method, orphan_after: float, commands: list[str]) -> None:
    async with local(home, method) as runtime:
        for number, command in enumerate(commands):
            ref = await runtime.launch(spec(command, f"c{number}", orphan_after=orphan_after))
            await first_output(runtime, ref)
        assert runtime._link is not None
        print(f"ready {runtime._link.identity.pid}", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(
        main(Path(sys.argv[1]), "spawn" if sys.argv[2] == "spawn" else "fork", float(sys.argv[3]), sys.argv[4:])
    )
