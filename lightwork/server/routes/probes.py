"""What machines ask: whether the app lives and is ready, how it does in numbers, and what there is to ask at all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from lightwork.server.openapi import make_document
from lightwork.server.web import PREFIX, Problem, Request, Response, Route, json_response
from lightwork.status import Stage

if TYPE_CHECKING:
    from lightwork.server.api import Api

__all__ = ["PROBES", "ROUTES"]


async def _is_healthy(api: Api, request: Request) -> Response:
    """The loop answers: that is all that this says."""
    return json_response({"status": "ok"})


async def _is_ready(api: Api, request: Request) -> Response:
    """Whether the app runs, and its flow says that it is ready."""
    if api.views.is_stopping:
        raise Problem("not_ready", "the app is stopping")
    if not api.root.ready:
        raise Problem("not_ready", "the flow is not ready")
    return json_response({"status": "ready"})


async def _metrics(api: Api, request: Request) -> Response:
    """Numbers in the format of Prometheus."""
    try:
        import prometheus_client
    except ImportError:
        raise Problem("not_found", "metrics need prometheus_client: install lightwork[metrics]") from None
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collector(api))
    kind = prometheus_client.CONTENT_TYPE_LATEST
    return Response(
        prometheus_client.generate_latest(registry), content_type=kind, headers={"Cache-Control": "no-store"}
    )


class _Collector:
    """Makes the numbers when they are asked for; nothing is counted twice."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def collect(self) -> Any:
        """The families of Prometheus."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        api, app = self._api, self._api.views.app()
        yield InfoMetricFamily("lightwork_app", "The app.", {"run": app.run, "app": app.name, "version": app.version})
        yield GaugeMetricFamily("lightwork_start_time_seconds", "When the app started.", app.started_at)
        works = GaugeMetricFamily("lightwork_works", "Works by stage.", labels=["stage"])
        counts = api.views.counts()
        for stage in Stage:
            works.add_metric([stage.value], counts.get(stage.value, 0))
        yield works
        yield from self._calls(CounterMetricFamily, GaugeMetricFamily)
        yield GaugeMetricFamily("lightwork_feed_clients", "WebSockets that follow the app.", api.feed.num_clients)
        writer = api.engine.output.writer
        backlog = 0 if writer is None else writer.backlog
        yield GaugeMetricFamily("lightwork_log_backlog_bytes", "Output that waits for the disk.", backlog)
        yield CounterMetricFamily("lightwork_changes", "Changes of the tree so far.", api.hub.version)

    def _calls(self, counter: Any, gauge: Any) -> Any:
        api = self._api
        over = counter("lightwork_calls", "Calls that are over, by how they ended.", labels=["work", "stage"])
        open_calls = gauge("lightwork_calls_open", "Calls that wait or run.", labels=["work", "stage"])
        workers = counter("lightwork_workers_started", "Processes that a work has had.", labels=["work"])
        for work in api.root.works():
            entry = api.views.entry(work)
            if entry is None:
                continue
            past = api.history.work(entry)
            for stage in (Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED):
                over.add_metric([work.name, stage.value], past.counts.get(stage, 0))
            for stage in (Stage.PENDING, Stage.RUNNING):
                open_calls.add_metric([work.name, stage.value], past.counts.get(stage, 0))
            workers.add_metric([work.name], past.attempts[-1].attempt if past.attempts else 0)
        yield over
        yield open_calls
        yield workers


@functools.cache
def _document(routes: tuple[Route, ...], prefix: str) -> dict[str, Any]:
    return make_document(routes, prefix)


async def _get_document(api: Api, request: Request) -> Response:
    """This document."""
    return json_response(_document(api.routes, PREFIX))


ROUTES = [Route("GET", "/openapi.json", _get_document, answer=dict[str, Any], tag="app")]

PROBES = [
    Route("GET", "/healthz", _is_healthy),
    Route("GET", "/readyz", _is_ready),
    Route("GET", "/metrics", _metrics),
]
"""Routes outside of the API's prefix, where platforms look for them."""
