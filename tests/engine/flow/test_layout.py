"""`resolve_layout`: the checks on the result of ``configure_layout``."""

from __future__ import annotations

from typing import Any

import pytest

from lightwork.engine.flow.layout import Layout, Served, Tab, Tabs, Url, arrange, check_url, resolve_layout
from lightwork.errors import LayoutError
from lightwork.structures import List
from tests.engine.flow.support import Board, Plain, Recorder, Shown, ShownBoard, set_url

pytestmark = pytest.mark.bare


def board(give: Any) -> ShownBoard:
    return ShownBoard(lambda board: give(board) if callable(give) else give)


# --- None ---------------------------------------------------------------------------------------


def test_a_work_shows_its_url_by_default() -> None:
    """A work that does not override configure_layout shows its url, and nothing while the url is empty."""
    work = Plain()
    assert resolve_layout(work) is None
    set_url(work, "http://127.0.0.1:8000")
    assert resolve_layout(work) == Url("http://127.0.0.1:8000")


def test_a_work_that_says_none_has_none() -> None:
    """A work whose configure_layout returns None has no user interface, even if it has a url."""
    work = Shown()
    set_url(work, "http://127.0.0.1:8000")
    assert resolve_layout(work) is None


def test_a_flow_shows_its_children_by_default() -> None:
    """A flow that does not override configure_layout has one tab for each child, those in its lists included."""
    assert resolve_layout(Board()) == Tabs(
        (Tab("one", "one"), Tab("two", "two"), Tab("trials.0", "trials.0"), Tab("trials.1", "trials.1")), True
    )


def test_a_flow_that_says_none_has_none() -> None:
    """A flow whose configure_layout returns None has no user interface."""
    assert resolve_layout(board(None)) is None


# --- URLs and frontends -------------------------------------------------------------------------


def test_a_url_may_depend_on_the_state() -> None:
    """The URL is the one that the component returns at the moment it is asked."""
    shown = board(lambda board: board.page)
    assert resolve_layout(shown) is None
    shown.page = "https://example.org/a?b=1#c"
    assert resolve_layout(shown) == Url("https://example.org/a?b=1#c")


@pytest.mark.parametrize("text", ["", "/predict", "?dark=1", "#top", "//x"])
def test_what_is_put_after_an_empty_url_is_none_yet(text: str) -> None:
    """``self.work.url + "/predict"`` is neither a URL nor an error while the work has no url."""
    assert check_url(text, "x") is None


