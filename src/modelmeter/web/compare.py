"""GET /compare/{name} and GET /drift/{name}/{version}: two sides, and how they differ."""

import time
from dataclasses import replace

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from modelmeter.comparer import Comparer, DriftOverTime, Options
from modelmeter.comparison import MIN_EFFECT, MIN_SAMPLES
from modelmeter.errors import Malformed
from modelmeter.matcher import Matcher
from modelmeter.selection import BASELINE, Selection, parse_selection
from modelmeter.side_reader import Side, Told
from modelmeter.web.parameters import (
    SPAN,
    Filters,
    check_known,
    describe,
    read_filters,
    read_flag,
    read_names,
    read_quantiles,
)
from modelmeter.web.path import NAME, VERSION
from modelmeter.window import MINUTE, WEEK, Span, format_duration, parse_duration, parse_instant, to_rfc3339

HISTOGRAM_BINS = 60

_COMMON = [
    ("metric", "Only these metrics, comma-separated. Then p is adjusted for these only."),
    ("min_samples", f"Values that each side needs for a verdict. Default: {MIN_SAMPLES}."),
]
COMPARE_QUERY = [
    ("a", 'What was: a version, labels ({version="v1",env="prod"}), or baseline:NAME.'),
    ("b", "What is: the same."),
    ("a_start", "Begin of a's span, if it has one of its own. Default: `start`."),
    ("a_end", "End of a's span. Default: `end`."),
    ("b_start", "Begin of b's span. Default: `start`."),
    ("b_end", "End of b's span. Default: `end`."),
    *_COMMON,
    ("min_effect", f"Standard deviations below which a difference is negligible. Default: {MIN_EFFECT}."),
    ("quantiles", "Comma-separated, each from 0 to 1. Default: 0.5,0.95,0.99."),
    ("histograms", f"`true`: also both distributions, in at most {HISTOGRAM_BINS} bins."),
]
DRIFT_QUERY = [
    ("reference", "Another version, labels, or baseline:NAME. Default: the same version, earlier."),
    ("reference_start", "Begin of the reference. Default: a week before its end; for others than itself: `start`."),
    ("reference_end", "End of the reference. Default: `start`; for others than itself: `end`."),
    ("step", "Drift over time: a window every so often, in whole minutes (`1h`)."),
    *_COMMON,
]


def make_router(comparer: Comparer) -> APIRouter:
    """The routes; the work is done in threads."""
    router = APIRouter(tags=["compare"])

    @router.get(
        f"/compare/{NAME}", summary="Two versions, or any two sides", openapi_extra=describe(*SPAN, *COMPARE_QUERY)
    )
    async def compare(request: Request, name: str) -> Response:
        began = time.perf_counter()
        check_known(request, {"start", "end", *(key for key, _ in COMPARE_QUERY)})
        filters = read_filters(request)
        sides = [
            _side(request, side, name, filters, _read_span(request, f"{side}_", filters.span)) for side in ("a", "b")
        ]
        options = replace(
            _options(request),
            quantiles=read_quantiles(request),
            min_effect=_number(request, "min_effect", MIN_EFFECT),
            histogram_bins=HISTOGRAM_BINS if read_flag(request, "histograms") else 0,
        )
        told_a, told_b, found = await run_in_threadpool(comparer.compare, sides[0], sides[1], options)
        metrics = msgspec.to_builtins(found)
        if not options.histogram_bins:
            for one in metrics.values():
                del one["histogram"]
        return _json({"name": name, "a": _told(told_a), "b": _told(told_b), "metrics": metrics}, began)

    @router.get(
        f"/drift/{NAME}/{VERSION}",
        summary="How far a version has moved from a reference",
        openapi_extra=describe(*SPAN, *DRIFT_QUERY),
    )
    async def drift(request: Request, name: str, version: str) -> Response:
        began = time.perf_counter()
        check_known(request, {"start", "end", *(key for key, _ in DRIFT_QUERY)})
        filters = read_filters(request)
        itself = Selection(name, version, _matchers(filters))
        current = Side(itself, filters.span)
        reference = _reference(request, itself, filters)
        options, step = _options(request), _step(request)
        body: dict[str, object] = {"name": name, "version": version}
        if step is None:
            told, told_reference, found = await run_in_threadpool(comparer.drift, current, reference, options)
            body |= {"current": _told(told), "reference": _told(told_reference), "metrics": found}
        else:
            told, told_reference, series = await run_in_threadpool(
                comparer.drift_over_time, current, reference, step, options
            )
            body |= {"current": _told(told), "reference": _told(told_reference), **_over_time(series, step)}
        return _json(body, began)

    return router


