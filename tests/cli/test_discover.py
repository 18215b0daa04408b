from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.cli.discover import AppImportError, AppNotFound, find_instance
from lightwork.cli.report import format_error

APP = "from tests.cli.test_discover import Thing\n"


class Thing:
    """Stands for the app."""

    def __init__(self, name: str = "") -> None:
        self.name = name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory. Modules imported from it are removed afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # pytest chooses the name of this module. The files must import the same class `Thing`.
    monkeypatch.setitem(sys.modules, "tests.cli.test_discover", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str = APP) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def find(target: str) -> str:
    return find_instance(target, Thing).name


@pytest.mark.parametrize(
    "target", ["{folder}/one.py", "one.py", "./one.py", "one", "one.py:app", "one:app", "one:ns.a"]
)
def test_forms_of_a_target(folder: Path, target: str) -> None:
    """A path and a module, with and without the name of the app, select the app."""
    write(folder, "one.py", f"{APP}app = Thing('one')\nclass ns: a = app\n")
    assert find(target.format(folder=folder)) == "one"


def test_the_app_of_a_folder_is_in_its_app_py(folder: Path) -> None:
    """A folder means the app.py in it."""
    write(folder, "job/app.py", f"{APP}app = Thing('in folder')\n")
    assert find("job") == "in folder"


def test_workers_can_import_the_module_by_its_name(folder: Path) -> None:
    """The module is named after the file's stem, and its folder is first on the path."""
    write(folder, "job/main.py", f"{APP}import helper\napp = Thing(__name__ + helper.X)\n")
    write(folder, "job/helper.py", "X = ' helped'")
    assert find("job/main.py") == "main helped"
    assert sys.path[0] == str(folder / "job")


def test_a_file_in_a_package_keeps_its_relative_imports(folder: Path) -> None:
    """A file in a package is imported under its full name, with the package's root first on the path."""
    write(folder, "src/pkg/__init__.py", "")
    write(folder, "src/pkg/sub/__init__.py", "")
    write(folder, "src/pkg/helper.py", "X = ' helped'")
    write(folder, "src/pkg/sub/app.py", f"{APP}from ..helper import X\napp = Thing(__name__ + X)\n")
    assert find("src/pkg/sub/app.py") == "pkg.sub.app helped"
    assert sys.path[0] == str(folder / "src")


def test_the_init_of_a_package_can_hold_the_app(folder: Path) -> None:
    """An __init__.py is imported as its package."""
    write(folder, "pkg/__init__.py", f"{APP}app = Thing(__name__)\n")
    assert find("pkg/__init__.py") == "pkg"


def test_one_app_under_two_names_is_one_app(folder: Path) -> None:
    """Two names of the same app are not ambiguous."""
    write(folder, "one.py", f"{APP}app = main = Thing('same')\n")
    assert find("one.py") == "same"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("nothing.py", r"file nothing\.py not found in "),
        ("no/such/dir/app.py", r"file no/such/dir/app\.py not found in "),
        ("nothing", r"module 'nothing' not found, and no file or folder of that name in "),
        ("nothing:app", r"module 'nothing' not found"),
        ("not a name", r"neither an existing file nor the name of a module"),
        ("empty", r"the folder empty does not contain an app\.py; name one of its files: other\.py"),
        ("data.txt", r"not a Python file"),
        ("two.py", r"two\.py has 2 Things: first, second; select one: two\.py:first or two\.py:second"),
        ("two", r"module two has 2 Things: first, second; select one: two:first or two:second"),
        ("two.py:third", r"two\.py has no 'third'; its Things are: first, second"),
        ("two.py:Thing", r"'Thing' in two\.py must be an instance of Thing, got the class Thing"),
        ("two.py:number", r"'number' in two\.py must be an instance of Thing, got an instance of int"),
        ("none.py", r"no Thing found in none\.py\nCreate one at the top level"),
        (
            "guarded.py",
            r"does not run the code under `if __name__ == \"__main__\":`: create the Thing above it",
        ),
        ("my-app.py", r"cannot be imported as 'my-app', neither here nor by a worker: rename it"),
        ("json.py", r"json\.py is hidden by another module named 'json' \("),
        ("sys.py", r"hidden by another module named 'sys' \(built in\)"),
    ],
)
def test_what_is_not_found_is_explained(folder: Path, target: str, says: str) -> None:
    """The error names the target, what was found, and the fix."""
    write(folder, "empty/other.py")
    write(folder, "data.txt")
    write(folder, "two.py", f"{APP}first, second, number = Thing(), Thing(), 3\n")
    write(folder, "none.py")
    write(folder, "guarded.py", f"{APP}if __name__ == '__main__':\n    app = Thing()\n")
    for name in ("my-app.py", "json.py", "sys.py"):
        write(folder, name, f"{APP}app = Thing()\n")
    with pytest.raises(AppNotFound, match=says):
        find(target)


def test_a_flow_without_an_app_is_named(folder: Path) -> None:
    """If a file defines a flow and no app, the hint shows the missing line."""
    write(
        folder,
        "flow.py",
        "from lightwork import Flow\nclass Sweep(Flow):\n    async def run(self): ...\n",
    )
    with pytest.raises(AppNotFound, match=r"It defines Sweep: add a line `app = Thing\(Sweep\(\)\)`"):
        find("flow.py")


def test_an_import_that_fails_shows_the_users_lines_alone(folder: Path) -> None:
    """The traceback of a failed import begins at the user's file."""
    write(folder, "bad.py", "import worse\n")
    write(folder, "worse.py", "def f():\n    return 1 / 0\nf()\n")
    with pytest.raises(AppImportError) as caught:
        find("bad.py")
    cause = caught.value.__cause__
    assert cause is not None
    text = format_error(cause)
    files = [part.split('"')[1] for part in text.splitlines() if part.startswith("  File")]
    assert [Path(file).name for file in files] == ["bad.py", "worse.py", "worse.py"]
    assert text.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize("source", ["import not_installed_anywhere\n", "import one.two.three\n"])
def test_a_missing_module_inside_the_file_is_an_import_error(folder: Path, source: str) -> None:
    """A missing module inside the file is not reported as a missing file."""
    write(folder, "one.py", source)
    with pytest.raises(AppImportError) as caught:
        find("one.py")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_syntax_error_shows_the_line(folder: Path) -> None:
    """A syntax error shows the line, and no frame of lightwork."""
    write(folder, "broken.py", "def f(:\n")
    with pytest.raises(AppImportError) as caught:
        find("broken.py")
    text = format_error(caught.value.__cause__ or caught.value)
    assert "def f(:" in text
    assert text.count("  File") == 1
