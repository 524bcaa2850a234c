"""/healthz: the process runs. /readyz: it can accept events. /metrics: what it counts."""

import os

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from modelmeter.web.ingest import Gate
from modelmeter.web.problem import problem


def make_router(gate: Gate) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Events can be accepted")
    async def readyz() -> Response:
        trouble = gate.trouble
        if trouble is None:
            return Response('{"status":"ready"}', media_type="application/json")
        response = problem(503, "Service unavailable", trouble)
        response.headers["Retry-After"] = "1"
        return response

    @router.get("/metrics", summary="Counts of this server, for Prometheus")
    def metrics() -> Response:
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
