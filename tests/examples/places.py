"""The digits example in a separate folder, with a configuration from the documentation beside it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits"
PAGE = ROOT / "docs" / "moving.md"
NAMES = ("logistic", "huber", "small_net", "deep_net")


def configuration(heading: str, changes: Mapping[str, str]) -> str:
    """Return the first block of TOML below a heading of the page, with lines changed for this machine.

    Args:
        heading: The heading in the page.
        changes: The beginning of a line, and its replacement.
    """
    part = PAGE.read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(r"```toml\n(.*?)```", part, re.DOTALL)
    assert found is not None, f"{PAGE.name} has no configuration below {heading!r}"
    text = found[1]
    for start, line in changes.items():
        text, count = re.subn(rf"^{re.escape(start)}.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        assert count, f"no line of {heading!r} begins with {start!r}"
    return text


def make_place(folder: Path, toml: str) -> Path:
    """Copy the example, with that configuration."""
    place = folder / "digits"
    shutil.copytree(EXAMPLE, place, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "lightwork.toml").write_text(toml)
    return place


async def run_digits(place: Path, *arguments: str) -> str:
    """Run the example to its end, check that it succeeded, and return its output."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lightwork", "run", "app.py", "--set", "root.epochs=3", *arguments),
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "runtimes")])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await program.communicate())[0].decode()
    assert program.returncode == 0, output
    assert "is the best, and it reads a" in output, output
    for name in NAMES:
        assert f"root.trials.{name} succeeded" in output, output
    assert output.count("accuracy 0.") == len(NAMES)
    return output
