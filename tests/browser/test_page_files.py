"""The files of the page: their hashes and imports, and the unit tests that need no browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.bare

PAGE = Path(__file__).parents[2] / "lightwork" / "server" / "page"
VENDOR = PAGE / "vendor"
SCRIPTS = sorted((PAGE / "js").glob("*.js"))
UNIT = sorted((Path(__file__).parent / "unit").glob("*.test.mjs"))

LATE = r'\bimport\("(\.[^"]+)"\)'
"""A dynamic import."""

MAKES_MARKUP_OR_CODE = [
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "dangerouslySetInnerHTML",
    "document.write",
    "eval(",
    "srcdoc",
]


def imports(file: Path) -> set[Path]:
    """Return the modules that a module imports statically."""
    text = file.read_text()
    names = re.findall(r'(?:\bfrom|\bimport)\s*"(\.[^"]+)"', text)
    return {(file.parent / name).resolve() for name in names}


def needed(start: Path) -> set[Path]:
    """Return a module and all modules that it needs before it can run."""
    found: set[Path] = set()
    ends = {start}
    while ends:
        found |= ends
        ends = {module for file in ends for module in imports(file)} - found
    return found


def test_vendored_files_are_those_that_were_checked() -> None:
    """The files of the libraries are exactly those of vendor.json, with the hashes given there."""
    lock = json.loads((VENDOR / "vendor.json").read_text())
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDOR.iterdir()}
    assert {name: found.pop(name, None) for name in lock["sha256"]} == lock["sha256"]
    assert set(found) == {"vendor.json", "NOTICE.md"}


def test_the_notice_names_each_library_with_version_and_licence() -> None:
    """NOTICE.md lists every library of vendor.json, and each licence file exists."""
    notice = (VENDOR / "NOTICE.md").read_text()
    for package in json.loads((VENDOR / "vendor.json").read_text())["packages"]:
        row = next(line for line in notice.splitlines() if line.startswith(f"| [{package['name']}]"))
        licence = next(target for target in package["files"].values() if target.endswith(".LICENSE"))
        assert package["version"] in row
        assert package["license"] in row
        assert licence in row
        assert (VENDOR / licence).is_file()


def test_modules_are_fetched_at_once() -> None:
    """index.html preloads exactly the modules that main.js needs, so that no module waits for another to be parsed."""
    html = (PAGE / "index.html").read_text()
    preloaded = {(PAGE / name).resolve() for name in re.findall(r'rel="modulepreload" href="([^"]+)"', html)}
    start = PAGE / "js" / "main.js"
    assert preloaded == needed(start) - {start}


def test_every_module_is_used() -> None:
    """Every script in the folder is imported, statically or dynamically."""
    used = needed(PAGE / "js" / "main.js")
    late = {(file.parent / name).resolve() for file in used for name in re.findall(LATE, file.read_text())}
    used = used.union(*map(needed, late))
    beside = {VENDOR / "uplot.js", PAGE / "js" / "boot.js"}
    assert {*SCRIPTS, *VENDOR.glob("*.js")} == used | beside


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_texts_cannot_become_markup_or_code(file: Path) -> None:
    """No script of the page turns text into markup or code, or names another server."""
    text = file.read_text()
    assert [way for way in [*MAKES_MARKUP_OR_CODE, "new Function", "http://", "https://"] if way in text] == []


def test_the_page_has_nothing_inline() -> None:
    """index.html has no inline script, style or handler, and no address of another server."""
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert re.findall(r"<style| style=| on[a-z]+=|https?://", html) == []


def test_the_modules_that_need_no_browser() -> None:
    """`node --test` passes for the model, the feed, the log buffer, the rows and the lanes."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: `.ci/browser` installs it")
    done = subprocess.run([node, "--test", *map(str, UNIT)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout[-4000:]
