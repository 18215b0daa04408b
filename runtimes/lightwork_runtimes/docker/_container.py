"""The description of a container for the engine, made from a spec, the profile and the image."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

import msgspec

from lightwork.compute import CloudCompute, Mount
from lightwork.runtime import Rejected, Spec
from lightwork_runtimes.docker._options import DockerOptions, machine_for
from lightwork_runtimes.docker._payload import START
from lightwork_runtimes.docker._report import DIGEST, LIFETIME, OWNER

__all__ = ["SERVICE", "SERVICE_PORT", "check_spec", "describe", "digest_of"]

SERVICE = "_LIGHTWORK_SERVICE"
"""Variable with the address for a worker's own service: ``bind host,port,url``. The last two may be empty."""

SERVICE_PORT = 8000
"""Port of a published service whose work names none. Each container has its own network, so ports do not collide."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FREE_PORTS = range(20000, 32768)
"""Below the range that systems use for ephemeral ports, so that a random port is rarely taken."""


def check_spec(spec: Spec) -> None:
    """Check the fields of a spec that a container is made from.

    Raises:
        Rejected: A field is invalid; the message names it.
    """
    for what, name in (("the launch's name", spec.name), ("the owner's id", spec.owner)):
        if not _NAME.fullmatch(name):
            raise Rejected(f"{what} {name!r}: use 1 to 200 letters, digits, '.', '_' and '-', the first no '.' or '-'")
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry {spec.entry!r}: must be `package.module:function`")
    for key, value in spec.env.items():
        if not key or "=" in key or "\0" in key + value:
            raise Rejected(f"env {key!r}: invalid name or value for an environment variable")


def digest_of(spec: Spec) -> str:
    """Return a digest of the whole spec. It reveals nothing about the ticket, because the ticket holds a secret."""
    return hashlib.sha256(msgspec.msgpack.encode(spec, order="deterministic")).hexdigest()


def describe(spec: Spec, options: DockerOptions, image: str, publish_at: str | None) -> dict[str, Any]:
    """Return the description to create a container from. It does not contain the ticket.

    Args:
        spec: The launch.
        options: The profile's options.
        image: Name of the image to run.
        publish_at: Address of the engine's machine at which a port is published, None to publish no port.

    Raises:
        Rejected: The profile does not have the machine that the spec requests.
    """
    host: dict[str, Any] = {
        "Init": True,  # without an init process, Python is process 1 of the container and ignores SIGTERM
        "NetworkMode": options.network,
        # Never rotated: offsets count from the start. The driver `local` is binary-safe, but with it engine 20.10
        # loses the end of a line that is longer than 16 kB.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1t", "max-file": "1"}},
        **_limits(options, spec.compute),
    }
    env = dict(spec.env)
    config: dict[str, Any] = {
        "Image": image,
        "Entrypoint": [options.python, "-P", START],
        "Cmd": [spec.entry, str(spec.max_lifetime or 0)],
        "Labels": {OWNER: spec.owner, DIGEST: digest_of(spec), LIFETIME: str(spec.max_lifetime or "")},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "HostConfig": host,
    }
    if options.network != "host":
        host["ExtraHosts"] = ["host.docker.internal:host-gateway"]
        env[SERVICE] = "0.0.0.0,,"
    if publish_at is not None:
        port, inside = random.choice(_FREE_PORTS), spec.port or SERVICE_PORT
        config["ExposedPorts"] = {f"{inside}/tcp": {}}
        host["PortBindings"] = {f"{inside}/tcp": [{"HostIp": _bind_ip(publish_at), "HostPort": str(port)}]}
        env[SERVICE] = f"0.0.0.0,{inside},http://{publish_at}:{port}"
    config["Env"] = [f"{key}={value}" for key, value in env.items()]
    if spec.cwd is not None:
        config["WorkingDir"] = spec.cwd
    if options.user is not None:
        config["User"] = options.user
    return config


def _bind_ip(address: str) -> str:
    return "127.0.0.1" if address in ("127.0.0.1", "localhost") else "0.0.0.0"


def _limits(options: DockerOptions, compute: CloudCompute | None) -> dict[str, Any]:
    machine = machine_for(options, compute)
    host: dict[str, Any] = {}
    if machine.memory is not None:
        # The same limit with and without swap means no swap. With swap, a work over its limit would crawl, not end.
        host["Memory"] = host["MemorySwap"] = machine.memory * 2**20
    if machine.cpus is not None:
        host["NanoCpus"] = int(machine.cpus * 1e9)
    if machine.gpus is not None:
        count = -1 if machine.gpus == "all" else machine.gpus
        host["DeviceRequests"] = [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]
    if compute is None:
        return host
    if compute.shm_size:
        host["ShmSize"] = compute.shm_size * 2**20
    if compute.disk_size:
        host["StorageOpt"] = {"size": f"{compute.disk_size}G"}
    if compute.mount_points:
        host["Mounts"] = [_mount(mount) for mount in compute.mount_points]
    return host


def _mount(mount: Mount) -> dict[str, Any]:
    """Return the mount of a folder of the engine's machine, or of a volume. The engine refuses a missing folder."""
    if mount.source.startswith("/"):
        return {"Type": "bind", "Source": mount.source, "Target": mount.mount_path}
    if _VOLUME.fullmatch(mount.source):
        return {"Type": "volume", "Source": mount.source, "Target": mount.mount_path}
    raise Rejected(
        f"Mount(source={mount.source!r}): for the runtime `docker`, source must be an absolute path of the engine's "
        "machine or the name of a volume"
    )
