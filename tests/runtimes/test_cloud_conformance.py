from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.testing.conformance import CHECKS, Check, run_check
from tests.runtimes.cloud_machines import Cloud, cloud
from tests.runtimes.docker_base import require_engine
from tests.runtimes.sshd import needs_sshd

require_engine()

pytestmark = [needs_sshd, pytest.mark.timeout(180)]


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Cloud]:
    with cloud(tmp_path) as account:
        yield account


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_cloud_keeps_the_contract(check: Check, account: Cloud) -> None:
    """The cloud runtime passes every check on machines that are really created, and leaves none behind."""
    await run_check(check, account.runtime)
    assert account.containers() == []
