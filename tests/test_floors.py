"""Which module may import which: the table of docs/architecture.md, read from there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.bare

ROOT = Path(__file__).parents[1]
FRAMEWORK = ROOT / "lightwork"
RUNTIMES = ROOT / "runtimes" / "lightwork_runtimes"

SEAM = {"runtime", "build", "compute", "errors", "_logging", "_version"}
"""What a runtime may import of the framework: what a stranger who writes one is promised."""

LATE = [
    "aiohttp",
    "click",
    "rich",
    "structlog",
    "uvloop",
    "aiodocker",
    "asyncssh",
    "libcloud",
    "ray",
    "lightwork_runtimes",
]
"""What `import lightwork` must not load: half of the start-up time, or not installed everywhere."""


def read_floors() -> dict[str, int]:
    """Height of each top-level module of the framework, 0 at the bottom."""
    rows = []
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and "`" in cells[1]:
            rows.append(cells[1])
    groups: list[list[str]] = []
    for row in rows[1:]:  # the first is the heading
        for part in row.split("below them"):
            # Of "`engine/`: `machine`, ..." the package alone counts: its modules share its floor.
            groups.append([name.strip("/") for name in re.findall(r"`([\w/]+)`", part.split(":")[0])])
    floors = {name: height for height, names in enumerate(reversed(groups)) for name in names}
    top = len(groups)
    return {**floors, "__init__": top, "__main__": top}


def modules(package: Path) -> list[Path]:
    """Every Python file of a package."""
    return sorted(package.rglob("*.py"))


def top_level(file: Path, package: Path) -> str:
    """The module or subpackage right below `package` that the file belongs to."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below `node`, without what stands under `if TYPE_CHECKING`: types may look up, code may not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from run_time_nodes(child)


def imported(file: Path, tree: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that the file imports, wherever it does; relative names made absolute."""
    here = list(file.relative_to(tree).with_suffix("").parts)
    for node in run_time_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def framework_imports(file: Path, tree: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level module of everything of the framework that the file imports."""
    for line, name in imported(file, tree):
        first, _, rest = name.partition(".")
        if first == "lightwork":
            module = rest.partition(".")[0]
            is_module = (FRAMEWORK / module).is_dir() or (FRAMEWORK / f"{module}.py").exists()
            yield line, module if module and is_module else "__init__"


def test_every_module_has_a_floor() -> None:
    """Each top-level module of the framework is in the table of docs/architecture.md."""
    found = {top_level(file, FRAMEWORK) for file in modules(FRAMEWORK)}
    assert found <= read_floors().keys(), "give them a floor in docs/architecture.md"


@pytest.mark.parametrize("file", modules(FRAMEWORK), ids=lambda file: str(file.relative_to(ROOT)))
def test_framework_imports_downwards(file: Path) -> None:
    """A module of the framework imports modules of its own floor and of those below it only."""
    floors = read_floors()
    here = floors[top_level(file, FRAMEWORK)]
    upwards = [f"line {line}: {name}" for line, name in framework_imports(file, ROOT) if floors.get(name, 99) > here]
    assert not upwards


@pytest.mark.parametrize("file", modules(FRAMEWORK), ids=lambda file: str(file.relative_to(ROOT)))
def test_framework_never_imports_the_runtimes(file: Path) -> None:
    """The framework finds runtimes by their entry points and imports none."""
    assert not [f"line {line}" for line, name in imported(file, ROOT) if name.split(".")[0] == "lightwork_runtimes"]


@pytest.mark.parametrize("file", modules(RUNTIMES), ids=lambda file: file.name)
def test_runtimes_import_the_seam_only(file: Path) -> None:
    """A runtime imports of the framework what a stranger's runtime could import, nothing else."""
    beyond = [f"line {line}: {name}" for line, name in framework_imports(file, RUNTIMES.parent) if name not in SEAM]
    assert not beyond


@pytest.mark.parametrize("file", modules(RUNTIMES / "remote"), ids=lambda file: file.name)
def test_what_is_sent_imports_the_standard_library(file: Path) -> None:
    """What runs on other machines as it is imports nothing that they might not have."""
    own = ".".join(file.relative_to(RUNTIMES.parent).parts[:-1])
    names = (name for _, name in imported(file, RUNTIMES.parent) if not name.startswith(f"{own}."))
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "remote"}


def test_import_is_light() -> None:
    """`import lightwork` loads no HTTP library, no terminal library and no runtime."""
    program = f"import sys, lightwork; print(*sorted(sys.modules.keys() & set({LATE!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []
