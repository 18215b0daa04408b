"""Which module may import which: the floors of `tests.floors`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.floors import FLOORS, arrows, drawn, entry_of, files, heights, imported, in_page, without_sizes

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


def modules(package: Path) -> list[Path]:
    """Every Python file of a package."""
    return sorted(package.rglob("*.py"))


def framework_imports(file: Path, tree: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level module of everything of the framework that the file imports."""
    for line, name in imported(file, tree):
        entry = entry_of(name, "lightwork")
        if entry is not None:
            yield line, entry


def circles() -> list[set[str]]:
    """Groups of files of the framework in which each file leads to each other by imports, for types too."""
    modules_of = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in modules(FRAMEWORK)}
    names = {name.removesuffix(".__init__"): name for name in modules_of}
    uses: dict[str, set[str]] = {}
    for name, file in modules_of.items():
        found = {names.get(target) or names.get(target.rpartition(".")[0]) for _, target in imported(file, ROOT)}
        uses[name] = {target for target in found if target is not None and target != name}
    reached = {name: _reached(name, uses) for name in uses}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in uses}
    return [set(group) for group in groups if len(group) > 1]


def _reached(name: str, uses: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for target in uses[waiting.pop()] - found:
            found.add(target)
            waiting.append(target)
    return found


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_has_a_floor(package: str) -> None:
    """Each module and folder of a package has exactly one floor, and each floor has modules that exist."""
    entries = [entry for _, row in FLOORS[package] for entry in row.split()]
    assert sorted(entries) == sorted(files(package)), "give them a floor in tests/floors.py"


@pytest.mark.parametrize("package", FLOORS)
def test_imports_lead_down(package: str) -> None:
    """A module imports modules of lower floors only, for its types too."""
    height = heights(package)
    upwards = {
        entry: sorted(target for target in targets if height[target] >= height[entry])
        for entry, targets in arrows(package).items()
    }
    assert {entry: targets for entry, targets in upwards.items() if targets} == {}


def test_the_only_circle_is_that_of_the_components() -> None:
    """Components name each other in their types; no other files import each other in a circle."""
    found = circles()
    assert all(name.startswith("lightwork.components.") for group in found for name in group), found
    assert len(found) == 1


def test_few_modules_lie_flat() -> None:
    """At most 14 modules lie flat in the framework, beside `__init__`, `__main__` and the version."""
    flat = {file.stem for file in FRAMEWORK.glob("*.py")} - {"__init__", "__main__", "_version"}
    assert len(flat) <= 14, flat


def test_the_page_shows_the_floors() -> None:
    """The drawing in docs/architecture.md shows the imports of the code: `python -m tests.floors` draws it."""
    assert without_sizes(in_page()) == without_sizes(drawn())


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
