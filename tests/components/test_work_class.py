"""Classes of works, and works that no app drives."""

from __future__ import annotations

import abc
import asyncio
import inspect
import pickle
from typing import Any

import pytest

from lightwork import Flow, LightningFlow, LightningWork, Work
from lightwork.errors import ComponentError, StateError, UsageError

pytestmark = pytest.mark.bare


class Train(Work):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__(parallel=True)
        self.lr, self.losses, self._secret = lr, [1.0], object

    async def run(self, epochs: int = 1) -> float:
        self.losses += [self.lr] * epochs
        return self.lr * epochs


class Plain(Work):
    def run(self, x: int) -> int:
        return x + 1


class Small(Flow):
    async def run(self) -> None: ...


REFERENCE = (
    "parallel=False, cache_calls=True, raise_exception=True, host='127.0.0.1', port=None, local_build_config=None, "
    "cloud_build_config=None, cloud_compute=None, run_once=None, start_with_flow=True"
)


MEMBERS = """
apply_flow_delta configure_layout delete on_exception on_exit run start stop cache_calls
cloud_build_config display_name has_failed has_started has_stopped has_succeeded has_timeout host
internal_ip is_pending is_running lightningignore name num_successes num_timeouts parallel public_ip
state status statuses url _run_executor_cls _aggregate_status_timeout _is_state_attribute
"""


def test_constructor_is_the_reference_s() -> None:
    """Work has the parameters of the reference page, in its order and with its defaults; the rest is keyword-only."""
    parameters = list(inspect.signature(Work).parameters.values())
    positional = [one for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    own = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    assert ", ".join(f"{one.name}={one.default!r}" for one in positional) == REFERENCE
    assert [one.name for one in own] == ["runtime", "timeout", "retries", "retry_delay", "concurrency"]
    assert len(positional) + len(own) == len(parameters)


def test_old_names_are_the_same_classes() -> None:
    """LightningWork and LightningFlow are Work and Flow."""
    assert LightningWork is Work
    assert LightningFlow is Flow


@pytest.mark.parametrize(
    "member",
    MEMBERS.split(),
)
def test_every_member_of_the_reference_is_there(member: str) -> None:
    """Each member of the reference page exists on a work outside any app."""
    assert hasattr(Train(), member)


def test_run_once_is_deprecated() -> None:
    """run_once warns and sets cache_calls."""

    class Once(Plain):
        def __init__(self) -> None:
            super().__init__(run_once=False)

    with pytest.warns(DeprecationWarning, match=r"cache_calls"):
        work = Once()
    assert work.cache_calls is False


async def test_runs_in_place() -> None:
    """A work that no app drives runs in place, async and plain, and its state changes."""
    train = Train(0.5)
    assert await train.run(3) == 1.5
    assert train.losses == [1.0, 0.5, 0.5, 0.5]
    assert Plain().run(1) == 2


async def test_no_hooks_in_place() -> None:
    """In place, neither on_start nor on_exception is called."""

    class Hooked(Work):
        def on_start(self) -> None:
            raise AssertionError

        def on_exception(self, exception: BaseException) -> None:
            raise AssertionError

        async def run(self) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"mine"):
        await Hooked().run()


def test_port_in_place() -> None:
    """In place, reading the port picks a free one and keeps it."""
    work = Plain()
    assert work.port is not None
    assert work.port == work.port


@pytest.mark.parametrize("method", ["start", "stop", "delete", "wait_confirmed", "submit"])
def test_needs_an_app(method: str) -> None:
    """A method that needs an app raises an error on a work without one."""
    with pytest.raises(UsageError, match=rf"{method}\(\) of Plain needs a running app"):
        getattr(Plain(), method)(*([1] if method == "submit" else []))


# --- classes that are wrong ---------------------------------------------------------------------


def test_no_run() -> None:
    """A work without a run is refused; the error names the class and the way out."""

    class Empty(Work):
        pass

    with pytest.raises(ComponentError, match=r"Empty has no run method: define `async def run"):
        Empty()


@pytest.mark.parametrize("run", [1, None, staticmethod(lambda: 1), property(lambda self: 1)])
def test_run_is_no_method(run: Any) -> None:
    """A run that is not a method is refused."""
    cls = type("Odd", (Work,), {"run": run})
    with pytest.raises(ComponentError, match=r"Odd.run is .*; it must be a method"):
        cls()