def _json(value: object, began: float) -> Response:
    response = Response(msgspec.json.encode(value), media_type="application/json")
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1e3:.3f}"
    return response


def _told(told: Told) -> dict[str, object]:
    shown: dict[str, object] = {} if told.baseline is None else {"baseline": told.baseline}
    return {
        **shown,
        "match": told.match,
        "start": to_rfc3339(told.span.start),
        "end": to_rfc3339(told.span.end),
        "events": told.events,
    }


def _over_time(series: DriftOverTime, step: int) -> dict[str, object]:
    return {
        "step": format_duration(step),
        "windows": [to_rfc3339(start) for start in series.windows],
        "metrics": series.metrics,
    }


def _options(request: Request) -> Options:
    return Options(
        metrics=read_names(request, "metric") or None,
        min_samples=int(_number(request, "min_samples", MIN_SAMPLES, least=2)),
    )


def _side(request: Request, field: str, name: str, filters: Filters, span: Span) -> Side:
    text = request.query_params.get(field)
    if text is None:
        raise Malformed(
            f'{field}: missing; give a version ({field}=v1), labels ({field}={{env="prod"}}) or {field}=baseline:NAME',
            field=field,
        )
    if text.startswith(BASELINE):
        for key in (f"{field}_start", f"{field}_end"):
            if key in request.query_params:
                raise Malformed(f"{key}: a baseline has a span of its own; leave it out", field=key)
        return Side(None, None, text.removeprefix(BASELINE))
    selection = parse_selection(text, name, field)
    return Side(replace(selection, matchers=(*selection.matchers, *_matchers(filters))), span)


def _reference(request: Request, itself: Selection, filters: Filters) -> Side:
    text = request.query_params.get("reference")
    selection = itself
    if text is not None:
        if text.startswith(BASELINE):
            return _side(request, "reference", itself.name, filters, filters.span)
        selection = parse_selection(text, itself.name, "reference")
        selection = replace(selection, matchers=(*selection.matchers, *itself.matchers))
    if selection == itself:
        before = filters.span.start
        end = _instant(request, "reference_end", before)
        if not end:
            raise Malformed(
                "reference: there is no time before 1970; name another version or a baseline", field="reference"
            )
        return Side(itself, _span(request, "reference_", max(end - WEEK, 0), end))
    return Side(selection, _read_span(request, "reference_", filters.span))


def _matchers(filters: Filters) -> tuple[Matcher, ...]:
    return tuple(Matcher(name, "=", value) for name, value in filters.labels.items())


def _read_span(request: Request, prefix: str, default: Span) -> Span:
    return _span(request, prefix, default.start, default.end)


def _span(request: Request, prefix: str, start: int, end: int) -> Span:
    span = Span(_instant(request, f"{prefix}start", start), _instant(request, f"{prefix}end", end))
    if span.start >= span.end:
        raise Malformed(f"{prefix}start: must be before {prefix}end", field=f"{prefix}start")
    return span


def _instant(request: Request, key: str, default: int) -> int:
    text = request.query_params.get(key)
    if text is None:
        return default
    try:
        return parse_instant(text, time.time_ns() // 1000)
    except ValueError as error:
        raise Malformed(f"{key}: {error}", field=key) from None


def _step(request: Request) -> int | None:
    text = request.query_params.get("step")
    if text is None:
        return None
    try:
        step = parse_duration(text)
    except ValueError as error:
        raise Malformed(f"step: {error}", field="step") from None
    if step < MINUTE or step % MINUTE:
        raise Malformed(f"step: {text!r} is not in whole minutes; write it like 5m, 1h, 1d", field="step")
    return step


def _number(request: Request, key: str, default: float, *, least: float = 0) -> float:
    text = request.query_params.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not least <= value <= 1e12:
        raise Malformed(f"{key}: {text!r:.60} is no number from {least:g} on", field=key)
    return value
