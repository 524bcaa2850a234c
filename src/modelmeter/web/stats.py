"""GET /stats, /stats/{name}, /stats/{name}/{version}."""

import time

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.errors import Malformed
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.reader import Answer, Limits, Model, Question, Reader
from modelmeter.reader.answer import take_page
from modelmeter.web.accept import ARROW, CSV, JSON, choose
from modelmeter.web.answer import answer_document, answer_frame
from modelmeter.web.etag import make_tag, respond_unless_known
from modelmeter.web.parameters import (
    MATCH,
    METRIC,
    QUANTILES,
    SPAN,
    STEP,
    WHERE,
    check_known,
    describe,
    read_filters,
    read_flag,
    read_limit,
    read_match,
    read_names,
    read_quantiles,
    read_step,
    read_where,
)
from modelmeter.web.path import NAME, VERSION
from modelmeter.web.table import respond_with_table
from modelmeter.window import format_duration, to_rfc3339

_QUERY = [
    METRIC,
    QUANTILES,
    MATCH,
    STEP,
    ("by", "Groups: the labels that make them, comma-separated, like `version,env`."),
    WHERE,
    ("exact", "`true`: quantiles of the raw values instead of the sketches."),
    ("limit", "At most so many groups (with `step`: points) in a page."),
    ("cursor", "The `next` of the page before."),
]
_PARAMETERS = {"start", "end", *(name for name, _ in _QUERY)}
# Without one of these, /stats and /stats/{name} list what there is.
_ASKING = _PARAMETERS - {"start", "end", "limit", "cursor"}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON)


def _timed(response: Response, began: float) -> Response:
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


def read_question(request: Request, name: str | None, version: str | None) -> Question:
    """What the parameters ask; Malformed names the one that cannot be read."""
    filters = read_filters(request)
    labels = dict(filters.labels)
    matchers = []
    for one in read_match(request):
        if one.operator == "=" and one.value and one.name != METRIC_NAME and one.name not in labels:
            labels[one.name] = one.value  # Postgres looks for these
        else:
            matchers.append(one)
    return Question(
        name,
        version,
        filters.span,
        labels,
        tuple(matchers),
        read_names(request, "metric") or None,
        read_quantiles(request),
        read_names(request, "by"),
        read_step(request),
        read_where(request),
        read_flag(request, "exact"),
    )


def _is_asking(request: Request, path: str) -> bool:
    """Whether stats are asked for, and not the list of models or versions."""
    check_known(request, _PARAMETERS)
    keys = [*request.query_params]
    if any(key in _ASKING or key.startswith("label.") for key in keys):
        return True
    if keys:
        raise Malformed(
            f"{keys[0]}: {path} lists what there is; for stats over all of it add by=, step=, match= or metric=",
            field=keys[0],
        )
    return False


def make_router(reader: Reader, limits: Limits) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["stats"])

    async def stats_of(request: Request, name: str | None, version: str | None) -> Response:
        began = time.perf_counter()
        check_known(request, _PARAMETERS)
        media = choose(request, (JSON, CSV, ARROW))
        question = read_question(request, name, version)
        limit = read_limit(request, limits.points, limits.points) if "limit" in request.query_params else None
        cursor = request.query_params.get("cursor")

        def respond(answered: Answer) -> Response:
            page, following = take_page(answered, cursor, limit)
            if media == JSON:
                return _json(answer_document(question, page, following))
            response = respond_with_table(answer_frame(question, page), media)
            if page.widened:
                response.headers["Modelmeter-Widened"] = format_duration(page.widened)
            if following is not None:
                response.headers["Modelmeter-Next"] = following
            return response

        def work() -> Response:
            with reader.asking(question, limits) as asked:
                tag = make_tag(request, media, asked.state)
                return respond_unless_known(request, tag, lambda: respond(asked.answer()))

        return _timed(await run_in_threadpool(work), began)

    async def listing(request: Request, name: str | None) -> Response:
        began = time.perf_counter()
        choose(request, (JSON,))

        def respond() -> Response:
            found = [_model(model) for model in reader.models(name)]
            return _json({"models": found} if name is None else {"name": name, "versions": found})

        def work() -> Response:
            return respond_unless_known(request, make_tag(request, JSON, reader.catalog_state()), respond)

        return _timed(await run_in_threadpool(work), began)

    @router.get(
        "/stats", summary="All models and versions; stats over all of them", openapi_extra=describe(*SPAN, *_QUERY)
    )
    async def models(request: Request) -> Response:
        if _is_asking(request, "/stats"):
            return await stats_of(request, None, None)
        return await listing(request, None)

    @router.get(
        f"/stats/{NAME}",
        summary="The versions of a model; stats over all of them",
        openapi_extra=describe(*SPAN, *_QUERY),
    )
    async def versions(request: Request, name: str) -> Response:
        if _is_asking(request, "/stats/{name}"):
            return await stats_of(request, name, None)
        return await listing(request, name)

    @router.get(
        f"/stats/{NAME}/{VERSION}", summary="Stats of a version, by metric", openapi_extra=describe(*SPAN, *_QUERY)
    )
    async def stats(request: Request, name: str, version: str) -> Response:
        return await stats_of(request, name, version)

    return router
