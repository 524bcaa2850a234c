"""JSON read strictly: each event by itself, and what is wrong with it by name."""

import json
import math
from collections.abc import Sequence
from typing import Any

from modelmeter import window
from modelmeter.batch import (
    KEY_LIMIT_BYTES,
    METRIC_LIMIT,
    NAME,
    TIMESTAMP,
    VERSION,
    Refused,
    check_key,
    make_labels,
)
from modelmeter.decoder.decoded import Bounds
from modelmeter.errors import Malformed


class _Duplicate(dict[str, Any]):
    """An object in which a key stood twice."""

    key = ""


class _Unreadable(str):
    __slots__ = ()


def _pairs_hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    twice = _Duplicate(made)
    for key, _ in pairs:
        if key in seen:
            twice.key = key
            break
        seen.add(key)
    return twice


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) < 30 and text != "-0" else float(text)


_json = json.JSONDecoder(object_pairs_hook=_pairs_hook, parse_constant=float, parse_int=_parse_int)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None


def load_json(body: bytes) -> Sequence[Any]:
    text = _text(body)
    if not text.strip():
        raise Malformed("the body is empty")
    try:
        value = _json.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            line=error.lineno,
            column=error.colno,
        ) from None
    except RecursionError:
        raise Malformed("the body is nested too deep; an event is one flat object") from None
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise Malformed("the body is neither an object nor an array of objects")
    if not value:
        raise Malformed("the body holds no event")
    return value


def load_ndjson(body: bytes) -> Sequence[Any]:
    events: list[Any] = []
    readable = False
    for number, line in enumerate(_text(body).split("\n"), 1):
        if not line.strip():
            continue
        try:
            events.append(_json.decode(line))
            readable = True
        except json.JSONDecodeError as error:
            events.append(_Unreadable(f"line {number} is not JSON: {error.msg} at column {error.colno}"))
        except RecursionError:
            events.append(_Unreadable(f"line {number} is nested too deep; an event is one flat object"))
    if not events:
        raise Malformed("the body is empty")
    if not readable:
        raise Malformed(f"the body is not NDJSON: {events[0]}")
    return events


def read_event(event: Any, bounds: Bounds) -> tuple[dict[str, str], int, dict[str, float], str]:
    """Labels, timestamp, metrics, and how the timestamp was written ('' when it was not). Raises Refused."""
    if isinstance(event, _Unreadable):
        raise Refused(None, "not_json", str(event))
    if not isinstance(event, dict):
        raise Refused(None, "not_an_object", f"an event is an object; this is {type(event).__name__}")
    if isinstance(event, _Duplicate):
        key = event.key[:KEY_LIMIT_BYTES]
        raise Refused(key, "duplicate_key", f"{key}: stands twice in the event; send each field once")
    pairs: dict[str, str] = {}
    metrics: dict[str, float] = {}
    instant, stamp = bounds.now, ""
    for key, value in event.items():
        if key == TIMESTAMP:
            if value is not None:
                instant, stamp = read_timestamp(value, bounds)
        elif key in (NAME, VERSION):
            if not isinstance(value, str):
                raise Refused(key, "not_a_string", f"{key}: must be a string, not {value!r:.60}")
            pairs[key] = value
        elif value is None:
            check_key(key)
        elif isinstance(value, str):
            pairs[key] = value
        elif isinstance(value, (int, float)):
            check_key(key)
            metrics[key] = _read_number(key, value)
        else:
            check_key(key)
            raise Refused(
                key, "nested", f"{key}: a field is a string, a number or a boolean; flatten this {type(value).__name__}"
            )
    if len(metrics) > METRIC_LIMIT:
        raise Refused(None, "too_many_metrics", f"{len(metrics)} metrics; at most {METRIC_LIMIT} are kept")
    if not metrics:
        make_labels(pairs)  # what is wrong with the labels is the better answer
        raise Refused(None, "no_metric", "no metric: an event needs at least one number field")
    return pairs, instant, metrics, stamp


def _read_number(key: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused(key, "not_finite", f"{key}: must be a finite number within float64; leave the field out instead")
    return number


def read_timestamp(value: Any, bounds: Bounds) -> tuple[int, str]:
    try:
        if isinstance(value, str):
            instant, kind = window.rfc3339_to_micros(value), "rfc3339"
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{value!r:.60} is neither RFC 3339 text nor a Unix time")
        else:
            instant, kind = window.unix_to_micros(value), "integer" if isinstance(value, int) else "float"
    except (ValueError, OverflowError) as error:
        raise Refused(TIMESTAMP, "bad_timestamp", f"timestamp: {error}") from None
    bounds.check(instant)
    return instant, kind
