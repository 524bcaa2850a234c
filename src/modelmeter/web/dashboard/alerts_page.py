"""`/ui/alerts`: what fires now, what has fired, silences, and the rules with their state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from modelmeter.alert_reader import ActiveAlert, LoadedGroup
from modelmeter.web.dashboard import wording
from modelmeter.web.dashboard.chart import plain
from modelmeter.web.dashboard.chart_reader import Period
from modelmeter.web.dashboard.page import Range, matcher_text, range_choices
from modelmeter.web.dashboard.trial import PERIODS, Trial
from modelmeter.window import DAY, HOUR, MINUTE, SECOND, Span, ceil, floor, to_datetime

STATE = ("start", "end")
DEFAULT_START = "-7d"
_PATH = "/ui/alerts"
_WIDTH = 100.0  # percent
_LANES = 40
_TICKS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 28 * DAY)


def values_of(
    active: Sequence[ActiveAlert],
    periods: Sequence[Period],
    groups: Sequence[LoadedGroup],
    parameters: dict[str, str],
    chosen: Range,
) -> dict[str, object]:
    """What the templates show."""
    lanes = lanes_of(periods, chosen.span, chosen.now)
    return {
        "page": "alerts",
        "ranges": range_choices(_PATH, parameters, chosen, default_start=DEFAULT_START),
        "span_words": chosen.words,
        "firing": sum(one.state == "firing" for one in active),
        "active": [_active(one, chosen.now) for one in sorted(active, key=_by_weight)],
        "lanes": lanes[:_LANES],
        "lanes_left": max(len(lanes) - _LANES, 0),
        "ticks": ticks_of(chosen.span),
        "groups": [_group(one, active, chosen.now) for one in groups],
    }


def _by_weight(one: ActiveAlert) -> tuple[object, ...]:
    return (one.state != "firing", -(one.fired_at or one.active_at), one.rule)


def _active(one: ActiveAlert, now: int) -> dict[str, object]:
    since = one.fired_at or one.active_at
    labels = {key: value for key, value in one.labels.items() if key != "alertname"}
    name = one.labels.get("name", "")
    return {
        "rule": one.labels.get("alertname", one.rule),
        "state": one.state,
        "labels": sorted(labels.items()),
        "value": wording.number(one.value),
        "since": wording.clock(since, now),
        "ago": wording.ago(since, now),
        "summary": one.annotations.get("summary") or one.annotations.get("description") or "",
        "reason": wording.reason(one.reason),
        "model_url": f"/ui/models/{quote(name, safe='')}" if name else "",
        "matchers": ", ".join(matcher_text(key, value) for key, value in sorted(one.labels.items())),
    }


def lanes_of(periods: Sequence[Period], span: Span, now: int) -> list[dict[str, object]]:
    """One lane for each alert that fired in `span`, the latest first; places in percent of the width."""
    lanes: dict[tuple[str, tuple[tuple[str, str], ...]], list[Period]] = {}
    for one in periods:
        if one.start < span.end and (one.end is None or one.end > span.start):
            lanes.setdefault((one.rule, tuple(sorted(one.labels.items()))), []).append(one)
    scale = _WIDTH / (span.end - span.start)
    found = []
    for (rule, labels), its in sorted(lanes.items(), key=lambda lane: -max(one.start for one in lane[1])):
        bars = []
        for one in its:
            left = (max(one.start, span.start) - span.start) * scale
            right = (min(one.end if one.end is not None else now, span.end) - span.start) * scale
            bars.append({"x": round(left, 2), "width": round(max(right - left, 0.25), 2), "open": one.end is None})
        firing = sum((one.end if one.end is not None else now) - one.start for one in its)
        found.append(
            {
                "rule": dict(labels).get("alertname", rule),
                "labels": ", ".join(f"{key} {value}" for key, value in labels if key != "alertname"),
                "bars": bars,
                "open": its[-1].end is None,
                "words": _fired_words(its, firing, now),
            }
        )
    return found


def _fired_words(its: Sequence[Period], firing: int, now: int) -> str:
    times = "once" if len(its) == 1 else f"{len(its)} times"
    last = f"since {wording.clock(its[-1].start, now)}" if its[-1].end is None else f"until {_until(its[-1], now)}"
    return f"{times}, {wording.rough(firing)} in all, {last}"


def _until(one: Period, now: int) -> str:
    return wording.clock(one.end, now) if one.end is not None else ""


def ticks_of(span: Span) -> list[dict[str, object]]:
    """A few round instants, and where they stand."""
    length = span.end - span.start
    step = next((one for one in _TICKS if length / one <= 8), ceil(length // 8, DAY))
    first = floor(span.start, step) + step
    return [
        {
            "x": round((at - span.start) * _WIDTH / length, 2),
            "words": f"{to_datetime(at):%-d %b}" if at % DAY == 0 else f"{to_datetime(at):%H:%M}",
        }
        for at in range(first, span.end, step)
    ]


def _group(group: LoadedGroup, active: Sequence[ActiveAlert], now: int) -> dict[str, object]:
    return {
        "name": group.name,
        "origin": group.origin.rsplit("/", 1)[-1],
        "interval": wording.duration(int(group.interval_seconds * SECOND)),
        "evaluated": wording.ago(group.evaluated_at, now) if group.evaluated_at else "not yet",
        "rules": [_rule(group, number, rule, active) for number, rule in enumerate(group.rules)],
    }


def _rule(group: LoadedGroup, number: int, rule: Mapping[str, Any], active: Sequence[ActiveAlert]) -> dict[str, object]:
    its = [one for one in active if (one.group, one.rule) == (group.name, rule.get("key"))]
    states = {one.state for one in its}
    error = group.rule_errors[number] if number < len(group.rule_errors) else ""
    kind = rule["type"]
    state = "error" if error else "firing" if "firing" in states else "pending" if "pending" in states else "quiet"
    return {
        "name": rule["name"],
        "kind": kind,
        "query": rule["query"],
        "hold": wording.duration(int(rule.get("duration", 0) * SECOND)) if rule.get("duration") else "",
        "hold_seconds": int(rule.get("duration", 0) or 0),
        "state": state if kind == "alerting" or error else "",
        "count": len(its),
        "error": error,
        "can_try": kind == "alerting",
    }


def trial_json(trial: Trial) -> dict[str, object]:
    """For the chart; times are Unix seconds."""
    return {
        "times": (trial.times / SECOND).tolist(),
        "drawn": trial.drawn,
        "threshold": trial.threshold,
        "series": trial.series,
        "lines": [{"labels": dict(labels), "values": plain(values)} for labels, values in trial.lines],
        "count": len(trial.firings),
        "firings": [
            {
                "labels": dict(one.labels),
                "start": one.start / SECOND,
                "end": one.end / SECOND if one.end is not None else None,
                "value": one.value if math.isfinite(one.value) else None,
            }
            for one in trial.firings[:PERIODS]
        ],
    }
