"""GET /events/{name} and /events/{name}/{version}, and what /docs says of POST /events."""

import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from typing import Any

import msgspec
import polars as pl
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.batch import NAME, TIMESTAMP, VERSION
from modelmeter.errors import Busy
from modelmeter.reader import Event, Question, Reader
from modelmeter.web.accept import JSON, choose
from modelmeter.web.export import WRITERS, Streamed
from modelmeter.web.parameters import MATCH, SPAN, WHERE, check_known, describe, read_limit
from modelmeter.web.path import NAME as NAME_SEGMENT
from modelmeter.web.path import VERSION as VERSION_SEGMENT
from modelmeter.web.stats import read_question
from modelmeter.window import to_rfc3339

_LIMIT, _MOST = 100, 10_000
_QUERY = [
    MATCH,
    WHERE,
    ("limit", f"At most so many, from 1 to {_MOST}. Default: {_LIMIT}; other forms than JSON have all."),
]


def event_json(event: Event) -> dict[str, object]:
    labels = dict(event.labels)
    return {
        NAME: labels.pop(NAME),
        VERSION: labels.pop(VERSION),
        TIMESTAMP: to_rfc3339(event.timestamp),
        **labels,
        **event.metrics,
    }


def make_router(reader: Reader, export_limit: int) -> APIRouter:
    """The routes; the work is done in threads. At most `export_limit` streamed answers at a time."""
    router = APIRouter(tags=["events"])
    free = threading.BoundedSemaphore(export_limit)

    async def newest(request: Request, question: Question) -> Response:
        began = time.perf_counter()
        limit = read_limit(request, _LIMIT, _MOST)
        assert question.name is not None
        found = await run_in_threadpool(
            reader.events,
            question.name,
            question.version,
            question.span,
            question.labels,
            limit,
            question.matchers,
            question.where,
        )
        response = Response(msgspec.json.encode({"events": [event_json(event) for event in found]}), media_type=JSON)
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    def export(question: Question, media: str, limit: int | None) -> Response:
        if not free.acquire(blocking=False):
            raise Busy(
                f"{export_limit} exports are under way, the limit (MODELMETER_EXPORT_LIMIT); try again later", 10
            )
        held = ExitStack()
        held.callback(free.release)
        with ExitStack() as undo:
            undo.callback(held.close)
            found = held.enter_context(reader.exporting(question))
            frames = held.enter_context(closing(_first(found.frames(), limit)))
            parts = held.enter_context(closing(WRITERS[media](found.schema, frames)))
            undo.pop_all()
        response = Streamed(parts, media, held.close)
        if found.events is not None:
            response.headers["Modelmeter-Events"] = str(min(found.events, limit or found.events))
        return response

    async def events_of(request: Request, name: str, version: str | None) -> Response:
        check_known(request, {"start", "end", *(name for name, _ in _QUERY)})
        media = choose(request, (JSON, *WRITERS))
        question = read_question(request, name, version)
        if media == JSON:
            response = await newest(request, question)
        else:
            limit = read_limit(request, 1, 10**9 - 1) if "limit" in request.query_params else None
            response = await run_in_threadpool(export, question, media, limit)
        response.headers["Vary"] = "Accept"
        return response

    @router.get(f"/events/{NAME_SEGMENT}", summary="Raw events of all versions", openapi_extra=describe(*SPAN, *_QUERY))
    async def of_model(request: Request, name: str) -> Response:
        return await events_of(request, name, None)

    @router.get(
        f"/events/{NAME_SEGMENT}/{VERSION_SEGMENT}",
        summary="Raw events, newest first; or all of them as a stream, oldest first",
        openapi_extra=describe(*SPAN, *_QUERY),
    )
    async def of_version(request: Request, name: str, version: str) -> Response:
        return await events_of(request, name, version)

    return router


def _first(frames: Generator[pl.DataFrame], limit: int | None) -> Generator[pl.DataFrame]:
    """The first `limit` rows of them."""
    with closing(frames):
        for frame in frames:
            if limit is not None and frame.height >= limit:
                yield frame[:limit]
                return
            yield frame
            if limit is not None:
                limit -= frame.height


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
