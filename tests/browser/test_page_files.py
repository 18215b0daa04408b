"""The files of the page: what they are made of, and the tests of those that need no browser."""

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
"""What a module imports when it needs it."""

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
    """The modules that a module imports before it runs."""
    text = file.read_text()
    names = re.findall(r'(?:\bfrom|\bimport)\s*"(\.[^"]+)"', text)
    return {(file.parent / name).resolve() for name in names}


def needed(start: Path) -> set[Path]:
    """A module and everything that has to be there before it runs."""
    found: set[Path] = set()
    ends = {start}
    while ends:
        found |= ends
        ends = {module for file in ends for module in imports(file)} - found
    return found


def test_vendored_files_are_those_that_were_checked() -> None:
    """Each library's file has the hash that vendor.json gives, none is missing, and none is there besides."""
    lock = json.loads((VENDOR / "vendor.json").read_text())
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VENDOR.iterdir()}
    assert {name: found.pop(name, None) for name in lock["sha256"]} == lock["sha256"]
    assert set(found) == {"vendor.json", "NOTICE.md"}


def test_the_notice_names_each_library_with_version_and_licence() -> None:
    """What vendor.json lists is in NOTICE.md, and each library's licence is kept beside it."""
    notice = (VENDOR / "NOTICE.md").read_text()
    for package in json.loads((VENDOR / "vendor.json").read_text())["packages"]:
        row = next(line for line in notice.splitlines() if line.startswith(f"| [{package['name']}]"))
        licence = next(target for target in package["files"].values() if target.endswith(".LICENSE"))
        assert package["version"] in row
        assert package["license"] in row
        assert licence in row
        assert (VENDOR / licence).is_file()


def test_modules_are_fetched_at_once() -> None:
    """index.html preloads what main.js needs, and no more: no module waits until another one has been read."""
    html = (PAGE / "index.html").read_text()
    preloaded = {(PAGE / name).resolve() for name in re.findall(r'rel="modulepreload" href="([^"]+)"', html)}
    start = PAGE / "js" / "main.js"
    assert preloaded == needed(start) - {start}


def test_every_module_is_used() -> None:
    """No script lies in the folder that nothing imports, sooner or later."""
    used = needed(PAGE / "js" / "main.js")
    late = {(file.parent / name).resolve() for file in used for name in re.findall(LATE, file.read_text())}
    used = used.union(*map(needed, late))
    beside = {VENDOR / "uplot.js", PAGE / "js" / "boot.js"}
    assert {*SCRIPTS, *VENDOR.glob("*.js")} == used | beside


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_texts_cannot_become_markup_or_code(file: Path) -> None:
    """No script of ours turns text into markup or code, or reaches for another server."""
    text = file.read_text()
    assert [way for way in [*MAKES_MARKUP_OR_CODE, "new Function", "http://", "https://"] if way in text] == []


def test_the_page_has_nothing_inline() -> None:
    """index.html has no script, style or handler of its own, and no address of another server."""
    html = (PAGE / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert re.findall(r"<style| style=| on[a-z]+=|https?://", html) == []


def test_the_modules_that_need_no_browser() -> None:
    """The model, the feed, the log's buffer, rows and lanes: `node --test` runs their tests."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: `.ci/browser` installs it")
    done = subprocess.run([node, "--test", *map(str, UNIT)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout[-4000:]
