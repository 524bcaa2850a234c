"""`/`: the overview as a page."""

from collections.abc import Callable, Sequence
from urllib.parse import quote

from starlette.requests import Request

from modelmeter.web.dashboard import wording
from modelmeter.web.dashboard.overview import Cell, Change, Row
from modelmeter.web.dashboard.page import Range, link, matcher_text, only, range_choices
from modelmeter.web.dashboard.reader import Overview, concerns

_COLUMNS = 4
_ROWS = 100
STATE = ("start", "end", "q", "match", "metrics", "all")
"""What the URL holds."""


def model_url(name: str, parameters: dict[str, str], version: str | None = None) -> str:
    kept = only(parameters, ("start", "end", "match"))
    return link(f"/ui/models/{quote(name, safe='')}", {**kept, "version": version})


def fits(row: Row, search: str) -> bool:
    """All words stand in the model's name and version, capitals or not."""
    text = f"{row.name} {row.version}".lower()
    return all(word in text for word in search.lower().split())


def values_of(
    request: Request,
    found: Overview,
    chosen: Range,
    match_error: str,
    unit_of: Callable[[str], str],
    direction_of: Callable[[str], int],
) -> dict[str, object]:
    """What the templates show."""
    parameters = only(request.query_params, STATE)
    search = parameters.get("q", "")
    rows = [row for row in found.rows if fits(row, search)]
    wanted = [metric for metric in parameters.get("metrics", "").split(",") if metric in found.metrics]
    metrics = wanted or found.metrics[:_COLUMNS]
    shown = rows if parameters.get("all") else rows[:_ROWS]
    carried = only(parameters, ("start", "end", "match"))
    return {
        "page": "overview",
        "carried": link("", carried),
        "ranges": range_choices("/", parameters, chosen),
        "start_text": chosen.start_text,
        "end_text": chosen.end_text,
        "q": search,
        "match": parameters.get("match", ""),
        "match_error": match_error,
        "label_menu": _label_menu(found.labels, parameters),
        "metric_menu": _metric_menu(found.metrics, metrics, parameters) if len(found.metrics) > 1 else [],
        "metrics": [
            {
                "name": metric,
                "unit": unit_of(metric),
                "direction": {1: "higher", -1: "lower", 0: ""}[direction_of(metric)],
            }
            for metric in metrics
        ],
        "nothing_yet": not found.models_known,
        "shown": [row_of(row, metrics, chosen.now, parameters, found, unit_of) for row in shown],
        "total": len(rows),
        "worse_count": sum(row.worst is not None for row in rows),
        "firing": sum(alert.state == "firing" for alert in found.alerts),
        "events": wording.count(sum(row.events for row in rows)),
        "span_words": chosen.words,
        "recent_words": wording.duration(found.recent.end - found.recent.start),
        "clear_url": link("/", only(parameters, ("start", "end", "metrics"))),
        "more_url": link("/", {**parameters, "all": "1"}) if len(rows) > len(shown) else "",
    }


def row_of(
    row: Row,
    metrics: Sequence[str],
    now: int,
    parameters: dict[str, str],
    found: Overview,
    unit_of: Callable[[str], str],
) -> dict[str, object]:
    its_alerts = [alert for alert in found.alerts if concerns(alert, row.name, row.version)]
    return {
        "key": f"{row.name}\n{row.version}",
        "name": row.name,
        "version": row.version,
        "url": model_url(row.name, parameters, row.version),
        "state": row.state,
        "firing": row.states.count("firing"),
        "alert": its_alerts[0].rule if its_alerts else "",
        "headline": wording.headline(row, now),
        "events": wording.count(row.events),
        "bars": wording.bars(row.trend),
        "ago": wording.ago(row.last_at, now),
        "previous_version": row.previous_version or "",
        "cells": [_cell(row.cells.get(metric), unit_of, row, found) for metric in metrics],
    }


def _cell(cell: Cell | None, unit_of: Callable[[str], str], row: Row, found: Overview) -> dict[str, object] | None:
    if cell is None:
        return None
    unit = unit_of(cell.metric)
    place = None
    if cell.since_at is not None and cell.worse:
        start = found.span.start - found.span.start % found.step
        place = wording.spark_place(cell.trend, (cell.since_at - start) // found.step)
    return {
        "value": wording.with_unit(cell.mean, unit),
        "paths": wording.sparkline(cell.trend),
        "since": place,
        "is_worse": cell.worse > 0,
        "yesterday": _change(cell.yesterday, cell.direction, "yesterday", unit),
        "previous": _change(cell.previous, cell.direction, row.previous_version, unit)
        if row.previous_version
        else None,
    }


def _change(one: Change | None, direction: int, against: str | None, unit: str) -> dict[str, str]:
    if one is None:
        return {"verdict": "none", "text": wording.number(None), "title": f"nothing of {against} to compare with"}
    what = wording.verdict(one, direction)
    words = {"same": "no clear change", "changed": "changed", "worse": "worse", "better": "better"}[what]
    return {
        "verdict": what,
        "text": wording.change(one),
        "title": f"{words}: {wording.with_unit(one.now, unit)} now, {wording.with_unit(one.reference, unit)} {against},"
        f" {wording.number(one.effect)} standard deviations",
    }


def _label_menu(labels: dict[str, list[str]], parameters: dict[str, str]) -> list[tuple[str, list[dict[str, object]]]]:
    current = parameters.get("match", "").strip().strip("{}")
    parts = (
        [part.strip() for part in current.split(",") if part.strip()] if '"' in current or not current else [current]
    )

    def choice(name: str, value: str) -> dict[str, object]:
        matcher = matcher_text(name, value)
        others = [part for part in parts if not part.startswith(f"{name}=")]
        rest = others if matcher in parts else [*others, matcher]
        text = "{" + ",".join(rest) + "}" if rest else None
        return {"text": value, "chosen": matcher in parts, "url": link("/", {**parameters, "match": text})}

    usable = {name: values for name, values in labels.items() if name.isascii() and name.isidentifier()}
    return [(name, [choice(name, value) for value in values]) for name, values in usable.items()]


def _metric_menu(
    everything: Sequence[str], chosen: Sequence[str], parameters: dict[str, str]
) -> list[dict[str, object]]:
    def toggled(metric: str) -> str:
        kept = [one for one in chosen if one != metric] if metric in chosen else [*chosen, metric]
        return link("/", {**parameters, "metrics": ",".join(kept) or None})

    return [{"text": metric, "chosen": metric in chosen, "url": toggled(metric)} for metric in sorted(everything)]
