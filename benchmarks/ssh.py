"""A warm call of a work behind an SSH tunnel, beside a bare echo through the same kind of tunnel.

Both go through an sshd on the loopback and the runtime's own tunnel. There are three echoes. The local end of the first
reads the channel itself, as the scheduler does. The local end of the second is a listener that is dialled for each
channel, as in plain forwarding. The third also keeps the memory of its read buffers (see `benchmarks.echo`). Turns are
short, and each turn has its own ratio, because load on this machine slows both sides of a turn.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.calls import calling
from benchmarks.echo import Asking, spawn
from benchmarks.harness import Batch, Budget, Report, Scale, take_turns
from benchmarks.works import Increment, Waiting
from lightwork import App
from lightwork.runtime import ListenerAddress
from tests.runtimes import sshd

TUNNEL = "a warm call through an SSH tunnel"
TURN = 25
"""Calls in a turn."""


@asynccontextmanager
async def server() -> AsyncIterator[sshd.Server]:
    """Run an sshd with a separate folder."""
    with tempfile.TemporaryDirectory(prefix="lightwork-bench-") as folder:
        async with sshd.sshd(Path(folder)) as running:
            yield running


class SshCall:
    """`await work.run(n)` of a work behind a tunnel."""

    name = "lightwork, ssh"
    loop_factory = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        work = Increment()
        async with server() as far, App(Waiting([work]), runtime="far", runtimes={"far": far.runtime()}):
            yield calling(work)


class SshEcho:
    """The bare echo of an asyncio Protocol behind a tunnel.

    Args:
        name: Name of the row.
        dialled: Whether the local end is a listener, which the tunnel dials for each channel.
        keeps: Whether the remote end keeps the memory of its read buffers.
    """

    loop_factory = None

    def __init__(self, name: str, *, dialled: bool, keeps: bool = False) -> None:
        self.name = name
        self._dialled = dialled
        self._form = "keeping" if keeps else "protocol"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Batch]:
        from lightwork_runtimes.ssh import _login, _tunnel

        protocol = Asking()
        async with AsyncExitStack() as stack:
            options = (await stack.enter_async_context(server())).options()
            connection = await _login.log_in("bench", options.targets()[0], options)
            stack.callback(connection.abort)
            near = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
            stack.callback(near.close)
            host, near_port = near.sockets[0].getsockname()
            door = ListenerAddress(host, near_port, None if self._dialled else lambda: protocol)
            port = sshd.free_port()
            if await _tunnel.forward(connection, [port], door) is None:
                raise OSError(f"port {port} cannot be forwarded")
            yield await stack.enter_async_context(protocol.beside(spawn(self._form, None, ("127.0.0.1", port))))


def measure(report: Report, scale: Scale) -> None:
    """Measure warm calls and bare echoes, in turns. Skip without an sshd."""
    if sshd.SSHD is None:
        print("  no sshd here: its tunnel is not measured", file=sys.stderr)
        return
    os.environ.setdefault("LIGHTWORK_TEST_SESSION", "benchmarks")
    bare = SshEcho("bare echo, reads the channel", dialled=False)
    dialled = SshEcho("bare echo, dialled", dialled=True)
    keeping = SshEcho("the same, its buffers kept", dialled=False, keeps=True)
    turns = scale.repeats * scale.calls // TURN
    samples = take_turns([SshCall(), dialled, bare, keeping], turns, TURN)
    for name, taken in samples.items():
        report.add(TUNNEL, name, "µs", [s * 1e6 for s in taken])
    for reference in (dialled, bare, keeping):
        pairs = zip(samples[SshCall.name], samples[reference.name], strict=True)
        ratios = report.add(TUNNEL, f"lightwork, against {reference.name}", "×", [mine / its for mine, its in pairs])
        report.budgets.append(Budget(f"{TUNNEL}: {reference.name}", "×", 1.3, ratios.median))
