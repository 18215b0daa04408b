"""`Flow`, the coroutine that decides what happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lightwork.components.component import Component, Node
from lightwork.components.cron import Cron
from lightwork.components.progress import Progress, call_site
from lightwork.components.state_dict import children_as, load
from lightwork.components.structures import as_node, holds_nodes, leaves, refill
from lightwork.errors import ComponentError, StateError, UsageError

if TYPE_CHECKING:
    from lightwork.api import Command, HttpMethod
    from lightwork.components.driver import Driver
    from lightwork.components.work import Work
    from lightwork.state.ops import Op

__all__ = ["Flow", "LightningFlow"]

T = TypeVar("T")


class Flow(Component):
    """Coordinates works and other flows.

    Subclass it and define ``run``. Components set as attributes, also in lists and dicts, become its
    children; every other public attribute set in ``__init__`` is its state. The root's ``async def run``
    is a coroutine in the app's loop: when it returns it runs again as soon as anything has changed since
    it began, until `stop` or `fail`. A plain ``def run`` runs off the loop; there a call to a
    non-parallel work that has not succeeded ends the pass, and the pass is repeated on the next change.
    """

    _group = "flows"
    _children: dict[str, Node]
    _progress: Progress

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_children"] = {}
        self.__dict__["_progress"] = Progress()

    # --- what users override --------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Override (``async def`` or plain): decide what happens next."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Override: whether the flow and what it needs is ready for use. Default: whether all child flows are ready."""
        return all(flow.ready for flow in self._child_flows())

    def configure_layout(self) -> Any:
        """Override to give the flow a user interface. Default: its children, each in a tab.

        Return None (no user interface at the moment), a URL, a `lightwork.frontend.Frontend`, or a list of tabs
        ``dict(name=..., content=...)``, whose content is a component below this flow, a URL, or None. It is
        called when the app starts, and again after each pass in which something changed. A Frontend must be returned by
        the first call.
        """
        return None

    def configure_api(self) -> Sequence[HttpMethod]:
        """Override to give the app HTTP routes."""
        return []

    def configure_commands(self) -> Sequence[Command | Mapping[str, Callable[..., Any]]]:
        """Override to give the app commands of its own."""
        return []

    # --- what they call -------------------------------------------------------------------------

    def stop(self, message: str | None = None) -> None:
        """End the app as a success. Inside ``run`` no line after this one runs.

        Raises:
            UsageError: No running app drives the flow.
        """
        self._driven("stop").request_stop(message)

    def fail(self, message: str | None = None) -> None:
        """End the app as a failure: `FlowFailed` with that message. Inside ``run`` no line after this one runs.

        Raises:
            UsageError: No running app drives the flow.
        """
        self._driven("fail").request_fail(message)

    def schedule(self, cron_pattern: str, start_time: datetime | None = None, user_key: str | None = None) -> bool:
        """Return whether a schedule has fired: ``if self.schedule("hourly"):`` in ``run``.

        The schedule begins with the first call of this line. It fires on the wall clock in this machine's time zone.
        After a firing it is true in the whole of the first pass that begins afterwards, and false when that pass has
        ended. In such a pass of a plain ``def run`` a call to a non-parallel work waits in place and does not end the
        pass, so each line runs once for each firing. Several firings before a pass can begin count once.

        Args:
            cron_pattern: ``minute hour day-of-month month day-of-week``, with seconds in front if there are six; or
                ``hourly``, ``daily``, ``midnight``, ``weekly``, ``monthly``, ``yearly``, ``annually``, also with ``@``.
            start_time: When the schedule begins, in this machine's time if it has no zone. If it lies in the past, the
                firings that were missed since then count, once.
            user_key: Key of the schedule among those with that pattern, instead of the line of code of the call: two
                lines with the same key are one schedule, one line with two keys is two.

        Returns:
            Also False if no app drives the flow.

        Raises:
            ScheduleError: `cron_pattern` is invalid; names the field.
        """
        cron = Cron.parse(cron_pattern)
        key = f"{cron_pattern} {call_site(1) if user_key is None else user_key}"
        return self._driver is not None and self._driver.schedule(self, key, cron.text, start_time)

    def iterate(self, iterable: Iterable[T], run_once: bool = True, user_key: str = "") -> Iterator[T]:
        """Iterate over `iterable` once, in as many passes as needed. A pass that was cut short resumes at its item.

        The position is part of the flow's state, so a restored flow resumes there too. After ``break`` the next pass
        resumes at the same item. An iteration inside another one runs through its items for each outer item.

        Args:
            iterable: Must yield the same items in each pass, without side effects.
            run_once: Whether the iteration yields nothing more after its last item; otherwise it starts over.
            user_key: Key of the iteration, instead of the line of code of the call.

        Raises:
            UsageError: `iterable` cannot be iterated over.
        """
        return self._progress.iterate(iterable, user_key or call_site(1), is_once=run_once)

    experimental_iterate = iterate

    def works(self, recurse: bool = True) -> list[Work]:
        """Return the works of this flow in the order they were set; with `recurse` also those of its child flows."""
        return [work for _, work in self.named_works(recurse)]

    def named_works(self, recurse: bool = True) -> list[tuple[str, Work]]:
        """Return what `works` returns, each work with its name."""
        found = self._walk() if recurse else self._walk_own()
        return [(node.name, cast("Work", node)) for node in found if node._group == "works"]

    @property
    def flows(self) -> dict[str, Flow]:
        """All flows below this one, by name."""
        return {node.name: node for node in self._walk() if isinstance(node, Flow) and node is not self}

    def _driven(self, what: str) -> Driver:
        if self._driver is None:
            raise UsageError(
                f"{what}() of {self._label()} needs a running app; make one with App({type(self).__name__}())"
            )
        return self._driver

    # --- children -------------------------------------------------------------------------------

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._children.values())

    def _child_flows(self) -> Iterable[Flow]:
        return (node for node in self._walk_own() if isinstance(node, Flow) and node is not self)

    def _walk_own(self) -> Iterator[Node]:
        """Yield the children and the items of the flow's own lists and dicts, without the children of child flows."""
        waiting = list(self._child_nodes())
        while waiting:
            node = waiting.pop(0)
            yield node
            if not isinstance(node, Flow):
                waiting[:0] = node._child_nodes()

    def _assign(self, name: str, value: Any) -> None:
        children: dict[str, Node] | None = self.__dict__.get("_children")
        if children is None:
            super()._assign(name, value)
        elif isinstance(value, (Node, list, tuple, dict)) and holds_nodes(value):
            if self._is_state_attribute(name):
                self._set_child(name, value)
            else:
                self._set_reference(name, value)
        elif name in children:
            self._set_over_child(name, value)
        else:
            super()._assign(name, value)

    if not TYPE_CHECKING:  # otherwise a type checker accepts any attribute
        __setattr__ = _assign

    def _set_child(self, name: str, value: Any) -> None:
        present = self._children.get(name)
        if present is value or (present is not None and refill(present, value)):
            return
        if present is None:
            self._check_free(name)
        node = as_node(value)
        node._check_place(self, name)
        if present is not None:
            self.__delattr__(name)
        elif name in self._state.names:
            self._state.delete(name)
        self._children[name] = node
        self.__dict__[name] = node
        node._attach(self, name)

    def _check_free(self, name: str) -> None:
        """Raise if a new child cannot have this name. It may replace None and empty containers."""
        if name in self._state.names:
            if self.__dict__[name] in (None, [], {}):
                return
            raise StateError(f"{self._label()}.{name} is data and cannot become a component: use another name")
        found = getattr(type(self), name, None)
        if name in self._descriptors or callable(found):
            raise ComponentError(
                f"{type(self).__name__}.{name} is a method or property of the class; the component needs another name"
            )

    def _set_reference(self, name: str, value: Any) -> None:
        """Keep components that have a place elsewhere, under a private name."""
        for node in leaves([value], f"{type(self).__name__}.{name}"):
            if node._parent is None and not node._key:
                raise ComponentError(
                    f"{type(self).__name__}.{name} would keep a {type(node).__name__} out of the tree, where it could "
                    "not run: give it a public name"
                )
        object.__setattr__(self, name, value)

    def _set_over_child(self, name: str, value: Any) -> None:
        """Assign data to the name of a child. None or an empty container replaces it; other data is refused."""
        if not value and refill(self._children[name], value):
            return
        if value is None:
            self.__delattr__(name)
            self._state.set(name, None)
        else:
            raise ComponentError(
                f"{self._label()}.{name} is a component and cannot become {value!r:.80}: "
                f"`del self.{name}` removes it, data needs another name"
            )

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
            raise ComponentError(
                f"{type(self).__name__} has no run method: define `async def run(self)` or `def run(self)`"
            )

    @staticmethod
    def _explain(value: Any, place: str) -> Exception | None:
        if not isinstance(value, Node):
            return None
        return StateError(
            f"{place}: a {type(value).__name__} is a component, and this attribute is data. Components that come later "
            "go into a container of components: start the attribute as lightwork.structures.List() or Dict()"
        )

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
        """A plain copy of the whole state: ``vars``, ``calls``, ``flows``, ``works``, ``structures``, ``changes``."""
        return {**self._own_state(), "changes": {}, **children_as(self, lambda one: one.state)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set the attributes in a `state`, of this flow and all below it. Ignore what the tree lacks."""
        load(self, state, strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return a plain copy of the state of this flow and all below it, for `load_state_dict`."""
        return {**self._own_state(), **children_as(self, lambda one: one.state_dict())}

    def _own_state(self) -> dict[str, Any]:
        return {"vars": self._state.snapshot(), "calls": self._progress.snapshot()}

    def _load_calls(self, calls: Any) -> Callable[[], None]:
        progress = Progress.checked(calls)
        return lambda: self.__dict__.update(_progress=progress)

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Set the state of this flow and all below it from a `state_dict`. Unless `strict`, ignore what does not fit.

        Raises:
            StateError: `state` belongs to another tree and `strict` is set; names the keys. Or it is not a
                `state_dict`, or the state cannot hold one of its values. Nothing was changed.
        """
        load(self, state, strict=strict)


LightningFlow = Flow
