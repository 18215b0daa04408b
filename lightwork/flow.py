"""`Flow`, the coroutine that decides what happens next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lightwork.component import Component, Node
from lightwork.errors import ComponentError, StateError, UsageError
from lightwork.structures import Dict, List, as_node

if TYPE_CHECKING:
    from lightwork.calls import Driver
    from lightwork.wire import Op
    from lightwork.work import Work

__all__ = ["Flow", "LightningFlow"]


class Flow(Component):
    """Coordinates works and other flows.

    Subclass it and define ``run``. Components set as attributes, also in lists and dicts, become its
    children; every other public attribute set in ``__init__`` is its state. The root's ``async def run``
    is a coroutine in the app's loop: when it returns it runs again as soon as anything has changed since
    it began, until `stop` or `fail`. A plain ``def run`` runs off the loop; there a call to a
    non-parallel work that has not succeeded ends the pass, and the pass is repeated on the next change.
    """

    _children: dict[str, Node]

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_children"] = {}

    # --- what users override --------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override (``async def`` or plain): what happens next."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Override: whether the flow, and what it needs, is ready to be used. The default asks its child flows."""
        return all(flow.ready for flow in self._child_flows())

    def configure_layout(self) -> Any:
        """Override to give the flow a user interface."""
        return None

    def configure_api(self) -> list[Any]:
        """Override to give the app HTTP routes."""
        return []

    def configure_commands(self) -> list[Any]:
        """Override to give the app commands of its own."""
        return []

    # --- what they call -------------------------------------------------------------------------

    def stop(self, message: str | None = None) -> None:
        """End the app as a success. Inside of ``run`` this line is the last one that runs.

        Raises:
            UsageError: The flow is in no running app.
        """
        self._driven("stop").request_stop(message)

    def fail(self, message: str | None = None) -> None:
        """End the app as a failure: `FlowFailed` with that message. Inside of ``run`` this line is the last one.

        Raises:
            UsageError: The flow is in no running app.
        """
        self._driven("fail").request_fail(message)

    def works(self, recurse: bool = True) -> list[Work]:
        """The works of this flow, in the order they were set; with `recurse` also those of its child flows."""
        return [work for _, work in self.named_works(recurse)]

    def named_works(self, recurse: bool = True) -> list[tuple[str, Work]]:
        """Like `works`, each with its name."""
        from lightwork.work import Work

        found = self._walk() if recurse else self._walk_own()
        return [(node.name, node) for node in found if isinstance(node, Work)]

    @property
    def flows(self) -> dict[str, Flow]:
        """Every flow below this one, by name."""
        return {node.name: node for node in self._walk() if isinstance(node, Flow) and node is not self}

    def _driven(self, what: str) -> Driver:
        if self._driver is None:
            raise UsageError(f"{what}() of {self._label()} needs a running app; make one with App({type(self).__name__}())")
        return self._driver

    # --- children -------------------------------------------------------------------------------

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._children.values())

    def _child_flows(self) -> Iterable[Flow]:
        return (node for node in self._walk_own() if isinstance(node, Flow) and node is not self)

    def _walk_own(self) -> Iterator[Node]:
        """Children, and what is in its own lists and dicts, but nothing of a child flow's."""
        waiting = list(self._child_nodes())
        while waiting:
            node = waiting.pop(0)
            yield node
            if not isinstance(node, Flow):
                waiting[:0] = node._child_nodes()

    def __setattr__(self, name: str, value: Any) -> None:
        children: dict[str, Node] | None = self.__dict__.get("_children")
        if children is None:
            super().__setattr__(name, value)
            return
        if isinstance(value, (Node, list, tuple, dict)) and (node := as_node(value)) is not None:
            self._set_child(name, node)
            return
        if name in children:
            raise ComponentError(
                f"{self._label()}.{name} is a component and cannot become {value!r:.80}: "
                f"`del self.{name}` removes it, data needs another name"
            )
        super().__setattr__(name, value)

    def _set_child(self, name: str, node: Node) -> None:
        if not self._is_state_attribute(name):
            if node._parent is None and not node._key:
                raise ComponentError(
                    f"{type(self).__name__}.{name} would keep a {type(node).__name__} out of the tree, where it could "
                    f"not run: give it a public name"
                )
            object.__setattr__(self, name, node)
            return
        if name in self._state.names:
            raise StateError(f"{self._label()}.{name} is data and cannot become a component: use another name")
        if name in self._descriptors or hasattr(type(self), name):
            raise ComponentError(f"{type(self).__name__}.{name} exists already; the component needs another name")
        replaced = self._children.get(name)
        if replaced is node:
            return
        node._attach(self, name)
        self._children[name] = node
        self.__dict__[name] = node
        if replaced is not None:
            replaced._detach()

    def __delattr__(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is None:
            super().__delattr__(name)
            return
        del self.__dict__[name]
        child._detach()

    def _constructed(self) -> None:
        super()._constructed()
        if type(self).run is Flow.run:
            raise ComponentError(f"{type(self).__name__} has no run method: define `async def run(self)` or `def run(self)`")

    def _bound(self, driver: Driver | None) -> None:
        self._state.sink = None if driver is None else self._edited

    def _edited(self, op: Op) -> None:
        if self._driver is not None:
            self._driver.edited(self, op)

    def __getstate__(self) -> dict[str, Any]:
        raise UsageError(f"a flow is not sent anywhere: {self._label()} cannot be pickled")

    # --- its state as data ----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """A plain copy of everything: ``vars``, ``calls``, ``flows``, ``works``, ``structures``, ``changes``."""
        return {"vars": self._state.snapshot(), "calls": {}, "changes": {}, **self._children_as(lambda one: one.state)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back the attributes in a `state`, of this flow and all below it."""
        self.load_state_dict(state, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """A plain copy of the state of this flow and all below it, which `load_state_dict` takes back."""
        return {"vars": self._state.snapshot(), **self._children_as(lambda one: one.state_dict())}

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Take a `state_dict` back, here and below. Children that it does not name stay as they are if not `strict`.

        Raises:
            StateError: It is of another tree, and `strict` is set; names the keys. Nothing was changed then.
        """
        if strict and (problems := list(self._misfits(state))):
            raise StateError(f"the state is of another tree than {self._label()}: {'; '.join(problems)}")
        self._load_vars(state.get("vars", {}), strict=False)
        for _, child, inner in self._pairs(state):
            if inner is not None:
                _load(child, inner)

    def _pairs(self, state: dict[str, Any]) -> Iterator[tuple[str, Node, Any]]:
        for key, child in self._children.items():
            yield key, child, state.get(_kind(child), {}).get(key)

    def _children_as(self, convert: Any) -> dict[str, dict[str, Any]]:
        groups: dict[str, dict[str, Any]] = {"flows": {}, "works": {}, "structures": {}}
        for key, child in self._children.items():
            groups[_kind(child)][key] = _convert(child, convert)
        return groups

    def _misfits(self, state: dict[str, Any], where: str = "") -> Iterator[str]:
        for group in ("flows", "works", "structures"):
            for key in state.get(group, {}):
                if key not in self._children or _kind(self._children[key]) != group:
                    yield f"it has {where}{key}, which the tree has not"
        yield from _vars_misfits(self, state, where)
        for key, child, inner in self._pairs(state):
            if inner is None:
                yield f"it lacks {where}{key}"
            else:
                yield from _misfits(child, inner, f"{where}{key}.")


def _kind(node: Node) -> str:
    return "structures" if isinstance(node, (List, Dict)) else "flows" if isinstance(node, Flow) else "works"


def _members(structure: List[Any] | Dict[Any]) -> Iterator[tuple[str, Node]]:
    return ((node._key, node) for node in structure._child_nodes())


def _convert(node: Node, convert: Any) -> Any:
    if isinstance(node, (List, Dict)):
        return {name: _convert(one, convert) for name, one in _members(node)}
    return convert(node)


def _load(node: Node, state: dict[str, Any]) -> None:
    if isinstance(node, (List, Dict)):
        for name, one in _members(node):
            if name in state:
                _load(one, state[name])
    else:
        node.load_state_dict(state, strict=False)  # type: ignore[attr-defined]


def _vars_misfits(component: Component, state: dict[str, Any], where: str) -> Iterator[str]:
    names = component._state.names
    given = state.get("vars", {})
    for name in given:
        if name not in names:
            yield f"it has {where}{name}, which the tree has not"
    for name in names:
        if name not in given and not name.startswith("_"):
            yield f"it lacks {where}{name}"


def _misfits(node: Node, state: dict[str, Any], where: str) -> Iterator[str]:
    if isinstance(node, Flow):
        yield from node._misfits(state, where)
    elif isinstance(node, (List, Dict)):
        members = dict(_members(node))
        yield from (f"it has {where}{key}, which the tree has not" for key in state if key not in members)
        for key, one in members.items():
            if key in state:
                yield from _misfits(one, state[key], f"{where}{key}.")
            else:
                yield f"it lacks {where}{key}"
    elif isinstance(node, Component):
        yield from _vars_misfits(node, state, where)


LightningFlow = Flow
