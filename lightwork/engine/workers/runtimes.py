"""Finds runtimes by name, and keeps those in use open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from lightwork.config import Config
from lightwork.errors import ConfigError
from lightwork.runtime import Inventory, Runtime

__all__ = ["Runtimes", "installed", "load_kind", "make"]

_GROUP = "lightwork.runtimes"


def installed() -> dict[str, EntryPoint]:
    """Return the entry points of the installed runtimes, by name."""
    return {point.name: point for point in entry_points(group=_GROUP)}


def load_kind(config: Config, profile: str) -> type[Runtime]:
    """Return the runtime class of a profile.

    Raises:
        ConfigError: The runtime is unknown or not installed, or a package that it imports is missing. The message names
            the extra to install.
    """
    kind, _ = config.profile(profile)
    found = installed()
    if kind not in found:
        known = ", ".join(sorted(found)) or "none: is lightwork installed in this environment?"
        raise ConfigError(
            f"there is no runtime {kind!r} (profile {profile!r}); installed runtimes: {known}. To define the profile, "
            f"set kind in [runtimes.{profile}] to one of them"
        )
    try:
        cls: type[Runtime] = found[kind].load()
    except ImportError as error:
        raise ConfigError(
            f"the runtime {kind!r} (profile {profile!r}) needs {error.name or error}: install lightwork[{kind}]"
        ) from error
    return cls


def make(config: Config, profile: str) -> Runtime:
    """Make the runtime of a profile, without entering it.

    Raises:
        ConfigError: As in `load_kind`, or the options of the profile are invalid.
    """
    cls = load_kind(config, profile)
    options = config.options(profile, cls.Options)
    return cls(profile, options)  # type: ignore[call-arg]


class Runtimes:
    """The runtimes of an app, each made and entered when it is first needed.

    Args:
        config: Has the profiles.
        given: Instances by profile, which are used instead of the configured ones.
        group: Runs one task for each runtime: the task that enters a runtime must also leave it.
    """

    def __init__(self, config: Config, given: Mapping[str, Runtime], group: asyncio.TaskGroup) -> None:
        self._config = config
        self._given = given
        self._group = group
        self._made: dict[str, Runtime] = {}  # cached: a search for entry points takes a millisecond, too long per work
        self._opened: dict[str, asyncio.Future[Runtime]] = {}
        self._release = asyncio.Event()

    def check(self, profile: str) -> None:
        """Make the runtime of a profile.

        Raises:
            ConfigError: The runtime is unknown or not installed, or its options are invalid.
        """
        if profile not in self._made:
            self._made[profile] = self._given.get(profile) or make(self._config, profile)

    def nature(self, profile: str) -> tuple[float, bool]:
        """Return the extra seconds that a launch may take, and whether each work gets a separate machine.

        An invalid profile is reported by the launch, not here.
        """
        try:
            self.check(profile)
        except ConfigError:
            return 0.0, False
        runtime = self._made[profile]
        return float(getattr(runtime, "launch_within", 0.0)), isinstance(runtime, Inventory)

    async def get(self, profile: str) -> Runtime:
        """Return the runtime of a profile, and enter it at the first call.

        Raises:
            ConfigError: The runtime is unknown, its client library is missing, or its options are invalid.
        """
        opened = self._opened.get(profile)
        if opened is None:
            self.check(profile)
            runtime = self._made[profile]
            opened = self._opened[profile] = asyncio.get_running_loop().create_future()
            self._group.create_task(self._host(runtime, opened), name=f"lightwork runtime {profile}")
        return await asyncio.shield(opened)

    def close(self) -> None:
        """Leave every runtime; their tasks end in the group."""
        self._release.set()

    async def _host(self, runtime: Runtime, opened: asyncio.Future[Runtime]) -> None:
        try:
            async with runtime:
                opened.set_result(runtime)
                await self._release.wait()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)
            opened.exception()  # callers of `get` receive it; without one, asyncio must not report it as unretrieved
