"""What can be read of a work: its statuses, how it was made, where it answers."""

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
    """The properties of `lightwork.components.work.Work`, which is the class to use."""

    _status_history: StatusHistory

    # --- what is known of it --------------------------------------------------------------------

    @property
    def status(self) -> WorkStatus:
        """The latest status."""
        return self._status_history.status

    @property
    def statuses(self) -> list[WorkStatus]:
        """The latest statuses in order, as many as the configuration's ``statuses_kept``."""
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
        """Whether its latest status is a timeout: of a run, or of the machine that it waited for."""
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
        """How many calls have succeeded."""
        return self._status_history.num_successes

    @property
    def num_timeouts(self) -> int:
        """How many timeouts there were since the latest success."""
        return self._status_history.num_timeouts

    def _aggregate_status_timeout(self, statuses: Sequence[WorkStatus]) -> WorkStatus:
        """The timeouts after the latest success as one status: the first request's time, and their count."""
        return aggregate_timeouts(statuses)

    # --- how it was made ------------------------------------------------------------------------

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
        """Whether the flow goes on while a call of this work runs."""
        return self._parallel

    @property
    def cache_calls(self) -> bool:
        """Whether a call that has succeeded is answered with its value instead of run again."""
        return self._cache_calls

    @property
    def local_build_config(self) -> BuildConfig:
        """What the work needs installed on this machine."""
        return self._local_build_config

    @local_build_config.setter
    def local_build_config(self, config: BuildConfig) -> None:
        self._local_build_config = config

    @property
    def cloud_build_config(self) -> BuildConfig:
        """What it needs installed elsewhere."""
        return self._cloud_build_config

    @cloud_build_config.setter
    def cloud_build_config(self, config: BuildConfig) -> None:
        self._cloud_build_config = config

    @property
    def cloud_compute(self) -> CloudCompute:
        """What machine it wants."""
        return self._cloud_compute

    @cloud_compute.setter
    def cloud_compute(self, compute: CloudCompute) -> None:
        self._cloud_compute = compute

    @property
    def display_name(self) -> str:
        """What people see; the name in the tree where none was set. Set it before the first call."""
        return self._display_name or self.name

    @display_name.setter
    def display_name(self, name: str) -> None:
        if self._status_history.started:
            raise UsageError(f"display_name of {self._label()} must be set before the work runs")
        self._display_name = name

    @property
    def lightningignore(self) -> tuple[str, ...]:
        """Patterns of files that are not sent along with the code, as in ``.lightningignore``."""
        return self._lightningignore

    @lightningignore.setter
    def lightningignore(self, patterns: tuple[str, ...]) -> None:
        if self._status_history.started:
            raise UsageError(f"lightningignore of {self._label()} must be set before the work runs")
        self._lightningignore = tuple(patterns)

    @property
    def host(self) -> str:
        """Where the work's own service binds."""
        return self._host

    @property
    def port(self) -> int | None:
        """Where it binds. Read inside ``run`` it is never None: a free port of that machine is picked and kept."""
        if self._port is None and self._driver is None and self._parent is None and self.__dict__["_is_built"]:
            from lightwork.components.ports import assigned_service, reserve_port

            self._state.set("_port", assigned_service()[1] or reserve_port(self._host, self))
        return self._port

    @property
    def url(self) -> str:
        """Where the work's service answers; empty until it does."""
        return self._url

    @property
    def internal_ip(self) -> str:
        """The address at which other works reach it; empty until it is up."""
        return self._internal_ip

    @property
    def public_ip(self) -> str:
        """The address at which the internet reaches it; empty where there is none."""
        return self._public_ip
