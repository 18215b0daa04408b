"""The example that the README starts with."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
@pytest.mark.timeout(180)
async def test_digits() -> None:
    """The digits example trains, serves and asks, and ends with what it found out."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lightwork", "run", "examples/digits/app.py", "--set", "root.epochs=3"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await program.communicate())[0].decode()
    assert program.returncode == 0, output
    assert "is the best, and it reads a" in output
    for name in ("logistic", "huber", "small_net", "deep_net"):
        assert f"root.trials.{name} succeeded" in output
    assert output.count("accuracy 0.") == 4
