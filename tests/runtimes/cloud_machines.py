"""A cloud for the tests: an apache-libcloud driver whose machines are containers with a real sshd.

A machine really runs its user data at boot. Its console is the container's log, and a shutdown ends it. It has the
Python and the packages of this environment, at the same paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh")
pytest.importorskip("libcloud")

from libcloud.common.exceptions import BaseHTTPError
from libcloud.compute.base import Node, NodeDriver
from libcloud.compute.types import NodeState

from lightwork_runtimes.cloud import CloudOptions, CloudRuntime
from tests.runtimes import docker_base
from tests.runtimes.docker_base import docker

REPOSITORY = "lightwork-test-machine"
LABEL = "lightwork-test-account"
ROOT = Path(__file__).parents[2]
SIZES = ("small", "large")
_PROGRAMS = ["cat", "chmod", "chown", "grep", "mkdir", "mv", "setsid", "sleep", "ssh-keygen", "tail", "true", "uv"]
_STATES = {"running": NodeState.RUNNING, "created": NodeState.PENDING, "exited": NodeState.TERMINATED}

_BOOT = """\
#!/bin/sh
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
printf %s "$USER_DATA" >/user-data
unset USER_DATA
sh /user-data &
exec /usr/sbin/sshd -D -e
"""

_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def machine_image() -> str:
    """Return the name of the image that machines start from. Build it if the engine does not have it."""
    base = docker_base.base_image()
    facts = f"{base} {sorted(map(str, _binaries()))} {Path(__file__).read_text()}"
    name = f"{REPOSITORY}:{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if not docker("images", "--quiet", name):
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            dockerfile = f'FROM {base}\nADD machine.tar /\nCMD ["/bin/sh", "/boot"]\n'
            docker_base.add_bytes(tar, "Dockerfile", dockerfile.encode())
            docker_base.add_bytes(tar, "machine.tar", _root())
        docker("build", "--quiet", "--force-rm", "--tag", name, "-", input=context.getvalue())
    return name


def _binaries() -> list[Path]:
    places = f"{os.path.dirname(sys.executable)}:/usr/sbin:/usr/bin:/bin:{os.environ.get('PATH', '')}"
    found = [shutil.which(name, path=places) for name in ("sshd", *_PROGRAMS)]
    return [Path(path) for path in found if path is not None]


def _root() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in (*_binaries(), *docker_base.libraries(_binaries())):
            folder = "/usr/sbin" if path.name == "sshd" else "/usr/bin"
            target = f"{folder}/{path.name}" if path in _binaries() else str(path)
            info = tar.gettarinfo(os.path.realpath(path), target.lstrip("/"))
            info.mode |= 0o755
            with open(path, "rb") as file:
                tar.addfile(info, file)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nsshd:x:100:100::/run/sshd:/bin/false\n"
        docker_base.add_bytes(tar, "etc/passwd", passwd)
        docker_base.add_bytes(tar, "etc/ssh/sshd_config", _SSHD.encode())
        docker_base.add_bytes(tar, "boot", _BOOT.encode())
        docker_base.add_bytes(tar, "usr/sbin/shutdown", b"#!/bin/sh\nkill -TERM 1\n", 0o755)
        for name in ("run/sshd", "var/lib", "root"):
            folder_info = tarfile.TarInfo(name)
            folder_info.type, folder_info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder_info)
    return data.getvalue()


class Weather:
    """The failures of one account, as a test wants them.

    Attributes:
        on_create: Called before a machine is created, with its name; may raise or block.
        on_created: Called after it was created and before the answer.
        on_list, on_destroy: Called before these requests.
        hides: Whether machines have no address.
        taken: Ids of the machines that the cloud took back.
        calls: The requests, in order.
    """

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.calls: list[str] = []
        self.clear()

    def clear(self) -> None:
        """Stop all failures from now on."""
        self.on_create: Callable[[str], None] = lambda name: None
        self.on_created: Callable[[str], None] = lambda name: None
        self.on_list: Callable[[], None] = lambda: None
        self.on_destroy: Callable[[str], None] = lambda machine: None
        self.hides = False


WEATHER: dict[str, Weather] = {}
"""The failures of each account in this process."""


def refusal(status: int, text: str) -> Exception:
    """Return the error that a driver raises when its cloud refuses."""
    error: Exception = BaseHTTPError(status, text)  # type: ignore[no-untyped-call]
    return error


class ContainerDriver(NodeDriver):
    """A driver whose machines are containers."""

    def __init__(
        self, key: str = "", secret: str = "", *, account: str, timeout: float, boot: str = "", die: str = ""
    ) -> None:
        self.account = account
        self.key, self.secret = key, secret
        self.weather = WEATHER.setdefault(account, Weather())
        self.boot = boot
        if die:  # kill this process, before or after the cloud has created a machine

            def kill(name: str) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(self.weather, f"on_{die}", kill)

    def create_node(  # type: ignore[override]  # only the driver's own arguments
        self,
        name: str,
        size: Any,
        image: Any,
        ex_metadata: dict[str, str] | None = None,
        ex_userdata: str = "",
        ex_spot: bool = False,
    ) -> Node:
        self.weather.calls.append("create")
        self.weather.on_create(name)
        if size.id not in SIZES:
            raise refusal(400, f"InvalidParameterValue: unknown size {size.id}")
        if not docker("images", "--quiet", image.id):
            raise refusal(400, f"InvalidAMIID.NotFound: the image id '[{image.id}]' does not exist")
        labels = {LABEL: self.account, "size": size.id, "spot": str(ex_spot), **(ex_metadata or {})}
        arguments = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
        mounts = {str(ROOT), sys.prefix}
        arguments += [part for folder in sorted(mounts) for part in ("--volume", f"{folder}:{folder}:ro")]
        command = ["sh", "-c", self.boot] if self.boot else []
        docker(
            *("run", "--detach", "--tty", "--init", "--hostname", "machine", "--name", f"{name}.{self.account}"),
            *("--env", f"USER_DATA={ex_userdata}", *arguments, image.id, *command),
        )
        self.weather.on_created(name)
        return self._nodes([f"{name}.{self.account}"])[0]

    def list_nodes(self) -> list[Node]:
        self.weather.calls.append("list")
        self.weather.on_list()
        return self._nodes(containers(self.account))

    def destroy_node(self, node: Node) -> bool:
        self.weather.calls.append("destroy")
        self.weather.on_destroy(str(node.id))
        docker("rm", "--force", "--volumes", str(node.id))
        return True

    def ex_get_console_output(self, node: Node) -> dict[str, str]:
        return {"output": docker("logs", str(node.id))}

    def _nodes(self, ids: list[str]) -> list[Node]:
        found = []
        for each in ids:
            with contextlib.suppress(RuntimeError):  # removed meanwhile
                found.append(self._node(json.loads(docker("inspect", each))[0]))
        return found

    def _node(self, view: dict[str, Any]) -> Node:
        address = view["NetworkSettings"]["IPAddress"]
        addresses = [] if self.weather.hides or not address else [address]
        labels = view["Config"]["Labels"]
        return Node(
            view["Id"][:12],
            view["Name"].strip("/").partition(".")[0],
            _STATES.get(view["State"]["Status"], NodeState.UNKNOWN),
            addresses,
            addresses,
            self,
            created_at=datetime.datetime.fromisoformat(view["Created"][:19] + "+00:00"),
            extra={"metadata": labels, "taken_back": view["Id"][:12] in self.weather.taken},
        )


def containers(account: str) -> list[str]:
    """Return the ids of an account's machines, ended ones included."""
    return docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={account}").split()


