"""The unchanged example on a machine reached by SSH."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.examples.places import configuration, make_place, run_digits
from tests.runtimes.sshd import needs_sshd, sshd

pytestmark = [
    needs_sshd,
    pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"),
    pytest.mark.timeout(600),
]


async def test_digits_over_ssh(tmp_path: Path) -> None:
    """With `--runtime ssh` the example's requirements are sent as wheels, and works run in an environment with them."""
    async with sshd(tmp_path) as server:
        lines = [
            f'hosts = ["{server.host}"]',
            f'client_keys = ["{server.folder / "key"}"]',
            f'known_hosts = "{server.folder / "known_hosts"}"',
            f'folder = "{server.far}"',
            'config = ""',
            'wheels = "always"',
            "slots = 8",
        ]
        toml = configuration("ssh", {"hosts =": "\n".join(lines)})
        place = make_place(tmp_path, toml)
        await run_digits(place, "--runtime", "ssh")
        assert list(server.far.glob("wheels/*/scikit_learn-*.whl"))
        assert list(server.far.glob("venvs/*/lib/python*/site-packages/sklearn"))
        assert server.launches() == []
