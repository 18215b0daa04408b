"""What a worker's process does before it is a worker."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, socket
from lightwork.worker.process import keep_buffers
keep_buffers()
here, there = socket.socketpair()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    here.send(b"x")
    there.recv(256 * 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
def test_read_buffers_are_kept() -> None:
    """A fresh worker process reads a thousand messages without asking the system for memory each time."""
    done = subprocess.run([sys.executable, "-P", "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
