from __future__ import annotations

from pathlib import Path

import pytest

from lightwork.testing.conformance import CHECKS, Check, Traits, checks_for, run_check
from lightwork_runtimes.inprocess import InProcessRuntime
from lightwork_runtimes.local import LocalOptions, LocalRuntime
from tests.runtimes.support import Method


def _name(check: Check) -> str:
    return getattr(check, "__name__", "")


@pytest.mark.parametrize("check", CHECKS, ids=_name)
@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_local_keeps_the_contract(check: Check, method: Method, tmp_path: Path) -> None:
    """The local runtime passes every check, with fork and with spawn."""
    options = LocalOptions(home=str(tmp_path / "home"), start_method=method)
    await run_check(check, lambda: LocalRuntime("local", options))


@pytest.mark.parametrize("check", checks_for(Traits(has_output=False, outlives=False)), ids=_name)
async def test_inprocess_keeps_the_contract(check: Check) -> None:
    """The in-process runtime passes every check that a runtime without processes can pass."""
    await run_check(check, InProcessRuntime)
