"""The first program in a container: prepares the process and calls the entry. It imports nothing of lightwork.

Called as ``python _start.py package.module:function SECONDS``; 0 means no limit.
"""

import importlib
import os
import signal
import sys
import time


def main() -> int | str | None:
    """Call the entry and return its result, for `sys.exit`."""
    entry, lifetime = sys.argv[1], float(sys.argv[2])
    os.dup2(1, 2)  # one stream: the engine reads two streams separately and would mix up their order
    if lifetime:
        end_after(lifetime)
    sys.argv[:] = ["lightwork-worker"]
    module, _, function = entry.partition(":")
    code: int | str | None = getattr(importlib.import_module(module), function)()
    return code


def end_after(seconds: float) -> None:
    """Start a background process that kills all other processes of the container after `seconds`.

    It is not a child of the worker, which may wait for its children. It does not keep the worker's output open.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    time.sleep(seconds)
    os.kill(-1, signal.SIGKILL)  # all processes except the first one, which then exits with 128 + 9
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
