"""DELETE /events and GET /corrections, and what replaces events by others."""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.batch import Batch, Refused, check_text, fingerprint
from modelmeter.correction import DELETE, REPLACE, Correction, parse_match
from modelmeter.corrector import Corrector
from modelmeter.errors import Malformed
from modelmeter.web.parameters import read_limit
from modelmeter.window import DAY, LATEST, Span, floor, parse_instant, to_micros, to_rfc3339

_LIMIT, _MOST = 100, 1_000
_TEXT_LIMIT = 1_000
_HORIZON = floor(LATEST, DAY)
_DELETE = (
    ("match", 'Of the streams whose labels match: `{name="Mistral",env=~"eu-.*"}`.'),
    ("start", "Begin of the span: RFC 3339, Unix, or relative (`-6h`); `0` is since ever."),
    ("end", "End of the span, not included; `now` is possible."),
    ("dry_run", "`true`: only count. Default: `false`."),
    ("by", "Who, for the record. Default: the client's address."),
    ("reason", "Why, for the record."),
)


def make_router(corrector: Corrector) -> APIRouter:
    router = APIRouter(tags=["corrections"])

    @router.delete("/events", summary="Take events out, at every resolution", openapi_extra=_described(_DELETE))
    async def delete(request: Request) -> Response:
        now = time.time_ns() // 1000
        query = _read(request.query_params.multi_items(), {name for name, _ in _DELETE})
        for name in ("match", "start", "end"):
            if not query.get(name):
                raise Malformed(f"{name}: missing; {dict(_DELETE)[name]}", field=name)
        is_dry = _flag("dry_run", query.get("dry_run", "false"))
        parse_match(query["match"])
        by = query.get("by") or (request.client.host if request.client else "")
        correction = Correction(
            DELETE,
            now,
            query["match"],
            frozenset(),
            _read_span(query["start"], query["end"], now),
            _line("by", by),
            _line("reason", query.get("reason", "")),
        )
        outcome = await run_in_threadpool(corrector.count if is_dry else corrector.correct, correction)
        return _json(
            {
                "correction_id": outcome.id or None,
                "streams": outcome.streams,
                "removed": outcome.removed,
                "dry_run": is_dry,
            }
        )

    @router.get(
        "/corrections",
        summary="Who had what removed or replaced, and when; the newest first",
        openapi_extra=_described([("limit", f"At most so many, from 1 to {_MOST}. Default: {_LIMIT}.")]),
    )
    async def corrections(request: Request) -> Response:
        _read(request.query_params.multi_items(), {"limit"})
        rows = await run_in_threadpool(corrector.newest, read_limit(request, _LIMIT, _MOST))
        return _json({"corrections": [_row(row) for row in rows]})

    return router


def replacement(
    batches: Sequence[Batch], now: int, start: str | None, end: str | None, by: str, reason: str
) -> Correction:
    """What these events replace: those of their streams, from the first of them to the last, or in the given span."""
    low = min(int(batch.timestamp.min()) for batch in batches)
    high = max(int(batch.timestamp.max()) for batch in batches) + 1
    span = _read_span(start, end, now) if start is not None and end is not None else Span(low, high)
    if (start is None) != (end is None):
        raise Malformed("start: comes with end; give both, or none", field="start" if start is None else "end")
    if not span.start <= low or not high <= span.end:
        raise Malformed(
            "start: an event lies outside of start and end; widen them, or leave the event out", field="start"
        )
    prints = frozenset(fingerprint(labels) for batch in batches for labels in batch.streams)
    return Correction(REPLACE, now, None, prints, span, _line("by", by), _line("reason", reason))


def read_replace(query_string: bytes) -> dict[str, str] | None:
    """What stands after POST /events?; None when nothing is to be replaced."""
    try:
        items = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Malformed("the query string is no UTF-8 in percent-encoding") from None
    query = _read(items, {"replace", "start", "end", "by", "reason"})
    if "replace" not in query and query:
        raise Malformed(f"{next(iter(query))}: is for replace=true", field=next(iter(query)))
    return query if _flag("replace", query.get("replace", "false")) else None


def _flag(name: str, given: str) -> bool:
    if given not in ("true", "false"):
        raise Malformed(f"{name}: {given!r:.60} is neither true nor false", field=name)
    return given == "true"


def _read(items: Sequence[tuple[str, str]], known: set[str]) -> dict[str, str]:
    """Malformed for a parameter that would be ignored, or that stands twice."""
    query: dict[str, str] = {}
    for name, value in items:
        if name not in known:
            raise Malformed(f"{name}: no such parameter; there are {', '.join(sorted(known))}", field=name)
        if name in query:
            raise Malformed(f"{name}: stands twice; send it once", field=name)
        query[name] = value
    return query


def _read_span(start: str, end: str, now: int) -> Span:
    """What both say, within the calendar."""
    edges = []
    for name, given in (("start", start), ("end", end)):
        try:
            edges.append(min(parse_instant(given, now), _HORIZON))
        except ValueError as error:
            raise Malformed(f"{name}: {error}", field=name) from None
    if edges[0] >= edges[1]:
        raise Malformed("start: must be before end", field="start")
    return Span(*edges)


def _line(name: str, given: str) -> str:
    """For the record."""
    if len(given) > _TEXT_LIMIT:
        raise Malformed(f"{name}: over {_TEXT_LIMIT} characters; shorten it", field=name)
    try:
        check_text(name, given)
    except Refused as refused:
        raise Malformed(refused.detail, field=name) from None
    return given


def _described(parameters: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name in ("match", "start", "end"),
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in parameters
        ]
    }


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    number, kind, received, applied, match, prints, start, end, author, reason, streams, removed, added = row
    return {
        "correction_id": number,
        "kind": kind,
        "at": to_rfc3339(to_micros(received)),
        "applied_at": None if applied is None else to_rfc3339(to_micros(applied)),
        "match": match,
        "named_streams": prints,
        "start": to_rfc3339(to_micros(start)),
        "end": to_rfc3339(to_micros(end)),
        "by": author,
        "reason": reason,
        "streams": streams,
        "removed": removed,
        "added": added,
    }


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
