"""A read does not allocate memory from the system each time, whatever the process has done before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import asyncio, resource, socket
from lightwork.link.connection import Connection
from lightwork.link.handshake import LAUNCH_SIZE, NONCE_SIZE, ClientHandshake

async def connect():
    Connection(ClientHandshake(bytes(LAUNCH_SIZE), bytes(32), bytes(NONCE_SIZE)), 1024)

asyncio.run(connect())
here, there = socket.socketpair()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    here.send(b"x")
    there.recv(256 * 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory in their own way")
def test_read_buffers_are_kept() -> None:
    """A new process with a connection reads 1000 messages without a memory allocation for each of them."""
    done = subprocess.run([sys.executable, "-P", "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
