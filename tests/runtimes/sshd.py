"""A real sshd on the loopback, with keys of its own and nothing of the machine's configuration."""

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

needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd: run .ci/sshd")


class Server:
    """One sshd and the files around it."""

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
        """Our folder on the far side."""
        return self.folder / "far"

    def options(self, **changes: Any) -> SshOptions:
        """A profile for this server, whose works run in this interpreter."""
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
        """The processes of sshd that serve connections."""
        return psutil.Process(self.process.pid).children()

    def cut(self) -> None:
        """Break every connection at the server's end."""
        for process in self.sessions():
            process.kill()

    def launches(self) -> list[Path]:
        """Every launch folder on the far side, of whatever owner."""
        return [path for path in self.far.glob("launches/*/*") if path.is_dir()]


@contextlib.asynccontextmanager
async def sshd(
    folder: Path, *, port: int | None = None, address: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Start a server in `folder`; its far side is ended and its connections are broken at the end.

    Args:
        folder: For its files.
        port: None for a free one.
        address: Where it listens.
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
        draining = asyncio.ensure_future(process.stderr.read())  # so that it never waits for us to read
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
    """Be the parent of what sshd leaves behind, so that it is reaped at once: some first processes take seconds."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def write_files(folder: Path, address: str, port: int) -> None:
    """Keys, known hosts and configuration, unless an earlier server of this folder has left them."""
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
