"""`Work`, a job in a process of its own."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, overload

import msgspec

from lightwork.build import BuildConfig
from lightwork.components.call import Call, Operation
from lightwork.components.component import Node
from lightwork.components.executor import WorkRunExecutor
from lightwork.components.flow_delta import FlowDelta
from lightwork.components.signature import RunSignature
from lightwork.components.state_dict import load
from lightwork.components.status_history import StatusHistory
from lightwork.components.structures import holds_nodes, leaves
from lightwork.components.work_properties import WorkProperties
from lightwork.compute import CloudCompute
from lightwork.errors import ComponentError, UsageError

if TYPE_CHECKING:
    from lightwork.components.driver import Driver
    from lightwork.state.ops import Op

__all__ = ["LightningWork", "Work"]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class _AsyncRun(Protocol[P, T_co]):
    def run(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...


class _PlainRun(Protocol[P, T_co]):
    def run(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


class _RunMethod:
    """Replaces ``run`` in a work class: a work that an app drives queues a call instead."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run

    @property
    def __isabstractmethod__(self) -> bool:
        return bool(getattr(self.run, "__isabstractmethod__", False))

    def __get__(self, work: Work | None, owner: type[Work]) -> Callable[..., Any]:
        if work is None:
            return self.run
        driver = work._driver
        if driver is None:
            return types.MethodType(self.run, work)
        return lambda *args, **kwargs: driver.run(work, args, kwargs)


