"""The unchanged example on machines that are created for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.examples.places import configuration, make_place, run_digits
from tests.runtimes.cloud_machines import cloud, machine_image
from tests.runtimes.docker_base import require_engine
from tests.runtimes.sshd import needs_sshd

require_engine()

pytestmark = [
    needs_sshd,
    pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"),
    pytest.mark.timeout(900),
]


async def test_digits_on_machines(tmp_path: Path) -> None:
    """With `--runtime cloud` each work gets a machine with the example's requirements, and no machine is left."""
    with cloud(tmp_path / "state") as account:
        machines = [
            'provider = "tests.runtimes.cloud_machines:ContainerDriver"',
            f'driver = {{ account = "{account.account}" }}',
            f'state = "{account.folder}"',
            f'python = "{sys.base_prefix}/bin/python3"',
            'wheels = "always"',
        ]
        changes = {
            "provider =": "\n".join(machines),
            "region =": "",
            "image =": f'image = "{machine_image()}"',
            "username =": 'username = "root"',
            "sizes =": 'sizes = { default = "small" }',
            "security_groups =": "",
        }
        place = make_place(tmp_path, configuration("cloud", changes))
        await run_digits(place, "--runtime", "cloud")
        assert account.running() == []
        assert list((account.folder / "hosts").iterdir()) == []
