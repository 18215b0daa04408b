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
    """The limits of one kind of container, None for none.

    Attributes:
        cpus: Processors, fractions too.
        memory: Memory in MB. There is no swap on top of it: a work that needs more is ended as ``oom``.
        gpus: Number of GPUs, or ``all``.
    """

    cpus: _Cpus | None = None
    memory: _Megabytes | None = None
    gpus: _Gpus | None = None


class DockerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a profile of kind ``docker``.

    Attributes:
        image: Image of works whose `BuildConfig` names none. None: ``python:X.Y-slim`` of the scheduler's
            Python. It needs the same minor version of Python.
        python: The interpreter in the image: a name that is looked up there, or a path.
        host: The engine: ``unix:///path`` or ``tcp://host:port``. None: ``DOCKER_HOST``, else the context that
            `context`, ``DOCKER_CONTEXT`` or the command ``docker context use`` chose, else the usual sockets.
        context: Name of a Docker context.
        tls: Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` for a ``tcp`` host. None: what the context
            has, or ``DOCKER_CERT_PATH`` where ``DOCKER_TLS_VERIFY`` is set.
        network: Network of the containers. With ``host`` they share the engine's own.
        address: Address under which containers reach this machine, where the runtime does not find it itself.
        pull: When an image is pulled: if it is ``missing``, ``always`` (once for each run of an app), or ``never``.
        launch_within: Seconds that a launch may take on top of `launch_timeout`, to pull and to build images.
        folder: The app's folder, which is sent along. None: the working directory.
        requirements: Where pip runs for the requirements of a `BuildConfig`: ``here`` on this machine, with its index
            and credentials, or in the ``image``, which needs uv or pip and a network there. ``auto`` is here if the
            image has this machine's platform and there are no build commands, which might prepare for them.
        publish: Whether a port of each container is published for the work's own service. None: where
            containers cannot be reached at their own addresses (another machine's engine, Docker Desktop).
        user: User in the container, ``name`` or ``uid:gid``. None: the image's.
        cpus, memory, gpus: Limits of works that ask for no machine by name; as in `Machine`.
        machines: Limits of works that do, by `CloudCompute.name`.
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
            raise ValueError("`host` and `context` both say where the engine is: drop one of them")
        if self.host is not None and not self.host.startswith(("unix://", "tcp://", "http://", "https://")):
            raise ValueError(f"`host` must be unix:///path or tcp://host:port, got {self.host!r}")

    @property
    def base_image(self) -> str:
        """Image of works whose `BuildConfig` names none."""
        return self.image or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def machine_for(options: DockerOptions, compute: CloudCompute | None) -> Machine:
    """The limits that a work gets.

    Raises:
        Rejected: It asks for a machine that the profile does not name.
    """
    name = "default" if compute is None else compute.name
    found = options.machines.get(name)
    if found is not None:
        return found
    if name != "default":
        known = ", ".join(sorted(options.machines)) or "none"
        raise Rejected(
            f"CloudCompute(name={name!r}): the profile has no such machine under `machines`; it has: {known}"
        )
    return Machine(cpus=options.cpus, memory=options.memory, gpus=options.gpus)
