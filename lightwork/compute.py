"""`CloudCompute` and `Mount`: the machine that a work needs, as plain data. The runtime interprets them."""

from __future__ import annotations

import posixpath

import msgspec

from lightwork.errors import ConfigError

__all__ = ["CloudCompute", "Mount"]


class Mount(msgspec.Struct, frozen=True):
    """A source of files that a work sees as a folder.

    Attributes:
        source: What to mount: a path or URL that the runtime understands.
        mount_path: Absolute path of the folder in which the work sees the files, with forward slashes (default:
            ``/data/`` and the last name in `source`: ``/data/bar`` for ``s3://foo/bar/``).

    Raises:
        ConfigError: `source` is empty or has no last name, or `mount_path` is relative or the root.
    """

    source: str
    mount_path: str = ""

    def __post_init__(self) -> None:
        _check_text("Mount: source", self.source)
        if self.mount_path == "":
            msgspec.structs.force_setattr(self, "mount_path", _default_path(self.source))
        _check_text("Mount: mount_path", self.mount_path)
        if not posixpath.isabs(self.mount_path) or posixpath.normpath(self.mount_path).strip("/") == "":
            raise ConfigError(
                f"Mount: mount_path must be an absolute path below the root, such as '/data', got {self.mount_path!r}"
            )


class CloudCompute(msgspec.Struct, frozen=True):
    """The machine that a work needs. A runtime rejects a machine that it cannot provide.

    Attributes:
        name: Kind of machine, a name of the runtime; ``default`` leaves the choice to the runtime.
        disk_size: Disk in GB; 0 for the runtime's default.
        idle_timeout: Seconds without a call after which the machine may be given back; None for never.
        shm_size: Shared memory in MB; None for the runtime's default.
        mounts: One mount, or a list of mounts.
        colocation_group_id: Works with the same id run on the same machine.
        interruptible: Accept a cheaper machine that the provider may take away at any time.

    Raises:
        ConfigError: A field has the wrong type or an impossible value, or two mounts share a path.
    """

    name: str = "default"
    disk_size: int = 0
    idle_timeout: float | None = None
    shm_size: int | None = None
    mounts: Mount | list[Mount] | None = None
    colocation_group_id: str | None = None
    interruptible: bool = False

    def __post_init__(self) -> None:
        _check_text("CloudCompute: name", self.name)
        _check_size("disk_size", self.disk_size, "GB", int)
        if self.idle_timeout is not None:
            _check_size("idle_timeout", self.idle_timeout, "seconds", (int, float))
        if self.shm_size is not None:
            _check_size("shm_size", self.shm_size, "MB", int)
        if self.colocation_group_id is not None:
            _check_text("CloudCompute: colocation_group_id", self.colocation_group_id)
        _check_flag("interruptible", self.interruptible)
        _check_mounts(self.mounts)

    @property
    def mount_points(self) -> tuple[Mount, ...]:
        """The mounts as a tuple."""
        if self.mounts is None:
            return ()
        return (self.mounts,) if isinstance(self.mounts, Mount) else tuple(self.mounts)


def _default_path(source: str) -> str:
    name = posixpath.basename(source.rpartition("://")[2].rstrip("/"))
    if name in ("", ".", ".."):
        raise ConfigError(f"Mount: cannot derive a folder name from source {source!r}; set mount_path")
    return f"/data/{name}"


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name} must be a non-empty string, got {value!r}")


def _check_size(name: str, value: object, unit: str, kinds: type | tuple[type, ...]) -> None:
    # `not value >= 0` refuses nan; `value < 0` would accept it.
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 0:  # type: ignore[operator]
        raise ConfigError(f"CloudCompute: {name} must be a number of {unit}, at least 0, got {value!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"CloudCompute: {name} must be True or False, got {value!r}")


def _check_mounts(mounts: object) -> None:
    if mounts is None or isinstance(mounts, Mount):
        return
    if not isinstance(mounts, list) or not all(isinstance(mount, Mount) for mount in mounts):
        raise ConfigError(f"CloudCompute: mounts must be a Mount or a list of Mounts, got {mounts!r}")
    seen: dict[str, Mount] = {}
    for mount in mounts:
        path = posixpath.normpath(mount.mount_path)
        if path in seen:
            raise ConfigError(
                f"CloudCompute: mount paths must differ, got {path!r} for {seen[path].source!r} and {mount.source!r}"
            )
        seen[path] = mount
