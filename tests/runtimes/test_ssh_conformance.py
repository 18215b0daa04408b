from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lightwork.testing.conformance import CHECKS, Check, run_check
from tests.runtimes.sshd import Server, needs_sshd, sshd

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that keys are made once and the helper is sent once."""
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    async with sshd(folder) as server:
        yield server


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_ssh_keeps_the_contract(check: Check, server: Server) -> None:
    """The ssh runtime passes every check and leaves no launch behind."""
    await run_check(check, lambda: server.runtime(code=[]))
    assert server.launches() == []
