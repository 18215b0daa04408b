from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.fake_server import FakeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServer]:
    """A fake app that LIGHTWORK_URL selects."""
    with FakeServer() as server:
        monkeypatch.setenv("LIGHTWORK_URL", server.url)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        yield server
