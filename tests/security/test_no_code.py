"""The scheduler receives data, never code (CVE-2024-5452): the syntax trees of its modules prove it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightwork"

SCHEDULER_SIDE = (
    *("engine", "link", "cli", "server", "state", "journal", "app.py", "client.py"),
    *("remote_errors.py", "components/signature.py"),
)
"""What reads bytes that come from outside."""

CODE = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "jsonpickle"}
READERS = {"load", "loads", "Unpickler", "open"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def sources() -> list[Path]:
    found: list[Path] = []
    for name in SCHEDULER_SIDE:
        path = PACKAGE / name
        assert path.exists()
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def offences(tree: ast.AST) -> Iterator[str]:
    """Yield every place that could turn bytes into code."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=attr) if module in CODE and attr in READERS:
                yield f"line {node.lineno}: {module}.{attr}"
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] in CODE:
                yield from (f"line {node.lineno}: {module}.{one.name}" for one in names if one.name in READERS)
            case ast.Import(names=names):
                hidden = [one for one in names if one.name.partition(".")[0] in CODE and one.asname]
                yield from (f"line {node.lineno}: {one.name} as {one.asname}" for one in hidden)
            case ast.Call(func=ast.Name(id=name)) if name in RUNNERS:
                yield f"line {node.lineno}: {name}()"


@pytest.mark.bare
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_scheduler_makes_no_code_of_bytes(path: Path) -> None:
    """No module that reads received data unpickles, evaluates or compiles anything."""
    assert list(offences(ast.parse(path.read_text()))) == []


@pytest.mark.bare
@pytest.mark.parametrize(
    "text",
    [
        "import pickle\npickle.loads(b'')",
        "import cloudpickle\ncloudpickle.load(f)",
        "from pickle import loads",
        "from cloudpickle import loads as harmless",
        "import pickle as p",
        "pickle.Unpickler(f).load()",
        "f = pickle.loads",
        "eval('1')",
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    """Each way to unpickle or evaluate is an offence."""
    assert list(offences(ast.parse(text)))


@pytest.mark.bare
def test_the_search_looks_where_it_should() -> None:
    """The search covers the modules that read frames; only a worker's module unpickles."""
    searched = {str(path.relative_to(PACKAGE)) for path in sources()}
    assert {
        "engine/workers/connections.py",
        "engine/listener/listener.py",
        "link/connection.py",
        "link/messages.py",
        "app.py",
    } <= searched
    opening = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any("load" in offence for offence in offences(ast.parse(path.read_text())))
    ]
    assert opening == ["worker/agent.py"]
