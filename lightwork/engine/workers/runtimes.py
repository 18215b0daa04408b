"""Finds runtimes by name and keeps the ones in use open."""

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
    """The runtimes that are installed, by name."""
    return {point.name: point for point in entry_points(group=_GROUP)}


def load_kind(config: Config, profile: str) -> type[Runtime]:
    """The class behind a profile.

    Raises:
        ConfigError: It is unknown, not installed, or what it imports is missing; names the extra.
    """
    kind, _ = config.profile(profile)
    found = installed()
    if kind not in found:
        known = ", ".join(sorted(found)) or "none: is lightwork installed in this environment?"
        raise ConfigError(
            f"there is no runtime {kind!r} (profile {profile!r}); installed are: {known}. A profile is made in "
            f"[runtimes.{profile}] with kind = one of them"
        )
    try:
        cls: type[Runtime] = found[kind].load()
    except ImportError as error:
        raise ConfigError(
            f"the runtime {kind!r} (profile {profile!r}) needs {error.name or error}: install lightwork[{kind}]"
        ) from error
    return cls


def make(config: Config, profile: str) -> Runtime:
    """The runtime of a profile, not entered.

    Raises:
        ConfigError: As `load_kind`; or its options are wrong.
    """
    cls = load_kind(config, profile)
    options = config.options(profile, cls.Options)
    return cls(profile, options)  # type: ignore[call-arg]


class Runtimes:
    """The runtimes of an app, each made and entered when it is first needed.

    Args:
        config: Names the profiles.
        given: Instances by profile, which take the place of what the configuration says.
        group: Holds one task for each runtime: what enters a runtime must also leave it.
    """

    def __init__(self, config: Config, given: Mapping[str, Runtime], group: asyncio.TaskGroup) -> None:
        self._config = config
        self._given = given
        self._group = group
        self._made: dict[str, Runtime] = {}  # looking for entry points takes a millisecond, and works are many
        self._opened: dict[str, asyncio.Future[Runtime]] = {}
        self._release = asyncio.Event()

    def check(self, profile: str) -> None:
        """Raise `ConfigError` where a profile cannot be made: unknown, not installed, wrong options."""
        if profile not in self._made:
            self._made[profile] = self._given.get(profile) or make(self._config, profile)

    def nature(self, profile: str) -> tuple[float, bool]:
        """Seconds that a launch may take on top of the usual, and whether works get machines of their own.

        What is wrong with a profile is told by a launch, not by this.
        """
        try:
            self.check(profile)
        except ConfigError:
            return 0.0, False
        runtime = self._made[profile]
        return float(getattr(runtime, "launch_within", 0.0)), isinstance(runtime, Inventory)

    async def get(self, profile: str) -> Runtime:
        """The runtime of a profile, entered.

        Raises:
            ConfigError: It is unknown, its client library is missing, or its options are wrong.
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
            opened.exception()  # whoever waits gets it; without one it is not reported as lost
