"""The floors of the framework, and the picture of them in docs/architecture.md: ``python -m tests.floors`` draws it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"

FLOORS: dict[str, list[tuple[str, str]]] = {
    "lightwork": [
        ("start", "__main__"),
        ("faces", "__init__ cli"),
        ("faces", "app client"),
        ("faces", "server"),
        ("engine", "engine"),
        ("worker", "worker"),
        ("testing", "testing"),
        ("link", "link"),
        ("components", "structures"),
        ("components", "components"),
        ("seam", "runtime"),
        ("facts", "state"),
        ("facts", "api build changes compute config frontend journal logfiles remote_errors"),
        ("facts", "_logging _version errors status"),
        ("facts", "_common"),
    ],
    "lightwork.engine": [
        ("shell", "engine"),
        ("shell", "handlers recovery"),
        ("shell", "calls history"),
        ("shell", "workers"),
        ("shell", "core"),
        ("shell", "flow journal"),
        ("shell", "changes listener"),
        ("decisions", "__init__ rules"),
    ],
    "lightwork.server": [
        ("server", "http_server"),
        ("routes", "__init__ routes"),
        ("servers", "aiohttp asgi lookup"),
        ("API", "api"),
        ("parts", "feed guard openapi state_edits static user_routes"),
        ("parts", "usage views web"),
        ("data", "discovery types values"),
    ],
    "lightwork.cli": [
        ("commands", "actions commands state"),
        ("commands", "inspect logs ps schedule timeline wait"),
        ("commands", "names run"),
        ("parts", "arguments cache checkpoint cloud config connect doctor live supervise"),
        ("parts", "__init__ board completion discover init output plain report settings"),
    ],
}
"""Floors of a package from the top to the bottom: a name, and its modules and folders. Each imports lower ones only."""

_BEGIN, _END = "<!-- drawn by tests/floors.py -->", "<!-- end of the drawing -->"


def folder_of(package: str) -> Path:
    """The folder of a package."""
    return ROOT.joinpath(*package.split("."))


def heights(package: str) -> dict[str, int]:
    """Height of each module and folder of a package, 0 at the bottom."""
    rows = reversed(FLOORS[package])
    return {entry: height for height, (_, entries) in enumerate(rows) for entry in entries.split()}


def imported(file: Path, tree: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, for its types too; relative names made absolute."""
    here = list(file.relative_to(tree).with_suffix("").parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def entry_of(dotted: str, package: str) -> str | None:
    """The module or folder right below the package that a dotted name leads to; None where it leads elsewhere."""
    if not f"{dotted}.".startswith(f"{package}."):
        return None
    first = dotted.removeprefix(package).strip(".").partition(".")[0]
    folder = folder_of(package)
    return first if first and ((folder / first).is_dir() or (folder / f"{first}.py").exists()) else "__init__"


def files(package: str) -> dict[str, list[Path]]:
    """The Python files of each module and folder of a package."""
    folder = folder_of(package)
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.py")):
        found.setdefault(file.relative_to(folder).parts[0].removesuffix(".py"), []).append(file)
    return found


def arrows(package: str) -> dict[str, set[str]]:
    """What each module and folder of a package imports of the others."""
    found: dict[str, set[str]] = {}
    for entry, paths in files(package).items():
        targets = {entry_of(name, package) for path in paths for _, name in imported(path, ROOT)}
        found[entry] = {target for target in targets if target is not None and target != entry}
    return found


def picture(package: str) -> str:
    """The floors of a package as text: a line for each module or folder, with its size and what it imports."""
    below = arrows(package)
    sizes = {
        entry: sum(len(path.read_text().splitlines()) for path in paths) for entry, paths in files(package).items()
    }
    lines = []
    previous = ""
    for name, entries in FLOORS[package]:
        for entry in entries.split():
            is_folder = (folder_of(package) / entry).is_dir()
            label = f"{entry}/" if is_folder else entry
            uses = " ".join(sorted(below[entry]))
            lines.append(f"{name if name != previous else '':<11} {label:<15} {sizes[entry]:>5}  {uses}".rstrip())
            previous = name
    return "\n".join(lines)


def drawn() -> str:
    """The drawing as the page holds it."""
    parts = [f"`{package}/`:\n\n```text\n{picture(package)}\n```" for package in ("lightwork", "lightwork.engine")]
    return "\n\n".join([_BEGIN, *parts, _END]).replace("`lightwork.engine/`", "`lightwork/engine/`")


def without_sizes(text: str) -> str:
    """The drawing without the numbers of lines, which each change moves."""
    return "\n".join(" ".join(word for word in line.split() if not word.isdigit()) for line in text.splitlines())


def in_page() -> str:
    """What the page shows."""
    text = PAGE.read_text()
    return text[text.index(_BEGIN) : text.index(_END) + len(_END)]


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().replace(in_page(), drawn()))
