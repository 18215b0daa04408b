"""What ``configure_layout`` gives, as data.

`resolve_layout` asks one component and checks the answer; `arrange` puts the answers of a whole tree together once the
addresses of the frontends are known. Neither does any I/O. Who asks when is `lightwork.engine.flow.layouts`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lightwork.components.component import Component, Node
from lightwork.components.flow import Flow
from lightwork.components.structures import Dict, List
from lightwork.components.work import Work
from lightwork.errors import LayoutError
from lightwork.frontend import Frontend

__all__ = ["Layout", "Served", "Tab", "Tabs", "Url", "arrange", "check_url", "has_own_layout", "resolve_layout"]


class Url(msgspec.Struct, frozen=True, tag="url"):
    """A user interface that somebody else serves, at `url`."""

    url: str


class Served(msgspec.Struct, frozen=True, tag="frontend"):
    """A user interface that the app serves."""

    frontend: Frontend


class Tab(msgspec.Struct, frozen=True):
    """One tab: the user interface of a component, or an address, or nothing yet.

    Attributes:
        name: What people see.
        component: Name of the component, None where the content is an address.
        url: The address, None where it is a component's, or where there is none yet.
    """

    name: str
    component: str | None = None
    url: str | None = None


class Tabs(msgspec.Struct, frozen=True, tag="tabs"):
    """Tabs side by side.

    Attributes:
        tabs: In order; their names differ.
        is_default: Nobody asked for these: they are all children, and those without a user interface are left out.
    """

    tabs: tuple[Tab, ...]
    is_default: bool = False


Layout = Url | Served | Tabs | None
"""A component's user interface; None while it has none."""


def has_own_layout(component: Component) -> bool:
    """Whether the component's class overrides ``configure_layout``."""
    return getattr(type(component), "configure_layout", None) not in (Work.configure_layout, Flow.configure_layout)


def resolve_layout(component: Work | Flow) -> Layout:
    """Ask a component for its user interface.

    One that does not override ``configure_layout`` has its default: a work its `Work.url`, a flow its children as
    tabs. An override that gives None has none at the moment.

    Raises:
        LayoutError: ``configure_layout`` raised (which is chained), or gave something else than None, a URL, a
            `Frontend` or a list of tabs.
    """
    if not has_own_layout(component):
        return _default(component)
    where = f"configure_layout of {component._label()}"
    try:
        given = component.configure_layout()
    except Exception as error:
        raise LayoutError(f"{where} raised {type(error).__name__}: {error}") from error
    return _resolve(component, given, where)


def _default(component: Work | Flow) -> Layout:
    if isinstance(component, Work):
        return Url(component.url) if component.url else None
    children = (node for node in component._walk_own() if isinstance(node, Component))
    return Tabs(tuple(Tab(_path(component, child), child.name or _path(component, child)) for child in children), True)


def _resolve(component: Work | Flow, given: Any, where: str) -> Layout:
    if given is None:
        return None
    if isinstance(given, str):
        url = check_url(given, where)
        return None if url is None else Url(url)
    if isinstance(given, Frontend):
        return Served(given)
    if isinstance(given, Mapping):  # one tab, without the list around it, as upstream took it
        return _tabs(component, [given], where)
    if isinstance(given, (list, tuple)):
        return _tabs(component, given, where)
    raise LayoutError(f"{where} gave {_shown(given)}; {_way_out(given)}")


def _way_out(given: Any) -> str:
    if inspect.iscoroutine(given):
        given.close()
        return "define it with `def`, it is not awaited"
    if isinstance(given, Node):
        return "give a list of tabs, [dict(name='...', content=self.child)]"
    if isinstance(given, type) and issubclass(given, Frontend):
        return "give an instance of it"
    return "give None, a URL, a Frontend, or a list of tabs, [dict(name='...', content=self.child)]"


# --- tabs ---------------------------------------------------------------------------------------

_KEYS = ("name", "content")


def _tabs(component: Work | Flow, given: Iterable[Any], where: str) -> Tabs:
    tabs = tuple(_tab(component, one, f"tab {number} in {where}") for number, one in enumerate(given))
    seen: set[str] = set()
    for tab in tabs:
        if tab.name in seen:
            raise LayoutError(f"{where} gave two tabs named {tab.name!r}; their names must differ")
        seen.add(tab.name)
    return Tabs(tabs)


