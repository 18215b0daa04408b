"""`List` and `Dict`, containers of components. They are nodes of the tree themselves.

A flow turns lists and dicts of components into these. The key of a child is its name in the tree. It never changes
while the child is there: the removal of an item from a `List` renames no other item, because a running process may have
that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from lightwork._common.public import export
from lightwork.components.component import Component, Node
from lightwork.components.driver import Driver
from lightwork.errors import ComponentError

if TYPE_CHECKING:
    from lightwork.components.flow import Flow
    from lightwork.components.work import Work

__all__ = ["Dict", "List", "as_node", "find", "holds_nodes", "leaves", "nodes_of", "refill"]

N = TypeVar("N", bound=Node)


class _Structure(Node):
    """The base of `List` and `Dict`."""

    _group = "structures"
    _parent: Node | None
    _key: str
    _driver: Driver | None

    def _init_node(self) -> None:
        self._parent, self._key, self._driver = None, "", None

    @property
    def works(self) -> list[Work]:
        """All works below, parents first."""
        return [cast("Work", node) for node in self._walk() if node._group == "works"]

    @property
    def flows(self) -> dict[str, Flow]:
        """All flows below, by name."""
        return {node.name: cast("Flow", node) for node in self._walk() if node._group == "flows"}


class List(_Structure, MutableSequence[N]):
    """A list of components. The name of each is a number that no other item gets: ``trials.0``."""

    def __init__(self, items: Iterable[N] = ()) -> None:
        self._init_node()
        self._items: list[N] = []
        self._next_key = 0
        self._become(list(items))

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._items)

    def _become(self, items: Sequence[N]) -> None:
        """Hold exactly these items in this order. Items already here keep their names, new items get new names."""
        nodes = nodes_of(items, self, "a List")
        present = {id(node) for node in self._items}
        wanted = {id(node) for node in nodes}
        gone = [node for node in self._items if id(node) not in wanted]
        self._items = [node for node in self._items if id(node) in wanted]
        for node in gone:
            node._detach()
        self._items = nodes  # type: ignore[assignment]
        for new in nodes:
            if id(new) not in present:
                key, self._next_key = str(self._next_key), self._next_key + 1
                new._attach(self, key)

    def insert(self, index: int, item: N) -> None:
        """Insert a component before `index`. Its name is still the next free number."""
        items = list(self._items)
        items.insert(index, item)
        self._become(items)

    def append(self, item: N) -> None:
        """Append a component."""
        (node,) = nodes_of([item], self, "a List", self._items)
        self._items.append(node)  # type: ignore[arg-type]
        key, self._next_key = str(self._next_key), self._next_key + 1
        node._attach(self, key)

    def extend(self, values: Iterable[N]) -> None:
        """Append components: all of them, or none if one is refused."""
        self._become([*self._items, *values])

    def reverse(self) -> None:
        """Reverse the order. The names stay."""
        self._items.reverse()

    def sort(self, *, key: Callable[[N], Any], reverse: bool = False) -> None:
        """Sort in place, as `list.sort` does. The names stay."""
        self._items.sort(key=key, reverse=reverse)

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> list[N]: ...
    def __getitem__(self, index: int | slice) -> N | list[N]:
        return self._items[index]

    @overload
    def __setitem__(self, index: int, item: N) -> None: ...
    @overload
    def __setitem__(self, index: slice, item: Iterable[N]) -> None: ...
    def __setitem__(self, index: Any, item: Any) -> None:
        items = list(self._items)
        items[index] = item
        self._become(items)

    def __delitem__(self, index: int | slice) -> None:
        removed = self._items[index]
        del self._items[index]
        for node in removed if isinstance(removed, list) else [removed]:
            node._detach()

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"List({self._items!r})"


class Dict(_Structure, MutableMapping[str, N]):
    """A dict of components. The keys are strings without dots, and they are the names: ``trials.small``."""

    def __init__(self, items: Mapping[str, N] | Iterable[tuple[str, N]] = (), **more: N) -> None:
        self._init_node()
        self._items: dict[str, N] = {}
        self._become({**dict(items), **more})

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._items.values())

    def __getitem__(self, key: str) -> N:
        return self._items[key]

    def _become(self, items: Mapping[str, N]) -> None:
        """Hold exactly these items. An item that has its key already stays."""
        for key in items:
            if type(key) is not str or not key or "." in key:
                raise ComponentError(f"{key!r} cannot be a key of a Dict: it becomes a name, a string without dots")
        nodes = dict(zip(items, nodes_of(list(items.values()), self, "a Dict"), strict=True))
        for key, node in nodes.items():
            if node._parent is self and node._key != key:
                raise ComponentError(f"{node._label()} cannot become {key!r}: take it out first, its name would change")
        gone = [node for key, node in self._items.items() if nodes.get(key) is not node]
        self._items = {key: node for key, node in self._items.items() if nodes.get(key) is node}
        for old in gone:
            old._detach()
        come = {key: node for key, node in nodes.items() if key not in self._items}
        self._items = nodes  # type: ignore[assignment]
        for key, node in come.items():
            node._attach(self, key)

    def __setitem__(self, key: str, item: N) -> None:
        self._become({**self._items, key: item})

    def __delitem__(self, key: str) -> None:
        removed = self._items.pop(key)
        removed._detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Dict({self._items!r})"


export("lightwork.structures", Dict, List)


def holds_nodes(value: Any) -> bool:
    """Return whether a value is a component or a structure, or a list, tuple or dict with one at any depth."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return isinstance(value, Node)
    return any(isinstance(item, (Node, list, tuple, dict)) and holds_nodes(item) for item in value)


