"""`Work`, a job in a process of its own, and how its state's changes are proposed and taken."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, overload

import msgspec

from lightwork.build import BuildConfig
from lightwork.calls import Call, Operation
from lightwork.component import Component, Node
from lightwork.compute import CloudCompute
from lightwork.errors import ComponentError, ProposalRefused, StateError, UsageError
from lightwork.executor import WorkRunExecutor
from lightwork.record import WorkRecord, aggregate_timeouts
from lightwork.signature import RunSignature
from lightwork.ops import DELETE, SET, SPLICE, UPDATE
from lightwork.state import unpacked
from lightwork.status import Reason, Stage, WorkStatus

if TYPE_CHECKING:
    from lightwork.calls import Driver
    from lightwork.wire import Op

__all__ = ["FlowDelta", "LightningWork", "Work"]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class _AsyncRun(Protocol[P, T_co]):
    def run(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...


class _PlainRun(Protocol[P, T_co]):
    def run(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


class FlowDelta(msgspec.Struct, frozen=True):
    """A change of a running work's state that the flow proposes; `Work.apply_flow_delta` takes or refuses it.

    Attributes:
        op: The edit, as `lightwork.state` makes it.
        expected: For an assignment or a deletion, the plain value that the flow saw there.
        has_expected: Whether there was a value; None where it was a container, and for edits of lists and sets.
    """

    op: Any
    expected: Any = None
    has_expected: bool | None = None

    @property
    def path(self) -> tuple[Any, ...]:
        """Attribute first, then keys and indices into it."""
        return tuple(self.op[1])

    @property
    def name(self) -> str:
        """The attribute."""
        return str(self.op[1][0])

    @property
    def value(self) -> Any:
        """What is to be assigned; None where the edit is no assignment."""
        return unpacked(self.op[2]) if self.op[0] == SET else None

    def conflict(self, work: Work) -> str | None:
        """Why the edit was made without knowing what the work has there by now, None if it was not."""
        if self.has_expected is None:
            return None
        try:
            present, exists = work._state.at(self.op[1]), True
        except StateError:
            present, exists = None, False
        if exists == self.has_expected and present == self.expected:
            return None
        seen = repr(self.expected) if self.has_expected else "nothing"
        found = repr(present) if exists else "nothing"
        return f"the flow saw {seen:.80} there, and the work has {found:.80} by now"

    def apply(self, work: Work) -> None:
        """Make the edit in the work's state.

        Raises:
            StateError, IndexError, KeyError: There is nothing to edit at the path any more. Nothing has changed then.
        """
        kind, path, *rest = self.op
        state = work._state
        if kind == SPLICE:
            start, removed, items = rest
            edited = state.at(path)
            start = len(edited) if start < 0 else start
            edited[start : start + removed] = unpacked(items)
        elif kind == UPDATE:
            edited = state.at(path)
            edited -= set(unpacked(rest[1]))
            edited |= set(unpacked(rest[0]))
        elif len(path) == 1:
            state.delete(path[0]) if kind == DELETE else state.set(path[0], unpacked(rest[0]))
        elif kind == DELETE:
            del state.at(path[:-1])[path[-1]]
        else:
            state.at(path[:-1])[path[-1]] = unpacked(rest[0])


class _Run:
    """Stands in a work class in place of its ``run``: a work that an app drives queues a call instead."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    def __get__(self, work: Work | None, owner: type[Work]) -> Callable[..., Any]:
        if work is None:
            return self.run
        driver = work._driver
        if driver is None:
            return types.MethodType(self.run, work)
        return lambda *args, **kwargs: driver.run(work, args, kwargs)


