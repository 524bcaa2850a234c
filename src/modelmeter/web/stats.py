"""GET /stats, /stats/{name}, /stats/{name}/{version}."""

import time

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.reader import Model, Reader
from modelmeter.web.parameters import SPAN, check_known, describe, read_filters, read_quantiles
from modelmeter.web.path import NAME, VERSION
from modelmeter.window import to_rfc3339

_PARAMETERS = {"start", "end", "metric", "quantiles"}

_QUERY = [
    ("metric", "Only this metric."),
    ("quantiles", "Comma-separated, each from 0 to 1. Default: 0.5,0.95,0.99."),
]


def _json(value: object, began: float) -> Response:
    response = Response(msgspec.json.encode(value), media_type="application/json")
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
    return response


def _model(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "version": model.version,
        "events": model.events,
        "first_seen": to_rfc3339(model.first_at),
        "last_seen": to_rfc3339(model.last_at),
    }


def make_router(reader: Reader) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["stats"])

    @router.get("/stats", summary="All models and versions")
    async def models(request: Request) -> Response:
        began = time.perf_counter()
        check_known(request, set())
        found = await run_in_threadpool(reader.models)
        return _json({"models": [_model(model) for model in found]}, began)

    @router.get(f"/stats/{NAME}", summary="The versions of a model")
    async def versions(request: Request, name: str) -> Response:
        began = time.perf_counter()
        check_known(request, set())
        found = await run_in_threadpool(reader.models, name)
        return _json({"name": name, "versions": [_model(model) for model in found]}, began)

    @router.get(
        f"/stats/{NAME}/{VERSION}", summary="Stats of a version, by metric", openapi_extra=describe(*SPAN, *_QUERY)
    )
    async def stats(request: Request, name: str, version: str) -> Response:
        began = time.perf_counter()
        check_known(request, _PARAMETERS)
        filters = read_filters(request)
        quantiles = read_quantiles(request)
        metric = request.query_params.get("metric")
        summary = await run_in_threadpool(reader.stats, name, version, filters.span, filters.labels, metric, quantiles)
        return _json(
            {
                "name": name,
                "version": version,
                "start": to_rfc3339(filters.span.start),
                "end": to_rfc3339(filters.span.end),
                "events": summary.events,
                "metrics": summary.metrics,
            },
            began,
        )

    return router
