"""Hosts in network namespaces of this machine, each with a virtual cable that can be unplugged."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def why_not() -> str:
    """Return why network namespaces cannot be made; empty if they can."""
    if IP is None:
        return "the command `ip` is not installed: run .ci/netns"
    name = f"lw-probe-{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except RuntimeError as error:
        return f"network namespaces cannot be made here: {error}"
    return ""


def require_namespaces() -> None:
    """Skip the module if network namespaces cannot be made."""
    if reason := why_not():
        pytest.skip(reason, allow_module_level=True)


def ip(*words: str) -> None:
    """Run iproute2's command."""
    done = subprocess.run([IP or "ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Island:
    """One host: a namespace with its own loopback, and a cable to this machine.

    Attributes:
        address: IP address of the host.
        prefix: Command line that executes a command on the host.
    """

    def __init__(self, number: int) -> None:
        # Names of devices have at most 15 characters. The addresses are from a network that is reserved for tests.
        self._name = f"lw{os.getpid()}-{number}"
        self._cable, self._remote_end = f"{self._name}v", f"{self._name}w"
        third, second = os.getpid() % 256, 18 + os.getpid() // 256 % 2
        self._near, self.address = (f"198.{second}.{third}.{4 * number + end}" for end in (1, 2))
        self.prefix = [IP or "ip", "netns", "exec", self._name]

    def make(self) -> None:
        """Make the host, with the cable plugged in."""
        ip("netns", "add", self._name)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", self._remote_end)
        ip("link", "set", self._remote_end, "netns", self._name)
        ip("address", "add", f"{self._near}/30", "dev", self._cable)
        ip("link", "set", self._cable, "up")
        ip("-netns", self._name, "address", "add", f"{self.address}/30", "dev", self._remote_end)
        ip("-netns", self._name, "link", "set", "lo", "up")
        self.plug()

    def plug(self) -> None:
        """Plug the cable in."""
        ip("-netns", self._name, "link", "set", self._remote_end, "up")

    def pull(self) -> None:
        """Unplug the cable: from now on nothing arrives, and neither side is notified."""
        ip("-netns", self._name, "link", "set", self._remote_end, "down")

    def remove(self) -> None:
        """Remove the host. The cable disappears with it when no process runs there."""
        ip("link", "del", self._cable)
        ip("netns", "del", self._name)


@contextlib.contextmanager
def islands(count: int) -> Iterator[list[Island]]:
    """Make `count` hosts, and remove them at the end."""
    made: list[Island] = []
    try:
        for number in range(count):
            made.append(Island(number))
            made[-1].make()
        yield made
    finally:
        for island in made:
            island.remove()
