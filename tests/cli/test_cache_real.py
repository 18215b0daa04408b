"""``lightwork cache`` with the default runtime, run as a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightwork_runtimes.remote import kept
from tests.cli.invoke import Done


def lightwork(*args: str) -> Done:
    done = subprocess.run([sys.executable, "-m", "lightwork", *args], capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment folder as a launch leaves it, in a cache of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lightwork" / "venvs" / "0123"
    folder.mkdir(parents=True)
    (folder / kept.MARKER).write_text(json.dumps({"requirements": ["numpy"], "commands": []}))
    return folder


def test_environments_are_listed_and_removed(environment: Path) -> None:
    """Without a configuration the environments of `local` are listed, and unused ones are removed."""
    (item,) = lightwork("cache", "ls", "--runtime", "local", "-o", "json").json["items"]
    assert (item["kind"], item["name"], item["detail"], item["in_use"]) == ("environment", "0123", "numpy", False)
    held = kept.hold(str(environment))
    assert held is not None
    try:
        done = lightwork("cache", "prune", "--runtime", "local", "--yes")
        assert (done.code, done.out) == (0, "nothing to remove, 1 kept\n"), done.err
    finally:
        os.close(held)
    assert lightwork("cache", "prune", "--runtime", "local", "--older-than", "1h", "--yes").code == 0
    assert environment.is_dir()
    done = lightwork("cache", "prune", "--runtime", "local", "--yes")
    assert done.code == 0, done.err
    assert list(environment.parent.iterdir()) == []
