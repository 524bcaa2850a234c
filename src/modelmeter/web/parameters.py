"""What stands in a query string: times, quantiles, label filters. A wrong one is a 400 that names it."""

import time
from dataclasses import dataclass

from starlette.requests import Request

from modelmeter.condition import Condition
from modelmeter.condition import parse as parse_condition
from modelmeter.errors import Malformed
from modelmeter.matcher import Matcher
from modelmeter.promql import BadQuery, parse_selector
from modelmeter.promql.labels import METRIC_NAME
from modelmeter.window import DAY, SECOND, Span, parse_duration, parse_instant

_LABEL = "label."
_LONGEST_STEP = 10 * 365 * DAY
_MOST_NAMES = 100
DEFAULT_QUANTILES = (0.5, 0.95, 0.99)


SPAN = (
    ("start", "Begin of the span: RFC 3339, Unix, or relative (`-6h`). Default: 24 h before `end`."),
    ("end", "End of the span, not included. Default: now."),
)
"""Name and description, for the OpenAPI document."""


MATCH = ("match", 'Only events whose labels match, with Prometheus\' four operators: `{env="prod",region=~"eu-.*"}`.')
WHERE = ("where", "Only events for which this holds: `inference_time>100 and drift<=0.2`.")
STEP = ("step", "A series over time: the width of its windows, like `5m` or `1h`; from 1 s on.")
METRIC = ("metric", "Only these metrics, comma-separated.")
QUANTILES = ("quantiles", "Comma-separated, each from 0 to 1. Default: 0.5,0.95,0.99.")


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


def read_limit(request: Request, default: int, most: int, *, key: str = "limit", least: int = 1) -> int:
    text = request.query_params.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise Malformed(f"{key}: {text!r} is no number from {least} to {most}", field=key)
    return int(text)


def read_match(request: Request) -> tuple[Matcher, ...]:
    """match={env="prod"}; a metric's name before the braces chooses that metric."""
    text = request.query_params.get("match", "").strip()
    if not text:
        return ()
    try:
        if not text.startswith("{"):
            return parse_selector(text)
        try:
            # With a name, matchers that hold for everything are none too few for Prometheus' grammar.
            return tuple(one for one in parse_selector(f"m{text}") if one.name != METRIC_NAME)
        except BadQuery:
            return parse_selector(text)
    except BadQuery as error:
        raise Malformed(f'match: {error.detail}; write it like {{env="prod",region=~"eu-.*"}}', field="match") from None


def read_where(request: Request) -> Condition | None:
    text = request.query_params.get("where")
    if text is None:
        return None
    try:
        return parse_condition(text)
    except ValueError as error:
        raise Malformed(f"where: {error}", field="where") from None


def read_step(request: Request) -> int | None:
    """Microseconds."""
    text = request.query_params.get("step")
    if text is None:
        return None
    try:
        step = int(text) * SECOND if text.isascii() and text.isdigit() and len(text) < 12 else parse_duration(text)
    except ValueError as error:
        raise Malformed(f"step: {error}", field="step") from None
    if not SECOND <= step <= _LONGEST_STEP:
        raise Malformed(f"step: {text!r:.60} is not from 1s to 10y", field="step")
    return step


def read_names(request: Request, key: str) -> tuple[str, ...]:
    """key=a,b,c; each once."""
    names = tuple(request.query_params.get(key, "").split(","))
    if names == ("",):
        return ()
    if "" in names or len(set(names)) < len(names) or len(names) > _MOST_NAMES:
        raise Malformed(f"{key}: write different names with commas between them, at most {_MOST_NAMES}", field=key)
    return names


def read_flag(request: Request, key: str) -> bool:
    text = request.query_params.get(key, "false").lower()
    if text not in {"true", "1", "false", "0"}:
        raise Malformed(f"{key}: {text!r:.60} is neither true nor false", field=key)
    return text in {"true", "1"}
