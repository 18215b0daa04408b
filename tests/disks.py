"""Disks that a test can fill."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fill", "full", "small_disk"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of 96 MB at `folder` if this user may; return whether it is mounted."""
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
    """Fill the disk of this file to the last byte."""
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
    """Keep the disk full inside of the context."""
    ballast = disk / "ballast"
    fill(ballast)
    try:
        yield
    finally:
        ballast.unlink()