def test_forgotten_super() -> None:
    """An __init__ without super().__init__() is refused at its end, or where it first sets state."""

    class Forgets(Plain):
        def __init__(self) -> None:
            self._x = 1

    class SetsFirst(Plain):
        def __init__(self) -> None:
            self.x = 1
            super().__init__()

    class FlowForgets(Small):
        def __init__(self) -> None:
            self.child = Plain()

    with pytest.raises(ComponentError, match=r"Forgets.__init__ does not call super\(\).__init__\(\)"):
        Forgets()
    with pytest.raises(ComponentError, match=r"SetsFirst.__init__ sets 'x' before super\(\).__init__\(\)"):
        SetsFirst()
    with pytest.raises(ComponentError, match=r"FlowForgets.__init__ sets 'child' before super"):
        FlowForgets()


def test_run_of_a_mixin() -> None:
    """A run from a mixin works like one of the class itself."""

    class Runs:
        async def run(self, x: int) -> int:
            return x

    class Mixed(Runs, Work):
        pass

    class Below(Mixed):
        pass

    assert Mixed()._signature.text == "(x: int) -> int"
    assert type(inspect.getattr_static(Mixed, "run")) is type(inspect.getattr_static(Train, "run"))
    assert asyncio.run(Below().run(2)) == 2


def test_abstract_run() -> None:
    """An abstract base of works cannot be instantiated; a subclass that implements everything can."""

    class Base(Work, abc.ABC):
        @abc.abstractmethod
        def run(self, x: int) -> int: ...

    class Done(Base):
        def run(self, x: int) -> int:
            return x

    with pytest.raises(TypeError, match=r"abstract"):
        Base()  # type: ignore[abstract]
    assert Done().run(3) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, "port is 0; it must be a number from 1 to 65535, or None"),
        ({"timeout": 0}, "timeout is 0; it must be a number of seconds above 0"),
        ({"retries": -1}, "retries and retry_delay must not be negative"),
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"concurrency": 2}, "Optioned has concurrency=2, which needs `async def run`"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """The error for an option out of range has its name and value."""

    class Optioned(Plain):
        def __init__(self) -> None:
            super().__init__(**options)

    with pytest.raises(ComponentError, match=message):
        Optioned()


# --- attributes ---------------------------------------------------------------------------------


def test_new_attribute() -> None:
    """A public attribute that __init__ did not set is refused; the error names both ways out."""
    with pytest.raises(StateError, match=r"Train has no state attribute 'loss'.*self.loss = None.*self._loss"):
        Train().loss = 1  # type: ignore[attr-defined]


def test_hasattr_is_not_surprised() -> None:
    """Both hasattr and getattr with a default treat a missing attribute as missing."""
    assert not hasattr(Train(), "loss")
    assert getattr(Train(), "loss", 3) == 3


def test_unencodable_value() -> None:
    """The error for a value that the state cannot hold names class, attribute, place, type and the way out."""

    class Odd:
        pass

    train = Train()
    with pytest.raises(StateError, match=r"Train.lr: a value of type .*Odd cannot be kept .*_lr, which keeps it out"):
        train.lr = Odd()  # type: ignore[assignment]
    with pytest.raises(StateError, match=r"Train.losses\[1\]\['a'\]: a value of type .*Odd"):
        train.losses = [1.0, {"a": Odd()}]  # type: ignore[list-item]
    assert (train.lr, train.losses) == (0.1, [1.0])


def test_large_integer() -> None:
    """An integer beyond 64 bits is refused; the error names the way out."""
    with pytest.raises(StateError, match=r"Train.lr: an integer beyond 64 bits cannot be sent; keep it as text"):
        Train(2**64)


class Described(Plain):
    size = 3
    kind: str = "class"

    def __init__(self) -> None:
        super().__init__()
        self._half = 1
        self.kind = "instance"

    @property
    def double(self) -> int:
        return self._half * 2

    @double.setter
    def double(self, value: int) -> None:
        self._half = value // 2

    @property
    def fixed(self) -> int:
        return 1


def test_property_with_setter() -> None:
    """A property of the class works as in any class, and is not part of the state."""
    work = Described()
    work.double = 10
    assert (work._half, work.double) == (5, 10)
    assert "double" not in work.state["vars"]


def test_property_without_setter() -> None:
    """Assignment to a property without a setter is refused by name, also for properties of the framework."""
    with pytest.raises(StateError, match=r"Described.fixed is a property without a setter"):
        Described().fixed = 2  # type: ignore[misc]
    with pytest.raises(StateError, match=r"Described.status is a property without a setter"):
        Described().status = 2  # type: ignore[misc, assignment]


def test_class_level_default() -> None:
    """A class attribute can be read and is not state; an attribute that __init__ sets is state."""
    work = Described()
    assert (work.size, work.kind) == (3, "instance")
    assert work.state_dict()["vars"]["kind"] == "instance"
    assert "size" not in work.state_dict()["vars"]
    with pytest.raises(StateError, match=r"no state attribute 'size'"):
        work.size = 4


