"""What stands in a query string: times, quantiles, label filters. A wrong one is a 400 that names it."""

import time
from dataclasses import dataclass

from starlette.requests import Request

from modelmeter.errors import Malformed
from modelmeter.window import DAY, Span, parse_instant

_LABEL = "label."
DEFAULT_QUANTILES = (0.5, 0.95, 0.99)


SPAN = (
    ("start", "Begin of the span: RFC 3339, Unix, or relative (`-6h`). Default: 24 h before `end`."),
    ("end", "End of the span, not included. Default: now."),
)
"""Name and description, for the OpenAPI document."""


def describe(*parameters: tuple[str, str]) -> dict[str, object]:
    """What the OpenAPI document says of query parameters that are read by hand."""
    return {
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in [*parameters, ("label.<name>", "Only events with this label value.")]
        ]
    }


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters that stats and events share."""

    span: Span
    labels: dict[str, str]


def check_known(request: Request, known: set[str]) -> None:
    """Refuse a parameter that would be ignored: one that is unknown, or stands twice."""
    for key, value in request.query_params.multi_items():
        if len(request.query_params.getlist(key)) > 1:
            raise Malformed(f"{key}: stands twice (also as {value!r:.60}); send it once", field=key)
        if key not in known and not key.startswith(_LABEL):
            raise Malformed(
                f"{key}: no such parameter; there are {', '.join(sorted(known))} and label.<name>", field=key
            )


def read_filters(request: Request) -> Filters:
    """start, end (default: the last 24 h) and label.<name>= of a request."""
    now = time.time_ns() // 1000
    end = _instant(request, "end", now, now + 1)
    start = _instant(request, "start", now, end - DAY)
    if start >= end:
        raise Malformed("start: must be before end", field="start")
    labels = {key[len(_LABEL) :]: value for key, value in request.query_params.items() if key.startswith(_LABEL)}
    return Filters(Span(start, end), labels)


def _instant(request: Request, key: str, now: int, default: int) -> int:
    text = request.query_params.get(key)
    if text is None:
        return default
    try:
        return parse_instant(text, now)
    except ValueError as error:
        raise Malformed(f"{key}: {error}", field=key) from None


def read_quantiles(request: Request) -> tuple[float, ...]:
    """quantiles=0.5,0.95"""
    text = request.query_params.get("quantiles")
    if text is None:
        return DEFAULT_QUANTILES
    found = []
    for part in filter(None, text.split(",")):
        try:
            q = float(part)
        except ValueError:
            q = -1
        if not 0 <= q <= 1:
            raise Malformed(f"quantiles: {part!r} is no number from 0 to 1", field="quantiles")
        found.append(q)
    return tuple(found)


def read_limit(request: Request, default: int, most: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Malformed(f"limit: {text!r} is no number from 1 to {most}", field="limit")
    return int(text)
