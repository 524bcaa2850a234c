"""PUT, GET and DELETE /baselines/{name}: references that stay."""

import time
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.batch import NAME_LIMIT_BYTES, Refused, check_text
from modelmeter.errors import Malformed
from modelmeter.pinner import Pinner
from modelmeter.reader.names import can_be_stored
from modelmeter.selection import Selection, parse_selection
from modelmeter.store.baselines import Baseline
from modelmeter.web.body import Disconnected, read_body
from modelmeter.web.parameters import DEFAULT_QUANTILES, check_known, read_quantiles
from modelmeter.web.path import NAME
from modelmeter.window import Span, parse_instant, to_rfc3339

_BODY_LIMIT_BYTES = 64 * 1024
_FIELDS = ("match", "start", "end", "created_by")

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "example": {
                    "match": '{name="Mistral",version="v1"}',
                    "start": "2026-01-01T00:00:00Z",
                    "end": "2026-01-31T00:00:00Z",
                    "created_by": "ana",
                },
                "schema": {"type": "object", "required": ["match", "start", "end"]},
            }
        },
    }
}


def make_router(pinner: Pinner) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(prefix="/baselines", tags=["compare"])

    async def shown(name: str, quantiles: tuple[float, ...], status: int, began: float) -> Response:
        found, stats = await run_in_threadpool(pinner.find, name, quantiles)
        return _json({**_baseline(found), "metrics": stats}, began, status)

    @router.get("", summary="All baselines")
    async def all_baselines(request: Request) -> Response:
        began = time.perf_counter()
        _check_no_labels(request, set())
        found = await run_in_threadpool(pinner.all)
        return _json({"baselines": [_baseline(one) for one in found]}, began)

    @router.get(f"/{NAME}", summary="One baseline, with its stats")
    async def baseline(request: Request, name: str) -> Response:
        began = time.perf_counter()
        _check_no_labels(request, {"quantiles"})
        return await shown(name, read_quantiles(request), 200, began)

    @router.put(f"/{NAME}", summary="Keep the events of a selection as a baseline", openapi_extra=_BODY)
    async def put(request: Request, name: str) -> Response:
        began = time.perf_counter()
        _check_no_labels(request, set())
        _check_name(name)
        try:
            body = await read_body(request.receive, _BODY_LIMIT_BYTES, lambda _: None)
        except Disconnected:
            raise Malformed("the body is cut off; send it whole") from None
        selection, span, by = _read(body)
        is_new = await run_in_threadpool(pinner.pin, name, selection, span, time.time_ns() // 1000, by)
        return await shown(name, DEFAULT_QUANTILES, 201 if is_new else 200, began)

    @router.delete(f"/{NAME}", summary="Forget a baseline", status_code=204)
    async def delete(request: Request, name: str) -> Response:
        _check_no_labels(request, set())
        await run_in_threadpool(pinner.drop, name)
        return Response(status_code=204)

    return router


def _json(value: object, began: float, status: int = 200) -> Response:
    response = Response(msgspec.json.encode(value), status, media_type="application/json")
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
    return response


def _baseline(one: Baseline) -> dict[str, object]:
    return {
        "name": one.name,
        "match": one.match,
        "start": to_rfc3339(one.span.start),
        "end": to_rfc3339(one.span.end),
        "events": one.events,
        "created_at": to_rfc3339(one.created_at),
        "created_by": one.created_by,
    }


def _check_no_labels(request: Request, known: set[str]) -> None:
    check_known(request, known)
    for key in request.query_params:
        if key not in known:
            raise Malformed(f"{key}: a baseline has its labels in `match`", field=key)


def _check_name(name: str) -> None:
    if len(name.encode(errors="replace")) > NAME_LIMIT_BYTES:
        raise Malformed(f"name: over {NAME_LIMIT_BYTES} bytes; take a shorter one", field="name")
    _check_text("name", name)


def _check_text(field: str, text: str) -> None:
    try:
        check_text(field, text)
    except Refused as refused:
        raise Malformed(str(refused), field=field) from None


def _read(body: bytes) -> tuple[Selection, Span, str]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise Malformed("the body must be an object with match, start and end")
    for key in document:
        if key not in _FIELDS:
            raise Malformed(f"{key}: no such field; there are {', '.join(_FIELDS)}", field=key)
    texts = {key: _text(document, key) for key in _FIELDS}
    for key in ("match", "start", "end"):
        if not texts[key]:
            raise Malformed(f"{key}: missing; a baseline is made of match, start and end", field=key)
    selection = parse_selection(texts["match"], None, "match")
    if not can_be_stored(*selection.texts):
        raise Malformed("match: holds a character that cannot be stored (NUL or a lone surrogate)", field="match")
    by = texts["created_by"]
    if len(by.encode(errors="replace")) > NAME_LIMIT_BYTES:
        raise Malformed(f"created_by: over {NAME_LIMIT_BYTES} bytes", field="created_by")
    _check_text("created_by", by)
    now = time.time_ns() // 1000
    span = Span(_instant(texts, "start", now), _instant(texts, "end", now))
    if span.start >= span.end:
        raise Malformed("start: must be before end", field="start")
    return selection, span, by


def _text(document: dict[str, object], key: str) -> str:
    value = document.get(key, "")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed(f"{key}: must be a string", field=key)
    return str(value)


def _instant(texts: dict[str, str], key: str, now: int) -> int:
    try:
        return parse_instant(texts[key], now)
    except ValueError as error:
        raise Malformed(f"{key}: {error}", field=key) from None
