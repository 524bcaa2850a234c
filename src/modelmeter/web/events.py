"""GET /events/{name}/{version}, and what /docs says of POST /events."""

import time
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.batch import NAME, TIMESTAMP, VERSION
from modelmeter.reader import Event, Reader
from modelmeter.web.parameters import SPAN, check_known, describe, read_filters, read_limit
from modelmeter.web.path import NAME as NAME_SEGMENT
from modelmeter.web.path import VERSION as VERSION_SEGMENT
from modelmeter.window import to_rfc3339

_LIMIT, _MOST = 100, 10_000
_QUERY = [("limit", f"At most so many, from 1 to {_MOST}. Default: {_LIMIT}.")]


def event_json(event: Event) -> dict[str, object]:
    labels = dict(event.labels)
    return {
        NAME: labels.pop(NAME),
        VERSION: labels.pop(VERSION),
        TIMESTAMP: to_rfc3339(event.timestamp),
        **labels,
        **event.metrics,
    }


def make_router(reader: Reader) -> APIRouter:
    router = APIRouter(tags=["events"])

    @router.get(
        f"/events/{NAME_SEGMENT}/{VERSION_SEGMENT}",
        summary="Raw events, newest first",
        openapi_extra=describe(*SPAN, *_QUERY),
    )
    async def events(request: Request, name: str, version: str) -> Response:
        began = time.perf_counter()
        check_known(request, {"start", "end", "limit"})
        filters = read_filters(request)
        limit = read_limit(request, _LIMIT, _MOST)
        found = await run_in_threadpool(reader.events, name, version, filters.span, filters.labels, limit)
        response = Response(
            msgspec.json.encode({"events": [event_json(event) for event in found]}), media_type="application/json"
        )
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    return router


_EXAMPLE = {
    "name": "Mistral",
    "version": "v1",
    "prediction_accuracy": 0.19,
    "drift": 0.11,
    "inference_time": 12.7,
}

_INGEST: dict[str, Any] = {
    "tags": ["events"],
    "summary": "Send events",
    "description": "One object, an array, NDJSON or an Arrow IPC stream; Content-Encoding gzip or zstd. "
    "Strings are labels, numbers are metrics. 202 only when durable.",
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "maxLength": 255},
            "description": "The same key again is acknowledged and counted once.",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"example": _EXAMPLE, "schema": {"type": ["object", "array"]}},
            "application/x-ndjson": {"schema": {"type": "string"}},
            "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": {
        "202": {
            "description": "Durable.",
            "content": {
                "application/json": {
                    "example": {
                        "batch_id": "019aaf00-0000-7000-8000-000000000000.0",
                        "accepted": 1,
                        "rejected": 0,
                        "kept_without_raw": 0,
                        "errors": [],
                    }
                }
            },
        },
        "400": {"description": "Not readable; the place is named."},
        "413": {"description": "Over the limit on size."},
        "415": {"description": "Unknown content type or encoding."},
        "422": {"description": "No event could be kept; why, by event."},
        "429": {"description": "The queue is over its limit; Retry-After says when."},
        "503": {"description": "The database is away; nothing was acknowledged."},
    },
}


def describe_ingest(api: FastAPI) -> None:
    """Put the ingest route, which is no FastAPI route, into the OpenAPI document."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        for path in ("/events", "/stats"):
            document["paths"].setdefault(path, {}).setdefault("post", {**_INGEST, "operationId": f"post{path}"})
        return document

    api.openapi = openapi  # type: ignore[method-assign]
