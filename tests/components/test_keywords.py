"""Keyword arguments of the public interface: none is swallowed; those of an app are keys of the configuration."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from lightwork import App, AppSettings, CloudCompute, Config, Flow, Work
from lightwork.api import Command, Delete, Get, Post, Put
from lightwork.config import Settings
from lightwork.errors import ConfigError
from lightwork.frontend import StaticWebFrontend
from lightwork.structures import List
from tests.api_page import FRAMEWORK

pytestmark = pytest.mark.bare

OPEN = {
    "App.__init__": "keys of the configuration, checked against Config",
    "App.configure": "keys of the configuration, checked against Config",
    "Config.replaced": "keys of the configuration, checked against Config",
    "Dict.__init__": "names of components, as in dict()",
    "Flow.run": "users override it",
    "Work.run": "users override it",
    "Work.submit": "arguments of run, bound to its signature",
    "WorkRunExecutor.__call__": "arguments of run",
    "ProfileExecutor.__call__": "arguments of run",
}
"""The functions that accept any keyword, and the meaning of the keywords."""


class Plain(Work):
    def run(self, x: int) -> int:
        return x


class Top(Flow):
    async def run(self) -> None: ...


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each public function, constructor and method of the public modules, with a short name."""
    for module in map(importlib.import_module, (*FRAMEWORK, "lightwork.app")):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield name, thing
            elif inspect.isclass(thing):
                for member, function in inspect.getmembers(thing, inspect.isfunction):
                    is_own = function.__module__.partition(".")[0] == "lightwork"
                    if is_own and (not member.startswith("_") or member in ("__init__", "__call__")):
                        yield f"{thing.__name__}.{member}", function


def without_limits(hint: Any) -> Any:
    """Return a type without the limits that msgspec checks, at any depth."""
    if get_origin(hint) is Annotated:
        return without_limits(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(map(without_limits, get_args(hint)))]  # noqa: UP007 -- made of parts
    if get_origin(hint) in (list, dict):
        return types.GenericAlias(get_origin(hint), tuple(map(without_limits, get_args(hint))))
    return hint


def test_no_function_swallows_a_keyword() -> None:
    """Only the functions in OPEN accept keywords that their signature does not name."""
    kinds = {name: inspect.signature(function).parameters.values() for name, function in functions()}
    found = {name for name, given in kinds.items() if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in given)}
    assert found == OPEN.keys()


def test_settings_are_the_keys_of_the_configuration() -> None:
    """Settings has the keys and types of Config, or None; AppSettings lacks those that App has as parameters."""
    keys = {name: hint for name, hint in get_type_hints(Config).items() if name in Config.__struct_fields__}
    assert get_type_hints(Settings) == {name: without_limits(hint) | None for name, hint in keys.items()}
    parameters = inspect.signature(App.__init__).parameters
    assert get_type_hints(Settings).keys() - get_type_hints(AppSettings).keys() == keys.keys() & parameters.keys()


@pytest.mark.parametrize(
    ("misspelt", "call", "error"),
    [
        ("timeut", lambda: Get("/x", print, timeut=3), TypeError),  # type: ignore[call-arg]
        ("metod_name", lambda: Post("/x", print, metod_name="x"), TypeError),  # type: ignore[call-arg]
        ("timeouts", lambda: Put("/x", print, timeouts=3), TypeError),  # type: ignore[call-arg]
        ("tiemout", lambda: Delete("/x", print, tiemout=3), TypeError),  # type: ignore[call-arg]
        ("hlep", lambda: Command("x", print, hlep="x"), TypeError),  # type: ignore[call-arg]
        ("paralel", lambda: Plain(paralel=True), TypeError),  # type: ignore[call-arg]
        ("nmae", lambda: Top(nmae="x"), TypeError),  # type: ignore[call-arg]
        ("itms", lambda: List(itms=[]), TypeError),  # type: ignore[call-arg]
        ("nmae", lambda: CloudCompute(nmae="x"), TypeError),  # type: ignore[call-arg]
        ("rot_path", lambda: StaticWebFrontend(".", rot_path="/x"), TypeError),  # type: ignore[call-arg]
        ("runtim", lambda: App(Top(), runtim="local"), ConfigError),  # type: ignore[call-overload]
        ("htpp", lambda: App(Top()).configure(htpp=True), ConfigError),  # type: ignore[call-arg]
        ("prot", lambda: Config().replaced(prot=1), ConfigError),  # type: ignore[call-arg]
        ("prot", lambda: Config(prot=1), TypeError),  # type: ignore[call-arg]
    ],
)
def test_misspelt_keyword_is_an_error(misspelt: str, call: Callable[[], object], error: type[Exception]) -> None:
    """A misspelt keyword raises where it is given, and the message names it."""
    with pytest.raises(error, match=misspelt):
        call()


def test_misspelt_keyword_of_a_class_is_an_error() -> None:
    """A keyword in the class statement of a work or a flow is refused."""
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        type("Derived", (Plain,), {}, paralel=True)
