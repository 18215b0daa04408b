"""The event loops that the tests of sockets run on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.link.doors import Run, Scenario


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario on one event loop; a report to the loop's exception handler fails it."""
    module = asyncio if request.param == "asyncio" else pytest.importorskip("uvloop")

    def run(scenario: Scenario) -> None:
        reports: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: reports.append(context))
            runner.run(scenario())
        assert reports == []

    return run
