"""The keys of a profile of kind ``docker``."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lightwork.compute import CloudCompute
from lightwork.runtime import Rejected

__all__ = ["DockerOptions", "Machine", "machine_for"]

_Text = Annotated[str, Meta(min_length=1)]
_Cpus = Annotated[float, Meta(gt=0)]
_Megabytes = Annotated[int, Meta(ge=6)]  # the engine's own minimum
_Gpus = Annotated[int, Meta(ge=1)] | Literal["all"]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits of one kind of container. None means no limit.

    Attributes:
        cpus: Processors; may be a fraction.
        memory: Memory in MB, without swap. A work that needs more ends with the reason ``oom``.
        gpus: Number of GPUs, or ``all``.
    """

    cpus: _Cpus | None = None
    memory: _Megabytes | None = None
    gpus: _Gpus | None = None


class DockerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a profile of kind ``docker``.

    Attributes:
        image: Image of works whose `BuildConfig` names no image. None: ``python:X.Y-slim`` of the scheduler's Python
            version. The image must have the same minor version of Python.
        python: The interpreter in the image: a name on the image's ``PATH``, or a path.
        host: Address of the engine: ``unix:///path`` or ``tcp://host:port``. None: ``DOCKER_HOST``, otherwise the
            context from `context`, ``DOCKER_CONTEXT`` or ``docker context use``, otherwise the usual sockets.
        context: Name of a Docker context.
        tls: Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` for a ``tcp`` host. None: the context's certificates,
            or ``DOCKER_CERT_PATH`` if ``DOCKER_TLS_VERIFY`` is set.
        network: Network of the containers. With ``host`` they share the network of the engine's machine.
        address: Address of this machine as containers see it, if the runtime does not find it.
        pull: When to pull an image: if it is ``missing``, ``always`` (once for each run of an app), or ``never``.
        launch_within: Seconds that a launch may take in addition to `launch_timeout`, to pull and build images.
        folder: The app's folder, which is sent. None: the working directory.
        requirements: Where to install the requirements of a `BuildConfig`: ``here``, on this machine with its index and
            credentials, or in the ``image``, which needs uv or pip and a network. ``auto`` means ``here`` if the image
            has this machine's platform and there are no build commands, which may have to run first.
        publish: Whether to publish a port of each container for the work's own service. None: only where
            containers cannot be reached at their own addresses (an engine on another machine, Docker Desktop).
        user: User in the container, ``name`` or ``uid:gid``. None: the image's user.
        cpus, memory, gpus: Limits of works that request no machine by name; see `Machine`.
        machines: Limits of works that request a machine by `CloudCompute.name`.
    """

    image: _Text | None = None
    python: _Text = "python3"
    host: _Text | None = None
    context: _Text | None = None
    tls: _Text | None = None
    network: _Text = "bridge"
    address: _Text | None = None
    pull: Literal["missing", "always", "never"] = "missing"
    launch_within: Annotated[float, Meta(gt=0)] = 1800.0
    folder: _Text | None = None
    requirements: Literal["auto", "here", "image"] = "auto"
    publish: bool | None = None
    user: _Text | None = None
    cpus: _Cpus | None = None
    memory: _Megabytes | None = None
    gpus: _Gpus | None = None
    machines: dict[str, Machine] = {}

    def __post_init__(self) -> None:
        if self.host is not None and self.context is not None:
            raise ValueError("`host` and `context` must not be set together: each selects the engine, drop one of them")
        if self.host is not None and not self.host.startswith(("unix://", "tcp://", "http://", "https://")):
            raise ValueError(f"`host` must be unix:///path or tcp://host:port, got {self.host!r}")

    @property
    def base_image(self) -> str:
        """Image of works whose `BuildConfig` names no image."""
        return self.image or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def machine_for(options: DockerOptions, compute: CloudCompute | None) -> Machine:
    """Return the limits of a work.

    Raises:
        Rejected: The work requests a machine that the profile does not have.
    """
    name = "default" if compute is None else compute.name
    found = options.machines.get(name)
    if found is not None:
        return found
    if name != "default":
        known = ", ".join(sorted(options.machines)) or "none"
        raise Rejected(f"CloudCompute(name={name!r}): the profile has no such machine under `machines`, only: {known}")
    return Machine(cpus=options.cpus, memory=options.memory, gpus=options.gpus)