@pytest.mark.parametrize("text", ["http://a", "HTTPS://a.b:1/c", "http://[::1]:80/", "http://user@host/%20?q={}"])
def test_http_urls(text: str) -> None:
    """URLs that begin with http or https are taken unchanged."""
    assert check_url(text, "x") == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("example.org", "must begin with http"),
        ("127.0.0.1:80", "must begin with http"),
        ("ftp://example.org", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("data:text/html,x", "must begin with http"),
        ("java\nscript:alert(1)", "a character that a URL cannot contain"),
        (" http://a", "a character that a URL cannot contain"),
        ("http://a b", "a character that a URL cannot contain"),
        ('http://a/"onload="x', "a character that a URL cannot contain"),
        ("http:\\\\a", "a character that a URL cannot contain"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://:80", "no host"),
        ("http://127.0.0.1:None", "its port may be None until then"),
        ("http://a:99999", "Port out of range"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_http_url(text: str, problem: str) -> None:
    """Any other text is refused; the error names the text and the problem."""
    with pytest.raises(LayoutError, match=problem) as raised:
        resolve_layout(board(text))
    assert repr(text) in str(raised.value)
    assert "configure_layout of ShownBoard" in str(raised.value)


def test_a_frontend() -> None:
    """A frontend is passed on unchanged."""
    frontend = Recorder()
    assert resolve_layout(Shown(lambda: frontend)) == Served(frontend)


# --- tabs ---------------------------------------------------------------------------------------


def test_tabs() -> None:
    """A tab shows a child, a child in a list, a URL, or nothing yet; a tuple of tabs is accepted like a list."""
    given = lambda board: (  # noqa: E731 -- stands for the body of a method
        {"name": "One", "content": board.one},
        {"name": "Trial", "content": board.trials[1]},
        {"name": "Lightning", "content": "https://lightning.ai"},
        {"name": "Later", "content": board.one.url + "/ui"},
        {"name": "None", "content": None},
    )
    assert resolve_layout(board(given)) == Tabs(
        (
            Tab("One", component="one"),
            Tab("Trial", component="trials.1"),
            Tab("Lightning", url="https://lightning.ai"),
            Tab("Later"),
            Tab("None"),
        )
    )


def test_tabs_name_components_as_the_tree_does() -> None:
    """In a tree a tab holds the full name of its component."""
    shown = board(lambda board: [{"name": "One", "content": board.one}])
    object.__setattr__(shown, "_key", "root")
    assert resolve_layout(shown) == Tabs((Tab("One", component="root.one"),))


def test_one_tab_needs_no_list() -> None:
    """A single dict is a list of one tab."""
    shown = board(lambda board: {"name": "One", "content": board.one})
    assert resolve_layout(shown) == Tabs((Tab("One", component="one"),))


def test_no_tabs() -> None:
    """An empty list is a user interface without tabs."""
    assert resolve_layout(board([])) == Tabs(())


def test_tabs_out_of_the_state() -> None:
    """Tabs may come from the state, in its tracked containers."""
    shown = board(lambda board: board.page)
    shown.page = [{"name": "A", "content": "http://a"}]  # type: ignore[assignment]
    assert resolve_layout(shown) == Tabs((Tab("A", url="http://a"),))


def test_a_work_may_have_tabs_of_addresses() -> None:
    """A work may return tabs that hold URLs."""
    work = Shown(lambda: [{"name": "Lightning", "content": "https://lightning.ai"}])
    assert resolve_layout(work) == Tabs((Tab("Lightning", url="https://lightning.ai"),))


def test_a_grandchild_may_be_a_tab() -> None:
    """A tab may name a component anywhere below its flow."""

    class Outer(ShownBoard):
        def __init__(self) -> None:
            super().__init__(lambda outer: [{"name": "Deep", "content": outer.inner.trials[0]}])  # type: ignore[attr-defined]
            self.inner = Board()

    assert resolve_layout(Outer()) == Tabs((Tab("Deep", component="inner.trials.0"),))


ELSEWHERE = Plain()

WRONG_TABS = [
    ([1], r"tab 0 in configure_layout of ShownBoard is 1, a int; it must be a dict\(name="),
    ([None], "tab 0 in .* is None, a NoneType"),
    ([ELSEWHERE], "tab 0 in .* is Plain; it must be a dict"),
    ([{"name": "A", "content": None}, "b"], "tab 1 in .* is 'b', a str"),
    ([{"content": "http://a"}], "has no 'name'"),
    ([{"name": "A"}], "has no 'content'"),
    ([{}], "has no 'name'"),
    ([{"name": "A", "contents": "http://a"}], "unknown key 'contents'; do you mean 'content'"),
    ([{"nam": "A", "content": "http://a"}], "unknown key 'nam'; do you mean 'name'"),
    ([{"name": "A", "content": None, "target": "x"}], "unknown key 'target'; a tab has the keys 'name' and 'content'"),
    ([{1: 2}], "unknown key 1; a tab has"),
    ([{"name": "", "content": None}], "the name ''; the name must be a non-empty str"),
    ([{"name": "  ", "content": None}], "the name '  '; the name must be a non-empty str"),
    ([{"name": 7, "content": None}], "the name 7; the name must be a non-empty str"),
    ([{"name": "A", "content": "http://a"}, {"name": "A", "content": "http://b"}], "two tabs named 'A'"),
    ([{"name": "A", "content": "nowhere"}], "tab 0 in .*, 'A', has the URL 'nowhere': it must begin with http"),
    ([{"name": "A", "content": 3}], "has 3, a int as its content; the content must be a child, a URL, or None"),
    ([{"name": "A", "content": ELSEWHERE}], "names Plain, which is not a child of ShownBoard"),
    ([{"name": "A", "content": Plain}], "a ComponentMeta as its content; the content must be a child"),
    ([{"name": "A", "content": Recorder()}], "return the Frontend from configure_layout of a child"),
    ([{"name": "A", "content": List([Plain()])}], "make a tab for each component in it"),
]


@pytest.mark.parametrize(("given", "problem"), WRONG_TABS)
def test_tabs_of_the_wrong_shape(given: Any, problem: str) -> None:
    """An invalid tab is refused; the error names its number, what it has and what it must have."""
    with pytest.raises(LayoutError, match=problem):
        resolve_layout(board(given))


def test_a_tab_cannot_show_its_own_flow() -> None:
    """A flow is not a child of itself."""
    with pytest.raises(LayoutError, match="names ShownBoard, which is not a child of ShownBoard"):
        resolve_layout(board(lambda board: [{"name": "A", "content": board}]))


def test_a_work_has_no_children_to_show() -> None:
    """A work's tab that holds a component is refused; the error says where to arrange components."""
    with pytest.raises(LayoutError, match=r"a work has no children.*configure_layout of a flow"):
        resolve_layout(Shown(lambda: [{"name": "A", "content": ELSEWHERE}]))


# --- everything else ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (1, "gave 1, a int; return None, a URL, a Frontend, or a list of tabs"),
        (b"http://a", "a bytes; return None"),
        (ELSEWHERE, r"gave Plain; return a list of tabs, \[dict\("),
        (Recorder, "return an instance of the class"),
    ],
)
def test_layouts_of_the_wrong_shape(given: Any, problem: str) -> None:
    """An invalid layout is refused; the error names the value and what can be returned."""
    with pytest.raises(LayoutError, match=problem):
        resolve_layout(Shown(lambda: given))


def test_an_async_configure_layout() -> None:
    """configure_layout is not awaited; the error says to define it with `def`."""

    async def give() -> None: ...

    with pytest.raises(LayoutError, match="define it with `def`"):
        resolve_layout(Shown(give))


def test_what_configure_layout_raises_is_chained() -> None:
    """An exception in configure_layout is the cause of the error, which names the component and the exception."""

    def give() -> None:
        raise KeyError("best")

    with pytest.raises(LayoutError, match="configure_layout of Shown raised KeyError: 'best'") as raised:
        resolve_layout(Shown(give))
    assert isinstance(raised.value.__cause__, KeyError)


# --- the whole tree -----------------------------------------------------------------------------


def test_a_tree_as_data() -> None:
    """Each component has its kind and its target; a tab's target is that of its component, or its own URL."""
    layouts: dict[str, Layout] = {
        "root": Tabs((Tab("A", component="root.a"), Tab("B", component="root.b"), Tab("C", url="http://c"))),
        "root.a": Served(Recorder()),
        "root.b": None,
        "root.d": Url("http://d"),
    }
    assert arrange(layouts, {"root.a": "http://a/"}.get) == {
        "root": {
            "kind": "tabs",
            "target": None,
            "tabs": [
                {"name": "A", "content": "root.a", "target": "http://a/"},
                {"name": "B", "content": "root.b", "target": None},
                {"name": "C", "content": None, "target": "http://c"},
            ],
        },
        "root.a": {"kind": "frontend", "target": "http://a/"},
        "root.b": {"kind": "none", "target": None},
        "root.d": {"kind": "url", "target": "http://d"},
    }


def test_default_tabs_are_of_children_with_something_to_show() -> None:
    """Default tabs of children without a layout are left out; a flow that has no tabs left has no layout."""
    layouts: dict[str, Layout] = {
        "root": Tabs((Tab("a", "root.a"), Tab("b", "root.b"), Tab("c", "root.c")), True),
        "root.a": Tabs((Tab("x", "root.a.x"),), True),
        "root.a.x": None,
        "root.b": Url("http://b"),
        "root.c": Tabs((Tab("y", "root.c.y"),), True),
        "root.c.y": Url("http://y"),
    }
    arranged = arrange(layouts, lambda name: None)
    assert list(arranged) == list(layouts)
    assert [tab["name"] for tab in arranged["root"]["tabs"]] == ["b", "c"]
    assert arranged["root.a"] == {"kind": "none", "target": None}


def test_a_tab_of_a_component_that_has_left() -> None:
    """A tab whose component is no longer in the tree has no target."""
    arranged = arrange({"root": Tabs((Tab("A", component="root.a"),))}, lambda name: None)
    assert arranged["root"]["tabs"] == [{"name": "A", "content": "root.a", "target": None}]
