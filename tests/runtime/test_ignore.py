from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightwork.errors import ConfigError, UsageError
from lightwork.runtime.ignore import IGNORE_FILE, app_files


def tree(folder: Path, *files: str, **ignores: str) -> Path:
    """Make empty files. `ignores` has the lines of each folder's ignore file; `root` is the root folder."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, lines in ignores.items():
        (folder / ("" if name == "root" else name) / IGNORE_FILE).write_text(lines)
    return folder


def names(root: Path, *patterns: str) -> list[str]:
    return [str(path) for path in app_files(root, patterns) if path.name != IGNORE_FILE]


def test_files_are_relative_posix_paths_and_sorted(tmp_path: Path) -> None:
    """The result is sorted, relative to the folder, with forward slashes, and holds no folders."""
    tree(tmp_path, "b/c.py", "a.py", "b/a/z", "z")
    (tmp_path / "empty").mkdir()
    expected = ["a.py", "b/a/z", "b/c.py", "z"]
    assert app_files(tmp_path) == app_files(str(tmp_path)) == [PurePosixPath(name) for name in expected]


def test_caches_and_environments_are_left_out(tmp_path: Path) -> None:
    """Version control, caches, compiled files and virtual environments are not sent unless a pattern includes them."""
    tree(tmp_path, ".git/config", "a/__pycache__/x.pyc", "x.pyc", "venv/bin/python", "a/node_modules/y", "main.py")
    tree(tmp_path, "sub/.git", "src/venv.py")
    assert names(tmp_path) == ["main.py", "src/venv.py"]
    assert names(tmp_path, "!venv/", "!x.pyc") == ["main.py", "src/venv.py", "venv/bin/python", "x.pyc"]


def test_rules_are_those_of_gitignore(tmp_path: Path) -> None:
    """Comments, anchors, folders only, negation and two stars mean what they mean in a .gitignore."""
    tree(tmp_path, "data/a.bin", "data/keep.bin", "x/data", "x/logs/deep/a.log", "only", "y/only", "#hash", "!bang")
    tree(tmp_path, root="# data\ndata/*\n!data/keep.bin\nx/**/*.log\r\n/only\ndata/  \n\\#hash\n\\!bang\n")
    assert names(tmp_path) == ["x/data", "y/only"]
    (tmp_path / IGNORE_FILE).write_text("data/*\n!data/keep.bin\n")
    assert "data/keep.bin" in names(tmp_path)
    assert "data/a.bin" not in names(tmp_path)


def test_sub_folder_decides_last(tmp_path: Path) -> None:
    """The ignore file of a sub-folder wins over the files above and over the patterns; it is relative to its folder."""
    tree(tmp_path, "a.log", "sub/a.log", "sub/deep/a.log", "sub/b", "b", root="*.log\n", sub="!/a.log\nb\n")
    assert names(tmp_path) == ["b", "sub/a.log"]
    assert names(tmp_path, "b", "!deep/a.log") == ["sub/a.log"]


def test_patterns_stand_behind_the_root_file(tmp_path: Path) -> None:
    """The patterns of a work are read after the folder's own ignore file and can include its files again."""
    tree(tmp_path, "a", "b", "c", root="a\n")
    assert names(tmp_path, "!a", "b") == ["a", "c"]


def test_nothing_comes_back_from_a_folder_that_is_left_out(tmp_path: Path) -> None:
    """An ignored folder is not entered: neither a negation nor an ignore file in it has an effect."""
    tree(tmp_path, "out/keep", "in", root="out/\n!out/keep\n", out="!keep\n")
    assert names(tmp_path) == ["in"]


def test_links_inside_are_listed_and_not_followed(tmp_path: Path) -> None:
    """A relative link within the folder is listed as a link, also if it leads to a folder or to nothing."""
    tree(tmp_path, "sub/a")
    for name, target in (("one", "sub/a"), ("two", "sub"), ("sub/up", "../sub"), ("none", "gone")):
        (tmp_path / name).symlink_to(target)
    assert names(tmp_path) == ["none", "one", "sub/a", "sub/up", "two"]


