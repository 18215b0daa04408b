"""The OpenAPI document matches the app: schemathesis generates requests from it and checks the answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lightwork import App
from lightwork.server.openapi import make_document
from lightwork.server.routes import ROUTES
from lightwork.server.web import PREFIX
from tests.server.support import Root, Worker

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

checks = pytest.importorskip("schemathesis.specs.openapi.checks")

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]

# The route that stops the app is left out: it has its own tests, and here the app must keep running.
DOCUMENT = make_document([route for route in ROUTES if route.pattern != "/app/stop"], PREFIX)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """Run an app in another thread, because schemathesis blocks this one; yield its address."""
    found: list[str] = []
    started = threading.Event()
    ends: list[Any] = []

    async def serve() -> None:
        end = asyncio.Event()
        ends.append((asyncio.get_running_loop(), end))
        async with App(Root(work=Worker(start_with_flow=False)), http=True, http_port=0, runtime="inprocess") as app:
            await app.works[0].submit("echo", 1)
            found.append(str(app.url))
            started.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30)
    yield found[0]
    loop, end = ends[0]
    loop.call_soon_threadsafe(end.set)
    thread.join()


schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: Any, base: str) -> None:
    """Valid and invalid requests get the documented status, type and body; no answer is a server error."""
    case.call_and_validate(base_url=base, checks=CHECKS)
