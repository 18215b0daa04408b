"""The results of ``configure_layout``, as data.

`resolve_layout` asks one component for its layout and checks the result. `arrange` combines the layouts of a whole tree
once the addresses of the frontends are known. Neither does any I/O. `lightwork.engine.flow.layouts` decides when
components are asked.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, assert_never
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
    """A user interface at `url`, which the app does not serve itself."""

    url: str


class Served(msgspec.Struct, frozen=True, tag="frontend"):
    """A user interface that the app serves."""

    frontend: Frontend


class Tab(msgspec.Struct, frozen=True):
    """One tab: the user interface of a component, or a URL, or nothing yet.

    Attributes:
        name: The title that people see.
        component: Name of the component; None if the content is a URL or nothing.
        url: The URL; None if the content is a component, or if there is no URL yet.
    """

    name: str
    component: str | None = None
    url: str | None = None


class Tabs(msgspec.Struct, frozen=True, tag="tabs"):
    """Tabs side by side.

    Attributes:
        tabs: The tabs in order; their names differ.
        is_default: Whether these are the default tabs, one for each child; tabs without a user interface are left out.
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

    A component that does not override ``configure_layout`` has a default: `Work.url` for a work, its children as tabs
    for a flow. If an override returns None, the component has no user interface at the moment.

    Raises:
        LayoutError: ``configure_layout`` raised (that exception is chained), or did not return None, a URL, a
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
    if isinstance(given, Mapping):  # one tab without the list around it, which upstream accepts too
        return _tabs(component, [given], where)
    if isinstance(given, (list, tuple)):
        return _tabs(component, given, where)
    raise LayoutError(f"{where} gave {_shown(given)}; {_way_out(given)}")


def _way_out(given: Any) -> str:
    if inspect.iscoroutine(given):
        given.close()
        return "define it with `def`, because it is not awaited"
    if isinstance(given, Node):
        return "return a list of tabs, [dict(name='...', content=self.child)]"
    if isinstance(given, type) and issubclass(given, Frontend):
        return "return an instance of the class"
    return "return None, a URL, a Frontend, or a list of tabs, [dict(name='...', content=self.child)]"


# --- tabs ---------------------------------------------------------------------------------------

_KEYS = ("name", "content")


def _tabs(component: Work | Flow, given: Iterable[Any], where: str) -> Tabs:
    tabs = tuple(_tab(component, one, f"tab {number} in {where}") for number, one in enumerate(given))
    seen: set[str] = set()
    for tab in tabs:
        if tab.name in seen:
            raise LayoutError(f"{where} gave two tabs named {tab.name!r}; the names of tabs must differ")
        seen.add(tab.name)
    return Tabs(tabs)


def _tab(component: Work | Flow, given: Any, where: str) -> Tab:
    if not isinstance(given, Mapping):
        raise LayoutError(f"{where} is {_shown(given)}; it must be a dict(name='...', content=...)")
    for key in given:
        if key not in _KEYS:
            import difflib

            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"do you mean {near[0]!r}?" if near else "a tab has the keys 'name' and 'content'"
            raise LayoutError(f"{where} has an unknown key {key!r:.80}; {hint}")
    for key in _KEYS:
        if key not in given:
            raise LayoutError(f"{where} has no {key!r}; it must be a dict(name='...', content=...)")
    name, content = given["name"], given["content"]
    if not isinstance(name, str) or not name.strip():
        raise LayoutError(f"{where} has the name {name!r:.80}; the name must be a non-empty str")
    where = f"{where}, {name!r},"
    if content is None:
        return Tab(name)
    if isinstance(content, str):
        return Tab(name, url=check_url(content, where))
    return Tab(name, component=_child(component, content, where))


def _child(component: Work | Flow, content: Any, where: str) -> str:
    if isinstance(content, Frontend):
        raise LayoutError(
            f"{where} has {_shown(content)} as its content: return the Frontend from configure_layout of a child, "
            "and make that child the content"
        )
    if isinstance(content, (List, Dict)):
        raise LayoutError(f"{where} has {_shown(content)} as its content: make a tab for each component in it")
    if not isinstance(content, (Work, Flow)):
        raise LayoutError(f"{where} has {_shown(content)} as its content; the content must be a child, a URL, or None")
    if isinstance(component, Work):
        raise LayoutError(
            f"{where} names {content._label()}: a work has no children, so its tabs can only hold URLs. "
            "Arrange components in the configure_layout of a flow"
        )
    path = _path(component, content)
    if not path:
        raise LayoutError(f"{where} names {content._label()}, which is not a child of {component._label()}")
    return content.name or path


def _path(flow: Flow, node: Node) -> str:
    """Return the path of a node below a flow, for example ``trials.0``; empty if it is not below the flow."""
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
    """Return `text` if it is a valid URL, None if it has no host part yet.

    A work's `url` is empty until its service answers. So an empty text, or one that is only the end of a URL, such as
    ``/predict`` or ``?dark=1``, means that there is no URL yet.

    Raises:
        LayoutError: The text is not an http or https URL. `where` names its origin in the message.
    """
    if not text or text[0] in "/?#":
        return None
    problem = _problem_of_url(text)
    if problem:
        raise LayoutError(f"{where} has the URL {text!r:.200}: {problem}")
    return text


def _problem_of_url(text: str) -> str:
    if _NOT_IN_URLS.search(text):
        return "it contains a character that a URL cannot contain"
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
    """Return the user interfaces of a tree as plain data, by component name.

    Each has a ``kind`` (``url``, ``frontend``, ``tabs`` or ``none``) and a ``target``, the URL or None. Those of kind
    ``tabs`` also have ``tabs``, each with ``name``, ``content`` (the name of a component, or None) and ``target``.

    Args:
        layouts: The layouts by component name, each parent before its descendants.
        served: Returns the URL of the frontend of the named component, None while the frontend is not up.
    """
    arranged: dict[str, dict[str, Any]] = {}
    for name in reversed(layouts):
        layout = layouts[name]
        match layout:
            case None:
                arranged[name] = {"kind": "none", "target": None}
            case Url(url):
                arranged[name] = {"kind": "url", "target": url}
            case Served():
                arranged[name] = {"kind": "frontend", "target": served(name)}
            case Tabs() as tabs:
                arranged[name] = _arrange_tabs(tabs, arranged)
            case _:
                assert_never(layout)
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
