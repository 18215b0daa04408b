"""Disks that are full when a test says so."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fill", "full", "small_disk"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 96 MB at `folder`, where this user may mount one; gives whether it is there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=96m,mode=0700", "lightwork-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)


def fill(ballast: Path) -> None:
    """Leave no byte on the disk of this file."""
    with ballast.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                while file.write(bytes(size)):
                    continue
            except OSError:
                size = size // 256 if size > 4096 else 0


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """While the context lasts there is no room on the disk."""
    ballast = disk / "ballast"
    fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()
