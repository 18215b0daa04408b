"""Routes for machines: the health and readiness probes, the metrics and the OpenAPI document."""

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
    """Report that the event loop answers. Nothing else is checked."""
    return json_response({"status": "ok"})


async def _is_ready(api: Api, request: Request) -> Response:
    """Report whether the app is running and its flow is ready."""
    if api.views.is_stopping:
        raise Problem("not_ready", "the app is stopping")
    if not api.root.ready:
        raise Problem("not_ready", "the root flow is not ready: its property ready is false")
    return json_response({"status": "ready"})


async def _metrics(api: Api, request: Request) -> Response:
    """Return metrics in the format of Prometheus."""
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
    """Computes the metrics when they are requested. It keeps no counters of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def collect(self) -> Any:
        """Yield the metric families."""
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
        yield GaugeMetricFamily("lightwork_feed_clients", "Connected clients of the feed.", api.feed.num_clients)
        writer = api.engine.output.writer
        backlog = 0 if writer is None else writer.backlog
        yield GaugeMetricFamily(
            "lightwork_log_backlog_bytes", "Log lines that wait to be written to the disk.", backlog
        )
        yield CounterMetricFamily("lightwork_changes", "Changes of the component tree.", api.hub.version)

    def _calls(self, counter: Any, gauge: Any) -> Any:
        api = self._api
        ended = counter("lightwork_calls", "Ended calls, by result.", labels=["work", "stage"])
        open_calls = gauge("lightwork_calls_open", "Calls that are waiting or running.", labels=["work", "stage"])
        workers = counter("lightwork_workers_started", "Worker processes that were started.", labels=["work"])
        for work in api.root.works():
            entry = api.views.entry(work)
            if entry is None:
                continue
            past = api.history.work(entry)
            for stage in (Stage.SUCCEEDED, Stage.FAILED, Stage.STOPPED):
                ended.add_metric([work.name, stage.value], past.counts.get(stage, 0))
            for stage in (Stage.PENDING, Stage.RUNNING):
                open_calls.add_metric([work.name, stage.value], past.counts.get(stage, 0))
            workers.add_metric([work.name], past.attempts[-1].attempt if past.attempts else 0)
        yield ended
        yield open_calls
        yield workers


@functools.cache
def _document(routes: tuple[Route, ...], prefix: str) -> dict[str, Any]:
    return make_document(routes, prefix)


async def _get_document(api: Api, request: Request) -> Response:
    """Return this document."""
    return json_response(_document(api.routes, PREFIX))


ROUTES = [Route("GET", "/openapi.json", _get_document, answer=dict[str, Any], tag="app")]

PROBES = [
    Route("GET", "/healthz", _is_healthy),
    Route("GET", "/readyz", _is_ready),
    Route("GET", "/metrics", _metrics),
]
"""Routes outside the API's prefix, at the paths that platforms expect."""
