"""The program that the docker tests launch, sent as the app's code. The ticket is its command, as text."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable


def main() -> int:
    command, _, rest = sys.stdin.buffer.read().decode().partition(" ")
    return _COMMANDS[command](rest)


def _eat(rest: str) -> int:
    """Use up memory."""
    held = [bytearray(1 << 20) for _ in range(int(rest))]
    return len(held) and 0


def _eat_in_child(rest: str) -> int:
    """Let a child use up memory, and go on."""
    child = os.fork()
    if not child:
        _eat(rest)
        os._exit(0)
    os.waitpid(child, 0)
    return 0


def _graceful(rest: str) -> int:
    def bye(*_: object) -> None:
        os.write(1, b"bye\n")
        sys.exit(7)

    signal.signal(signal.SIGTERM, bye)
    print("waiting", flush=True)
    while True:
        signal.pause()


def _say(rest: str) -> int:
    print(rest)
    return 0


TEXT = (
    "first\n" + "x" * 16_383 + "y" * 20_000 + "\n\nümlaut ✓\t\x01\n" * 3 + "".join(f"{n}\n" for n in range(500)) + "end"
)


def _text(rest: str) -> int:
    """Write `TEXT`, alternating between both streams."""
    data = TEXT.encode()
    for number, start in enumerate(range(0, len(data), 100)):
        os.write(1 + number % 2, data[start : start + 100])
    return 0


def _facts(rest: str) -> int:
    """Print the facts that the process sees of its container."""
    import lightwork

    shm = os.statvfs("/dev/shm")
    facts = {
        "cwd": os.getcwd(),
        "env": os.environ.get("LW_TEST"),
        "uid": os.getuid(),
        "shm": shm.f_blocks * shm.f_frsize,
        "lightwork": lightwork.__file__,
        "argv": sys.argv,
        "environ": dict(os.environ),
        "marker": _read("/marker"),
        "mounted": _read("/mounted/file"),
    }
    print(json.dumps(facts))
    return 0


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def _version(rest: str) -> int:
    """Print the version of a package that a requirement installed."""
    import importlib

    print(importlib.import_module(rest).__version__)
    return 0


_COMMANDS: dict[str, Callable[[str], int]] = {
    "eat": _eat,
    "eat-in-child": _eat_in_child,
    "graceful": _graceful,
    "say": _say,
    "text": _text,
    "facts": _facts,
    "version": _version,
}
