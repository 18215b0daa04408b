"""`__all__` of a public module holds whatever the module defines for the public, and may re-export more."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.api_page import PAGE, page

pytestmark = pytest.mark.bare

ROOT = Path(__file__).parents[1]


def public_modules() -> list[str]:
    """Dotted names of the modules and packages of both trees that have no private part in their name."""
    names = []
    for tree, package in ((ROOT, "lightwork"), (ROOT / "runtimes", "lightwork_runtimes")):
        for file in sorted((tree / package).rglob("*.py")):
            parts = list(file.relative_to(tree).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            if not any(part.startswith("_") for part in parts):
                names.append(".".join(parts))
    return names


def assigned(target: ast.expr) -> Iterator[str]:
    """Names that an assignment to the target binds."""
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple):
        for element in target.elts:
            yield from assigned(element)


def is_type_variable(value: ast.expr) -> bool:
    """Whether it makes a variable of the type checker's, which is nobody's to import."""
    return isinstance(value, ast.Call) and ast.unparse(value.func) in ("TypeVar", "ParamSpec", "TypeVarTuple")


def defined(statements: list[ast.stmt]) -> Iterator[str]:
    """Names that the statements of a module define; imported ones are not defined here."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign) and not is_type_variable(node.value):
            for target in node.targets:
                yield from assigned(target)
        elif isinstance(node, ast.AnnAssign):
            yield from assigned(node.target)
        elif isinstance(node, ast.If):
            yield from defined(node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from defined(node.body + node.orelse + [s for handler in node.handlers for s in handler.body])


def public_names(module: ModuleType) -> set[str]:
    """Public names that the source of a module defines."""
    assert module.__file__ is not None
    names = defined(ast.parse(Path(module.__file__).read_text()).body)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", public_modules())
def test_all_is_what_is_public(name: str) -> None:
    """Every public name that a module defines is in its `__all__`, and every name in there exists, once."""
    module = importlib.import_module(name)
    exported = list(getattr(module, "__all__", []))
    assert len(exported) == len(set(exported))
    assert [missing for missing in exported if not hasattr(module, missing)] == []
    # What is in `__all__` beyond them is re-exported: a name comes in there from elsewhere on purpose only.
    assert sorted(public_names(module) - set(exported)) == [], "list them in __all__, or begin them with an underscore"


def test_the_page_lists_the_public_names() -> None:
    """docs/api.md lists what the code exports: `python -m tests.api_page` writes it."""
    pytest.importorskip("aiodocker")
    pytest.importorskip("asyncssh")
    pytest.importorskip("libcloud")
    assert PAGE.read_text() == page()
