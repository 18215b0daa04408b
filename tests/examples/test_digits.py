"""The example at the start of the README."""

from __future__ import annotations

import importlib.util

import pytest

from tests.examples.places import EXAMPLE, run_digits

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"),
    pytest.mark.timeout(180),
]


async def test_digits() -> None:
    """The digits example trains, serves and asks, and its message has the result."""
    await run_digits(EXAMPLE)
