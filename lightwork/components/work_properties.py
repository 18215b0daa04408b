"""The properties of a work: its statuses, its options, its addresses."""

from __future__ import annotations

from collections.abc import Sequence

from lightwork.build import BuildConfig
from lightwork.components.component import Component
from lightwork.components.status_history import StatusHistory, aggregate_timeouts
from lightwork.compute import CloudCompute
from lightwork.errors import UsageError
from lightwork.status import Reason, Stage, WorkStatus

__all__ = ["WorkProperties"]


class WorkProperties(Component):
    """The properties of `Work`. Use that class."""

    _status_history: StatusHistory

    # --- status ---------------------------------------------------------------------------------

    @property
    def status(self) -> WorkStatus:
        """The latest status."""
        return self._status_history.status

    @property
    def statuses(self) -> list[WorkStatus]:
        """The latest statuses in order; their number is the configuration's ``statuses_kept``."""
        return list(self._status_history.statuses)

    @property
    def has_started(self) -> bool:
        """Whether the work is up."""
        return self._status_history.started

    @property
    def has_stopped(self) -> bool:
        """Whether its latest status is ``stopped``."""
        return self.status.stage is Stage.STOPPED

    @property
    def has_succeeded(self) -> bool:
        """Whether its latest status is ``succeeded``."""
        return self.status.stage is Stage.SUCCEEDED

    @property
    def has_failed(self) -> bool:
        """Whether its latest status is ``failed``."""
        return self.status.stage is Stage.FAILED

    @property
    def has_timeout(self) -> bool:
        """Whether its latest status is a timeout, of a run or of the wait for a machine."""
        return self.status.reason is Reason.TIMEOUT

    @property
    def is_pending(self) -> bool:
        """Whether its latest status is ``pending``."""
        return self.status.stage is Stage.PENDING

    @property
    def is_running(self) -> bool:
        """Whether its latest status is ``running``."""
        return self.status.stage is Stage.RUNNING

    @property
    def num_successes(self) -> int:
        """The number of calls that have succeeded."""
        return self._status_history.num_successes

    @property
    def num_timeouts(self) -> int:
        """The number of timeouts since the latest success."""
        return self._status_history.num_timeouts

    def _aggregate_status_timeout(self, statuses: Sequence[WorkStatus]) -> WorkStatus:
        """Return the timeouts after the latest success as one status: the first request's time, and their count."""
        return aggregate_timeouts(statuses)

    # --- options and addresses ------------------------------------------------------------------

    _parallel: bool
    _cache_calls: bool
    _raise_exception: bool
    _local_build_config: BuildConfig
    _cloud_build_config: BuildConfig
    _cloud_compute: CloudCompute
    _start_with_flow: bool
    _runtime: str | None
    _timeout: float | None
    _retries: int
    _retry_delay: float
    _concurrency: int
    _display_name: str
    _lightningignore: tuple[str, ...]
    _host: str
    _port: int | None
    _url: str
    _internal_ip: str
    _public_ip: str

    @property
    def parallel(self) -> bool:
        """Whether the flow continues while a call of this work runs."""
        return self._parallel

    @property
    def cache_calls(self) -> bool:
        """Whether a call that has succeeded before returns the kept value instead of running again."""
        return self._cache_calls

    @property
    def local_build_config(self) -> BuildConfig:
        """What to install for the work on this machine."""
        return self._local_build_config

    @local_build_config.setter
    def local_build_config(self, config: BuildConfig) -> None:
        self._local_build_config = config

    @property
    def cloud_build_config(self) -> BuildConfig:
        """What to install for the work on other machines."""
        return self._cloud_build_config

    @cloud_build_config.setter
    def cloud_build_config(self, config: BuildConfig) -> None:
        self._cloud_build_config = config

    @property
    def cloud_compute(self) -> CloudCompute:
        """The machine that the work needs."""
        return self._cloud_compute

    @cloud_compute.setter
    def cloud_compute(self, compute: CloudCompute) -> None:
        self._cloud_compute = compute

    @property
    def display_name(self) -> str:
        """The name that people see; by default the name in the tree. Set it before the first call."""
        return self._display_name or self.name

    @display_name.setter
    def display_name(self, name: str) -> None:
        if self._status_history.started:
            raise UsageError(f"display_name of {self._label()} must be set before the work runs")
        self._display_name = name

    @property
    def lightningignore(self) -> tuple[str, ...]:
        """Patterns of files that are not sent with the code, as in ``.lightningignore``."""
        return self._lightningignore

    @lightningignore.setter
    def lightningignore(self, patterns: tuple[str, ...]) -> None:
        if self._status_history.started:
            raise UsageError(f"lightningignore of {self._label()} must be set before the work runs")
        self._lightningignore = tuple(patterns)

    @property
    def host(self) -> str:
        """The address that the work's own service binds."""
        return self._host

    @property
    def port(self) -> int | None:
        """The port of the service. Inside ``run`` it is never None: the first read picks a free port and keeps it."""
        if self._port is None and self._driver is None and self._parent is None and self.__dict__["_is_built"]:
            from lightwork.components.ports import assigned_service, reserve_port

            self._state.set("_port", assigned_service()[1] or reserve_port(self._host, self))
        return self._port

    @property
    def url(self) -> str:
        """The URL of the work's service; empty until the service answers."""
        return self._url

    @property
    def internal_ip(self) -> str:
        """The address at which other works reach the work; empty until it is up."""
        return self._internal_ip

    @property
    def public_ip(self) -> str:
        """The address at which the internet reaches the work; empty if it has none."""
        return self._public_ip