def as_node(value: Any) -> Node:
    """Return the node for a value for which `holds_nodes` is true: the value itself, or a structure made of it.

    Raises:
        ComponentError: The value mixes components and data, or has a component that has a place, or one twice.
    """
    if isinstance(value, Node):
        return value
    return Dict(value) if isinstance(value, dict) else List(value)


def refill(structure: Node, value: Any) -> bool:
    """Fill a structure with the items of a plain container of its kind. Return False if the kinds differ."""
    if isinstance(structure, List) and isinstance(value, (list, tuple)):
        structure._become(value)
        return True
    if isinstance(structure, Dict) and isinstance(value, dict):
        structure._become(value)
        return True
    return False


def nodes_of(items: Iterable[Any], parent: Node, what: str, held: Sequence[Any] = ()) -> list[Node]:
    """Return the nodes for the items of a structure. All items are checked before any is attached.

    Args:
        items: Components, structures, or lists and dicts of them.
        parent: The structure. Items that it holds already are accepted.
        what: Name of the structure for a message.
        held: Components that must not be among the items.

    Raises:
        ComponentError: An item is not a component, is there twice, or has another place.
    """
    found = list(items)
    seen = {id(one) for one in held}
    for node in leaves(found, what):
        if id(node) in seen:
            raise ComponentError(f"{node._label()} cannot be in {what} twice: make a second instance")
        seen.add(id(node))
        if node._parent is not parent:
            node._check_place(parent, "an item")
    return [as_node(item) for item in found]


def leaves(items: Iterable[Any], what: str) -> Iterator[Node]:
    """Yield every node in plain containers of any depth.

    Raises:
        ComponentError: They contain something else.
    """
    for item in items:
        if isinstance(item, Node):
            yield item
        elif isinstance(item, (list, tuple, dict)) and item:
            yield from leaves(item.values() if isinstance(item, dict) else item, what)
        else:
            raise ComponentError(
                f"{what} holds components, and {item!r:.80} is a {type(item).__name__}: "
                "keep components and data in attributes of their own"
            )


def find(root: Node, name: str) -> Component:
    """Return the component of that name below `root`.

    Raises:
        KeyError: It is not found; the message lists similar names.
    """
    known = {node.name: node for node in root._walk() if isinstance(node, Component)}
    try:
        return known[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, known, n=3) or list(known)[:10]
        raise KeyError(f"there is no component {name!r}; there is {', '.join(near)}") from None
