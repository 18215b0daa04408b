from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "prose.py"


@pytest.fixture(scope="module")
def prose() -> Any:
    """The checker, loaded from its file."""
    spec = importlib.util.spec_from_file_location("prose", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.py", 'x = 1\n"""A thing.\n\nIt ends at|last.\n"""\n', 4),
        ("a.py", "x = 1\n# It ends at|# last.\n", 2),
        ("a.py", 'raise ValueError(f"{x!r} at~last")\n', 1),
        ("a.md", "One\n`at~last`\n\nis at~last\n", 4),
    ],
)
def test_a_phrase_is_found_with_its_line(prose: Any, tmp_path: Path, name: str, text: str, line: int) -> None:
    """A phrase is found in docstrings, comments, errors and pages, also across a line break."""
    (tmp_path / name).write_text(text.replace("~", " ").replace("|", "\n"))
    (found,) = prose.findings(tmp_path / name)
    assert found.startswith(f"{tmp_path / name}:{line}: ")


def test_code_and_exempt_lines_are_skipped(prose: Any, tmp_path: Path) -> None:
    """Code in a page and lines with the exemption are not checked."""
    (tmp_path / "a.md").write_text("```\nat~last\n```\n`at~last`\n".replace("~", " "))
    (tmp_path / "a.py").write_text("x = 1  # at~last (prose: ok)\n".replace("~", " "))
    assert prose.main([str(tmp_path)]) == 0
