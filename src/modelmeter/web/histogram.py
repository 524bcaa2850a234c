"""GET /histogram/{name} and /histogram/{name}/{version}: a metric's distribution over time."""

import time
from collections.abc import Mapping

import msgspec
import numpy as np
import polars as pl
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.errors import Malformed
from modelmeter.reader import Histogram, Limits, Question, Reader
from modelmeter.reader.histogram import LEAST_BINS
from modelmeter.web.accept import ARROW, CSV, JSON, choose
from modelmeter.web.etag import make_tag, respond_unless_known
from modelmeter.web.parameters import MATCH, SPAN, STEP, WHERE, check_known, describe, read_limit
from modelmeter.web.path import NAME, VERSION
from modelmeter.web.stats import read_question
from modelmeter.web.table import respond_with_table
from modelmeter.window import format_duration, to_rfc3339

_BINS, _MOST_BINS = 64, 4096
_QUERY = [
    ("metric", "The metric."),
    STEP,
    MATCH,
    WHERE,
    ("bins", f"At most so many bins, from {LEAST_BINS} to {_MOST_BINS}; neighbours are merged. Default: {_BINS}."),
]
_PARAMETERS = {"start", "end", *(name for name, _ in _QUERY)}


def histogram_document(question: Question, found: Histogram) -> Mapping[str, object]:
    document: dict[str, object] = {"name": question.name}
    if question.version is not None:
        document["version"] = question.version
    assert question.metrics is not None
    document |= {
        "metric": question.metrics[0],
        "start": to_rfc3339(question.span.start),
        "end": to_rfc3339(question.span.end),
    }
    if question.step is not None:
        document["step"] = format_duration(question.step)
    starts = found.window.tolist() if question.step is not None else [question.span.start] * len(found.window)
    return document | {
        "resolution": found.resolution,
        **({"widened": format_duration(found.widened)} if found.widened else {}),
        "edges": found.edges.tolist(),
        "rows": [
            {"start": to_rfc3339(start), "counts": counts}
            for start, counts in zip(starts, found.counts.tolist(), strict=True)
        ],
    }


def histogram_frame(question: Question, found: Histogram) -> pl.DataFrame:
    """A line for each window and bin that has values: `start` (with `step`), `low`, `high`, `count`."""
    row, column = np.nonzero(found.counts)
    columns: dict[str, pl.Series] = {}
    if question.step is not None:
        columns["start"] = pl.Series(found.window[row]).cast(pl.Datetime("us", "UTC"))
    columns["low"] = pl.Series(found.edges[column])
    columns["high"] = pl.Series(found.edges[column + 1])
    columns["count"] = pl.Series(found.counts[row, column])
    return pl.DataFrame(columns)


def make_router(reader: Reader, limits: Limits) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["stats"])

    async def histogram_of(request: Request, name: str, version: str | None) -> Response:
        began = time.perf_counter()
        check_known(request, _PARAMETERS)
        media = choose(request, (JSON, CSV, ARROW))
        question = read_question(request, name, version)
        if question.metrics is None or len(question.metrics) != 1:
            raise Malformed("metric: name one metric, like metric=drift", field="metric")
        bins = read_limit(request, _BINS, _MOST_BINS, key="bins", least=LEAST_BINS)

        def respond(found: Histogram) -> Response:
            if media == JSON:
                return Response(msgspec.json.encode(histogram_document(question, found)), media_type=JSON)
            return respond_with_table(histogram_frame(question, found), media)

        def work() -> Response:
            with reader.asking(question, limits) as asked:
                tag = make_tag(request, media, asked.state)
                return respond_unless_known(request, tag, lambda: respond(asked.histogram(bins)))

        response = await run_in_threadpool(work)
        response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
        return response

    @router.get(
        f"/histogram/{NAME}",
        summary="A metric's distribution over time, over all versions",
        openapi_extra=describe(*SPAN, *_QUERY),
    )
    async def of_model(request: Request, name: str) -> Response:
        return await histogram_of(request, name, None)

    @router.get(
        f"/histogram/{NAME}/{VERSION}",
        summary="A metric's distribution over time",
        openapi_extra=describe(*SPAN, *_QUERY),
    )
    async def of_version(request: Request, name: str, version: str) -> Response:
        return await histogram_of(request, name, version)

    return router
