"""The probes, the metrics and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest

from lightwork.server.openapi import make_document
from lightwork.server.routes import ROUTES
from lightwork.server.web import PREFIX
from tests.server.support import Root, Worker, serving


class Warming(Root):
    @property
    def ready(self) -> bool:
        return self.title == "warm"


async def fetch(client: Any, path: str) -> tuple[int, str]:
    async with client.session.get(f"{client.base}{path}") as answer:
        return answer.status, await answer.text()


@pytest.mark.bare
async def test_health_and_readiness() -> None:
    """The app is healthy if its loop answers. It is ready if its flow is ready and the app is not stopping."""
    async with serving(root=Warming(work=Worker())) as client:
        assert (await fetch(client, "/healthz"))[0] == 200
        assert (await fetch(client, "/readyz"))[0] == 503
        client.app.root.title = "warm"
        assert (await fetch(client, "/readyz"))[0] == 200
        client.app.stop()
        assert (await fetch(client, "/readyz"))[0] == 503


async def test_metrics() -> None:
    """The metrics for Prometheus count works and calls."""
    pytest.importorskip("prometheus_client", reason="needs lightwork[metrics]")
    async with serving() as client:
        await client.app.works[0].submit("echo", 1)
        status, text = await fetch(client, "/metrics")
        assert status == 200
        assert 'lightwork_calls_total{stage="succeeded",work="root.work"} 1.0' in text
        assert 'lightwork_works{stage="succeeded"} 1.0' in text


@pytest.mark.bare
async def test_metrics_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the answer names the extra to install."""
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with serving() as client:
        status, text = await fetch(client, "/metrics")
        assert (status, "lightwork[metrics]" in text) == (404, True)


@pytest.mark.bare
async def test_document_is_served() -> None:
    """The document is served and has exactly the paths of the routes."""
    async with serving() as client:
        document = await client.get("/openapi.json")
        assert document["openapi"] == "3.1.0"
        assert {f"{PREFIX}{route.pattern}" for route in ROUTES} == set(document["paths"])


@pytest.mark.bare
def test_document_is_whole() -> None:
    """Every reference in the document resolves; every operation has a unique id, its errors and a summary."""
    document = make_document(ROUTES, PREFIX)
    schemas = document["components"]["schemas"]

    def check(node: Any) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                assert reference.rpartition("/")[2] in schemas
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert {"400", "401", "403", "500"} <= set(operation["responses"])
        assert operation["summary"].endswith(".")