def _tab(component: Work | Flow, given: Any, where: str) -> Tab:
    if not isinstance(given, Mapping):
        raise LayoutError(f"{where} is {_shown(given)}; it must be a dict(name='...', content=...)")
    for key in given:
        if key not in _KEYS:
            import difflib

            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"do you mean {near[0]!r}?" if near else "it has 'name' and 'content'"
            raise LayoutError(f"{where} has an unknown key {key!r:.80}; {hint}")
    for key in _KEYS:
        if key not in given:
            raise LayoutError(f"{where} has no {key!r}; it must be a dict(name='...', content=...)")
    name, content = given["name"], given["content"]
    if not isinstance(name, str) or not name.strip():
        raise LayoutError(f"{where} has the name {name!r:.80}; it must be text, and not empty")
    where = f"{where}, {name!r},"
    if content is None:
        return Tab(name)
    if isinstance(content, str):
        return Tab(name, url=check_url(content, where))
    return Tab(name, component=_child(component, content, where))


def _child(component: Work | Flow, content: Any, where: str) -> str:
    if isinstance(content, Frontend):
        raise LayoutError(
            f"{where} has {_shown(content)} as its content: return it from configure_layout of a child, "
            "and make that child the content"
        )
    if isinstance(content, (List, Dict)):
        raise LayoutError(f"{where} has {_shown(content)} as its content: make a tab for each component in it")
    if not isinstance(content, (Work, Flow)):
        raise LayoutError(f"{where} has {_shown(content)} as its content; it must be a child, a URL, or None")
    if isinstance(component, Work):
        raise LayoutError(
            f"{where} names {content._label()}: a work has no children, and its tabs hold URLs. "
            "Arrange components in the configure_layout of a flow"
        )
    path = _path(component, content)
    if not path:
        raise LayoutError(f"{where} names {content._label()}, which is no child of {component._label()}")
    return content.name or path


def _path(flow: Flow, node: Node) -> str:
    """Where a node is below a flow, ``trials.0``; empty where it is not below it."""
    keys: list[str] = []
    at: Node | None = node
    while at is not None and at is not flow:
        keys.append(at._key)
        at = at._parent
    return ".".join(reversed(keys)) if at is flow else ""


def _shown(value: Any) -> str:
    if isinstance(value, Component):
        return value._label()
    return f"{value!r:.80}, a {type(value).__name__}"


# --- addresses ----------------------------------------------------------------------------------

_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\\<>\"]")


def check_url(text: str, where: str) -> str | None:
    """A string that stands for an address, if it is one; None while it has none.

    A work's `url` is empty until its service answers. So text that is empty, or is only what was put after an
    address, ``/predict`` or ``?dark=1``, means that there is none yet.

    Raises:
        LayoutError: It is no http or https URL. `where` says whose it is.
    """
    if not text or text[0] in "/?#":
        return None
    problem = _problem_of_url(text)
    if problem:
        raise LayoutError(f"{where} has the URL {text!r:.200}: {problem}")
    return text


def _problem_of_url(text: str) -> str:
    if _NOT_IN_URLS.search(text):
        return "it has a character in it that a URL cannot have"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{error}. The url of a work is empty until its service answers; its port may be None until then"
    if parts.scheme not in ("http", "https"):
        return "it must begin with http:// or https://"
    return "" if host else "it has no host"


# --- the whole tree -----------------------------------------------------------------------------


def arrange(layouts: dict[str, Layout], served: Callable[[str], str | None]) -> dict[str, dict[str, Any]]:
    """The user interfaces of a tree as plain data, by the names of the components.

    Each has a ``kind`` (``url``, ``frontend``, ``tabs`` or ``none``) and a ``target``, the address or None; tabs have
    ``tabs``, each with ``name``, ``content`` (the name of a component, or None) and ``target``.

    Args:
        layouts: By name; parents before what is below them.
        served: Address of the frontend of the component of that name, None while it is not up.
    """
    arranged: dict[str, dict[str, Any]] = {}
    for name in reversed(layouts):
        match layouts[name]:
            case None:
                arranged[name] = {"kind": "none", "target": None}
            case Url(url):
                arranged[name] = {"kind": "url", "target": url}
            case Served():
                arranged[name] = {"kind": "frontend", "target": served(name)}
            case Tabs() as tabs:
                arranged[name] = _arrange_tabs(tabs, arranged)
    return {name: arranged[name] for name in layouts}


_ABSENT = {"kind": "none", "target": None}


def _arrange_tabs(layout: Tabs, below: dict[str, dict[str, Any]]) -> dict[str, Any]:
    tabs = []
    for tab in layout.tabs:
        content = _ABSENT if tab.component is None else below.get(tab.component, _ABSENT)
        if not layout.is_default or content["kind"] != "none":
            tabs.append({"name": tab.name, "content": tab.component, "target": tab.url or content["target"]})
    if layout.is_default and not tabs:
        return dict(_ABSENT)
    return {"kind": "tabs", "target": None, "tabs": tabs}