def test_attribute_named_as_a_method() -> None:
    """A state attribute cannot take a method's name."""

    class Clash(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.start = 1  # type: ignore[assignment, method-assign]

    with pytest.raises(StateError, match=r"Clash.start is a method; the state attribute needs another name"):
        Clash()


# --- components inside of a work ----------------------------------------------------------------


@pytest.mark.parametrize("inner", [Train, Small])
@pytest.mark.parametrize("attribute", ["x", "_x"])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one], lambda one: {"a": [one]}, lambda one: (one,)])
def test_component_in_a_work(inner: type[Any], attribute: str, wrap: Any) -> None:
    """A work cannot hold a component under any name or in any container; the error says what to do instead."""

    class Outer(Plain):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, attribute, wrap(inner()))

    with pytest.raises(
        ComponentError, match=rf"Outer.{attribute}.* holds a {inner.__name__}: a work cannot hold.*children of one flow"
    ):
        Outer()


def test_component_in_a_work_later() -> None:
    """A work cannot get a component later either, by assignment or in place."""
    train = Train()
    with pytest.raises(ComponentError, match=r"Train.lr holds a Small"):
        train.lr = Small()  # type: ignore[assignment]
    with pytest.raises(ComponentError, match=r"Train.losses\[1\] holds a Plain"):
        train.losses.append(Plain())  # type: ignore[arg-type]
    with pytest.raises(ComponentError, match=r"Train.losses\[0\] holds a Plain"):
        train.losses = [Plain()]  # type: ignore[list-item]
    assert train.losses == [1.0]


# --- what travels -------------------------------------------------------------------------------


def test_pickled() -> None:
    """An unpickled work has its private attributes and a copy of its state, and its state is tracked."""
    train = Train(0.3)
    copy = pickle.loads(pickle.dumps(train))
    assert (copy.lr, copy.losses, copy._secret) == (0.3, [1.0], object)
    ops: list[Any] = []
    copy._state.sink = ops.append
    copy.losses.append(2.0)
    assert train.losses == [1.0]
    assert [op[1] for op in ops] == [["losses"]]
    assert (copy.name, copy.status.stage) == ("", "not_started")
    with pytest.raises(StateError):
        copy.other = 1


def test_a_flow_is_not_pickled() -> None:
    """A flow cannot be pickled."""
    with pytest.raises(UsageError, match=r"a flow is not sent anywhere"):
        pickle.dumps(Small())


# --- state as data ------------------------------------------------------------------------------


def test_state_as_data() -> None:
    """State and state_dict are plain copies."""
    train = Train()
    data = train.state
    assert data["vars"]["losses"] == [1.0]
    assert set(data) == {"vars", "calls", "changes"}
    data["vars"]["losses"].append(5)
    assert train.losses == [1.0]
    assert type(train.state_dict()["vars"]["losses"]) is list


def test_state_taken_back() -> None:
    """load_state_dict and set_state set the attributes, except those that describe a worker."""
    train, other = Train(), Train(0.7)
    other._state.set("_url", "http://gone")
    train.load_state_dict(other.state_dict())
    assert (train.lr, train.url) == (0.7, "")
    other.lr = 0.8
    train.set_state(other.state)
    assert train.lr == 0.8


def test_state_that_does_not_fit() -> None:
    """A state with different keys is refused, the error names all of them, and nothing changes."""
    train = Train()
    with pytest.raises(StateError, match=r"does not fit Train: it has loss, .*; it lacks losses"):
        train.load_state_dict({"vars": {"lr": 5, "loss": 1}})
    assert train.lr == 0.1
    train.load_state_dict({"vars": {"lr": 5, "loss": 1}}, strict=False)
    assert train.lr == 5


@pytest.mark.parametrize("state", [{}, {"vars": None}, None, {"vars": {"lr": 2, "losses": object()}}])
def test_state_that_is_none(state: Any) -> None:
    """An invalid state, or one with a value that no state can hold, is refused, and nothing changes."""
    train = Train()
    with pytest.raises(StateError):
        train.load_state_dict(state, strict=False)
    assert train.lr == 0.1


@pytest.mark.parametrize("name", ["_parent", "_key", "_driver", "_state", "_status_history", "_children"])
def test_names_of_lightwork_s_own(name: str) -> None:
    """A private name that lightwork itself uses is refused."""

    class Careless(Work):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, 1)

        def run(self) -> None: ...

    with pytest.raises(StateError, match=rf"Careless\.{name} is reserved by lightwork"):
        Careless()
