from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightwork.cli.init import FILES
from tests.cli.invoke import invoke

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_the_new_app_runs_at_once(tmp_path: Path) -> None:
    """The new app runs until it stops, and its test passes."""
    done = invoke("init", str(tmp_path / "new"))
    assert done.code == 0
    assert sorted(os.listdir(tmp_path / "new")) == sorted(FILES)
    for command in (["lightwork", "run", "app.py"], ["pytest", "-q", "-p", "no:cacheprovider"]):
        ran = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path / "new",
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        if "run" in command:
            assert "stopped: the best loss is 0.0010" in ran.stdout


def test_the_working_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the current folder. Names that begin with a dot do not count."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    assert invoke("init").code == 0
    assert (tmp_path / "app.py").exists()


@pytest.mark.parametrize("name", ["notes.txt", "app.py", ".gitignore"])
def test_nothing_is_written_over(tmp_path: Path, name: str) -> None:
    """A folder that contains a file is refused and stays unchanged."""
    (tmp_path / name).write_text("mine")
    done = invoke("init", str(tmp_path))
    assert done.code == 2
    assert name in done.err
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A path that leads through a file is a usage error."""
    (tmp_path / "file").write_text("")
    done = invoke("init", str(tmp_path / "file" / "new"))
    assert done.code == 2
    assert "Not a directory" in done.err