class Cloud:
    """An account, and profiles for it."""

    def __init__(self, folder: Path) -> None:
        self.account = f"test-{uuid.uuid4().hex[:12]}"
        self.folder = folder
        self.weather = WEATHER.setdefault(self.account, Weather())

    def options(self, **changes: Any) -> CloudOptions:
        """Return the options of a profile whose machines run works in this interpreter."""
        fields: dict[str, Any] = {
            "provider": f"{__name__}:ContainerDriver",
            "driver": {"account": self.account, **changes.pop("driver", {})},
            "image": machine_image(),
            "username": "root",
            "sizes": {"default": "small", "gpu": "large"},
            "interruptible": {"ex_spot": True},
            "state": str(self.folder),
            "python": sys.executable,
            "prepare": False,
            "code": [],
        }
        return CloudOptions(**{**fields, **changes})

    def runtime(self, name: str = "machines", **changes: Any) -> CloudRuntime:
        return CloudRuntime(name, self.options(**changes))

    def containers(self) -> list[str]:
        return containers(self.account)

    def running(self) -> list[str]:
        return docker("ps", "--quiet", "--filter", f"label={LABEL}={self.account}").split()

    async def emptied(self) -> None:
        """Return when no machine is left: the machine ends after the worker's stop was answered."""
        while await asyncio.to_thread(self.running):  # noqa: ASYNC110 -- the cloud has no event for it
            await asyncio.sleep(0.05)

    def console(self) -> str:
        """Return the console of the only machine."""
        (machine,) = self.containers()
        return docker("logs", machine)


@contextlib.contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """An account. At the end, check that none of its machines runs, and remove all of them."""
    made = Cloud(folder)
    try:
        yield made
        assert made.running() == []
    finally:
        if left := made.containers():
            docker("rm", "--force", "--volumes", *left)
        WEATHER.pop(made.account, None)


@contextlib.asynccontextmanager
async def entered(cloud: Cloud, owner: str, **changes: Any) -> AsyncIterator[CloudRuntime]:
    """A runtime. At the end, all launches of the owner are released."""
    async with cloud.runtime(**changes) as runtime:
        try:
            yield runtime
        finally:
            cloud.weather.clear()
            for ref in await runtime.find(owner):
                await runtime.release(ref)


if __name__ == "__main__":
    began = time.monotonic()
    print(machine_image(), time.monotonic() - began)
