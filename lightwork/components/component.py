"""The base of `Work` and `Flow`: a name in the tree, and a tracked state.

A component is built like any Python object. Public attributes set in ``__init__`` are its state from then
on. The metaclass notices the end of ``__init__``. A new attribute after that is an error: it would silently stay in
one process.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from lightwork.components.driver import Driver
from lightwork.errors import ComponentError, StateError
from lightwork.state.state import State

__all__ = ["Component", "ComponentMeta", "Node"]


class Node:
    """A place in the tree: a component or a container of components."""

    _group: ClassVar[str] = ""
    _parent: Node | None
    _key: str
    _driver: Driver | None

    @property
    def name(self) -> str:
        """Its path in the tree, ``root.trials.0``, in its worker too; empty while it is in no tree."""
        if self._parent is None and not self._key:
            return str(self.__dict__.get("_worker_name", ""))
        names: list[str] = []
        node: Node | None = self
        while node is not None:
            if not node._key:
                return ""
            names.append(node._key)
            node = node._parent
        return ".".join(reversed(names))

    def _label(self) -> str:
        """Return its name for a message."""
        return f"{type(self).__name__} {self.name!r}" if self.name else type(self).__name__

    def _child_nodes(self) -> Iterator[Node]:
        return iter(())

    def _walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first."""
        yield self
        for child in list(self._child_nodes()):
            yield from child._walk()

    def _attach(self, parent: Node, key: str) -> None:
        """Put it at `key` of `parent`.

        Raises:
            ComponentError: For the reasons of `_check_place`.
        """
        self._check_place(parent, key)
        object.__setattr__(self, "_parent", parent)
        object.__setattr__(self, "_key", key)
        if parent._driver is not None:
            self._bind(parent._driver)
            parent._driver.added(self)

    def _check_place(self, parent: Node, key: str) -> None:
        """Raise `ComponentError` if it already has a place, or if `parent` is inside it."""
        if self._parent is not None or self._key:
            place = self.name or f"{self._key!r} of a {type(self._parent).__name__}"
            raise ComponentError(
                f"{type(self).__name__} is used twice: it is {place} already, and cannot be {key!r} of "
                f"{parent._label()} too. Make a second instance, or keep a reference under a name with an underscore"
            )
        node: Node | None = parent
        while node is not None:
            if node is self:
                raise ComponentError(f"{parent._label()} is inside {self._label()} and cannot hold it")
            node = node._parent

    def _detach(self) -> None:
        """Take it out of the tree. It can be put into a tree again."""
        driver = self._driver
        if driver is not None:
            driver.removed(self)
            self._bind(None)
        object.__setattr__(self, "_parent", None)
        object.__setattr__(self, "_key", "")

    def _bind(self, driver: Driver | None) -> None:
        for node in self._walk():
            object.__setattr__(node, "_driver", driver)
            node._bound(driver)

    def _bound(self, driver: Driver | None) -> None:
        """Handle a change of this node's driver."""


class ComponentMeta(abc.ABCMeta):
    """Runs `Component._constructed` when ``__init__`` has returned."""

    if not TYPE_CHECKING:  # so that type checkers use the signature of __init__

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            """Make a component, and check it as a whole."""
            component = super().__call__(*args, **kwargs)
            component._constructed()
            return component

    @property
    def __signature__(cls) -> inspect.Signature:
        """The signature of ``__init__``, which `__call__` above would hide."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Component(Node, metaclass=ComponentMeta):
    """Base of `Work` and `Flow`."""

    _INTERNAL_STATE_VARS: ClassVar[frozenset[str]] = frozenset()
    _descriptors: ClassVar[frozenset[str]] = frozenset()
    _state: State

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._descriptors = frozenset(
            name for base in cls.__mro__ for name, value in vars(base).items() if hasattr(type(value), "__set__")
        )

    def __init__(self) -> None:
        attributes = self.__dict__
        attributes["_parent"] = None
        attributes["_key"] = ""
        attributes["_driver"] = None
        attributes["_is_built"] = False
        attributes["_state"] = state = State(type(self).__name__, attributes)
        state.explain = self._explain

    def _constructed(self) -> None:
        if "_state" not in self.__dict__:
            raise ComponentError(
                f"{type(self).__name__}.__init__ does not call super().__init__(); make that its first line"
            )
        self.__dict__["_is_built"] = True

    @staticmethod
    def _is_state_attribute(name: str) -> bool:
        """Return whether an attribute of this name is part of the state: every public one is."""
        return not name.startswith("_")

    @staticmethod
    def _explain(value: Any, place: str) -> Exception | None:
        """Return the error for a value of a type that no state can hold; None for the general error."""
        return None

    def _takes(self, name: str) -> bool:
        return name in self._INTERNAL_STATE_VARS or self._is_state_attribute(name)

    def _assign(self, name: str, value: Any) -> None:
        state: State | None = self.__dict__.get("_state")
        if state is not None and name in state.names:
            state.set(name, value)
        elif name in self._descriptors or not self._takes(name):
            self._check_writable(name)
            object.__setattr__(self, name, value)
        elif state is None:
            raise ComponentError(
                f"{type(self).__name__}.__init__ sets {name!r} before super().__init__() was called; "
                "make that its first line"
            )
        else:
            self._declare(state, name, value)

    if not TYPE_CHECKING:  # otherwise a type checker accepts any attribute
        __setattr__ = _assign

    def __delattr__(self, name: str) -> None:
        state: State | None = self.__dict__.get("_state")
        if state is not None and name in state.names:
            state.delete(name)
        else:
            object.__delattr__(self, name)

    def _check_writable(self, name: str) -> None:
        if name in _RESERVED:
            raise StateError(f"{type(self).__name__}.{name} is reserved by lightwork: the attribute needs another name")
        found = inspect.getattr_static(type(self), name, None)
        if isinstance(found, property) and found.fset is None:
            raise StateError(
                f"{type(self).__name__}.{name} is a property without a setter: the attribute needs another name"
            )

    def _declare(self, state: State, name: str, value: Any) -> None:
        """Add a public attribute to the state."""
        if self.__dict__["_is_built"]:
            raise StateError(
                f"{type(self).__name__} has no state attribute {name!r}: only __init__ adds attributes to the state; "
                f"set it there first (self.{name} = None), or use self._{name} to keep it out of the state"
            )
        if hasattr(type(self), name) and callable(getattr(type(self), name)):
            raise StateError(f"{type(self).__name__}.{name} is a method; the state attribute needs another name")
        state.set(name, value)

    def _load_calls(self, calls: Any) -> Callable[[], None]:
        """Check the calls in a ``state_dict``. Return a function that takes them back. A work keeps none of them."""
        return lambda: None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker needs: private attributes as they are, the state as plain values, no tree."""
        state = self._state
        private = {
            name: value for name, value in self.__dict__.items() if name not in state.names and name not in _NOT_SHIPPED
        }
        return {"private": private, "state": state.snapshot()}

    def __setstate__(self, shipped: dict[str, Any]) -> None:
        Component.__init__(self)
        self.__dict__.update(shipped["private"])
        for name, value in shipped["state"].items():
            self._state.set(name, value)
        self.__dict__["_is_built"] = True


_NOT_SHIPPED = frozenset(
    {"_parent", "_key", "_driver", "_is_built", "_state", "_status_history", "_signature", "_worker_name"}
)
_RESERVED = _NOT_SHIPPED | {"_children"}
