"""`/ui/models/{name}`: a model's versions as a table, and what its charts draw as JSON."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from modelmeter.alert_reader import ActiveAlert
from modelmeter.web.dashboard import chart, wording
from modelmeter.web.dashboard.chart_reader import BAND, Charts, Period
from modelmeter.web.dashboard.overview import natural
from modelmeter.web.dashboard.overview_page import row_of
from modelmeter.web.dashboard.page import Range, link, only, range_choices
from modelmeter.web.dashboard.reader import Overview
from modelmeter.window import SECOND, Span

STATE = ("start", "end", "match", "version")
_COLUMNS = 6
_COLOURS = 6


def values_of(
    name: str,
    found: Overview,
    parameters: dict[str, str],
    versions: list[str],
    chosen: Range,
    match_error: str,
    unit_of: Callable[[str], str],
    direction_of: Callable[[str], int],
) -> dict[str, object]:
    """What the template shows."""
    path = f"/ui/models/{quote(name, safe='')}"
    metrics = found.metrics[:_COLUMNS]
    carried = only(parameters, ("start", "end", "match"))
    focus = parameters.get("version") or (found.rows[0].version if found.rows else "")
    before = next((row.previous_version for row in found.rows if row.version == focus), None)
    versions = versions or [one for one in (before, focus) if one]
    known = sorted((row.version for row in found.rows), key=natural)
    return {
        "page": "model",
        "name": name,
        "focus": focus,
        "chips": [
            {"version": one, "chosen": one in versions, "colour": place % _COLOURS} for place, one in enumerate(known)
        ],
        "carried": link("", carried),
        "ranges": range_choices(path, parameters, chosen),
        "start_text": chosen.start_text,
        "end_text": chosen.end_text,
        "match": parameters.get("match", ""),
        "match_error": match_error,
        "metrics": [
            {"name": one, "unit": unit_of(one), "direction": {1: "higher", -1: "lower", 0: ""}[direction_of(one)]}
            for one in metrics
        ],
        "rows": [row_of(row, metrics, chosen.now, parameters, found, unit_of) for row in found.rows],
        "firing": sum(alert.state == "firing" for alert in found.alerts),
        "alerts": _alerts([alert for alert in found.alerts if alert.labels.get("name") == name], chosen.now),
        "compare_url": link("/ui/compare", {"name": name, "a": before, "b": focus, **carried}),
        "model_path": path,
    }


def _alerts(alerts: Sequence[ActiveAlert], now: int) -> list[dict[str, object]]:
    """One line for each rule and version, however many sets of labels it fires for."""
    lines: dict[tuple[str, str, str], list[ActiveAlert]] = {}
    for one in alerts:
        rule = one.labels.get("alertname", one.rule)
        lines.setdefault((one.state, rule, one.labels.get("version", "")), []).append(one)
    return [
        {
            "rule": rule,
            "state": state,
            "version": version,
            "count": len(its),
            "since": wording.clock(min(one.fired_at or one.active_at for one in its), now),
            "summary": its[0].annotations.get("summary") or wording.reason(its[0].reason),
        }
        for (state, rule, version), its in sorted(lines.items())
    ]


def charts_json(
    found: Charts, shown: Span, unit_of: Callable[[str], str], direction_of: Callable[[str], int]
) -> dict[str, Any]:
    """Columns for uPlot; times are Unix seconds."""
    grid = found.grid
    return {
        "start": grid.start / SECOND,
        "step": grid.step / SECOND,
        "steps": grid.count,
        "shown_start": shown.start / SECOND,
        "shown_end": shown.end / SECOND,
        "versions": found.versions,
        "focus": found.focus,
        "band": BAND,
        "events": [row.tolist() for row in found.events],
        "metrics": [
            {
                "name": name,
                "unit": unit_of(name),
                "direction": direction_of(name),
                "count": [row.tolist() for row in lines.count],
                "mean": [chart.plain(row) for row in lines.mean],
                "low": [chart.plain(row) for row in lines.low],
                "high": [chart.plain(row) for row in lines.high],
                "heat": {"edges": chart.plain(heat.edges), "top": heat.top, "shares": heat.packed()} if heat else None,
            }
            for name, (lines, heat) in sorted(found.metrics.items(), key=lambda one: (-direction_of(one[0]), one[0]))
        ],
        "periods": [_period(one) for one in found.periods],
    }


def _period(one: Period) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "labels": one.labels,
        "start": one.start / SECOND,
        "end": one.end / SECOND if one.end is not None else None,
        "reason": one.reason,
        "value": one.value,
    }
