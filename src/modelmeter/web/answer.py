"""An answer as a JSON document, nested; and as a flat table: a line for each group, window and metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from modelmeter.reader import Answer, Question
from modelmeter.window import format_duration, to_rfc3339

_STATS = ("count", "mean", "stddev", "min", "max", "last")
_TAKEN = {"start", "events", "metric", *_STATS}


def quantile_keys(quantiles: Sequence[float]) -> list[str]:
    return [repr(float(q)).removesuffix(".0") for q in quantiles]


def answer_document(question: Question, page: Answer, following: str | None) -> dict[str, object]:
    """The shape in docs/http-api.md; without `step` and `by`, that of a version's stats."""
    document: dict[str, object] = {}
    if question.name is not None:
        document["name"] = question.name
    if question.version is not None:
        document["version"] = question.version
    document |= {"start": to_rfc3339(question.span.start), "end": to_rfc3339(question.span.end)}
    if page.widened:
        document["widened"] = format_duration(page.widened)
    metrics = _metrics_by_row(question, page)
    events = page.events.tolist()
    if question.step is None and not question.by:
        if question.needs_raw:
            document["resolution"] = page.resolution
        return document | {"events": sum(events), "metrics": metrics[0] if metrics else {}}
    if question.step is not None:
        document["step"] = format_duration(question.step)
    document["resolution"] = page.resolution
    if question.step is None:
        document["groups"] = [
            {"labels": _labels(question, page.groups[group]), "events": count, "metrics": found}
            for group, count, found in zip(page.group.tolist(), events, metrics, strict=True)
        ]
    else:
        document |= _series(question, page, events, metrics)
    return document | {"next": following}


def _series(
    question: Question, page: Answer, events: list[int], metrics: list[dict[str, object]]
) -> dict[str, list[Any]]:
    points = [
        {"start": to_rfc3339(window), "events": count, "metrics": found}
        for window, count, found in zip(page.window.tolist(), events, metrics, strict=True)
    ]
    if not question.by:
        return {"points": points}
    groups, starts = np.unique(page.group, return_index=True)
    ends = [*starts[1:].tolist(), len(points)]
    return {
        "groups": [
            {"labels": _labels(question, page.groups[group]), "points": points[start:end]}
            for group, start, end in zip(groups.tolist(), starts.tolist(), ends, strict=True)
        ]
    }


def _labels(question: Question, group: tuple[str, ...]) -> dict[str, str | None]:
    return {name: value or None for name, value in zip(question.by, group, strict=True)}


def _metrics_by_row(question: Question, page: Answer) -> list[dict[str, object]]:
    cells, keys = page.cells, quantile_keys(question.quantiles)
    found: list[dict[str, object]] = [{} for _ in range(len(page))]
    columns = [_nullable(getattr(cells, name)) for name in _STATS]
    quantiles = cells.quantiles.tolist()
    for row, metric, values, its_quantiles in zip(
        cells.row.tolist(), cells.metric.tolist(), zip(*columns, strict=True), quantiles, strict=True
    ):
        stats: dict[str, object] = dict(zip(_STATS, values, strict=True))
        stats["quantiles"] = dict(zip(keys, its_quantiles, strict=True))
        found[row][page.metrics[metric]] = stats
    return found


def _nullable(column: NDArray[np.generic]) -> list[Any]:
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        return [value if value - value == 0 else None for value in values]
    return values


def answer_frame(question: Question, page: Answer) -> pl.DataFrame:
    """The labels of `by` (`label.count`, where a column has that name), `start` (with `step`), `events`, `metric`, the
    stats, and `q0.5` and so on.
    """
    cells = page.cells
    groups = page.group[cells.row]
    columns: dict[str, pl.Series] = {}
    for place, name in enumerate(question.by):
        values = pl.Series([group[place] or None for group in page.groups], dtype=pl.String)
        columns[name if name not in _TAKEN else f"label.{name}"] = values.gather(groups)
    if question.step is not None:
        columns["start"] = pl.Series(page.window[cells.row]).cast(pl.Datetime("us", "UTC"))
    columns["events"] = pl.Series(page.events[cells.row])
    columns["metric"] = pl.Series(page.metrics, dtype=pl.String).gather(cells.metric)
    for name in _STATS:
        series = pl.Series(getattr(cells, name))
        columns[name] = series.replace([np.inf, -np.inf, np.nan], None) if series.dtype.is_float() else series
    for place, key in enumerate(quantile_keys(question.quantiles)):
        columns[f"q{key}"] = pl.Series(cells.quantiles[:, place])
    return pl.DataFrame(columns)
