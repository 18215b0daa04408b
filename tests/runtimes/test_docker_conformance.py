from __future__ import annotations

import pytest

from lightwork.testing.conformance import CHECKS, Check, run_check
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes.docker_base import base_image, require_engine

require_engine()

pytestmark = pytest.mark.timeout(120)


def _name(check: Check) -> str:
    return getattr(check, "__name__", "")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
async def test_docker_keeps_the_contract(check: Check) -> None:
    """The docker runtime passes every check. It uses the host's network, as the check's listener is on the loopback."""
    options = DockerOptions(image=base_image(), pull="never", network="host")
    await run_check(check, lambda: DockerRuntime("docker", options))