class Work(Component):
    """A job that runs in a process of its own.

    Subclass it and define ``run``, ``async def`` or plain. Public attributes set in ``__init__`` are the
    state: while the work runs every change of it, in place or by assignment, streams to the flow. A work
    that no app drives runs in place: ``await Train(0.1).run(3)``.

    Args:
        parallel: Whether the flow goes on while a call runs: ``await work.run(...)`` then gives the `Call`.
        cache_calls: Whether a call that has succeeded is answered with its value instead of run again.
        raise_exception: Whether a failed call raises in the flow; else it gives None and `status` tells.
        host: Where the work's own service binds.
        port: Where it binds; None picks a free one when `port` is read inside ``run``.
        local_build_config: What the work needs installed on this machine.
        cloud_build_config: What it needs installed elsewhere.
        cloud_compute: What machine it wants.
        run_once: Deprecated: `cache_calls`.
        start_with_flow: Whether it is started when the app starts, where it is made in ``__init__``.
        runtime: Name of a runtime or of a profile of the configuration, None for what the configuration says.
        timeout: Seconds that one run may take, None for no limit.
        retries: How often a failed call is tried again.
        retry_delay: Seconds before the first retry; doubled each time, with a jitter.
        concurrency: How many calls an ``async def run`` serves at once.

    Raises:
        ComponentError: There is no ``run``, or an argument does not fit.
    """

    _INTERNAL_STATE_VARS: ClassVar[frozenset[str]] = frozenset({"_host", "_port", "_url", "_internal_ip", "_public_ip"})
    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = WorkRunExecutor
    _record: WorkRecord

    def __init__(
        self,
        parallel: bool = False,
        cache_calls: bool = True,
        raise_exception: bool = True,
        host: str = "127.0.0.1",
        port: int | None = None,
        local_build_config: BuildConfig | None = None,
        cloud_build_config: BuildConfig | None = None,
        cloud_compute: CloudCompute | None = None,
        run_once: bool | None = None,
        start_with_flow: bool = True,
        *,
        runtime: str | None = None,
        timeout: float | None = None,
        retries: int = 0,
        retry_delay: float = 1.0,
        concurrency: int = 1,
    ) -> None:
        super().__init__()
        if run_once is not None:
            warnings.warn("run_once is deprecated: use cache_calls", DeprecationWarning, stacklevel=2)
            cache_calls = run_once
        self.__dict__.update(
            _parallel=parallel,
            _cache_calls=cache_calls,
            _raise_exception=raise_exception,
            _local_build_config=local_build_config or BuildConfig(),
            _cloud_build_config=cloud_build_config or BuildConfig(),
            _cloud_compute=cloud_compute or CloudCompute(),
            _start_with_flow=start_with_flow,
            _runtime=runtime,
            _timeout=timeout,
            _retries=retries,
            _retry_delay=retry_delay,
            _concurrency=concurrency,
            _display_name="",
            _lightningignore=(),
            _record=WorkRecord(),
        )
        self._check(port)
        for name, value in (
            ("_host", host), ("_port", port), ("_url", ""), ("_internal_ip", ""), ("_public_ip", ""),
        ):  # fmt: skip
            self._state.set(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = cls.__dict__.get("run")
        if inspect.isfunction(run):
            cls.run = _Run(run)  # type: ignore[method-assign, assignment]

    def _check(self, port: int | None) -> None:
        owner = type(self).__name__
        if port is not None and not 0 < port < 65536:
            raise ComponentError(f"{owner}: port is {port!r}; it must be a number from 1 to 65535, or None for a free one")
        if self._timeout is not None and not self._timeout > 0:
            raise ComponentError(f"{owner}: timeout is {self._timeout!r}; it must be a number of seconds above 0, or None")
        if self._retries < 0 or self._retry_delay < 0:
            raise ComponentError(f"{owner}: retries and retry_delay must not be negative")
        if self._concurrency < 1:
            raise ComponentError(f"{owner}: concurrency is {self._concurrency!r}; it must be at least 1")

    def _constructed(self) -> None:
        super()._constructed()
        owner = type(self)
        if owner.run is Work.run:
            raise ComponentError(f"{owner.__name__} has no run method: define `async def run(self, ...)` or `def run`")
        if not callable(owner.run):
            raise ComponentError(f"{owner.__name__}.run is {owner.run!r}; it must be a method")
        if self._concurrency > 1 and not self._signature.is_async:
            raise ComponentError(
                f"{owner.__name__} has concurrency={self._concurrency}, which needs `async def run`: "
                "a plain run has the worker's main thread for itself"
            )

    def _declare(self, state: Any, name: str, value: Any) -> None:
        self._refuse_components(name, value)
        super()._declare(state, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Node):
            self._refuse_components(name, value)
        super().__setattr__(name, value)

    def _refuse_components(self, name: str, value: Any) -> None:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
        for one in inside:
            if isinstance(one, Node):
                raise ComponentError(
                    f"{type(self).__name__}.{name} holds a {type(one).__name__}: a work cannot hold a Flow or a Work. "
                    "Make both children of one flow, and let the flow pass values between them"
                )

    @property
    def _signature(self) -> RunSignature:
        return RunSignature.of(type(self).run, type(self).__name__)

    # --- what users override --------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override: the job. Calling it on a work that an app drives queues a `Call`.

        Its arguments and its return value are plain data, anything that msgspec encodes.

        Raises:
            ArgumentsError: The arguments do not fit the signature or the annotations; nothing was sent.
            PlatformError: The runtime cannot provide what the work asks for.
        """
        raise NotImplementedError

    def on_start(self) -> Any:
        """Override (plain or ``async def``): called in the worker before the first call."""

    def on_exception(self, exception: BaseException) -> Any:
        """Override (plain or ``async def``): called in the worker with what ``run`` raised.

        The default raises it again. Returning swallows it: the call then gives None.
        """
        raise exception

    def on_exit(self) -> Any:
        """Override (plain or ``async def``): called in the worker when it ends in order, on SIGTERM too.

        Not called where the process is killed.
        """

    def apply_flow_delta(self, delta: FlowDelta) -> Any:
        """Override (plain or ``async def``) to say what becomes of a change that the flow makes while the work runs.

        The default takes assignments to existing attributes and edits inside of them, unless the work
        has changed the same place in the meantime. What it makes of the delta streams back.

        Raises:
            ProposalRefused: Raise it (or anything) to refuse; it arrives in the flow.
        """
        name = delta.name
        if name not in self._state.names:
            raise ProposalRefused(f"{type(self).__name__} has no state attribute {name!r}")
        if delta.op[0] == DELETE and len(delta.path) == 1:
            raise ProposalRefused(f"a flow cannot delete the attribute {name!r} of a running {type(self).__name__}")
        if conflict := delta.conflict(self):
            where = name + "".join(f"[{key!r}]" for key in delta.path[1:])
            raise ProposalRefused(
                f"{type(self).__name__}.{where} was changed by the work and the flow at the same time: {conflict}. "
                "Let one side own the attribute, or merge the two in apply_flow_delta"
            )
        delta.apply(self)

    def configure_layout(self) -> Any:
        """Override to give the work a user interface; the default is its `url`."""
        return None

    # --- what flows call ------------------------------------------------------------------------

    @overload
    def submit(self: _AsyncRun[P, T_co], *args: P.args, **kwargs: P.kwargs) -> Call[T_co]: ...

    @overload
    def submit(self: _PlainRun[P, T_co], *args: P.args, **kwargs: P.kwargs) -> Call[T_co]: ...

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Queue a call, whatever `parallel` says; takes what ``run`` takes.

        Raises:
            ArgumentsError: As ``run`` does.
            UsageError: No running app drives this work.
        """
        return self._driven("submit").submit(self, args, kwargs)

    def start(self) -> Operation:
        """Start the work's process ahead of its first call. Await it to wait until the work is up.

        Started already: nothing happens.
        """
        return self._driven("start").start(self)

    def stop(self) -> Operation:
        """End the work: calls that wait or run end as ``stopped``. Await it to wait until all is gone.

        It can be started, or called, again. Stopped already: nothing happens. Only a flow, or a service
        that embeds the app, can call this: a work cannot stop itself, it returns.
        """
        return self._driven("stop").stop(self, delete=False)

    def delete(self) -> Operation:
        """Like `stop`, and gives back what the runtime made for the work: a machine, a container, files."""
        return self._driven("delete").stop(self, delete=True)

    def wait_confirmed(self) -> Operation:
        """Await it to wait until the work has answered every change that the flow made to its state.

        Raises:
            ProposalRefused: When awaited, where the work refused one of them since the last time.
        """
        return self._driven("wait_confirmed").wait_confirmed(self)

    def _driven(self, what: str) -> Driver:
        if self._driver is None:
            raise UsageError(
                f"{what}() of {self._label()} needs a running app around the flow that holds it; "
                "inside of its own run a work ends by returning"
            )
        return self._driver

    # --- what is known of it --------------------------------------------------------------------

    @property
    def status(self) -> WorkStatus:
        """The latest status."""
        return self._record.status

    @property
    def statuses(self) -> list[WorkStatus]:
        """The latest statuses in order, as many as the configuration's ``statuses_kept``."""
        return list(self._record.statuses)

    @property
    def has_started(self) -> bool:
        """Whether the work is up."""
        return self._record.started

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
        return self._record.num_successes

    @property
    def num_timeouts(self) -> int:
        """How many timeouts there were since the latest success."""
        return self._record.num_timeouts

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
        if self._record.started:
            raise UsageError(f"display_name of {self._label()} must be set before the work runs")
        self._display_name = name

    @property
    def lightningignore(self) -> tuple[str, ...]:
        """Patterns of files that are not sent along with the code, as in ``.lightningignore``."""
        return self._lightningignore

    @lightningignore.setter
    def lightningignore(self, patterns: tuple[str, ...]) -> None:
        if self._record.started:
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
            from lightwork.ports import reserve_port

            self._state.set("_port", reserve_port(self._host))
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

    # --- its state as data ----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """A plain copy: ``vars`` (the attributes), ``calls`` (the latest statuses by hash), ``changes``."""
        record = self._record
        return {
            "vars": self._state.snapshot(),
            "calls": {
                "latest_call_hash": record.latest_call,
                **{key: msgspec.to_builtins(status) for key, status in record.calls.items()},
            },
            "changes": {},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back the ``vars`` of `state`."""
        self._load_vars(state["vars"], strict=False)

    def state_dict(self) -> dict[str, Any]:
        """A plain copy of the state, which `load_state_dict` takes back."""
        return {"vars": self._state.snapshot()}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Take a `state_dict` back.

        Raises:
            StateError: It has attributes that the work has not, or the other way round, and `strict` is set.
        """
        self._load_vars(state["vars"], strict=strict)

    def _bound(self, driver: Driver | None) -> None:
        if driver is None:
            self._state.sink = self._state.guard = None
        else:
            self._state.sink = self._edited

    def _edited(self, op: Op) -> None:
        if self._driver is not None:
            self._driver.edited(self, op)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__()

    def __setstate__(self, shipped: dict[str, Any]) -> None:
        super().__setstate__(shipped)
        self.__dict__["_record"] = WorkRecord()


LightningWork = Work