def test_links_that_lead_out_are_named(tmp_path: Path) -> None:
    """Links out of the folder and absolute links raise an error with all their names, unless they are ignored."""
    outside = tmp_path / "outside"
    root = tree(tmp_path / "app", "main.py")
    outside.mkdir()
    (root / "up").symlink_to("../outside")
    (root / "absolute").symlink_to(root / "main.py")
    (root / "good").symlink_to("main.py")
    with pytest.raises(UsageError) as caught:
        app_files(root)
    assert f"got absolute -> {root / 'main.py'}, up -> ../outside. " in str(caught.value)
    assert "good" not in str(caught.value)
    assert names(root, "up", "absolute") == ["good", "main.py"]


def test_folder_reached_by_a_link_is_the_folder(tmp_path: Path) -> None:
    """The app's folder itself may be a link."""
    tree(tmp_path / "app", "a")
    (tmp_path / "app" / "b").symlink_to("a")
    (tmp_path / "link").symlink_to("app")
    assert names(tmp_path / "link") == ["a", "b"]


def test_sockets_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that are neither files nor links, such as sockets and FIFOs, are not listed."""
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock")
        assert names(tmp_path) == []


def test_bad_patterns_are_named(tmp_path: Path) -> None:
    """An invalid pattern is an error with the file, the line and the pattern; an ignore file must be text."""
    tree(tmp_path, "a", root="a\nfoo\\\n")
    with pytest.raises(ConfigError, match=r"\.lightningignore, line 2: invalid pattern 'foo\\\\': "):
        app_files(tmp_path)
    (tmp_path / IGNORE_FILE).write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="must be text in UTF-8"):
        app_files(tmp_path)
    (tmp_path / IGNORE_FILE).unlink()
    patterns: Any = "*.py"
    with pytest.raises(ConfigError, match="lightningignore must be a list of patterns"):
        app_files(tmp_path, patterns)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    """A missing folder is an error, not an empty list."""
    with pytest.raises(FileNotFoundError):
        app_files(tmp_path / "nowhere")


def test_pathspec_is_imported_late() -> None:
    """Importing the module does not import pathspec."""
    program = "import sys, lightwork.runtime.ignore; print('pathspec' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "False\n"


# --- against git --------------------------------------------------------------------------------

FILES = ["a", "ab", "b/a", "b/ab", "b/c/a", "b/c/b", "c/b/a", "c/b/c/ab", "c/.x", "a b/a"]
parts = st.sampled_from(["a", "b", "c", "ab", "*", "a*", "?", "**", "[ab]", "[!a]", "*b", ".x", "a b", "a\\ b"])
lines = st.builds(
    lambda mark, front, middle, back: mark + front + "/".join(middle) + back,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(parts, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", " "]),
)
ignore_files = st.dictionaries(st.sampled_from(["", "b/", "c/", "c/b/"]), st.lists(lines, min_size=1, max_size=4))


def ask_git(root: Path, paths: list[str]) -> set[str]:
    """Return the paths that git ignores."""
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(root)}
    subprocess.run(["git", "init", "-q", str(root)], check=True, env=env)
    done = subprocess.run(
        ["git", "-C", str(root), "check-ignore", "--no-index", "--stdin", "-z"],
        input="\0".join(paths),
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr  # 1: none is ignored
    return set(done.stdout.split("\0")) - {""}


@settings(max_examples=8, deadline=None)
@given(st.lists(ignore_files, min_size=20, max_size=20))
@example([{"": ["*", "!*/", "!a"]}, {"": ["b", "!/b/"]}, {"": ["b/**", "!b/c/", "!b/c/a"]}, {"": ["c/", "!c/.x"]}])
def test_the_same_files_as_with_git(cases: list[dict[str, list[str]]]) -> None:
    """The ignored files are the ones that git ignores with the same lines in .gitignore files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ours: set[str] = set()
        asked: list[str] = []
        for number, case in enumerate(cases):
            base = tree(root / str(number), *FILES)
            for place, patterns in case.items():
                for name in (IGNORE_FILE, ".gitignore"):
                    (base / place / name).write_text("\n".join(patterns))
            kept = set(map(str, app_files(base)))
            ours |= {f"{number}/{file}" for file in FILES if file not in kept}
            asked += [f"{number}/{file}" for file in FILES]
        assert ours == ask_git(root, asked)
