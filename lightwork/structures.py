"""`List` and `Dict`, containers of components that are places in the tree themselves.

A flow turns lists and dicts of components into these. The key of a child is its name in the tree and stays
the same for as long as the child is there: removing an item of a `List` renames no other, since a name may
stand for a process that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from typing import Any, TypeVar, overload

from lightwork.calls import Driver
from lightwork.component import Component, Node
from lightwork.errors import ComponentError

__all__ = ["Dict", "List"]

N = TypeVar("N", bound=Node)


class _Structure(Node):
    _parent: Node | None
    _key: str
    _driver: Driver | None

    def _init_node(self) -> None:
        self._parent, self._key, self._driver = None, "", None

    @property
    def works(self) -> list[Any]:
        """Every work below, parents first."""
        from lightwork.work import Work

        return [node for node in self._walk() if isinstance(node, Work)]

    @property
    def flows(self) -> dict[str, Any]:
        """Every flow below, by its name."""
        from lightwork.flow import Flow

        return {node.name: node for node in self._walk() if isinstance(node, Flow)}


class List(_Structure, MutableSequence[N]):
    """A list of components. Each is named by a number that is its own: ``trials.0``."""

    def __init__(self, items: Iterable[N] = ()) -> None:
        self._init_node()
        self._items: list[N] = []
        self._next_key = 0
        self.extend(items)

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._items)

    def _take(self, item: N) -> N:
        node = as_node(item)
        if node is None:
            raise ComponentError(f"a List holds components; {item!r:.80} is a {type(item).__name__}")
        node._attach(self, str(self._next_key))
        self._next_key += 1
        return node  # type: ignore[return-value]

    def insert(self, index: int, item: N) -> None:
        """Put a component before `index`; its name is the next number all the same."""
        self._items.insert(index, self._take(item))

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> list[N]: ...
    def __getitem__(self, index: int | slice) -> N | list[N]:
        return self._items[index]

    def __setitem__(self, index: Any, item: Any) -> None:
        if isinstance(index, slice):
            raise ComponentError("a List takes one component at a time: assign to an index, or use append and del")
        replaced = self._items[index]
        if replaced is item:
            return
        self._items[index] = self._take(item)
        replaced._detach()

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
    """A dict of components. The keys are strings without dots, and are the names: ``trials.small``."""

    def __init__(self, items: Mapping[str, N] | Iterable[tuple[str, N]] = (), **more: N) -> None:
        self._init_node()
        self._items: dict[str, N] = {}
        self.update(items, **more)

    def _child_nodes(self) -> Iterator[Node]:
        return iter(self._items.values())

    def __getitem__(self, key: str) -> N:
        return self._items[key]

    def __setitem__(self, key: str, item: N) -> None:
        if type(key) is not str or not key or "." in key:
            raise ComponentError(f"{key!r} cannot be a key of a Dict: it becomes a name, a string without dots")
        replaced = self._items.get(key)
        if replaced is item:
            return
        node = as_node(item)
        if node is None:
            raise ComponentError(f"a Dict holds components; {item!r:.80} is a {type(item).__name__}")
        node._attach(self, key)
        self._items[key] = node  # type: ignore[assignment]
        if replaced is not None:
            replaced._detach()

    def __delitem__(self, key: str) -> None:
        removed = self._items.pop(key)
        removed._detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Dict({self._items!r})"


def as_node(value: Any) -> Node | None:
    """The component or structure that a value stands for in the tree, None if it is plain data.

    Raises:
        ComponentError: It is a list or dict that holds components and other things, or is used as a key.
    """
    if isinstance(value, Node):
        return value
    if not isinstance(value, (list, tuple, dict)) or not value:
        return None
    items = list(value.values()) if isinstance(value, dict) else list(value)
    nodes = [as_node(item) for item in items]
    if not any(node is not None for node in nodes):
        return None
    for item, node in zip(items, nodes, strict=True):
        if node is None:
            raise ComponentError(
                f"a container holds components and {item!r:.80}, a {type(item).__name__}: "
                "keep components and data in attributes of their own"
            )
    found = [node for node in nodes if node is not None]
    return Dict(dict(zip(value, found, strict=True))) if isinstance(value, dict) else List(found)


def find(root: Node, name: str) -> Component:
    """The component of that name below `root`.

    Raises:
        KeyError: There is none; the message lists near ones.
    """
    known = {node.name: node for node in root._walk() if isinstance(node, Component)}
    try:
        return known[name]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(name, known, n=3) or list(known)[:10]
        raise KeyError(f"there is no component {name!r}; there is {', '.join(near)}") from None
