"""From the path of a request to a file: no path leads out of the folder (CVE-2024-5980)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightwork.frontend import find_file, path_parts
from tests.engine.flow.support import make_site

pytestmark = pytest.mark.bare

PARTS = [
    ("/", ()),
    ("/index.html", ("index.html",)),
    ("/docs", ("docs",)),
    ("/docs/", ("docs",)),
    ("/docs/deep/page.html", ("docs", "deep", "page.html")),
    ("/a%20b.txt", ("a b.txt",)),
    ("/%C3%A9", ("é",)),
    ("/%252e%252e", ("%2e%2e",)),
    ("/...", ("...",)),
    ("/.hidden", (".hidden",)),
    ("/a%", ("a%",)),
]

NO_PARTS = [
    "",
    "index.html",
    "//",
    "//etc/passwd",
    "/docs//deep",
    "/docs//",
    "/..",
    "/../secret.txt",
    "/docs/../../secret.txt",
    "/docs/..",
    "/.",
    "/./index.html",
    "/%2e%2e/secret.txt",
    "/%2E%2e/secret.txt",
    "/.%2e/secret.txt",
    "/%2e",
    "/%2fetc%2fpasswd",
    "/..%2fsecret.txt",
    "/docs%2Fdeep",
    "/..\\secret.txt",
    "/..%5csecret.txt",
    "/C:\\windows",
    "/index.html\0",
    "/index.html%00",
    "/index.html%00.js",
    "/%ff",
    "/%c0%ae%c0%ae/secret.txt",
    "/\udcff",
    "http://host/index.html",
]

FILES = [
    ("/", "index.html", True),
    ("/index.html", "index.html", False),
    ("/app.js", "app.js", False),
    ("/a%20b.txt", "a b.txt", False),
    ("/docs", "docs/index.html", True),
    ("/docs/", "docs/index.html", True),
    ("/docs/deep/page.html", "docs/deep/page.html", False),
    ("/inner.html", "docs/index.html", False),
    ("/%252e%252e", "%2e%2e", False),
]

NO_FILES = [
    "/nothing.html",
    "/index.html/",
    "/index.html/more",
    "/empty",
    "/docs/deep",
    "/outer.txt",
    "/relative.txt",
    "/outer",
    "/outer/",
    "/outer/index.html",
    "/up/secret.txt",
    "/up/site/index.html/",
    "/loop",
    "/dangling",
    "/pipe",
    "/" + "x" * 5000,
    "/" + "x/" * 5000,
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("paths"))


@pytest.mark.parametrize(("raw", "parts"), PARTS)
def test_a_path_is_taken_apart_and_decoded_once(raw: str, parts: tuple[str, ...]) -> None:
    """A path is split at its slashes first, and then each name is decoded once."""
    assert path_parts(raw) == parts


@pytest.mark.parametrize("raw", NO_PARTS)
def test_a_path_that_no_file_can_have_is_refused(raw: str) -> None:
    """Dots, separators and NUL in a name, encoded or not, empty names and invalid UTF-8 are refused."""
    assert path_parts(raw) is None


@pytest.mark.parametrize(("raw", "file", "is_folder"), FILES)
def test_a_path_names_a_file_or_the_index_of_a_folder(site: Path, raw: str, file: str, is_folder: bool) -> None:
    """A path names a file, a folder's path names its index, and a link inside of the folder is followed."""
    assert find_file(site, raw) == (site / file, is_folder)


@pytest.mark.parametrize("raw", [*NO_PARTS, *NO_FILES])
def test_what_is_no_file_of_the_folder_is_not_found(site: Path, raw: str) -> None:
    """A missing file, a file that is not regular, and a link that leads outside are not found."""
    assert find_file(site, raw) is None


def test_a_link_back_into_the_folder_is_inside(site: Path) -> None:
    """A link counts by its final target: a link that leads out of the folder and back in is inside."""
    assert find_file(site, "/up/site/index.html") == (site / "index.html", False)


def test_a_file_that_may_not_be_read_is_not_found(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is not found."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert find_file(site, "/index.html") is None


PIECES = st.sampled_from(
    [
        "/",
        "//",
        "..",
        ".",
        "%2e",
        "%2e%2e",
        "%2f",
        "%5c",
        "\\",
        "\0",
        "%00",
        "%25",
        "%252e%252e%252f",
        "%c0%af",
        "~",
        "C:",
        "docs",
        "deep",
        "index.html",
        "site",
        "outer",
        "outer.txt",
        "up",
        "loop",
        "pipe",
        "site-secrets",
        "secret.txt",
        "etc",
    ]
)


@given(st.lists(st.one_of(PIECES, st.just("/"), st.text(max_size=3)), max_size=12).map("".join))
def test_no_path_leads_out_of_the_folder(site: Path, tail: str) -> None:
    """For any request path the result is a regular file inside of the folder."""
    found = find_file(site, "/" + tail)
    if found is not None:
        assert found.path.resolve(strict=True) == found.path
        assert found.path.is_relative_to(site)
        assert found.path.is_file()
        assert "secret" not in found.path.read_text()


@given(st.text())
def test_the_names_of_a_path_are_single_names(raw: str) -> None:
    """A name never contains a separator, is never empty, and is never "." or ".."."""
    for part in path_parts(raw) or ():
        assert part not in ("", ".", "..")
        assert not set(part) & set("/\\\0")
