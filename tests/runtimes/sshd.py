"""A real sshd on the loopback, with its own keys and without the machine's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("asyncssh")

from lightwork_runtimes.ssh import SshOptions, SshRuntime

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_PR_SET_CHILD_SUBREAPER = 36

needs_sshd = pytest.mark.skipif(SSHD is None, reason="sshd is not installed: run .ci/sshd")


class Server:
    """A running sshd and its files."""

    def __init__(self, folder: Path, address: str, port: int, process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.address = address
        self.port = port
        self.process = process

    @property
    def host(self) -> str:
        return f"{getpass.getuser()}@{self.address}:{self.port}"

    @property
    def far(self) -> Path:
        """Folder of lightwork on the remote side."""
        return self.folder / "far"

    def options(self, **changes: Any) -> SshOptions:
        """Return the options for this server, with works that run in this interpreter."""
        fields: dict[str, Any] = {
            "hosts": [self.host],
            "client_keys": [str(self.folder / "key")],
            "known_hosts": str(self.folder / "known_hosts"),
            "config": "",
            "python": sys.executable,
            "folder": str(self.far),
            "slots": 8,
            "prepare": False,
        }
        return SshOptions(**{**fields, **changes})

    def runtime(self, **changes: Any) -> SshRuntime:
        return SshRuntime(f"test{self.port}", self.options(**changes))

    def sessions(self) -> list[psutil.Process]:
        """Return the processes of sshd that serve connections."""
        return psutil.Process(self.process.pid).children()

    def cut(self) -> None:
        """Break every connection at the server's side."""
        for process in self.sessions():
            process.kill()

    def launches(self) -> list[Path]:
        """Return every launch folder on the remote side, of any owner."""
        return [path for path in self.far.glob("launches/*/*") if path.is_dir()]


@contextlib.asynccontextmanager
async def sshd(
    folder: Path, *, port: int | None = None, address: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Run a server. At the end its remote processes are ended and its connections are broken.

    Args:
        folder: Folder for the server's files.
        port: Port of the server, None for a free one.
        address: Address that it listens on.
        prefix: Command that runs it somewhere else, and becomes it.
    """
    port = port or free_port()
    write_files(folder, address, port)
    assert SSHD is not None
    adopt_orphans(True)
    process = await asyncio.create_subprocess_exec(
        *(*prefix, SSHD, "-D", "-e", "-f", str(folder / "sshd_config")), stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    server = Server(folder, address, port, process)
    try:
        said = b""
        while b"Server listening" not in said:
            line = await process.stderr.readline()
            assert line, f"sshd does not start: {said.decode()}"
            said += line
        draining = asyncio.ensure_future(process.stderr.read())  # so that it never blocks on a full pipe
        yield server
    finally:
        sessions = server.sessions()
        process.kill()
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        await process.wait()
        await draining
        await asyncio.to_thread(psutil.wait_procs, sessions)
        adopt_orphans(False)


def adopt_orphans(wanted: bool) -> None:
    """Become the parent of sshd's orphans, so that they are reaped at once: some init processes take seconds."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def write_files(folder: Path, address: str, port: int) -> None:
    """Write keys, known hosts and configuration, unless an earlier server has left them in this folder."""
    if not (folder / "key").exists():
        for name in ("key", "host_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
    known = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[{address}]:{port} {known}")
    (folder / "sshd_config").write_text(
        f"""\
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
SetEnv LIGHTWORK_TEST_SESSION={os.environ["LIGHTWORK_TEST_SESSION"]}
LogLevel INFO
"""
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
