"""What `resolve_layout` makes of what ``configure_layout`` gives."""

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
    """A work that does not override configure_layout has its url, and nothing while that is empty."""
    work = Plain()
    assert resolve_layout(work) is None
    set_url(work, "http://127.0.0.1:8000")
    assert resolve_layout(work) == Url("http://127.0.0.1:8000")


def test_a_work_that_says_none_has_none() -> None:
    """A work whose configure_layout gives None has no user interface, even where it has a url."""
    work = Shown()
    set_url(work, "http://127.0.0.1:8000")
    assert resolve_layout(work) is None


def test_a_flow_shows_its_children_by_default() -> None:
    """A flow that does not override configure_layout has its children as tabs, those in its lists too."""
    assert resolve_layout(Board()) == Tabs(
        (Tab("one", "one"), Tab("two", "two"), Tab("trials.0", "trials.0"), Tab("trials.1", "trials.1")), True
    )


def test_a_flow_that_says_none_has_none() -> None:
    """A flow whose configure_layout gives None has no user interface."""
    assert resolve_layout(board(None)) is None


# --- URLs and frontends -------------------------------------------------------------------------


def test_a_url_may_depend_on_the_state() -> None:
    """The URL is what the component gives when it is asked."""
    shown = board(lambda board: board.page)
    assert resolve_layout(shown) is None
    shown.page = "https://example.org/a?b=1#c"
    assert resolve_layout(shown) == Url("https://example.org/a?b=1#c")


@pytest.mark.parametrize("text", ["", "/predict", "?dark=1", "#top", "//x"])
def test_what_is_put_after_an_empty_url_is_none_yet(text: str) -> None:
    """``self.work.url + "/predict"`` is no address before the work has one, and no error."""
    assert check_url(text, "x") is None


@pytest.mark.parametrize("text", ["http://a", "HTTPS://a.b:1/c", "http://[::1]:80/", "http://user@host/%20?q={}"])
def test_http_urls(text: str) -> None:
    """Addresses that begin with http or https are taken as they are."""
    assert check_url(text, "x") == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("example.org", "must begin with http"),
        ("127.0.0.1:80", "must begin with http"),
        ("ftp://example.org", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("data:text/html,x", "must begin with http"),
        ("java\nscript:alert(1)", "a character in it"),
        (" http://a", "a character in it"),
        ("http://a b", "a character in it"),
        ('http://a/"onload="x', "a character in it"),
        ("http:\\\\a", "a character in it"),
        ("http://", "no host"),
        ("http:///path", "no host"),
        ("http://:80", "no host"),
        ("http://127.0.0.1:None", "its port may be None until then"),
        ("http://a:99999", "Port out of range"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_http_url(text: str, problem: str) -> None:
    """Anything else is refused, with the text and what is wrong with it."""
    with pytest.raises(LayoutError, match=problem) as raised:
        resolve_layout(board(text))
    assert repr(text) in str(raised.value)
    assert "configure_layout of ShownBoard" in str(raised.value)


def test_a_frontend() -> None:
    """A frontend is handed on as it is."""
    frontend = Recorder()
    assert resolve_layout(Shown(lambda: frontend)) == Served(frontend)


# --- tabs ---------------------------------------------------------------------------------------


def test_tabs() -> None:
    """A tab shows a child, one in a list, an address, or nothing yet; a tuple of them is as good as a list."""
    given = lambda board: (  # noqa: E731 -- what a method would give
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
    """Tabs that are kept in the state, in its tracked containers, are tabs."""
    shown = board(lambda board: board.page)
    shown.page = [{"name": "A", "content": "http://a"}]  # type: ignore[assignment]
    assert resolve_layout(shown) == Tabs((Tab("A", url="http://a"),))


def test_a_work_may_have_tabs_of_addresses() -> None:
    """A work may give tabs that hold URLs."""
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
    ([{"name": "A", "content": None, "target": "x"}], "unknown key 'target'; it has 'name' and 'content'"),
    ([{1: 2}], "unknown key 1; it has"),
    ([{"name": "", "content": None}], "the name ''; it must be text"),
    ([{"name": "  ", "content": None}], "it must be text, and not empty"),
    ([{"name": 7, "content": None}], "the name 7; it must be text"),
    ([{"name": "A", "content": "http://a"}, {"name": "A", "content": "http://b"}], "two tabs named 'A'"),
    ([{"name": "A", "content": "nowhere"}], "tab 0 in .*, 'A', has the URL 'nowhere': it must begin with http"),
    ([{"name": "A", "content": 3}], "has 3, a int as its content; it must be a child, a URL, or None"),
    ([{"name": "A", "content": ELSEWHERE}], "names Plain, which is no child of ShownBoard"),
    ([{"name": "A", "content": Plain}], "a ComponentMeta as its content; it must be a child"),
    ([{"name": "A", "content": Recorder()}], "return it from configure_layout of a child"),
    ([{"name": "A", "content": List([Plain()])}], "make a tab for each component in it"),
]


@pytest.mark.parametrize(("given", "problem"), WRONG_TABS)
def test_tabs_of_the_wrong_shape(given: Any, problem: str) -> None:
    """A tab that is none is refused, with its number, what it has and what it must have."""
    with pytest.raises(LayoutError, match=problem):
        resolve_layout(board(given))


def test_a_tab_cannot_show_its_own_flow() -> None:
    """A flow is no child of its own."""
    with pytest.raises(LayoutError, match="names ShownBoard, which is no child of ShownBoard"):
        resolve_layout(board(lambda board: [{"name": "A", "content": board}]))


def test_a_work_has_no_children_to_show() -> None:
    """A work's tab that holds a component is refused, with where to arrange components."""
    with pytest.raises(LayoutError, match=r"a work has no children.*configure_layout of a flow"):
        resolve_layout(Shown(lambda: [{"name": "A", "content": ELSEWHERE}]))


# --- everything else ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (1, "gave 1, a int; give None, a URL, a Frontend, or a list of tabs"),
        (b"http://a", "a bytes; give None"),
        (ELSEWHERE, r"gave Plain; give a list of tabs, \[dict\("),
        (Recorder, "give an instance of it"),
    ],
)
def test_layouts_of_the_wrong_shape(given: Any, problem: str) -> None:
    """What is no layout is refused, with what it is and what can be given."""
    with pytest.raises(LayoutError, match=problem):
        resolve_layout(Shown(lambda: given))


def test_an_async_configure_layout() -> None:
    """configure_layout is not awaited, and says so."""

    async def give() -> None: ...

    with pytest.raises(LayoutError, match="define it with `def`"):
        resolve_layout(Shown(give))


def test_what_configure_layout_raises_is_chained() -> None:
    """An exception of the user's is the cause of the error, which names the component and the exception."""

    def give() -> None:
        raise KeyError("best")

    with pytest.raises(LayoutError, match="configure_layout of Shown raised KeyError: 'best'") as raised:
        resolve_layout(Shown(give))
    assert isinstance(raised.value.__cause__, KeyError)


# --- the whole tree -----------------------------------------------------------------------------


def test_a_tree_as_data() -> None:
    """Each component has its kind and its target; a tab's target is its component's, or its own address."""
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
    """Of a flow's default tabs those remain whose child has a layout; a flow with none of them has none itself."""
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