class Work(WorkProperties):
    """A job that runs in a separate process.

    Subclass it and define ``run``, ``async def`` or plain. Public attributes set in ``__init__`` are the state. While
    the work runs, every change of the state, in place or by assignment, streams to the flow. A work that no app drives
    runs in place: ``await Train(0.1).run(3)``.

    Args:
        parallel: Whether the flow continues while a call runs: ``await work.run(...)`` then returns the `Call`.
        cache_calls: Whether a call that has succeeded before returns the kept value instead of running again.
        raise_exception: Whether a failed call raises in the flow. Otherwise it returns None; see `status`.
        host: Address that the work's own service binds.
        port: Port that the service binds. None picks a free one when `port` is read inside ``run``.
        local_build_config: What to install for the work on this machine.
        cloud_build_config: What to install for the work on other machines.
        cloud_compute: The machine that the work needs.
        run_once: Deprecated name of `cache_calls`.
        start_with_flow: Whether the work starts when the app starts, if the flow's ``__init__`` makes it.
        runtime: Name of a runtime, or of a profile of the configuration. None leaves it to the configuration.
        timeout: Seconds that one run may take; None for no limit.
        retries: How often a failed call is tried again.
        retry_delay: Seconds before the first retry. Doubled each time, with a jitter.
        concurrency: How many calls an ``async def run`` serves at once.

    Raises:
        ComponentError: ``run`` is missing, or an argument is invalid.
    """

    _group = "works"
    _INTERNAL_STATE_VARS: ClassVar[frozenset[str]] = frozenset({"_host", "_port", "_url", "_internal_ip", "_public_ip"})
    _run_executor_cls: ClassVar[type[WorkRunExecutor]] = WorkRunExecutor

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
            _status_history=StatusHistory(),
        )
        self._check(port)
        for name, value in (
            ("_host", host), ("_port", port), ("_url", ""), ("_internal_ip", ""), ("_public_ip", ""),
        ):  # fmt: skip
            self._state.set(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = inspect.getattr_static(cls, "run")  # defined here or in a mixin
        if inspect.isfunction(run) and run is not Work.run:
            cls.run = _RunMethod(run)  # type: ignore[method-assign, assignment]

    def _check(self, port: int | None) -> None:
        owner = type(self).__name__
        if port is not None and not 0 < port < 65536:
            raise ComponentError(
                f"{owner}: port is {port!r}; it must be a number from 1 to 65535, or None for a free one"
            )
        if self._timeout is not None and not self._timeout > 0:
            raise ComponentError(
                f"{owner}: timeout is {self._timeout!r}; it must be a number of seconds above 0, or None"
            )
        if self._retries < 0 or self._retry_delay < 0:
            raise ComponentError(f"{owner}: retries and retry_delay must not be negative")
        if self._concurrency < 1:
            raise ComponentError(f"{owner}: concurrency is {self._concurrency!r}; it must be at least 1")

    def _constructed(self) -> None:
        super()._constructed()
        owner = type(self)
        if owner.run is Work.run:
            raise ComponentError(f"{owner.__name__} has no run method: define `async def run(self, ...)` or `def run`")
        if not isinstance(inspect.getattr_static(owner, "run"), _RunMethod):
            raise ComponentError(f"{owner.__name__}.run is {owner.run!r:.80}; it must be a method")
        executor: object = owner._run_executor_cls
        if not (isinstance(executor, type) and issubclass(executor, WorkRunExecutor)):
            raise ComponentError(
                f"{owner.__name__}._run_executor_cls is {executor!r:.80}; it must be a subclass of WorkRunExecutor"
            )
        self._refuse_private_components()
        if self._concurrency > 1 and not self._signature.is_async:
            raise ComponentError(
                f"{owner.__name__} has concurrency={self._concurrency}, which needs `async def run`: "
                "a plain run has the worker's main thread for itself"
            )

    def _assign(self, name: str, value: Any) -> None:
        if isinstance(value, Node):
            raise _component_inside(value, f"{type(self).__name__}.{name}")
        super()._assign(name, value)

    if not TYPE_CHECKING:  # otherwise a type checker accepts any attribute
        __setattr__ = _assign

    def _refuse_private_components(self) -> None:
        """Refuse components in private containers, once. The state was checked when it was set."""
        for name, value in self.__dict__.items():
            if name not in _OWN and isinstance(value, (list, tuple, dict)) and holds_nodes(value):
                raise _component_inside(next(leaves([value], name)), f"{type(self).__name__}.{name}")

    @staticmethod
    def _explain(value: Any, place: str) -> Exception | None:
        return _component_inside(value, place) if isinstance(value, Node) else None

    @cached_property
    def _signature(self) -> RunSignature:
        return RunSignature.of(type(self).run, type(self).__name__)

    # --- methods to override --------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override: the job. Calling it on a work that an app drives queues a `Call`.

        A type checker sees `run` as the class defines it: what it returns in place. In an app `await` of a plain run
        returns the result too, and `await` of a parallel work's run the `Call`; `submit` is typed in all cases.

        Its arguments and its return value are plain data: anything that msgspec encodes.

        Raises:
            ArgumentsError: The arguments do not fit the signature or the annotations. Nothing was sent.
            PlatformError: The runtime cannot provide what the work requires.
        """
        raise NotImplementedError

    def on_start(self) -> Any:
        """Override (plain or ``async def``): called in the worker before the first call."""

    def on_exception(self, exception: BaseException) -> Any:
        """Override (plain or ``async def``): called in the worker with the exception that ``run`` raised.

        The default raises it again. If it returns, the exception is swallowed and the call returns None.
        """
        raise exception

    def on_exit(self) -> Any:
        """Override (plain or ``async def``): called in the worker when it ends gracefully, also on SIGTERM.

        It is not called if the process is killed.
        """

    def apply_flow_delta(self, delta: FlowDelta) -> Any:
        """Override (plain or ``async def``): apply or refuse a change that the flow makes while the work runs.

        The default accepts assignments to existing attributes and edits inside them, unless the work has changed the
        same place meanwhile. The resulting changes of the state stream back to the flow.

        Raises:
            ProposalRefused: Raise it, or any exception, to refuse. It arrives in the flow.
        """
        delta.decide(self)

    def configure_layout(self) -> Any:
        """Override to give the work a user interface. Default: its `url`.

        Return None (no user interface at the moment), a URL, a `lightwork.frontend.Frontend`, or a list of tabs
        ``dict(name=..., content=url)``. It is called when the app starts, and again after each pass in which something
        changed, so a URL may depend on the state. A Frontend must be returned by the first call.
        """
        return self.url or None

    # --- what flows call ------------------------------------------------------------------------

    @overload
    def submit(self: _AsyncRun[P, T_co], *args: P.args, **kwargs: P.kwargs) -> Call[T_co]: ...

    @overload
    def submit(self: _PlainRun[P, T_co], *args: P.args, **kwargs: P.kwargs) -> Call[T_co]: ...

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Queue a call and return it, whatever `parallel` is. The arguments are those of ``run``.

        Raises:
            ArgumentsError: The arguments do not fit the signature or the annotations. Nothing was sent.
            UsageError: No running app drives this work.
        """
        return self._driven("submit").submit(self, args, kwargs)

    def start(self) -> Operation:
        """Start the work's process before its first call. Await it to wait until the work is up.

        Nothing happens if the work is started already.
        """
        return self._driven("start").start(self)

    def stop(self) -> Operation:
        """End the work: calls that wait or run end as ``stopped``. Await it to wait until the process is gone.

        The work can be started or called again. Nothing happens if it is stopped already. Only a flow, or a service
        that embeds the app, can call this. A work ends itself by returning from ``run``.
        """
        return self._driven("stop").stop(self, delete=False)

    def delete(self) -> Operation:
        """Like `stop`; also release what the runtime made for the work: a machine, a container, files."""
        return self._driven("delete").stop(self, delete=True)

    def wait_confirmed(self) -> Operation:
        """Return an operation to await until the work has answered every change that the flow made to its state.

        Raises:
            ProposalRefused: When awaited: the work has refused a change since the last time.
        """
        return self._driven("wait_confirmed").wait_confirmed(self)

    def _driven(self, what: str) -> Driver:
        if self._driver is None:
            raise UsageError(
                f"{what}() of {self._label()} needs a running app around the flow that holds it; "
                "inside its own run a work ends by returning"
            )
        return self._driver

    # --- its state as data ----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """A plain copy of the state: ``vars`` (attributes), ``calls`` (latest statuses by hash), ``changes``."""
        record = self._status_history
        return {
            "vars": self._state.snapshot(),
            "calls": {
                "latest_call_hash": record.latest_call,
                **{key: msgspec.to_builtins(status) for key, status in record.calls.items()},
            },
            "changes": {},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Set the attributes in the ``vars`` of `state`. Ignore those that the work lacks."""
        load(self, state, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return a plain copy of the state, for `load_state_dict`."""
        return {"vars": self._state.snapshot()}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Set the state from a `state_dict`.

        Raises:
            StateError: `strict` is set and the attributes of `state` and of the work differ; or the state cannot hold
                a value. Nothing was changed.
        """
        load(self, state, strict=strict)

    def _bound(self, driver: Driver | None) -> None:
        if driver is None:
            self._state.sink = self._state.guard = self._state.max_bytes = None
        else:
            self._state.sink = self._edited

    def _edited(self, op: Op) -> None:
        if self._driver is not None:
            self._driver.edited(self, op)

    def __setstate__(self, shipped: dict[str, Any]) -> None:
        super().__setstate__(shipped)
        self.__dict__["_status_history"] = StatusHistory()


_OWN = frozenset({"_state", "_children"})


def _component_inside(value: Node, place: str) -> ComponentError:
    return ComponentError(
        f"{place} holds a {type(value).__name__}: a work cannot hold a Flow or a Work. "
        "Make both children of one flow, and let the flow pass values between them"
    )


LightningWork = Work
