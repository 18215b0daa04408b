from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

from lightwork.runtime import Ref, Runtime, Spec
from lightwork_runtimes.local import LocalOptions, LocalRuntime

Method = Literal["fork", "spawn"]
OWNER = "owner"
ENTRY = "tests.runtimes.entries:main"


def spec(command: str, name: str = "a", **changes: Any) -> Spec:
    fields: dict[str, Any] = {"name": name, "owner": OWNER, "entry": ENTRY, "ticket": command.encode()}
    return Spec(**{**fields, **changes})


@contextlib.asynccontextmanager
async def local(home: Path, method: Method = "fork", **options: Any) -> AsyncIterator[LocalRuntime]:
    """Yield an entered local runtime. Release its remaining launches at the end."""
    async with LocalRuntime("local", LocalOptions(home=str(home), start_method=method, **options)) as runtime:
        try:
            yield runtime
        finally:
            for ref in await runtime.find(OWNER):
                await runtime.release(ref)


async def output(runtime: Runtime, ref: Ref, start: int = 0, *, follow: bool = True) -> str:
    return b"".join([data async for _, data in runtime.logs(ref, start, follow=follow)]).decode()


async def first_output(runtime: Runtime, ref: Ref) -> str:
    """Wait for the first output of a launch and return it."""
    stream = runtime.logs(ref, follow=True)
    try:
        _, data = await anext(stream)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return data.decode()


def is_alive(pid: int) -> bool:
    """Whether the process runs. False for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def read_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
