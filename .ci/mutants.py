"""Run mutmut over the rules of the machine and the session of a link, and print what survives: ``nox -s mutants``.

A mutant is the code with one small change. One that no test notices survives: a test is missing, or the change makes no
difference. mutmut works on a copy of the tree in ``build/mutants``, which is kept: the next run tests only what has
changed. Arguments name mutants by pattern, ``nox -s mutants -- "*call_rules*"``.

Only functions are mutated: the table of the machine and the fields of the events are not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPY = ROOT / "build" / "mutants"
TREES = ("lightwork", "runtimes", "tests", "docs")
_IGNORED = shutil.ignore_patterns("__pycache__", ".hypothesis")


def _mutmut(*arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=COPY, check=True, capture_output=True, text=True).stdout


def prepare() -> None:
    """Copy the tree as it is now, and keep what mutmut has made of the copy before."""
    COPY.mkdir(parents=True, exist_ok=True)
    for name in TREES:
        shutil.rmtree(COPY / name, ignore_errors=True)
        shutil.copytree(ROOT / name, COPY / name, ignore=_IGNORED)
    shutil.copy(ROOT / "pyproject.toml", COPY)


def survivors() -> list[str]:
    """The names of the mutants that no test has killed."""
    return re.findall(r"^\s*(\S+): (?:survived|no tests|suspicious|timeout)", _mutmut("results"), re.MULTILINE)


def main(patterns: list[str]) -> None:
    """Run, then print the survivors and their changes."""
    prepare()
    # Each mutant has a process of its own, and the code is the copy's, not the one that is installed.
    environment = {**os.environ, "PYTHONPATH": "", "LIGHTWORK_REQUIRE_ALL": "0"}
    run = [sys.executable, "-m", "mutmut", "run", "--max-children", str(os.cpu_count() or 1), *patterns]
    subprocess.run(run, cwd=COPY, check=True, env=environment)
    found = survivors()
    for name in found:
        print(_mutmut("show", name))
    print(f"{len(found)} mutants survive")


if __name__ == "__main__":
    main(sys.argv[1:])
