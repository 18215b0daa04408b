"""The errors and their page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightwork import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_error_has_a_row() -> None:
    """Each error of lightwork.errors has one row in docs/errors.md, and each row names an error."""
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"RemoteTraceback"}))
def test_every_error_is_a_lightwork_error(name: str) -> None:
    """Each error is a LightworkError, so that one except clause catches all."""
    assert issubclass(getattr(errors, name), errors.LightworkError)
